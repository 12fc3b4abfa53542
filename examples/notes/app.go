package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/debugpage"
)

// An app is the running program: the database and what serves it.
type app struct {
	pool    *asyncsync.ThreadPool // of requests
	debug   *debugpage.Page
	store   *store
	asked   *lookupService
	client  *lookupClient
	lookups *webServer // answers the look-ups, knows nothing of the database
	pages   *webServer // answers people
	threads *leaseLog  // threads that requests were given

	dbPath  string
	tempDir string // removed by stop; "" when the user named the file
}

// start opens the database and begins to serve. ctx covers the opening only.
func start(ctx context.Context, o options, log *slog.Logger) (_ *app, err error) {
	a := &app{asked: newLookupService(), threads: newLeaseLog(), dbPath: o.db}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.stop(context.WithoutCancel(ctx)))
		}
	}()

	if a.dbPath == "" {
		if a.tempDir, err = os.MkdirTemp("", "notes-"); err != nil {
			return nil, err
		}
		a.dbPath = filepath.Join(a.tempDir, "notes.db")
	}
	a.pool = asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{
		MaxThreads: o.threads,
		MaxWaiting: 256,
		MaxWait:    o.wait,
	})
	a.debug = debugpage.New(deadlock.Config{Slow: 5 * time.Second, OnVerdict: deadlock.Log(log)})
	// The look-ups have a listener of their own so that stop can close things
	// in the order of who needs whom: an import that a stopping server still
	// finishes must find its look-ups answered.
	if a.lookups, err = listenAndServe("127.0.0.1:0", a.asked.handler(), log); err != nil {
		return nil, err
	}
	a.client = newLookupClient(a.lookups.url)
	if a.store, err = openStore(ctx, a.dbPath, a.client); err != nil {
		return nil, err
	}
	s, err := newServer(a.store, log, onThreads(a.pool, a.threads), a.debug)
	if err != nil {
		return nil, err
	}
	if a.pages, err = listenAndServe(o.addr, s.handler(), log); err != nil {
		return nil, err
	}
	// A live debug page would keep the server from stopping.
	a.pages.http.RegisterOnShutdown(func() { a.debug.Close() })
	return a, nil
}

// stop ends what start began, outermost first: no page is asked for any more,
// then no look-up, then nobody needs the database, then its folder can go.
// Requests under way are finished unless ctx ends first.
func (a *app) stop(ctx context.Context) error {
	var errs []error
	if a.pages != nil {
		errs = append(errs, a.pages.shutdown(ctx))
	}
	if a.debug != nil {
		errs = append(errs, a.debug.Close())
	}
	if a.client != nil {
		a.client.close()
	}
	if a.lookups != nil {
		errs = append(errs, a.lookups.shutdown(ctx))
	}
	if a.store != nil {
		errs = append(errs, a.store.close())
	}
	if a.pool != nil {
		// Contexts whose connections were closed may still be on their way out.
		errs = append(errs, a.pool.Shutdown(ctx))
	}
	if a.tempDir != "" {
		errs = append(errs, os.RemoveAll(a.tempDir))
	}
	return errors.Join(errs...)
}

// A webServer is an http.Server that serves from the moment it exists, so its
// address is known and connections are accepted.
type webServer struct {
	url  string
	http *http.Server

	failed chan struct{} // closed when serving has ended, for whatever reason
	err    error         // written before failed is closed: why; nil after shutdown
}

func listenAndServe(addr string, h http.Handler, log *slog.Logger) (*webServer, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &webServer{
		url: fmt.Sprintf("http://%s", listener.Addr()),
		http: &http.Server{
			Handler:           h,
			ReadHeaderTimeout: 10 * time.Second,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelError),
		},
		failed: make(chan struct{}),
	}
	go func() {
		defer close(s.failed)
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.err = err
		}
	}()
	return s, nil
}

// shutdown lets the requests under way finish. When ctx ends first it closes
// their connections, which ends their contexts too.
func (s *webServer) shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests were still running: %w", err), s.http.Close())
	}
	<-s.failed
	return err
}
