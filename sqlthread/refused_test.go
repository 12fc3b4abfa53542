package sqlthread

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/task"
)

// full is an option with which a call of the connection's thread is refused while crowd
// has filled its queue. The first refusal lets the queue go on.
func full() (opts []asyncsync.ContextOption, crowd func(t *testing.T, c driver.Conn) (emptied func())) {
	var refused func() // by the first refusal of a crowd
	var mu sync.Mutex
	hooks := asyncsync.Hooks{Ended: func(i asyncsync.CallInfo) {
		if errors.Is(i.Err, asyncsync.ErrQueueFull) {
			mu.Lock()
			defer mu.Unlock()
			refused()
		}
	}}
	crowd = func(t *testing.T, c driver.Conn) func() {
		leave, queued, left := make(chan struct{}), make(chan *task.Task[int], 1), make(chan error)
		mu.Lock()
		refused = sync.OnceFunc(func() { close(leave) })
		mu.Unlock()
		go func() {
			left <- Do(context.Background(), c, func(ctx context.Context, _ driver.Conn) error {
				queued <- asyncsync.Go(ctx, func(context.Context) (int, error) { return 0, nil })
				<-leave
				return nil
			})
		}()
		last := <-queued
		return func() {
			require.NoError(t, <-left)
			_, err := last.Wait(context.Background())
			require.NoError(t, err)
		}
	}
	return []asyncsync.ContextOption{asyncsync.QueueLimit(1), asyncsync.WithHooks(hooks)}, crowd
}

// A call that a full queue refuses is the caller's affair, unless nobody can use the
// connection without it.
func TestRefusedByAFullQueue(t *testing.T) {
	testkit.Guard(t)
	ctx := t.Context()
	begin := func(c driver.Conn) driver.Tx {
		tx, err := c.(driver.ConnBeginTx).BeginTx(ctx, driver.TxOptions{})
		require.NoError(t, err)
		return tx
	}
	for _, c := range []struct {
		name  string
		bad   bool
		ready func(c driver.Conn) (call func() error)
	}{
		{"ResetSession", true, func(c driver.Conn) func() error {
			return func() error { return c.(driver.SessionResetter).ResetSession(ctx) }
		}},
		{"Commit", true, func(c driver.Conn) func() error { return begin(c).Commit }},
		{"Rollback", true, func(c driver.Conn) func() error { return begin(c).Rollback }},
		{"Ping", false, func(c driver.Conn) func() error {
			return func() error { return c.(driver.Pinger).Ping(ctx) }
		}},
		{"ExecContext", false, func(c driver.Conn) func() error {
			return func() error { _, err := c.(driver.ExecerContext).ExecContext(ctx, "x", nil); return err }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts, crowd := full()
			f := &fake{t: t}
			own, err := WrapConnector(&fakeConnector{f: f}, opts...).Connect(ctx)
			require.NoError(t, err)
			call := c.ready(own)
			emptied := crowd(t, own)
			f.take()
			err = call()
			require.ErrorIs(t, err, asyncsync.ErrQueueFull)
			require.Equal(t, c.bad, errors.Is(err, driver.ErrBadConn))
			emptied()
			require.Empty(t, f.take(), "the driver was called")
			require.NoError(t, own.Close())
		})
	}
	t.Run("IsValid", func(t *testing.T) {
		opts, crowd := full()
		own, err := WrapConnector(&fakeConnector{f: &fake{t: t}}, opts...).Connect(ctx)
		require.NoError(t, err)
		emptied := crowd(t, own)
		require.False(t, own.(driver.Validator).IsValid())
		emptied()
		require.True(t, own.(driver.Validator).IsValid())
		require.NoError(t, own.Close())
	})
}

// A connection whose transaction could not be ended is closed, and no other user gets the
// transaction.
func TestATransactionThatCannotEnd(t *testing.T) {
	testkit.Guard(t)
	for name, end := range map[string]func(*sql.Tx) error{"Commit": (*sql.Tx).Commit, "Rollback": (*sql.Tx).Rollback} {
		t.Run(name, func(t *testing.T) {
			opts, crowd := full()
			f := &fake{t: t}
			var opened []driver.Conn
			wrapped := WrapConnector(&fakeConnector{f: f}, opts...)
			db := sql.OpenDB(dsn{openFunc(func() (driver.Conn, error) {
				c, err := wrapped.Connect(t.Context())
				// The type in between hides the Validator, which is no help then.
				own := struct {
					driver.Conn
					driver.ConnBeginTx
				}{c, c.(driver.ConnBeginTx)}
				opened = append(opened, c)
				return own, err
			})})
			defer db.Close()
			tx, err := db.Begin()
			require.NoError(t, err)
			emptied := crowd(t, opened[0])
			require.ErrorIs(t, end(tx), asyncsync.ErrQueueFull)
			emptied()
			require.NotContains(t, f.take(), name)
			tx, err = db.Begin()
			require.NoError(t, err)
			require.Len(t, opened, 2)
			require.NoError(t, tx.Rollback())
		})
	}
}

// What is to be closed is closed before the driver is called again, and before the
// connection is closed.
func TestWhatCannotBeClosedIsClosedLater(t *testing.T) {
	testkit.Guard(t)
	ctx := t.Context()
	for name, next := range map[string]func(driver.Conn) error{
		"Ping":  func(c driver.Conn) error { return c.(driver.Pinger).Ping(ctx) },
		"Close": driver.Conn.Close,
	} {
		t.Run(name, func(t *testing.T) {
			opts, crowd := full()
			f := &fake{t: t}
			c, err := WrapConnector(&fakeConnector{f: f}, opts...).Connect(ctx)
			require.NoError(t, err)
			s, err := c.(driver.ConnPrepareContext).PrepareContext(ctx, "40 0 0")
			require.NoError(t, err)
			rows, err := s.(driver.StmtQueryContext).QueryContext(ctx, nil)
			require.NoError(t, err)
			for _, part := range []interface{ Close() error }{rows, s} {
				emptied := crowd(t, c)
				require.ErrorIs(t, part.Close(), asyncsync.ErrQueueFull)
				emptied()
			}
			f.take()
			require.NoError(t, next(c))
			require.Equal(t, []string{"Rows.Close", "Stmt.Close", name}, f.take())
			if name != "Close" {
				require.NoError(t, next(c))
				require.Equal(t, []string{name}, f.take())
				require.NoError(t, c.Close())
			}
		})
	}
}

// A connection that has no thread any more is a bad one for each of its methods.
func TestAConnectionWithoutThreadIsBad(t *testing.T) {
	testkit.Guard(t)
	ctx := t.Context()
	e := asyncsync.NewCurrentThreadExecutor()
	c, err := WrapConnector(&fakeConnector{f: &fake{t: t}}, asyncsync.WithThread(e)).Connect(ctx)
	require.NoError(t, err)
	prepare := func() (driver.Stmt, error) {
		return c.(driver.ConnPrepareContext).PrepareContext(ctx, "40 1 0")
	}
	tx, err := c.(driver.ConnBeginTx).BeginTx(ctx, driver.TxOptions{})
	require.NoError(t, err)
	s, err := prepare()
	require.NoError(t, err)
	rows, err := s.(driver.StmtQueryContext).QueryContext(ctx, nil)
	require.NoError(t, err)
	dest := make([]driver.Value, 2)
	for range firstRows {
		require.NoError(t, rows.Next(dest))
	}
	require.NoError(t, e.Close())
	for name, call := range map[string]func() error{
		"Ping":            func() error { return c.(driver.Pinger).Ping(ctx) },
		"ExecContext":     func() error { _, err := c.(driver.ExecerContext).ExecContext(ctx, "x", nil); return err },
		"QueryContext":    func() error { _, err := c.(driver.QueryerContext).QueryContext(ctx, "1 0 0", nil); return err },
		"PrepareContext":  func() error { _, err := prepare(); return err },
		"BeginTx":         func() error { _, err := c.(driver.ConnBeginTx).BeginTx(ctx, driver.TxOptions{}); return err },
		"ResetSession":    func() error { return c.(driver.SessionResetter).ResetSession(ctx) },
		"CheckNamedValue": func() error { return c.(driver.NamedValueChecker).CheckNamedValue(&driver.NamedValue{}) },
		"Commit":          tx.Commit,
		"Rollback":        tx.Rollback,
		"Next":            func() error { return rows.Next(dest) },
		"NextResultSet":   rows.(driver.RowsNextResultSet).NextResultSet,
		"Rows.Close":      rows.Close,
		"Stmt.Close":      s.Close,
	} {
		err := call()
		require.ErrorIs(t, err, driver.ErrBadConn, name)
		require.ErrorIs(t, err, asyncsync.ErrClosed, name)
	}
	require.False(t, c.(driver.Validator).IsValid())
	require.ErrorIs(t, c.Close(), asyncsync.ErrClosed)
}

// The cause of a ctx may be an error of another connection. It says nothing of this one,
// which goes on.
func TestCausesThatResembleErrorsOfTheDriver(t *testing.T) {
	for _, cause := range []error{driver.ErrBadConn, fmt.Errorf("another: %w", driver.ErrBadConn), driver.ErrSkip} {
		_, db := openFake(t)
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		_, err = conn.ExecContext(ctx, "x")
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, cause.Error())
		require.NoError(t, conn.PingContext(t.Context()))
		require.NoError(t, conn.Close())
	}
}
