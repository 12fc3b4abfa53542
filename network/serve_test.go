package network_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/network"
	"asyncsync.dev/task"
)

// echo sends back what it gets.
func echo(ctx context.Context, c net.Conn) error {
	b := make([]byte, 16)
	for {
		n, err := network.Read(ctx, c, b)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			_, err = network.Write(ctx, c, b[:n])
		}
		if err != nil {
			return err
		}
	}
}

func talk(t *testing.T, address, what string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	b := make([]byte, len(what))
	if _, err := c.Write([]byte(what)); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != what {
		t.Errorf("got %q and %v", b, err)
	}
}

// Serve on each kind of backend: on one thread, its handlers take turns.
func TestServe(t *testing.T) {
	for _, kind := range []string{"goroutines", "thread"} {
		t.Run(kind, func(t *testing.T) {
			testkit.Guard(t)
			l := listening(t)
			b, err := loop.Builtin(kind)
			require.NoError(t, err)
			_, err = loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
				ctx, g := task.NewGroup(ctx)
				serving, stop := context.WithCancelCause(ctx)
				idle := make(chan struct{})
				over := make(chan struct{})
				go func() {
					defer close(over)
					quiet, err := net.Dial("tcp", l.Addr().String()) // keeps a handler busy
					if err != nil {
						t.Error(err)
						return
					}
					<-idle
					for range 20 {
						talk(t, l.Addr().String(), "hello")
					}
					stop(testkit.ErrEnd)
					_ = quiet.Close()
				}()
				var handled atomic.Int32
				err := network.Serve(serving, l, g, func(ctx context.Context, c net.Conn) error {
					if handled.Add(1) == 1 {
						close(idle)
					}
					on, ok := loop.Current(ctx)
					require.True(t, ok)
					require.Same(t, b, on)
					return echo(ctx, c)
				})
				require.ErrorIs(t, err, testkit.ErrEnd)
				require.NoError(t, g.Wait(ctx))
				<-over
				require.EqualValues(t, 21, handled.Load())
				return 0, nil
			})
			require.NoError(t, err)
			// The listener is open still.
			go talk(t, l.Addr().String(), "again")
			c, err := l.Accept()
			require.NoError(t, err)
			require.NoError(t, echo(context.Background(), c))
			require.NoError(t, c.Close())
		})
	}
}

// The end of the listener ends Serve, and so does that of the group that a handler has
// failed. All connections are closed.
func TestServeEnds(t *testing.T) {
	testkit.Guard(t)
	l := listening(t)
	ctx, g := task.NewGroup(context.Background())
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	err = network.Serve(ctx, l, g, func(context.Context, net.Conn) error { return testkit.ErrEnd })
	require.ErrorIs(t, err, testkit.ErrEnd)
	require.ErrorIs(t, g.Wait(context.Background()), testkit.ErrEnd)
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)

	ctx, g = task.NewGroup(context.Background())
	go l.Close()
	require.ErrorIs(t, network.Serve(ctx, l, g, echo), net.ErrClosed)
	require.NoError(t, g.Wait(context.Background()))
}

// However a handler ends, its connection is closed, and the group tells.
func TestServeEndingsOfHandlers(t *testing.T) {
	testkit.Guard(t)
	for _, end := range testkit.Ends {
		l := listening(t)
		c, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		ctx, g := task.NewGroup(context.Background())
		err = network.Serve(ctx, l, g, func(context.Context, net.Conn) error { return end.Do() })
		require.Error(t, err)
		end.CheckIs(t, testkit.OutcomeOf(func() error { return g.Wait(context.Background()) }))
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, c.Close())
	}
}

// failing is a listener that fails as it is told before it delivers.
type failing struct {
	errs []error
	conn chan net.Conn
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
	}
	if c, ok := <-f.conn; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (f *failing) Close() error                { return nil }
func (f *failing) Addr() net.Addr              { return nil }
func (f *failing) SetDeadline(time.Time) error { return nil }

// A lack of descriptors is waited out, and who gives up in the queue is none of ours.
func TestServeGoesOn(t *testing.T) {
	testkit.Guard(t)
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int32
		f := &failing{errs: []error{syscall.EMFILE, syscall.ECONNABORTED, syscall.ENFILE}, conn: make(chan net.Conn, 1)}
		f.conn <- pipe(&open)
		close(f.conn)
		begun := time.Now()
		_, g := task.NewGroup(context.Background())
		handled := 0
		err := network.Serve(context.Background(), f, g, func(context.Context, net.Conn) error { handled++; return nil })
		require.ErrorIs(t, err, net.ErrClosed)
		require.NoError(t, g.Wait(context.Background()))
		require.Equal(t, 1, handled)
		require.Equal(t, 200*time.Millisecond, time.Since(begun))
		require.Zero(t, open.Load())

		// A group that is over takes nothing: the connection is closed.
		f = &failing{conn: make(chan net.Conn, 1)}
		f.conn <- pipe(&open)
		o := testkit.OutcomeOf(func() error { return network.Serve(context.Background(), f, g, echo) })
		require.Equal(t, "panic", o.How)
		require.Zero(t, open.Load())

		f = &failing{errs: []error{syscall.EINVAL}}
		require.ErrorIs(t, network.Serve(context.Background(), f, g, echo), syscall.EINVAL)
	})
}

// oneConn returns a listener that delivers one connection, which counts in open, and is
// closed then.
func oneConn(open *atomic.Int32) net.Listener {
	f := &failing{conn: make(chan net.Conn, 1)}
	f.conn <- pipe(open)
	close(f.conn)
	return f
}

// A connection whose handler does not begin is closed: the group was cancelled before or
// after the task was started, or the wait for a place would be a deadlock.
func TestServeClosesWhatNoHandlerGets(t *testing.T) {
	testkit.Guard(t)
	var open atomic.Int32
	never := func(context.Context, net.Conn) error { t.Error("the handler begins"); return nil }
	closed := func(what string) {
		testkit.Poll(t, func() string {
			if open.Load() != 0 {
				return what + ": the connection stays open"
			}
			return ""
		})
	}

	for _, when := range []string{"before", "after"} {
		_, err := loop.Run(context.Background(), loop.NewThread(), func(ctx context.Context) (int, error) {
			ctx, cancel := context.WithCancelCause(ctx)
			_, g := task.NewGroup(ctx)
			if when == "before" {
				cancel(testkit.ErrEnd)
			}
			// The loop runs nothing else meanwhile.
			served := testkit.OutcomeOf(func() error { return network.Serve(context.Background(), oneConn(&open), g, never) })
			require.ErrorIs(t, served.Err, net.ErrClosed)
			cancel(testkit.ErrEnd)
			require.ErrorIs(t, g.Wait(context.WithoutCancel(ctx)), testkit.ErrEnd)
			return 0, nil
		})
		require.NoError(t, err)
		closed("cancelled " + when)
	}

	_, g := task.NewGroup(context.Background(), task.NoCancel())
	g.SetLimit(1)
	g.Go(func(ctx context.Context) error {
		require.ErrorIs(t, network.Serve(ctx, oneConn(&open), g, never), net.ErrClosed)
		require.Zero(t, open.Load())
		return nil
	})
	require.ErrorIs(t, g.Wait(context.Background()), deadlock.ErrDeadlock)
}

// A limit of the group holds back who accepts.
func TestServeUnderALimit(t *testing.T) {
	testkit.Guard(t)
	l := listening(t)
	ctx, g := task.NewGroup(context.Background())
	g.SetLimit(2)
	serving, stop := context.WithCancelCause(ctx)
	var now, most atomic.Int32
	served := make(chan error, 1)
	go func() {
		served <- network.Serve(serving, l, g, func(ctx context.Context, c net.Conn) error {
			n := now.Add(1)
			defer now.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			return echo(ctx, c)
		})
	}()
	talks := task.Group{}
	for range 20 {
		talks.Go(func(context.Context) error { talk(t, l.Addr().String(), "hello"); return nil })
	}
	require.NoError(t, talks.Wait(context.Background()))
	stop(testkit.ErrEnd)
	require.ErrorIs(t, <-served, testkit.ErrEnd)
	require.NoError(t, g.Wait(context.Background()))
	require.LessOrEqual(t, most.Load(), int32(2))
}

// The end of ctx ends Serve while the limit of the group is reached, for callers of every
// kind. The connection that has no place is closed. The group goes on, and its limit holds.
func TestServeEndsWhileTheLimitIsReached(t *testing.T) {
	libkit.OnEachInBubble(t, func(t *testing.T, ctx context.Context, _ libkit.Caller) error {
		var open atomic.Int32
		f := &failing{conn: make(chan net.Conn, 2)}
		f.conn <- pipe(&open)
		f.conn <- pipe(&open)
		_, g := task.NewGroup(ctx)
		g.SetLimit(1)
		serving, stop := context.WithCancelCause(ctx)
		go func() {
			synctest.Wait()
			stop(testkit.ErrEnd)
		}()
		release := make(chan struct{})
		require.ErrorIs(t, network.Serve(serving, f, g, func(ctx context.Context, _ net.Conn) error {
			_, _, err := task.Recv(ctx, release)
			return err
		}), testkit.ErrEnd)
		require.EqualValues(t, 1, open.Load(), "the one that is handled")
		require.False(t, g.TryGo(func(context.Context) error { return nil }))
		close(release)
		ran := false
		g.Go(func(context.Context) error { ran = true; return nil })
		require.NoError(t, g.Wait(ctx))
		require.True(t, ran)
		require.Zero(t, open.Load())
		return nil
	})
}

// WrapConn takes the place of a stream socket's file, and of nothing else.
func TestWrapConn(t *testing.T) {
	testkit.Guard(t)
	here, there := connected(t)
	f, err := here.(*net.TCPConn).File()
	require.NoError(t, err)
	require.NoError(t, here.Close())
	c, err := network.WrapConn(f)
	require.NoError(t, err)
	require.ErrorIs(t, f.Close(), os.ErrClosed)
	_, err = network.Write(context.Background(), c, []byte("x"))
	require.NoError(t, err)
	_, err = there.Read(make([]byte, 1))
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(context.Background())
	go cancel(testkit.ErrEnd)
	_, err = network.Read(ctx, c, make([]byte, 1))
	require.ErrorIs(t, err, testkit.ErrEnd)
	require.NoError(t, c.Close())

	packets, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer packets.Close()
	l := listening(t).(*net.TCPListener)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer w.Close()
	for name, open := range map[string]func() (*os.File, error){
		"packets":  packets.File,
		"listener": l.File,
		"pipe":     func() (*os.File, error) { return r, nil },
	} {
		f, err := open()
		require.NoError(t, err)
		_, err = network.WrapConn(f)
		require.Error(t, err, name)
		require.NoError(t, f.Close(), "%s is the caller's still", name)
	}
	_, err = network.WrapConn(r)
	require.Error(t, err)
	require.False(t, errors.Is(err, testkit.ErrEnd))
}
