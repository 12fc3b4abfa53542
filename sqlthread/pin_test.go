package sqlthread

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
)

// All who ask get the connection that the first has taken, and it is given back when
// the function ends, in whatever way.
func TestPin(t *testing.T) {
	f, db := openFake(t)
	require.NoError(t, Pin(t.Context(), db, func(context.Context) error { return nil }))
	require.Zero(t, f.conns, "a Pin takes a connection though nobody asks for one")

	boom := errors.New("boom")
	var pinned context.Context
	use := func(ctx context.Context) {
		pinned = ctx
		first, err := Conn(ctx, db)
		require.NoError(t, err)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				c, err := Conn(ctx, db)
				if err != nil || c != first {
					t.Errorf("another connection, or %v", err)
				}
			})
		}
		all.Wait()
		require.Equal(t, 1, db.Stats().InUse)
		// What is left open does not keep the connection.
		_, err = first.QueryContext(ctx, "100 0 0")
		require.NoError(t, err)
		_, err = first.BeginTx(ctx, nil)
		require.NoError(t, err)
	}
	over := func() {
		t.Helper()
		require.Zero(t, db.Stats().InUse)
		require.ErrorIs(t, pinned.Err(), context.Canceled)
		_, err := Conn(pinned, db)
		require.ErrorIs(t, err, asyncsync.ErrClosed)
	}

	require.Same(t, boom, Pin(t.Context(), db, func(ctx context.Context) error { use(ctx); return boom }))
	over()
	require.PanicsWithValue(t, boom, func() {
		_ = Pin(t.Context(), db, func(ctx context.Context) error { use(ctx); panic(boom) })
	})
	over()
	ended := make(chan bool)
	go func() {
		returned := false
		defer func() { ended <- returned }()
		_ = Pin(t.Context(), db, func(ctx context.Context) error { use(ctx); runtime.Goexit(); return nil })
		returned = true
	}()
	require.False(t, <-ended)
	over()
	require.Equal(t, 1, f.conns, "the connection is used again")
}

// Goroutines that ask at the same time take one connection.
func TestConnsAtOnce(t *testing.T) {
	testkit.Guard(t)
	synctest.Test(t, func(t *testing.T) {
		f := &fake{t: t}
		connecting, connect := make(chan struct{}, 8), make(chan struct{})
		db := sql.OpenDB(WrapConnector(slowConnector{&fakeConnector{f: f}, connecting, connect}))
		require.NoError(t, Pin(t.Context(), db, func(ctx context.Context) error {
			got := make(chan *sql.Conn)
			for range 8 {
				go func() {
					c, err := Conn(ctx, db)
					if err != nil {
						t.Error(err)
					}
					got <- c
				}()
			}
			synctest.Wait() // all have asked
			close(connect)
			first := <-got
			for range 7 {
				require.Same(t, first, <-got)
			}
			return nil
		}))
		require.Len(t, connecting, 1, "connections that were taken")
		require.NoError(t, db.Close())
	})
}

type slowConnector struct {
	driver.Connector
	connecting chan<- struct{}
	connect    <-chan struct{}
}

func (c slowConnector) Connect(ctx context.Context) (driver.Conn, error) {
	c.connecting <- struct{}{}
	<-c.connect
	return c.Connector.Connect(ctx)
}

// Pin does not wait for somebody who is taking the connection, who gets none.
func TestPinEndsWhileAConnectionIsTaken(t *testing.T) {
	testkit.Guard(t)
	f := &fake{t: t}
	connecting, connect := make(chan struct{}, 1), make(chan struct{})
	db := sql.OpenDB(WrapConnector(slowConnector{&fakeConnector{f: f}, connecting, connect}))
	defer db.Close()
	left := make(chan error)
	require.NoError(t, Pin(t.Context(), db, func(ctx context.Context) error {
		go func() {
			c, err := Conn(ctx, db)
			if c != nil {
				t.Error("there is a connection")
			}
			left <- err
		}()
		<-connecting
		return nil
	}))
	close(connect)
	require.Error(t, <-left)
	require.Zero(t, db.Stats().InUse)
}

// A thread-sensitive function that waits for the connection serves what takes it.
func TestConnFromAThread(t *testing.T) {
	_, db := openFake(t)
	err := asyncsync.WithThreadSensitiveContext(t.Context(), func(ctx context.Context) error {
		return Pin(ctx, db, func(ctx context.Context) error {
			first, err := Conn(ctx, db)
			require.NoError(t, err)
			_, err = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				c, err := Conn(ctx, db)
				require.NoError(t, err)
				require.Same(t, first, c)
				_, err = asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
					_, err := c.ExecContext(ctx, "x")
					return 0, err
				})
				return 0, err
			})
			return err
		})
	})
	require.NoError(t, err)
	require.Zero(t, db.Stats().InUse)
}

// Each database has its own Pin, and the innermost counts.
func TestPins(t *testing.T) {
	f, one := openFake(t)
	_, two := openFake(t)
	require.NoError(t, Pin(t.Context(), one, func(outer context.Context) error {
		return Pin(outer, two, func(ctx context.Context) error {
			a, err := Conn(ctx, one)
			require.NoError(t, err)
			b, err := Conn(ctx, two)
			require.NoError(t, err)
			require.NotSame(t, a, b)
			return Pin(ctx, one, func(ctx context.Context) error {
				c, err := Conn(ctx, one)
				require.NoError(t, err)
				require.NotSame(t, a, c)
				again, err := Conn(outer, one)
				require.NoError(t, err)
				require.Same(t, a, again)
				return nil
			})
		})
	}))
	require.Equal(t, 2, f.conns)
}

// A connection that cannot be had is asked for again by the next.
func TestConnFails(t *testing.T) {
	testkit.Guard(t)
	f := &fake{t: t}
	fails := true
	db := sql.OpenDB(WrapConnector(failingConnector{&fakeConnector{f: f}, &fails}))
	defer db.Close()
	require.NoError(t, Pin(t.Context(), db, func(ctx context.Context) error {
		_, err := Conn(ctx, db)
		require.ErrorIs(t, err, errPanic)
		fails = false
		_, err = Conn(ctx, db)
		return err
	}))
	db.SetMaxOpenConns(1)
	require.NoError(t, Pin(t.Context(), db, func(ctx context.Context) error {
		_, err := Conn(ctx, db)
		require.NoError(t, err)
		return Pin(ctx, db, func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			_, err := Conn(ctx, db)
			require.ErrorIs(t, err, context.Canceled, "there is no second connection")
			return nil
		})
	}))
	require.NoError(t, Pin(t.Context(), db, func(ctx context.Context) error {
		_, err := Conn(ctx, db)
		require.NoError(t, err)
		return Pin(ctx, db, func(ctx context.Context) error {
			ctx, cancel := context.WithCancelCause(ctx)
			waits := db.Stats().WaitCount
			got := testkit.Start(func() error { _, err := Conn(ctx, db); return err })
			testkit.Poll(t, func() string {
				if db.Stats().WaitCount == waits {
					return "Conn does not wait"
				}
				return ""
			})
			cancel(testkit.ErrEnd)
			require.Same(t, testkit.ErrEnd, got.Wait().Err, "the cause")
			return nil
		})
	}))
}

type failingConnector struct {
	driver.Connector
	fails *bool
}

func (c failingConnector) Connect(ctx context.Context) (driver.Conn, error) {
	if *c.fails {
		return nil, errPanic
	}
	return c.Connector.Connect(ctx)
}

func TestPinMisused(t *testing.T) {
	_, db := openFake(t)
	nothing := func(context.Context) error { return nil }
	require.PanicsWithValue(t, "sqlthread: Pin: nil ctx", func() { _ = Pin(nil, db, nothing) }) //lint:ignore SA1012 misuse
	require.PanicsWithValue(t, "sqlthread: Pin: nil DB", func() { _ = Pin(t.Context(), nil, nothing) })
	require.PanicsWithValue(t, "sqlthread: Pin: nil function", func() { _ = Pin(t.Context(), db, nil) })
	require.PanicsWithValue(t, "sqlthread: Conn: nil ctx", func() { _, _ = Conn(nil, db) }) //lint:ignore SA1012 misuse
	require.PanicsWithValue(t, "sqlthread: Conn: the ctx is of no function that Pin runs for this DB: call Pin first", func() { _, _ = Conn(t.Context(), db) })
}
