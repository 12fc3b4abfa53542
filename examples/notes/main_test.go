package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"asyncsync.dev/asyncsync"
)

func TestDemo(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), []string{"-demo", "-requests", "60", "-clients", "4"}, &out, t.Output())
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"60 requests from 4 clients", "6 failed, 6 transactions rolled back", "12 of 12 imports", "3 deep", "all checks passed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the summary lacks %q:\n%s", want, &out)
		}
	}
}

func TestDemoNeedsAnEmptyDatabase(t *testing.T) {
	args := []string{"-demo", "-requests", "1", "-clients", "1", "-db", filepath.Join(t.TempDir(), "kept.db")}
	if err := run(t.Context(), args, io.Discard, t.Output()); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), args, io.Discard, t.Output()); err == nil || !strings.Contains(err.Error(), "empty database") {
		t.Errorf("on its own leftovers the demo says %v", err)
	}
}

// TestChecksFindFaults spoils one thing at a time.
func TestChecksFindFaults(t *testing.T) {
	sound := func() (*ledger, *evidence) {
		l := newLedger()
		l.write("n", "b", "u", "t")
		l.imports, l.links, l.broken, l.pages = 1, 1, 1, 1
		return l, &evidence{
			notes:   []note{{Title: "n", Body: "b", URL: "u", Tags: []string{"t"}}},
			tags:    []tag{{Name: "t", About: aboutTag("t"), Notes: 1}},
			batches: 1,
			usage:   usage{calls: 3, nested: 2, deepest: 3, threads: map[int]int{7: 3}, rollbacks: 1},
			leases:  leaseStats{leases: 1, threads: map[int]bool{8: true}},
			asked:   map[string]int{"tag t": 1},
		}
	}
	for _, c := range checks(sound()) {
		if !c.ok {
			t.Errorf("nothing is wrong, but: %s", c)
		}
	}
	for name, spoil := range map[string]func(*evidence){
		"note lost":        func(e *evidence) { e.notes = nil },
		"note twice":       func(e *evidence) { e.notes = append(e.notes, e.notes[0]) },
		"note changed":     func(e *evidence) { e.notes[0].Body = "" },
		"note's tag lost":  func(e *evidence) { e.notes[0].Tags = nil },
		"tag lost":         func(e *evidence) { e.tags = nil },
		"tag changed":      func(e *evidence) { e.tags[0].About = "" },
		"tag asked twice":  func(e *evidence) { e.asked["tag t"] = 2 },
		"batch lost":       func(e *evidence) { e.batches = 0 },
		"not nested":       func(e *evidence) { e.usage.nested = 1 },
		"not deep":         func(e *evidence) { e.usage.deepest = 2 },
		"not rolled back":  func(e *evidence) { e.usage.rollbacks = 0 },
		"second thread":    func(e *evidence) { e.usage.threads[9] = 1 },
		"thread shared":    func(e *evidence) { e.leases.shared = 1 },
		"no thread":        func(e *evidence) { e.leases.leases = 0 },
		"thread kept":      func(e *evidence) { e.leases.open = 1 },
		"page on database": func(e *evidence) { e.usage.threads = map[int]int{8: 3} },
		"leftover":         func(e *evidence) { e.tags = append(e.tags, tag{Name: "broken-1", About: aboutTag("broken-1")}) },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "page on database" && !threadsKnown {
				t.Skip("threads cannot be told apart on this system")
			}
			l, e := sound()
			spoil(e)
			for _, c := range checks(l, e) {
				if !c.ok {
					return
				}
			}
			t.Error("no check failed")
		})
	}
}

func TestServesUntilStopped(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, in := io.Pipe()
	ended := make(chan error)
	go func() {
		err := run(ctx, nil, in, t.Output())
		in.CloseWithError(io.EOF)
		ended <- err
	}()

	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err, <-ended)
	}
	_, rest, _ := strings.Cut(line, "http://")
	address, _, _ := strings.Cut(rest, " ")
	resp, err := http.Get("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d, want 200", resp.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()

	stop()
	if err := <-ended; err != nil {
		t.Errorf("stopped with %v", err)
	}
	wantEmptyDir(t, temp)
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
}

// TestStopFinishesImports stops the server while an import waits for its
// look-ups, and lets them go on only when stopping has begun.
func TestStopFinishesImports(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a, err := start(ctx, options{addr: "127.0.0.1:0", db: filepath.Join(t.TempDir(), "notes.db")}, testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	asking, stopping := make(chan struct{}), make(chan struct{})
	a.pages.http.RegisterOnShutdown(func() { close(stopping) })
	a.store.lookups = &fakeLookups{titleFunc: func(ctx context.Context, link string) (string, error) {
		close(asking)
		<-stopping
		return a.client.title(ctx, link)
	}}

	imported := make(chan error)
	go func() {
		v := &visitor{site: a.pages.url, http: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}}
		_, err := v.post(context.Background(), "/import", map[string][]string{"links": {linkOf(1, 1)}, "tags": {"x"}})
		imported <- err
	}()
	<-asking
	cancel() // as a signal does
	stopped := make(chan error)
	go func() { stopped <- a.stop(context.Background()) }()
	if err := <-imported; err != nil {
		t.Errorf("the import under way: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestStartCleansUpWhenItFails(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := run(t.Context(), []string{"-addr", taken.Addr().String()}, io.Discard, t.Output()); err == nil {
		t.Error("it serves on an address that is taken")
	}
	wantEmptyDir(t, temp)

	if err := run(t.Context(), []string{"-db", filepath.Join(temp, "no", "such", "folder.db")}, io.Discard, t.Output()); err == nil {
		t.Error("it serves without a database")
	}
}

func TestLoad(t *testing.T) {
	var out bytes.Buffer
	args := []string{"-load", "-rate", "200", "-conns", "10", "-duration", "500ms", "-threads", "3"}
	if err := run(t.Context(), args, &out, t.Output()); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"100 requests over 10 connections", "p99", " in the database, 0 of them lost", " of 3\n", "all checks passed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the summary lacks %q:\n%s", want, &out)
		}
	}
}

// TestFullPool holds all threads that requests may have: what needs one is refused
// with 503, what needs none is served, and the debug page says who holds them.
func TestFullPool(t *testing.T) {
	a, err := start(t.Context(), options{addr: "127.0.0.1:0", threads: 1, wait: 10 * time.Millisecond}, testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	leave, begun := make(chan struct{}), make(chan struct{})
	held := make(chan error)
	go func() {
		held <- asyncsync.WithThreadSensitiveContext(t.Context(), func(ctx context.Context) error {
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { close(begun); <-leave; return 0, nil })
			return err
		}, asyncsync.WithName("the one who holds it"), asyncsync.WithPool(a.pool))
	}()
	<-begun
	full := &site{t, a}
	full.get("/static/style.css").wantStatus(http.StatusOK)
	full.get("/debug/asyncsync/").wantStatus(http.StatusOK).has("the one who holds it", "notes database")
	resp, err := http.Get(a.pages.url + "/") // it waits for its turn, not for ever
	p := full.read(resp, err).wantStatus(http.StatusServiceUnavailable)
	if resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s: no Retry-After", p.path)
	}
	close(leave)
	if err := <-held; err != nil {
		t.Error(err)
	}
	full.get("/").wantStatus(http.StatusOK)
	http.DefaultClient.CloseIdleConnections()
	if err := a.stop(context.Background()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, bad := range [][]string{{"-requests", "0"}, {"-clients", "-1"}, {"serve"}, {"-nonsense"},
		{"-threads", "0"}, {"-wait", "0s"}, {"-load", "-rate", "0"}, {"-load", "-conns", "0"}, {"-load", "-duration", "0s"}, {"-load", "-demo"}} {
		if err := run(t.Context(), bad, io.Discard, io.Discard); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if err := run(t.Context(), []string{"-h"}, io.Discard, io.Discard); err != flag.ErrHelp {
		t.Errorf("-h gives %v, want %v", err, flag.ErrHelp)
	}
}

func wantEmptyDir(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
