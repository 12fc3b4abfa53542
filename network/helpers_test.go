package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// After the whole suite no goroutine is left but the default thread of the process.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	if code == 0 {
		core.DefaultPool.Close()
		const defaultThread = 1
		if n := settled(before + defaultThread); n > before+defaultThread {
			fmt.Fprintf(os.Stderr, "%d goroutines, %d before:\n%s", n, before, stacks())
			code = 1
		}
	}
	os.Exit(code)
}

// settled waits for goroutines on their way out and returns how many there are.
func settled(most int) (n int) {
	for range 1000 {
		if n = runtime.NumGoroutine(); n <= most {
			break
		}
		time.Sleep(time.Millisecond) // a bounded poll: nobody tells when a goroutine has ended
	}
	return n
}

func stacks() []byte {
	stacks := make([]byte, 1<<22)
	return stacks[:runtime.Stack(stacks, true)]
}

// guard ends the whole test binary, with the stacks of all goroutines, when the test
// is still running after a minute. It is called outside of any bubble.
func guard(t *testing.T) {
	t.Helper()
	name := t.Name()
	dog := time.AfterFunc(time.Minute, func() {
		fmt.Fprintf(os.Stderr, "%s hangs; all goroutines:\n\n%s\n", name, stacks())
		panic(name + " hangs (stacks above)")
	})
	t.Cleanup(func() { dog.Stop() })
}

// callers are who may wait: each runs fn, and returns how it has ended. meanwhile runs
// while fn waits, on the thread or the loop that fn is on, if there is one: that a thread
// serves, and that a loop goes on.
var callers = []struct {
	name string
	run  func(t *testing.T, fn func(ctx context.Context, meanwhile func(func())) error) error
}{
	{"goroutine", func(t *testing.T, fn func(ctx context.Context, meanwhile func(func())) error) error {
		return fn(context.Background(), func(then func()) { go then() })
	}},
	{"thread", func(t *testing.T, fn func(ctx context.Context, meanwhile func(func())) error) error {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		defer pool.Close()
		defer tsc.Close()
		_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
			here := core.Here()
			return 0, fn(ctx, func(then func()) {
				go func() {
					_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
						if core.Here() != here {
							t.Error("not served by the thread that waits")
						}
						then()
						return 0, nil
					})
					if err != nil {
						t.Error(err)
					}
				}()
			})
		})
		return err
	}},
	{"task of a thread loop", func(t *testing.T, fn func(ctx context.Context, meanwhile func(func())) error) error {
		b := loop.NewThread()
		_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
			return 0, fn(ctx, func(then func()) {
				if err := b.Post(then); err != nil {
					t.Error(err)
				}
			})
		})
		return err
	}},
}

// byAll runs a test as each kind of caller.
func byAll(t *testing.T, test func(t *testing.T, ctx context.Context, meanwhile func(func()))) {
	for _, c := range callers {
		t.Run(c.name, func(t *testing.T) {
			guard(t)
			require.NoError(t, c.run(t, func(ctx context.Context, meanwhile func(func())) error {
				test(t, ctx, meanwhile)
				return nil
			}))
		})
	}
}

// connected returns both ends of a connection over the loopback.
func connected(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l := listening(t)
	a, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	b, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = a.Close()
		_ = b.Close()
	})
	return a, b
}

func listening(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// A counted connection tells when it is closed.
type counted struct {
	net.Conn
	open *atomic.Int32
	once atomic.Bool
}

func (c *counted) Close() error {
	if c.once.CompareAndSwap(false, true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// pipe returns a connection that counts in open.
func pipe(open *atomic.Int32) net.Conn {
	a, b := net.Pipe()
	_ = b.Close()
	open.Add(1)
	return &counted{Conn: a, open: open}
}

// An outcome is how a function ended, as its caller saw it.
type outcome struct {
	how   string // "return", "panic" or "goexit"
	err   error
	value any
}

// outcomeOf runs fn on a goroutine of its own, since that may end.
func outcomeOf(fn func() error) (o outcome) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.how = "goexit"
		defer func() {
			if o.how == "return" {
				return
			}
			if v := recover(); v != nil {
				o = outcome{how: "panic", value: v}
			}
		}()
		o.err = fn()
		o.how = "return"
	}()
	<-done
	return o
}

var errEnd = errors.New("the error that was returned")

// ends are all three ways to end a function.
var ends = []struct {
	how  string
	want outcome
	do   func() error
}{
	{"return", outcome{how: "return", err: errEnd}, func() error { return errEnd }},
	{"panic", outcome{how: "panic", value: http.ErrAbortHandler}, func() error { panic(http.ErrAbortHandler) }},
	{"goexit", outcome{how: "goexit"}, func() error { runtime.Goexit(); return nil }},
}

var noCtx context.Context
