package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// childEnv has the test binary be the program itself.
const childEnv = "CHAT_TEST_CHILD"

// After the whole suite no goroutine is left. The default pool keeps idle threads for
// 10 s.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(testkit.Main(m, 0, http.DefaultClient.CloseIdleConnections))
}

func TestDemo(t *testing.T) {
	testkit.Guard(t)
	var out bytes.Buffer
	err := run(t.Context(), []string{"-demo", "-messages", "200"}, &out, t.Output())
	require.NoError(t, err, "%s", &out)
	for _, want := range []string{"8 clients over TCP, 4 over HTTP", "0 of them lost", "all checks passed"} {
		require.Contains(t, out.String(), want)
	}
}

// TestSIGTERM sends the signal to a process whose clients are in the middle of what
// they say. It ends with success, and what it has told them to be accepted is in the
// journal, and was heard by all.
func TestSIGTERM(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be sent SIGTERM")
	}
	for i := range 3 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			testkit.Guard(t)
			path := filepath.Join(t.TempDir(), "journal")
			child := exec.Command(os.Args[0], "-journal", path, "-strike", "200us", "-patience", "1m")
			child.Env = append(os.Environ(), childEnv+"=1")
			child.Stderr = t.Output()
			out, err := child.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, child.Start())
			defer child.Process.Kill()
			var tcp, web string
			for in := bufio.NewScanner(out); !strings.HasPrefix(in.Text(), "ready"); {
				require.True(t, in.Scan(), "it has ended")
				if rest, ok := strings.CutPrefix(in.Text(), "tcp: "); ok {
					tcp = rest
				}
				if rest, ok := strings.CutPrefix(in.Text(), "http: http://"); ok {
					web = strings.TrimSuffix(rest, "/")
				}
			}

			c := newCrowd(tcp, web, 300)
			select {
			case <-c.enough:
			case <-c.failed:
			}
			require.NoError(t, child.Process.Signal(syscall.SIGTERM))
			require.NoError(t, child.Wait())
			c.wait()

			stored, err := readJournal(path)
			require.NoError(t, err)
			strikes := 0
			for _, m := range stored {
				if m.From == clockName {
					strikes++
					require.True(t, strings.HasPrefix(m.Text, fmt.Sprintf("strike %d,", strikes)), "strike %d was lost, next is %q", strikes, m.Text)
				}
			}
			require.NotZero(t, strikes)
			require.NoError(t, report(t.Output(), checks(c, stored)))
			_, err = net.Dial("tcp", tcp)
			require.Error(t, err)
		})
	}
}

// A running is a server under test.
type running struct {
	t    *testing.T
	at   addresses
	stop context.CancelFunc
	end  chan error
}

// start starts a server, which the test stops with stopped.
func start(t *testing.T, change ...func(*options)) *running {
	t.Helper()
	testkit.Guard(t)
	o, err := parseOptions([]string{"-journal", filepath.Join(t.TempDir(), "journal"), "-strike", "1h"}, io.Discard)
	require.NoError(t, err)
	for _, c := range change {
		c(&o)
	}
	ctx, stop := context.WithCancel(t.Context())
	r := &running{t: t, stop: stop, end: make(chan error, 1)}
	ready := make(chan addresses, 1)
	go func() {
		_, err := runServer(ctx, o, slog.New(slog.NewTextHandler(t.Output(), nil)), func(a addresses) { ready <- a })
		r.end <- err
	}()
	select {
	case r.at = <-ready:
	case err := <-r.end:
		require.NoError(t, err)
	}
	t.Cleanup(stop)
	return r
}

func (r *running) stopped() error {
	r.stop()
	return <-r.end
}

// dial connects, and returns what is read line by line.
func (r *running) dial() (*net.TCPConn, func() string) {
	c, err := net.Dial("tcp", r.at.tcp[0])
	require.NoError(r.t, err)
	r.t.Cleanup(func() { c.Close() })
	in := bufio.NewReader(c)
	return c.(*net.TCPConn), func() string {
		line, err := in.ReadString('\n')
		if err != nil {
			return err.Error()
		}
		return strings.TrimSuffix(line, "\n")
	}
}

func (r *running) post(from, text string) (int, string) {
	resp, err := http.PostForm("http://"+r.at.http[0]+"/say", url.Values{"from": {from}, "text": {text}})
	require.NoError(r.t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	return resp.StatusCode, strings.TrimSpace(string(answer))
}

func (r *running) get(path string) (int, string) {
	resp, err := http.Get("http://" + r.at.http[0] + path)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	return resp.StatusCode, strings.TrimSpace(string(answer))
}

func TestConversation(t *testing.T) {
	r := start(t)
	ann, annReads := r.dial()
	require.Equal(t, "* what is your name?", annReads())
	fmt.Fprintln(ann, "ann the first")
	require.Contains(t, annReads(), "a name has")
	fmt.Fprintln(ann, "ann")
	require.Equal(t, "* welcome, ann", annReads())

	bob, bobReads := r.dial()
	require.Equal(t, "* what is your name?", bobReads())
	for _, taken := range []string{"ann", clockName} {
		fmt.Fprintln(bob, taken)
		require.Contains(t, bobReads(), errTaken.Error())
		status, _ := r.post(taken, "I am not")
		require.Equal(t, http.StatusConflict, status)
	}
	fmt.Fprintln(bob, "bob")
	require.Equal(t, "* welcome, bob", bobReads())

	fmt.Fprint(ann, "\n  hello \n")
	require.Equal(t, "1 ann: hello", annReads())
	require.Equal(t, "1 ann: hello", bobReads())
	fmt.Fprintln(bob, "a\x00b")
	require.Contains(t, bobReads(), "not said")

	status, answer := r.post("web", "good day")
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, `{"number":2,"from":"web","text":"good day"}`, answer)
	require.Equal(t, "2 web: good day", annReads())
	require.Equal(t, "2 web: good day", bobReads())
	status, answer = r.get("/messages?after=1")
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, `[{"number":2,"from":"web","text":"good day"}]`, answer)
	for path, want := range map[string]int{"/": 200, "/messages?after=x": 400, "/nothing": 404} {
		status, _ = r.get(path)
		require.Equal(t, want, status, path)
	}
	for from, text := range map[string]string{"": "x", "a b": "x", "web": strings.Repeat("x", 1001), "x": " "} {
		status, _ = r.post(from, text)
		require.Equal(t, http.StatusBadRequest, status)
	}

	// Who has left leaves his name.
	require.NoError(t, bob.CloseWrite())
	require.Equal(t, "* bye", bobReads())
	require.Equal(t, "EOF", bobReads())
	status, _ = r.post("bob", "it is me again")
	for ; status == http.StatusConflict; status, _ = r.post("bob", "it is me again") {
		// The server may be about to find out.
	}
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "3 bob: it is me again", annReads())

	fmt.Fprint(ann, strings.Repeat("x", longestLine+1))
	require.Equal(t, "* bye", annReads())
	require.NoError(t, ann.Close()) // or the server would wait for that
	require.NoError(t, r.stopped())
}

// Who says something and closes his end is answered.
func TestHalfClose(t *testing.T) {
	r := start(t)
	c, reads := r.dial()
	fmt.Fprint(c, "ann\none\ntwo\nnot a line")
	require.NoError(t, c.CloseWrite())
	for _, want := range []string{"* what is your name?", "* welcome, ann", "1 ann: one", "2 ann: two", "* bye", "EOF"} {
		require.Equal(t, want, reads())
	}
	require.NoError(t, r.stopped())
}

// A member that stands in line because there are too many, one that has not said its
// name, and a request that waits for messages: none of them keeps the server from
// stopping.
func TestStopWithThoseWhoWait(t *testing.T) {
	r := start(t, func(o *options) { o.members = 2 })
	nameless, first := r.dial()
	require.Equal(t, "* what is your name?", first())
	second, reads := r.dial()
	fmt.Fprintln(second, "bob")
	require.Equal(t, "* what is your name?", reads())
	require.Equal(t, "* welcome, bob", reads())
	third, _ := r.dial() // is accepted, and has no task
	fmt.Fprintln(third, "eve")
	waited := make(chan int)
	go func() {
		resp, err := http.Get("http://" + r.at.http[0] + "/messages?after=0")
		if err != nil {
			waited <- 0
			return
		}
		resp.Body.Close()
		waited <- resp.StatusCode
	}()
	r.stop()
	require.Equal(t, "* bye", first())
	require.Equal(t, "* bye", reads())
	require.Equal(t, "EOF", reads())
	for _, c := range []io.Closer{nameless, second, third} {
		c.Close()
	}
	require.NoError(t, <-r.end)
	require.Contains(t, []int{0, http.StatusServiceUnavailable}, <-waited)
}

// A client that is slow to read, and has sent more than the server has read when that
// stops, gets what it was told nonetheless, up to the good-bye. Were the connection just
// closed the system would reset it, and throw away what the client has not received.
func TestLateReader(t *testing.T) {
	r := start(t, func(o *options) { o.patience = time.Second })
	c, reads := r.dial()
	fmt.Fprintln(c, "ann")
	require.Equal(t, "* what is your name?", reads())
	require.Equal(t, "* welcome, ann", reads())
	// More than the system takes for a client that does not read, and less than it lets
	// the server write.
	const messages = 300
	for range messages {
		status, _ := r.post("web", strings.Repeat("x", 1000))
		require.Equal(t, http.StatusOK, status)
	}
	_, err := fmt.Fprint(c, strings.Repeat(strings.Repeat("y", 500)+"\n", 200))
	require.NoError(t, err)
	require.NoError(t, r.stopped())

	heard := 0
	line := reads()
	for ; strings.Contains(line, ": xxx") || strings.Contains(line, ": yyy") || line == "* not said: "+errClosing.Error(); line = reads() {
		if strings.Contains(line, ": xxx") {
			heard++
		}
	}
	require.Equal(t, "* bye", line, "after %d messages", heard)
	require.Equal(t, "EOF", reads())
	require.Equal(t, messages, heard)
}

// A client that does not read is given up on.
func TestDeafClient(t *testing.T) {
	testkit.Guard(t)
	ours, theirs := net.Pipe()
	defer theirs.Close()
	_, err := loop.Run(t.Context(), loop.NewThread(), func(ctx context.Context) (int, error) {
		s := &server{
			log:       slog.New(slog.NewTextHandler(t.Output(), nil)),
			room:      &room{names: map[string]bool{}},
			accepting: ctx,
			patience:  10 * time.Millisecond,
		}
		return 0, s.member(ctx, ours)
	})
	require.NoError(t, err)
}

// inRoom runs fn in a room whose journal is at path.
func inRoom(t *testing.T, path string, fn func(context.Context, *room) error) {
	t.Helper()
	testkit.Guard(t)
	_, err := loop.Run(t.Context(), loop.NewThread(), func(ctx context.Context) (int, error) {
		_, thread := asyncsync.NewThreadSensitiveContext(ctx)
		defer thread.Close()
		r, err := openRoom(ctx, path, thread)
		if err != nil {
			return 0, err
		}
		return 0, fn(ctx, r)
	})
	require.NoError(t, err)
}

// What is accepted is stored although its sender has gone, and is there again after a
// restart, but for a line that was cut.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	inRoom(t, path, func(ctx context.Context, r *room) error {
		keeper := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, r.keep(ctx) })
		inner, cancel := context.WithCancel(ctx)
		defer cancel()
		first := task.Go(inner, func(ctx context.Context) (message, error) { return r.say(ctx, "ann", "one") })
		second := task.Go(ctx, func(ctx context.Context) (message, error) { return r.say(ctx, "ann", "two") })
		if err := task.Yield(ctx); err != nil {
			return err
		}
		cancel()
		_, err := r.say(inner, "ann", "never")
		require.ErrorIs(t, err, context.Canceled)
		r.shut()
		_, err = r.say(ctx, "ann", "too late")
		require.ErrorIs(t, err, errClosing)
		for i, said := range []*task.Task[message]{first, second} {
			m, err := said.Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, i+1, m.Number)
		}
		_, err = keeper.Wait(ctx)
		return errors.Join(err, r.close(ctx))
	})
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"number":3,"fro`)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	inRoom(t, path, func(ctx context.Context, r *room) error {
		all, missed := r.since(0)
		require.Equal(t, []message{{1, "ann", "one"}, {2, "ann", "two"}}, all)
		require.Zero(t, missed)
		keeper := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, r.keep(ctx) })
		m, err := r.say(ctx, "bob", "three")
		require.NoError(t, err)
		require.Equal(t, 3, m.Number)
		r.shut()
		_, err = keeper.Wait(ctx)
		return errors.Join(err, r.close(ctx))
	})
	all, err := readJournal(path)
	require.NoError(t, err)
	require.Len(t, all, 3)

	require.NoError(t, os.WriteFile(path, []byte("{}\n"), 0o600))
	_, err = readJournal(path)
	require.ErrorContains(t, err, "message 0 comes after 0")
}

// A journal that fails tells those who have spoken, and one that panics ends the room:
// nobody waits for ever.
func TestJournalFails(t *testing.T) {
	for name, spoil := range map[string]func(*room){
		"error": func(r *room) { r.journal.file.Close() },
		"panic": func(r *room) { r.journal = nil },
	} {
		t.Run(name, func(t *testing.T) {
			inRoom(t, filepath.Join(t.TempDir(), "journal"), func(ctx context.Context, r *room) error {
				whole := r.journal
				spoil(r)
				keeper := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, r.keep(ctx) })
				_, err := r.say(ctx, "ann", "one")
				require.Error(t, err)
				require.Zero(t, r.last)
				if name == "panic" {
					require.ErrorIs(t, err, errClosing)
					require.Panics(t, func() { _, _ = keeper.Wait(ctx) })
					return whole.close()
				}
				r.shut()
				_, err = keeper.Wait(ctx)
				return err
			})
		})
	}
}

func TestForget(t *testing.T) {
	r := &room{}
	for r.last < 2*remembered+1 {
		r.last++
		r.recent = append(r.recent, message{Number: r.last})
	}
	r.forget()
	all, missed := r.since(0)
	require.Len(t, all, remembered)
	require.Equal(t, remembered+1, missed)
	require.Equal(t, remembered+2, all[0].Number)
	all, missed = r.since(r.last - 1)
	require.Equal(t, []message{{Number: r.last}}, all)
	require.Zero(t, missed)
	all, _ = r.since(r.last + 5)
	require.Empty(t, all)
}

// TestChecksFindFaults spoils one thing at a time.
func TestChecksFindFaults(t *testing.T) {
	sound := func() (*crowd, []message, *account) {
		said := []message{{1, "t0", "a"}, {2, "h0", "b"}, {3, clockName, "strike 1"}}
		return &crowd{clients: []*client{
				{name: "t0", overTCP: true, accepted: said[:1:1], heard: append([]message{}, said...), bye: true},
				{name: "h0", accepted: said[1:2:2], heard: append([]message{}, said[:2]...)},
			}}, append([]message{}, said...),
			&account{stored: 3, syncs: 2, strikes: 1, room: map[int]int{7: 1}, journal: map[int]int{8: 1}, clock: map[int]int{9: 1}}
	}
	verdict := func(c *crowd, stored []message, a *account) error {
		return report(io.Discard, append(checks(c, stored), accounts(a, stored)...))
	}
	require.NoError(t, verdict(sound()))
	for name, spoil := range map[string]func(*crowd, *[]message, *account){
		"complaint":    func(c *crowd, _ *[]message, _ *account) { c.clients[0].err = io.ErrUnexpectedEOF },
		"not heard":    func(c *crowd, _ *[]message, _ *account) { c.clients[1].accepted = nil },
		"message lost": func(c *crowd, _ *[]message, _ *account) { c.clients[1].accepted[0].Text = "other" },
		"order": func(c *crowd, _ *[]message, _ *account) {
			c.clients[0].heard[0], c.clients[0].heard[1] = c.clients[0].heard[1], c.clients[0].heard[0]
		},
		"last not heard": func(c *crowd, _ *[]message, _ *account) { c.clients[0].heard = c.clients[0].heard[:2] },
		"no good-bye":    func(c *crowd, _ *[]message, _ *account) { c.clients[0].bye = false },
		"strike lost":    func(_ *crowd, _ *[]message, a *account) { a.strikes = 2 },
		"journal short":  func(_ *crowd, stored *[]message, _ *account) { *stored = (*stored)[:2] },
		"two threads":    func(_ *crowd, _ *[]message, a *account) { a.room[6] = 1 },
		"no thread":      func(_ *crowd, _ *[]message, a *account) { a.clock = nil },
	} {
		c, stored, a := sound()
		spoil(c, &stored, a)
		require.Error(t, verdict(c, stored, a), name)
	}
	if threadsKnown {
		c, stored, a := sound()
		a.journal = map[int]int{7: 1}
		require.Error(t, verdict(c, stored, a))
	}
}

func TestOptions(t *testing.T) {
	for _, bad := range [][]string{{"-messages", "0"}, {"-members", "0"}, {"-strike", "0s"}, {"-patience", "0s"}, {"serve"}, {"-nonsense"},
		{"-hosts", "no.such.host.invalid"}, {"-journal", filepath.Join(t.TempDir(), "no", "such", "journal")}} {
		require.Error(t, run(t.Context(), bad, io.Discard, io.Discard), strings.Join(bad, " "))
	}
	require.Equal(t, flag.ErrHelp, run(t.Context(), []string{"-h"}, io.Discard, io.Discard))
}
