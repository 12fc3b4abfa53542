package sqlthread_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"modernc.org/sqlite"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/sqlthread"
	"asyncsync.dev/task"
	"asyncsync.dev/web"
)

func init() {
	// The database says itself which OS thread it runs on.
	sqlite.MustRegisterScalarFunction("tid", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
		return int64(syscall.Gettid()), nil
	})
}

// pinned has all that a request does with db use one connection.
func pinned(db *sql.DB, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = sqlthread.Pin(r.Context(), db, func(ctx context.Context) error {
			in := r.WithContext(ctx)
			defer func() { r.MultipartForm = in.MultipartForm }()
			next.ServeHTTP(w, in)
			return nil
		})
	})
}

// A server has what a test looks at from outside: done gets a value when a request
// has ended, with all that is around its handler.
type server struct {
	*httptest.Server
	db   *sql.DB
	done chan struct{}
}

func serve(t *testing.T, db *sql.DB, routes map[string]http.HandlerFunc) *server {
	t.Helper()
	testkit.Guard(t)
	mux := http.NewServeMux()
	for pattern, h := range routes {
		mux.Handle(pattern, h)
	}
	s := &server{db: db, done: make(chan struct{}, 100)}
	handler := pinned(db, web.Middleware()(mux))
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { s.done <- struct{}{} }()
		handler.ServeHTTP(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // panics are wanted
	s.Start()
	t.Cleanup(s.Close)
	t.Cleanup(s.Client().CloseIdleConnections)
	return s
}

// get returns the body of the answer.
func (s *server) get(ctx context.Context, path string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := s.Client().Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status + ": " + string(body))
	}
	return string(body), err
}

// thread asks the database for its thread, as a function deep in a program does.
func thread(ctx context.Context, db *sql.DB) (tid int, err error) {
	c, err := sqlthread.Conn(ctx, db)
	if err != nil {
		return 0, err
	}
	return tid, c.QueryRowContext(ctx, "SELECT tid()").Scan(&tid)
}

// All queries of a request are on one OS thread: those of the handler, of a task, of a
// thread-sensitive function, of a transaction. Requests at the same time have
// connections, and so threads, of their own.
func TestARequestHasOneThread(t *testing.T) {
	const requests = 6
	db := open(t, "thread-modernc-started")
	db.SetMaxOpenConns(requests)
	var together sync.WaitGroup
	together.Add(requests)
	s := serve(t, db, map[string]http.HandlerFunc{"GET /threads": func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		var tids []int
		ask := func(ctx context.Context) (int, error) {
			tid, err := thread(ctx, db)
			tids = append(tids, tid)
			return tid, err
		}
		_, err := ask(ctx)
		together.Done()
		together.Wait() // all have their connections
		for range 20 {
			_, again := ask(ctx)
			err = errors.Join(err, again)
		}
		_, inTask := task.Go(ctx, ask).Wait(ctx)
		_, onThread := asyncsync.ToThread(ctx, ask)
		c, noConn := sqlthread.Conn(ctx, db)
		tx, noTx := c.BeginTx(ctx, nil)
		var tid int
		inTx := tx.QueryRowContext(ctx, "SELECT tid()").Scan(&tid)
		tids = append(tids, tid)
		if err := errors.Join(err, inTask, onThread, noConn, noTx, inTx, tx.Commit()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		slices.Sort(tids)
		fmt.Fprint(w, slices.Compact(tids))
	}})
	answers := make(chan string)
	for range requests {
		go func() {
			body, err := s.get(t.Context(), "/threads")
			if err != nil {
				t.Error(err)
			}
			answers <- body
		}()
	}
	seen := make(map[string]bool)
	for range requests {
		body := <-answers
		require.Len(t, strings.Fields(body), 1, "threads of a request: %s", body)
		seen[body] = true
		<-s.done
	}
	require.Len(t, seen, requests, "threads of requests at the same time: %v", seen)
	require.Zero(t, db.Stats().InUse)
}

// However a handler ends, and whatever it leaves open, its connection is free for the
// next request, and is the same.
func TestEndingsOfARequest(t *testing.T) {
	db := open(t, "thread-modernc-started")
	db.SetMaxOpenConns(1)
	_, err := db.Exec("CREATE TABLE t (x)")
	require.NoError(t, err)
	leave := func(r *http.Request) {
		c, err := sqlthread.Conn(r.Context(), db)
		if err == nil {
			_, err = c.QueryContext(r.Context(), "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i FROM n")
		}
		var tx *sql.Tx
		if err == nil {
			tx, err = c.BeginTx(r.Context(), nil)
		}
		if err == nil {
			_, err = tx.ExecContext(r.Context(), "INSERT INTO t VALUES (1)")
		}
		if err != nil {
			t.Error(err)
		}
	}
	s := serve(t, db, map[string]http.HandlerFunc{
		"GET /thread": func(w http.ResponseWriter, r *http.Request) {
			tid, err := thread(r.Context(), db)
			fmt.Fprint(w, tid, err)
		},
		"GET /nothing": func(http.ResponseWriter, *http.Request) {},
		"GET /return":  func(_ http.ResponseWriter, r *http.Request) { leave(r) },
		"GET /panic":   func(_ http.ResponseWriter, r *http.Request) { leave(r); panic("boom") },
		"GET /abort":   func(_ http.ResponseWriter, r *http.Request) { leave(r); panic(http.ErrAbortHandler) },
		"GET /goexit":  func(_ http.ResponseWriter, r *http.Request) { leave(r); runtime.Goexit() },
	})
	first, err := s.get(t.Context(), "/thread")
	require.NoError(t, err)
	<-s.done
	for path, answers := range map[string]bool{"/nothing": true, "/return": true, "/panic": false, "/abort": false, "/goexit": false} {
		_, err := s.get(t.Context(), path)
		require.Equal(t, answers, err == nil, "%s: %v", path, err)
		<-s.done
		require.Zero(t, db.Stats().InUse, path)
		again, err := s.get(t.Context(), "/thread")
		require.NoError(t, err)
		<-s.done
		require.Equal(t, first, again, path)
	}
	var n int
	require.NoError(t, db.QueryRow("SELECT count(*) FROM t").Scan(&n))
	require.Zero(t, n, "transactions that were left open are rolled back")
	require.Equal(t, 1, db.Stats().OpenConnections)
}

// A client that goes ends the query of its request, and the connection is free.
func TestTheClientGoes(t *testing.T) {
	db := open(t, "thread-modernc-started")
	db.SetMaxOpenConns(1)
	ended := make(chan error, 1)
	s := serve(t, db, map[string]http.HandlerFunc{"GET /endless": func(_ http.ResponseWriter, r *http.Request) {
		c, err := sqlthread.Conn(r.Context(), db)
		if err == nil {
			var n int
			err = c.QueryRowContext(r.Context(), "WITH RECURSIVE n(i) AS (SELECT started() UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n").Scan(&n)
		}
		ended <- err
	}})
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { _, err := s.get(ctx, "/endless"); gone <- err }()
	<-started
	leave()
	require.ErrorIs(t, <-gone, context.Canceled)
	require.Error(t, <-ended)
	<-s.done
	select { // it has gone on until it was interrupted
	case <-started:
	default:
	}
	require.Zero(t, db.Stats().InUse)
	var one int
	require.NoError(t, db.QueryRow("SELECT 1").Scan(&one))
}
