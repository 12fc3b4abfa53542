package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// A tally is what one connection has seen.
type tally struct {
	latencies []time.Duration // of what was answered, 503 included, from when it was due
	stored    []string        // titles of notes that the server said it has stored
	refused   int             // 503, with Retry-After
	faults    []error         // everything else that was not as it should be
}

// runLoad makes requests at a fixed rate, whatever becomes of those before: people
// do not wait for each other. A request whose connection is busy when it is due
// waits for it, and that time counts. In the end it checks that nothing is lost.
func runLoad(ctx context.Context, a *app, o options, out io.Writer) error {
	before, err := titleCounts(ctx, a.store)
	if err != nil {
		return err
	}
	due := make(chan time.Time, o.rate) // a second's worth may be late
	tallies := make([]tally, o.conns)
	var conns sync.WaitGroup
	for c := range tallies {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxConnsPerHost = 1
		client := &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		conns.Go(func() {
			defer transport.CloseIdleConnections()
			n := 0
			for at := range due {
				tallies[c].request(ctx, client, a.pages.url, c, n)
				tallies[c].latencies = append(tallies[c].latencies, time.Since(at))
				n++
			}
		})
	}
	begin := time.Now()
	sent, late := 0, 0
	for ; ctx.Err() == nil; sent++ {
		at := begin.Add(time.Duration(sent) * time.Second / time.Duration(o.rate))
		if at.Sub(begin) >= o.duration {
			break
		}
		time.Sleep(time.Until(at))
		select {
		case due <- at:
		default: // more than a second behind: the clients are the bottleneck
			late++
			due <- at
		}
	}
	close(due)
	conns.Wait()
	elapsed := time.Since(begin)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	var all tally
	for _, t := range tallies {
		all.latencies = append(all.latencies, t.latencies...)
		all.stored = append(all.stored, t.stored...)
		all.refused += t.refused
		all.faults = append(all.faults, t.faults...)
	}
	slices.Sort(all.latencies)
	after, err := titleCounts(ctx, a.store)
	if err != nil {
		return err
	}
	lost := 0
	for _, title := range all.stored {
		if after[title] != 1 {
			lost++
		}
	}
	threads := a.pool.Stats()
	line := func(what, format string, args ...any) {
		fmt.Fprintf(out, "  %-12s%s\n", what, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(out, "notes load: %d requests over %d connections in %s\n", sent, o.conns, elapsed.Round(time.Millisecond))
	line("rate", "%.0f a second, of %d", float64(sent)/elapsed.Seconds(), o.rate)
	line("latency", "p50 %s, p99 %s, most %s, from when a request was due", all.quantile(0.5), all.quantile(0.99), all.quantile(1))
	line("refused", "%d with 503 and Retry-After", all.refused)
	line("wrong", "%d answers", len(all.faults))
	line("notes", "%d stored, %d in the database, %d of them lost or twice there", len(all.stored), len(after)-len(before), lost)
	line("threads", "%d at most, of %d", threads.Peak, o.threads)
	if late > 0 {
		line("note", "%d requests were made a second late or more: the server, or this machine, cannot keep up", late)
	}
	faults := all.faults[:min(len(all.faults), 5)]
	if lost > 0 || len(after)-len(before) < len(all.stored) {
		faults = append(faults, errors.New("notes are lost"))
	}
	if threads.Peak > o.threads {
		faults = append(faults, errors.New("there were more threads than there may be"))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("the load found faults:\n%w", err)
	}
	fmt.Fprintln(out, "all checks passed")
	return nil
}

// titleCounts counts the notes by title.
func titleCounts(ctx context.Context, s *store) (map[string]int, error) {
	notes, err := s.find(ctx, filter{})
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for _, n := range notes {
		found[n.Title]++
	}
	return found, nil
}

// quantile returns what the share q of the latencies is not longer than.
func (t *tally) quantile(q float64) time.Duration {
	if len(t.latencies) == 0 {
		return 0
	}
	i := min(int(q*float64(len(t.latencies))), len(t.latencies)-1)
	return t.latencies[i].Round(10 * time.Microsecond)
}

// request makes the nth request of the connection c: of ten, one stores a note, one
// reads a note, one searches, one asks for a file, and six read the front page.
func (t *tally) request(ctx context.Context, client *http.Client, site string, c, n int) {
	var resp *http.Response
	var err error
	title, want := "", http.StatusOK
	switch n % 10 {
	case 0:
		title, want = fmt.Sprintf("load %d-%d", c, n), http.StatusSeeOther
		resp, err = t.do(ctx, client, "POST", site+"/notes", url.Values{"title": {title}, "body": {"under load"}, "tags": {"load"}})
	case 3:
		resp, err = t.do(ctx, client, "GET", site+"/notes/1", nil)
	case 5:
		resp, err = t.do(ctx, client, "GET", site+"/?q=load", nil)
	case 7:
		resp, err = t.do(ctx, client, "GET", site+"/static/style.css", nil)
	default:
		resp, err = t.do(ctx, client, "GET", site+"/", nil)
	}
	switch {
	case err != nil:
		t.faults = append(t.faults, err)
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		t.refused++
	case resp.StatusCode == http.StatusNotFound && n%10 == 3: // it may not be there yet
	case resp.StatusCode != want:
		t.faults = append(t.faults, fmt.Errorf("%s %s: %s", resp.Request.Method, resp.Request.URL, resp.Status))
	case title != "":
		t.stored = append(t.stored, title)
	}
}

func (t *tally) do(ctx context.Context, client *http.Client, method, address string, form url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}
