package debugpage_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/debugpage"
	"asyncsync.dev/docs"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// A site is a served page.
type site struct {
	*httptest.Server
	page *debugpage.Page
}

func serve(t *testing.T, cfg deadlock.Config) *site {
	t.Helper()
	s := &site{page: debugpage.New(cfg)}
	mux := http.NewServeMux()
	mux.Handle("/debug/asyncsync/", s.page)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		require.NoError(t, s.page.Close())
		s.Client().CloseIdleConnections()
		s.Server.Close()
	})
	return s
}

func (s *site) get(t *testing.T, path string, accept ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest("GET", s.URL+"/debug/asyncsync/"+path, nil)
	require.NoError(t, err)
	req.Header["Accept"] = accept
	resp, err := s.Client().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

// stuck has a function on a thread of that name wait, on a channel, for a call to
// the thread. free ends it and waits for the end.
func stuck(t *testing.T, name string) (free func()) {
	t.Helper()
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName(name))
	leave, begun, ended := make(chan struct{}), make(chan struct{}), make(chan struct{}, 2)
	go func() {
		asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
			go func() {
				asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil }, asyncsync.Named("inner <b>"))
				ended <- struct{}{}
			}()
			close(begun)
			<-leave
			return 0, nil
		}, asyncsync.Named("outer"))
		ended <- struct{}{}
	}()
	<-begun
	testkit.Poll(t, func() string {
		if tsc.Stats().Queued != 1 {
			return "not queued"
		}
		return ""
	})
	free = sync.OnceFunc(func() {
		close(leave)
		<-ended
		<-ended
		require.NoError(t, tsc.Close())
	})
	t.Cleanup(free)
	return free
}

func TestForms(t *testing.T) {
	testkit.Guard(t)
	s := serve(t, deadlock.Config{})
	stuck(t, "ledger")
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
	for _, c := range []struct{ path, accept, media string }{
		{"", browser, "text/html"},
		{"", "", "text/plain"},
		{"", "*/*", "text/plain"},
		{"", "text/plain", "text/plain"},
		{"", "application/json", "application/json"},
		{"", "application/json;q=0.5, text/plain;q=0.9", "text/plain"},
		{"", "text/html;q=0, application/json", "application/json"},
		{"", "text/vnd.graphviz", "text/vnd.graphviz"},
		{"", "image/png", "text/plain"},
		{"", "text/html;q=nonsense,;;", "text/plain"},
		{"report.html", "application/json", "text/html"},
		{"report.txt", browser, "text/plain"},
		{"report.json", browser, "application/json"},
		{"report.dot", browser, "text/vnd.graphviz"},
	} {
		resp, body := s.get(t, c.path, c.accept)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, c.media+"; charset=utf-8", resp.Header.Get("Content-Type"), "%+v", c)
		require.Contains(t, body, "ledger")
		require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'")
		require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
		switch c.media {
		case "text/html":
			require.Contains(t, body, "<!doctype html>")
			require.Contains(t, body, "inner &lt;b&gt;")
			require.NotContains(t, body, "inner <b>")
		case "application/json":
			var r deadlock.Report
			require.NoError(t, json.Unmarshal([]byte(body), &r))
			require.NotEmpty(t, r.Threads)
		case "text/vnd.graphviz":
			require.True(t, strings.HasPrefix(body, "digraph waits {"))
		default:
			require.Contains(t, body, "thread ledger: goroutine ")
		}
	}
	for path, status := range map[string]int{
		"nothing": 404, "docs/nothing": 404, "docs/../page": 404, "docs/": 404, "page.html": 404,
		"?q=" + strings.Repeat("x", 201): 400, "page.css": 200, "page.js": 200, "report.txt?q=" + strings.Repeat("x", 200): 200,
	} {
		resp, _ := s.get(t, path)
		require.Equal(t, status, resp.StatusCode, path)
	}
	resp, err := s.Client().Post(s.URL+"/debug/asyncsync/", "text/plain", nil)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
	require.Equal(t, "GET, HEAD", resp.Header.Get("Allow"))
}

// What is on the page leads to where it says: every link has an end.
func TestLinks(t *testing.T) {
	testkit.Guard(t)
	s := serve(t, deadlock.Config{Interval: 10 * time.Millisecond})
	stuck(t, "ledger")
	testkit.Poll(t, func() string {
		if _, body := s.get(t, "report.html"); !strings.Contains(body, `class="verdict probable"`) {
			return "no verdict"
		}
		return ""
	})
	_, body := s.get(t, "report.html")
	require.Contains(t, body, "A cycle: ")
	checked := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(body, -1) {
		link := m[1]
		if checked[link] || link == "data:," {
			continue
		}
		checked[link] = true
		if id, ok := strings.CutPrefix(link, "#"); ok {
			require.Contains(t, body, `id="`+id+`"`, "of the page")
			continue
		}
		resp, _ := s.get(t, link)
		require.Equal(t, 200, resp.StatusCode, link)
	}
	require.True(t, checked["docs/raw-wait"])
	require.Greater(t, len(checked), 15)
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(body, -1) {
		require.False(t, ids[m[1]], "two have the id %s", m[1])
		ids[m[1]] = true
	}
}

// The pages of the documentation come as HTML, with their links.
func TestDocs(t *testing.T) {
	testkit.Guard(t)
	s := serve(t, deadlock.Config{})
	entries, err := docs.Deadlock.ReadDir("deadlock")
	require.NoError(t, err)
	require.Greater(t, len(entries), 10)
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".md")
		resp, body := s.get(t, "docs/"+name)
		require.Equal(t, 200, resp.StatusCode)
		require.Contains(t, body, "<h1>")
		for _, left := range []string{"```", "**", "](", "\x00", "<p></p>", "<p>- ", "<p>|"} {
			text := regexp.MustCompile(`(?s)<pre.*?</pre>`).ReplaceAllString(body, "")
			require.NotContains(t, text, left, name)
		}
		for _, m := range regexp.MustCompile(`<a href="([^"]+)"`).FindAllStringSubmatch(body, -1) {
			if m[1] != "../" {
				resp, _ := s.get(t, "docs/"+m[1])
				require.Equal(t, 200, resp.StatusCode, "%s links to %s", name, m[1])
			}
		}
	}
	_, body := s.get(t, "docs/raw-wait")
	require.Contains(t, body, "<b>The cure.</b>")
	require.Contains(t, body, "<pre tabindex=\"0\"><code>func ")
	_, body = s.get(t, "docs/README")
	require.Contains(t, body, `<td><a href="self-wait">self-wait</a></td>`)
}

// Verdicts are on the page from when they are reached, and say when they have been
// taken back; who is told beside the page is told of the same.
func TestVerdicts(t *testing.T) {
	testkit.Guard(t)
	told := make(chan deadlock.Verdict, 8)
	s := serve(t, deadlock.Config{Interval: 10 * time.Millisecond, OnVerdict: func(v deadlock.Verdict) { told <- v }})
	_, body := s.get(t, "report.html")
	require.NotContains(t, body, `class="verdict`)
	free := stuck(t, "ledger")
	require.Equal(t, deadlock.Probable, (<-told).Kind)
	_, body = s.get(t, "report.html")
	require.Contains(t, body, `class="verdict probable"`)
	require.Contains(t, body, `<a href="docs/raw-wait">raw-wait</a>`)
	require.Contains(t, body, "since the start, 1 probable")
	free()
	require.Equal(t, deadlock.Retracted, (<-told).Kind)
	_, body = s.get(t, "report.html")
	require.Contains(t, body, `class="verdict probable moved"`)
	require.Contains(t, body, "it lasted ")
	require.NotContains(t, body, "A cycle: ")
}

// A loop is there with what its tasks wait for.
func TestLoops(t *testing.T) {
	testkit.Guard(t)
	s := serve(t, deadlock.Config{})
	b := loop.NewThread(loop.Named("the game"))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := loop.Run(ctx, b, func(ctx context.Context) (int, error) {
			t := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, task.SleepForever(ctx) }, task.Named("enemy"))
			return t.Wait(ctx)
		})
		ended <- err
	}()
	testkit.Poll(t, func() string {
		_, body := s.get(t, "report.html?q=nothing+of+that+name")
		at := strings.Index(body, `id="h-loops"`)
		for _, want := range []string{"the game", "<b>enemy</b> waits", "2 tasks"} {
			if at < 0 || !strings.Contains(body[at:], want) {
				return "no " + want
			}
		}
		return ""
	})
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// With many contexts a page is bounded, and the filter finds the one.
func TestTenThousandContexts(t *testing.T) {
	testkit.Guard(t)
	s := serve(t, deadlock.Config{})
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
	const n = 10_000
	leave := make(chan struct{})
	var closers []func() error
	var waits []func()
	for i := range n {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool), asyncsync.WithName(fmt.Sprintf("session %d.", i)))
		one := asyncsync.Go(ctx, func(context.Context) (int, error) { <-leave; return 0, nil })
		waits = append(waits, func() {
			_, err := one.Wait(context.Background())
			require.NoError(t, err)
		})
		closers = append(closers, tsc.Close)
	}
	defer func() {
		close(leave)
		for i, wait := range waits {
			wait()
			require.NoError(t, closers[i]())
		}
		require.NoError(t, pool.Close())
	}()
	for _, form := range []string{"html", "txt", "json", "dot"} {
		_, body := s.get(t, "report."+form)
		require.Less(t, len(body), 400_000, form)
	}
	_, body := s.get(t, "report.html")
	require.Regexp(t, `64 with something to do, \d+ idle, 99\d\d more`, body)
	_, body = s.get(t, "report.html?q=SESSION+7777.")
	require.Contains(t, body, "session 7777.")
	require.Contains(t, body, "1 with something to do")
	require.Contains(t, body, `value="SESSION 7777."`)
	require.NotContains(t, body, "session 7778.")
	_, body = s.get(t, "report.html?q=nobody")
	require.Contains(t, body, "None match.")
	html, stop := s.events(t, "?q=session+5555.")
	e := <-html
	require.Equal(t, "page", e.kind)
	require.Contains(t, e.data, "session 5555.")
	require.Less(t, len(e.data), 400_000)
	stop()
}

// An event is one that a live page has got.
type event struct{ kind, data string }

// events follows the events of a page until stop is called, which waits for the
// end; it closes the channel when the server has ended them.
func (s *site) events(t *testing.T, query string) (<-chan event, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/debug/asyncsync/events"+query, nil)
	require.NoError(t, err)
	resp, err := s.Client().Do(req)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	all := make(chan event, 256)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(all)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		kind := ""
		for lines.Scan() {
			if k, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				kind = k
			} else if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if kind == "page" {
					var text string
					if json.Unmarshal([]byte(data), &text) == nil {
						data = text
					}
				}
				all <- event{kind, data}
			}
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return all, stop
}

// A live page gets its content, ticks while nothing but time goes on, each later
// than the one before, and new content when something has changed.
func TestEvents(t *testing.T) {
	testkit.Guard(t)
	s := serve(t, deadlock.Config{})
	free := stuck(t, "ledger")
	events, stop := s.events(t, "?q=ledger")
	e := <-events
	require.Equal(t, "page", e.kind)
	require.Contains(t, e.data, "ledger")
	require.Contains(t, e.data, `class="age" data-ns="`)
	last := -1
	for range 2 {
		if e = <-events; e.kind == "page" {
			continue // a count of the process has changed
		}
		ms, err := strconv.Atoi(e.data)
		require.NoError(t, err)
		require.Greater(t, ms, last)
		last = ms
	}
	free()
	for e = <-events; e.kind != "page" || strings.Contains(e.data, ">ledger"); e = <-events {
	}
	require.NotContains(t, e.data, "A cycle: ")
	stop()
}

// Close ends what is live, so that a server can shut down.
func TestCloseEndsEvents(t *testing.T) {
	testkit.Guard(t)
	s := serve(t, deadlock.Config{})
	s.Config.RegisterOnShutdown(func() { s.page.Close() })
	events, _ := s.events(t, "")
	require.Equal(t, "page", (<-events).kind)
	require.NoError(t, s.Config.Shutdown(context.Background()))
	for range events { // until the server has ended it
	}
}

// There are not more live pages than can be served, and one that goes makes room.
func TestLivePagesAreBounded(t *testing.T) {
	testkit.Guard(t)
	s := serve(t, deadlock.Config{})
	var stops []func()
	for range 32 {
		_, stop := s.events(t, "")
		stops = append(stops, stop)
	}
	resp, _ := s.get(t, "events")
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.NotEmpty(t, resp.Header.Get("Retry-After"))
	stops[7]()
	testkit.Poll(t, func() string {
		req, err := http.NewRequest("HEAD", s.URL+"/debug/asyncsync/events", nil)
		require.NoError(t, err)
		resp, err := s.Client().Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		if resp.StatusCode != 200 {
			return resp.Status
		}
		return ""
	})
	for _, stop := range stops {
		stop()
	}
}

func TestMisuse(t *testing.T) {
	require.PanicsWithValue(t, "deadlock: Watch: negative Slow", func() { debugpage.New(deadlock.Config{Slow: -1}) })
}
