package network_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/network"
)

// Read, Write and Accept work for callers of every kind. The loop, or the thread, of the
// caller goes on meanwhile.
func TestOperations(t *testing.T) {
	byAll(t, func(t *testing.T, ctx context.Context, meanwhile func(func())) {
		l := listening(t)
		dialed := make(chan net.Conn, 1)
		meanwhile(func() {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Error(err)
			}
			dialed <- c
		})
		here, err := network.Accept(ctx, l)
		require.NoError(t, err)
		n, err := network.Write(ctx, here, []byte("ping"))
		require.NoError(t, err)
		require.Equal(t, 4, n)
		meanwhile(func() {
			there, b := <-dialed, make([]byte, 4)
			if _, err := io.ReadFull(there, b); err != nil {
				t.Error(err)
			}
			if _, err := there.Write([]byte("pong!")); err != nil {
				t.Error(err)
			}
			_ = there.Close()
		})
		b := make([]byte, 16)
		n, err = network.Read(ctx, here, b)
		require.NoError(t, err)
		require.Equal(t, "pong!", string(b[:n]))
		_, err = network.Read(ctx, here, b)
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, here.Close())
		_, err = network.Read(ctx, here, b)
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

func TestPackets(t *testing.T) {
	byAll(t, func(t *testing.T, ctx context.Context, meanwhile func(func())) {
		a, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		defer a.Close()
		b, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		defer b.Close()
		meanwhile(func() {
			if _, err := b.WriteTo([]byte("hello"), a.LocalAddr()); err != nil {
				t.Error(err)
			}
		})
		buf := make([]byte, 16)
		n, from, err := network.ReadFrom(ctx, a, buf)
		require.NoError(t, err)
		require.Equal(t, "hello", string(buf[:n]))
		require.Equal(t, b.LocalAddr().String(), from.String())
		n, err = network.WriteTo(ctx, a, []byte("you"), from)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		n, _, err = network.ReadFrom(ctx, b, buf)
		require.NoError(t, err)
		require.Equal(t, "you", string(buf[:n]))

		inner, cancel := context.WithCancelCause(ctx)
		meanwhile(func() { cancel(testkit.ErrEnd) })
		_, _, err = network.ReadFrom(inner, a, buf)
		require.ErrorIs(t, err, testkit.ErrEnd)
		_, err = network.WriteTo(inner, a, buf, from)
		require.ErrorIs(t, err, testkit.ErrEnd)
	})
}

// The end of ctx ends the wait, with its cause, and leaves the connection as it was.
func TestEndOfCtx(t *testing.T) {
	byAll(t, func(t *testing.T, ctx context.Context, meanwhile func(func())) {
		here, there := connected(t)
		full, _ := connected(t)
		l := listening(t)
		b := make([]byte, 16)
		for name, op := range map[string]func(ctx context.Context) error{
			"Read":   func(ctx context.Context) error { _, err := network.Read(ctx, here, b); return err },
			"Accept": func(ctx context.Context) error { _, err := network.Accept(ctx, l); return err },
			"Write": func(ctx context.Context) error {
				for {
					if _, err := network.Write(ctx, full, make([]byte, 1<<20)); err != nil {
						return err // nobody reads
					}
				}
			},
		} {
			inner, cancel := context.WithCancelCause(ctx)
			meanwhile(func() { cancel(testkit.ErrEnd) })
			require.ErrorIs(t, op(inner), testkit.ErrEnd, name)
			require.ErrorIs(t, op(inner), testkit.ErrEnd, "%s, and ctx has ended before", name)
		}
		// The next ones are not disturbed.
		meanwhile(func() {
			if _, err := there.Write([]byte("x")); err != nil {
				t.Error(err)
			}
		})
		n, err := network.Read(ctx, here, b)
		require.NoError(t, err)
		require.Positive(t, n)
		c, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		accepted, err := network.Accept(ctx, l)
		require.NoError(t, err)
		require.NoError(t, accepted.Close())
	})
}

// announcing tells when a Read begins.
type announcing struct {
	net.Conn
	reads chan struct{}
}

func (a *announcing) Read(b []byte) (int, error) {
	select {
	case a.reads <- struct{}{}:
	default:
	}
	return a.Conn.Read(b)
}

// A cancellation that comes at the very moment of the data does not fail the next read,
// and no byte is lost or read twice.
func TestLateStop(t *testing.T) {
	testkit.Guard(t)
	rounds := 5000
	if testing.Short() {
		rounds = 1000
	}
	plain, there := connected(t)
	here := &announcing{plain, make(chan struct{}, 1)}
	got := make([]byte, 0, rounds)
	b := make([]byte, 4)
	read := func(ctx context.Context) error {
		n, err := network.Read(ctx, here, b)
		got = append(got, b[:n]...)
		if n > 0 && err != nil {
			return fmt.Errorf("read %d and %w", n, err)
		}
		return err
	}
	cancelled := 0
	for i := range rounds {
		ctx, cancel := context.WithCancelCause(context.Background())
		var both sync.WaitGroup
		begun := make(chan struct{})
		both.Go(func() {
			<-here.reads
			close(begun)
			cancel(testkit.ErrEnd)
		})
		both.Go(func() {
			<-begun
			if _, err := there.Write([]byte{byte(i)}); err != nil {
				t.Error(err)
			}
		})
		if err := read(ctx); err != nil {
			require.ErrorIs(t, err, testkit.ErrEnd)
			cancelled++
			require.NoError(t, read(context.Background()), "the next one")
		}
		both.Wait()
		select {
		case <-here.reads:
		default:
		}
	}
	for len(got) < rounds {
		require.NoError(t, read(context.Background()))
	}
	for i, b := range got {
		require.Equal(t, byte(i), b)
	}
	t.Logf("%d of %d were cancelled", cancelled, rounds)
	require.NotZero(t, cancelled)
}

// Several wait on one listener, and one connection: who is cancelled does not disturb
// the others.
func TestCancelOneOfMany(t *testing.T) {
	testkit.Guard(t)
	l := listening(t)
	here, there := connected(t)
	for name, op := range map[string]func(ctx context.Context) error{
		"Accept": func(ctx context.Context) error {
			c, err := network.Accept(ctx, l)
			if err == nil {
				_ = c.Close()
			}
			return err
		},
		"Read": func(ctx context.Context) error {
			_, err := network.Read(ctx, here, make([]byte, 1))
			return err
		},
	} {
		const many, rounds = 4, 100
		patient := make(chan error, many)
		for range many {
			go func() { patient <- op(context.Background()) }()
		}
		for range rounds {
			var some sync.WaitGroup
			for range 3 {
				ctx, cancel := context.WithCancelCause(context.Background())
				some.Go(func() { cancel(testkit.ErrEnd) })
				some.Go(func() {
					if err := op(ctx); !errors.Is(err, testkit.ErrEnd) {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			some.Wait()
		}
		select {
		case err := <-patient:
			t.Errorf("%s: one that nobody has cancelled has ended with %v", name, err)
			patient <- err
		default:
		}
		for range many {
			if name == "Read" {
				_, err := there.Write([]byte("x"))
				require.NoError(t, err)
				continue
			}
			c, err := net.Dial("tcp", l.Addr().String())
			require.NoError(t, err)
			defer c.Close()
		}
		for range many {
			require.NoError(t, <-patient, name)
		}
	}
}

// filling is a connection whose Read fills its buffer, as that of a protocol with frames
// does.
type filling struct{ net.Conn }

func (f filling) Read(b []byte) (int, error) { return io.ReadFull(f.Conn, b) }

// cancelWaiting starts op and cancels it when it is one of so many operations under way.
func cancelWaiting(t *testing.T, number int, op func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	waiting := testkit.Start(func() error { return op(ctx) })
	testkit.Poll(t, func() string {
		if n := network.Operations(); n != number {
			return fmt.Sprintf("%d operations are under way", n)
		}
		return ""
	})
	cancel(testkit.ErrEnd)
	require.ErrorIs(t, waiting.Wait().Err, testkit.ErrEnd)
}

// A Write that waits behind another and is cancelled does not make that one write its
// first bytes again, nor a third one get between its bytes.
func TestWriteBehindAWriteIsCancelled(t *testing.T) {
	testkit.Guard(t)
	here, there := net.Pipe()
	write := func(ctx context.Context, what string) error {
		n, err := network.Write(ctx, here, []byte(what))
		if err == nil && n != len(what) {
			t.Errorf("wrote %d bytes of %q", n, what)
		}
		return err
	}
	first := testkit.Start(func() error { return write(context.Background(), "0123456789") })
	got := make([]byte, 4)
	_, err := io.ReadFull(there, got)
	require.NoError(t, err)
	cancelWaiting(t, 2, func(ctx context.Context) error { return write(ctx, "x") })
	third := testkit.Start(func() error { return write(context.Background(), "abc") })
	cancelWaiting(t, 3, func(ctx context.Context) error { return write(ctx, "x") })
	rest := make([]byte, 9)
	_, err = io.ReadFull(there, rest)
	require.NoError(t, err)
	require.Equal(t, "0123456789abc", string(got)+string(rest))
	require.NoError(t, first.Wait().Err)
	require.NoError(t, third.Wait().Err)
	require.NoError(t, here.Close())
	_, err = there.Read(rest)
	require.ErrorIs(t, err, io.EOF, "something was written twice")
}

// A Read that waits behind another and is cancelled does not cost that one the bytes that
// it has read.
func TestReadBehindAReadIsCancelled(t *testing.T) {
	testkit.Guard(t)
	here, there := net.Pipe()
	b := make([]byte, 8)
	first := testkit.Start(func() error {
		n, err := network.Read(context.Background(), filling{here}, b)
		b = b[:n]
		return err
	})
	_, err := there.Write([]byte("0123"))
	require.NoError(t, err)
	cancelWaiting(t, 2, func(ctx context.Context) error {
		_, err := network.Read(ctx, filling{here}, make([]byte, 8))
		return err
	})
	go func() {
		_, _ = there.Write([]byte("4567"))
		_ = there.Close()
	}()
	require.NoError(t, first.Wait().Err)
	require.Equal(t, "01234567", string(b))
}

// A deadline that somebody has set ends a Read as it ends that of the connection.
func TestDeadlineOfOthers(t *testing.T) {
	byAll(t, func(t *testing.T, ctx context.Context, _ func(func())) {
		here, _ := connected(t)
		require.NoError(t, here.SetReadDeadline(time.Unix(1, 0)))
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		_, err := network.Read(ctx, here, make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}

// What has no deadline is not accepted from with a ctx that may end.
func TestAcceptWithoutDeadline(t *testing.T) {
	testkit.Guard(t)
	l := tls.NewListener(listening(t), &tls.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := network.Accept(ctx, l)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	var c net.Conn
	dialed := make(chan struct{})
	go func() {
		defer close(dialed)
		var err error
		if c, err = net.Dial("tcp", l.Addr().String()); err != nil {
			t.Error(err)
		}
	}()
	accepted, err := network.Accept(context.Background(), l)
	require.NoError(t, err)
	<-dialed
	require.NoError(t, c.Close())
	require.NoError(t, accepted.Close())
}

// odd is a connection of somebody else's type, which cannot be compared, and whose Read
// ends as it likes.
type odd struct {
	net.Conn
	read func() error
	_    [0]func()
}

func (o odd) Read([]byte) (int, error)        { return 0, o.read() }
func (o odd) SetReadDeadline(time.Time) error { return nil }

// All three endings of an operation reach the caller, of every kind.
func TestEndingsOfOperations(t *testing.T) {
	testkit.Guard(t)
	for _, c := range libkit.Callers {
		for _, end := range testkit.Ends {
			end.Check(t, testkit.OutcomeOf(func() error {
				return c.Run(context.Background(), func(ctx context.Context) error {
					ctx, cancel := context.WithCancel(ctx)
					defer cancel()
					_, err := network.Read(ctx, odd{read: end.Do}, nil)
					return err
				})
			}), c.Name)
		}
	}
}

// partial is a connection whose deadline passes when some of the data has come. began is
// called when an operation has begun.
type partial struct {
	net.Conn
	began  func()
	passed chan struct{}
}

func (p *partial) Read([]byte) (int, error) {
	p.began()
	<-p.passed
	return 1, os.ErrDeadlineExceeded
}

func (p *partial) Write(b []byte) (int, error) { return p.Read(b) }

func (p *partial) SetReadDeadline(at time.Time) error {
	if !at.IsZero() {
		close(p.passed)
	}
	return nil
}
func (p *partial) SetWriteDeadline(at time.Time) error { return p.SetReadDeadline(at) }

// A connection of a type that can be compared may have one in it that cannot.
func TestUncomparableConnInside(t *testing.T) {
	testkit.Guard(t)
	c := struct{ net.Conn }{odd{read: func() error { return io.EOF }}}
	_, err := network.Read(context.Background(), c, nil)
	require.ErrorIs(t, err, io.EOF)
	require.Zero(t, network.Lines())
}

// awkward is a connection whose SetReadDeadline does something more.
type awkward struct {
	announcing
	also func(at time.Time)
}

func (a *awkward) SetReadDeadline(at time.Time) error {
	err := a.announcing.SetReadDeadline(at)
	a.also(at)
	return err
}

// All three endings of SetReadDeadline, where it interrupts and where the deadline is taken
// back, reach the Read that was interrupted, and no other.
func TestEndingsOfSetDeadline(t *testing.T) {
	testkit.Guard(t)
	for _, back := range []bool{false, true} {
		for _, end := range testkit.Ends {
			here, there := net.Pipe()
			c := &awkward{announcing{here, make(chan struct{}, 1)}, func(at time.Time) {
				if at.IsZero() == back {
					_ = end.Do()
				}
			}}
			read := func(ctx context.Context) error {
				_, err := network.Read(ctx, c, make([]byte, 1))
				return err
			}
			ctx, cancel := context.WithCancelCause(context.Background())
			first := testkit.Start(func() error { return read(ctx) })
			<-c.reads
			other := testkit.Start(func() error { return read(context.Background()) })
			testkit.Poll(t, func() string {
				if network.Operations() < 2 {
					return "the other one does not begin"
				}
				return ""
			})
			cancel(testkit.ErrEnd)
			end.Check(t, first.Wait(), "back: ", back)
			_, err := there.Write([]byte("x"))
			require.NoError(t, err)
			require.Equal(t, testkit.Outcome{How: "return"}, other.Wait())
			require.Zero(t, network.Lines())
			require.NoError(t, there.Close())
			require.NoError(t, here.Close())
		}
	}
}

// timeout is the error of a connection of somebody else's whose deadline has passed.
type timeout bool

func (e timeout) Error() string   { return "timeout" }
func (e timeout) Timeout() bool   { return bool(e) }
func (e timeout) Temporary() bool { return bool(e) }

// The end of ctx is told by its cause, whatever a connection says when its deadline has
// passed. Another failure at that moment is told.
func TestTimeoutsOfOthers(t *testing.T) {
	testkit.Guard(t)
	for _, c := range []struct{ err, want error }{
		{timeout(true), testkit.ErrEnd},
		{&net.OpError{Op: "read", Err: timeout(true)}, testkit.ErrEnd},
		{fmt.Errorf("wrapped: %w", timeout(true)), testkit.ErrEnd},
		{fmt.Errorf("wrapped: %w", os.ErrDeadlineExceeded), testkit.ErrEnd},
		{timeout(false), timeout(false)},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}, syscall.ETIMEDOUT},
		{io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
	} {
		ctx, cancel := context.WithCancelCause(context.Background())
		passed := make(chan struct{})
		conn := &setting{read: func() error { cancel(testkit.ErrEnd); <-passed; return c.err }, set: func(at time.Time) {
			if !at.IsZero() {
				close(passed)
			}
		}}
		_, err := network.Read(ctx, conn, nil)
		require.ErrorIs(t, err, c.want)
		require.Equal(t, c.want == testkit.ErrEnd, err == testkit.ErrEnd, "%v", c.err)
	}
	// Of a ctx that has not ended it is the deadline of somebody else.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := network.Read(ctx, odd{read: func() error { return timeout(true) }}, nil)
	require.Equal(t, timeout(true), err)
}

// setting is a connection whose Read ends as it likes, and which tells of its deadlines.
type setting struct {
	net.Conn
	read func() error
	set  func(at time.Time)
}

func (s *setting) Read(b []byte) (int, error)         { return len(b), s.read() }
func (s *setting) SetReadDeadline(at time.Time) error { s.set(at); return nil }

// A ctx that ends during an operation takes the deadline away that somebody else has set,
// also if the operation has succeeded. A ctx that does not end leaves it alone.
func TestDeadlineAfterTheEndOfCtx(t *testing.T) {
	testkit.Guard(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var deadlines []bool // those that are set, true if that is one
	ends := false
	passed := make(chan struct{})
	c := &setting{
		read: func() error {
			if ends {
				cancel(testkit.ErrEnd)
				<-passed
			}
			return nil
		},
		set: func(at time.Time) {
			deadlines = append(deadlines, !at.IsZero())
			if !at.IsZero() {
				close(passed)
			}
		},
	}
	_, err := network.Read(ctx, c, make([]byte, 1))
	require.NoError(t, err)
	require.Empty(t, deadlines)
	ends = true
	n, err := network.Read(ctx, c, make([]byte, 1))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, []bool{true, false}, deadlines)
}

// What was read is no failure, what was not written is one, though both were
// interrupted.
func TestInterruptedInTheMiddle(t *testing.T) {
	testkit.Guard(t)
	underWay := func() (context.Context, net.Conn) {
		ctx, cancel := context.WithCancelCause(context.Background())
		return ctx, &partial{began: func() { cancel(testkit.ErrEnd) }, passed: make(chan struct{})}
	}
	ctx, c := underWay()
	n, err := network.Read(ctx, c, make([]byte, 2))
	require.NoError(t, err)
	require.Equal(t, 1, n)

	ctx, c = underWay()
	n, err = network.Write(ctx, c, make([]byte, 2))
	require.ErrorIs(t, err, testkit.ErrEnd)
	require.Equal(t, 1, n)

	ctx, c = underWay()
	n, err = network.Write(ctx, c, make([]byte, 1))
	require.NoError(t, err, "all of it")
	require.Equal(t, 1, n)
	require.Zero(t, network.Lines(), "nothing is under way")
}

func TestMisuse(t *testing.T) {
	ctx := context.Background()
	c, _ := net.Pipe()
	defer c.Close()
	for _, fn := range []func(){
		func() { _, _ = network.Read(noCtx, c, nil) },
		func() { _, _ = network.Read(ctx, nil, nil) },
		func() { _, _ = network.Write(noCtx, c, nil) },
		func() { _, _ = network.Accept(ctx, nil) },
		func() { _ = network.Serve(ctx, listening(t), nil, nil) },
		func() { _, _ = network.ListenAll(noCtx, "tcp", nil, 0) },
		func() { _, _ = network.ListenAll(ctx, "tcp", nil, 0, network.Delay(1)) },
		func() { _, _ = network.DialStaggered(ctx, "tcp", "", network.WithListenConfig(net.ListenConfig{})) },
		func() { network.WithResolver(nil) },
		func() { network.WithDial(nil) },
		func() { _, _ = network.WrapConn(nil) },
	} {
		testkit.RequireMisuse(t, "network", fn)
	}
}

// counting is a listener without a deadline, whose connections count in open. dated has
// one.
type counting struct {
	net.Listener
	open *atomic.Int32
}

func (l counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.open.Add(1)
		c = &counted{Conn: c, open: l.open}
	}
	return c, err
}

type dated struct{ counting }

func (l dated) SetDeadline(at time.Time) error { return l.Listener.(*net.TCPListener).SetDeadline(at) }

// A Goexit of a call that a thread serves on top of Accept takes the wait with it. The
// connection that comes then is nobody's, and is closed; or Accept had not come to it,
// and the listener has it.
func TestGoexitOnTopOfAccept(t *testing.T) {
	testkit.Guard(t)
	for _, deadline := range []bool{true, false} {
		var open atomic.Int32
		l := net.Listener(counting{listening(t), &open})
		if deadline {
			l = dated{l.(counting)}
		}
		dialed := make(chan net.Conn, 1)
		o := testkit.OutcomeOf(func() error {
			pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
			defer pool.Close()
			defer tsc.Close()
			_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				go func() {
					_, _ = asyncsync.ToThread(ctx, func(context.Context) (int, error) {
						c, err := net.Dial("tcp", l.Addr().String())
						if err != nil {
							t.Error(err)
						}
						dialed <- c
						runtime.Goexit()
						return 0, nil
					})
				}()
				_, err := network.Accept(context.WithoutCancel(ctx), l)
				return 0, err
			})
			return err
		})
		require.Equal(t, "goexit", o.How)
		testkit.Poll(t, func() string {
			if open.Load() != 0 {
				return "accepted, and not closed"
			}
			return ""
		})
		c := <-dialed
		defer c.Close()
		require.NoError(t, l.Close())
		_, err := c.Read(make([]byte, 1))
		require.Error(t, err)
	}
}

// cutShort calls op on a thread. When op has begun, which it says, two calls are served on
// top of it that end by Goexit. The second one ends the wait of op for what it has called.
func cutShort(t *testing.T, op func(ctx context.Context, begun func())) {
	t.Helper()
	ctx, _ := libkit.NewContext(t)
	begun := make(chan struct{})
	o := testkit.OutcomeOf(func() error {
		return libkit.To(ctx, func(ctx context.Context) error {
			for range 2 {
				go func() {
					<-begun
					_ = libkit.To(ctx, func(context.Context) error { runtime.Goexit(); return nil })
				}()
			}
			op(ctx, sync.OnceFunc(func() { close(begun) }))
			return nil
		})
	})
	require.Equal(t, testkit.Outcome{How: "goexit"}, o)
}

// telling is a listener that calls begun when it is about to accept.
type telling struct {
	net.Listener
	begun func()
}

func (l *telling) Accept() (net.Conn, error) {
	l.begun()
	return l.Listener.Accept()
}

type datedTelling struct{ *telling }

func (l datedTelling) SetDeadline(at time.Time) error {
	return l.Listener.(*net.TCPListener).SetDeadline(at)
}

// A second Goexit on top of an Accept does not wait for the listener. The Accept ends all the
// same, and the next connection is for the next Accept.
func TestTwoGoexitsOnTopOfAccept(t *testing.T) {
	testkit.Guard(t)
	l := listening(t)
	cutShort(t, func(ctx context.Context, begun func()) {
		_, _ = network.Accept(ctx, datedTelling{&telling{l, begun}})
	})
	testkit.Poll(t, func() string {
		if network.Lines() != 0 {
			return "the Accept that nobody waits for goes on"
		}
		return ""
	})
	here, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer here.Close()
	there, err := network.Accept(context.Background(), l)
	require.NoError(t, err)
	defer there.Close()
	require.Equal(t, here.LocalAddr().String(), there.RemoteAddr().String())
}

// An Accept that nothing can interrupt closes the connection that it gets for nobody.
func TestTwoGoexitsOnTopOfAcceptWithoutDeadline(t *testing.T) {
	testkit.Guard(t)
	l := listening(t)
	cutShort(t, func(ctx context.Context, begun func()) {
		_, _ = network.Accept(context.WithoutCancel(ctx), &telling{l, begun})
	})
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Read(make([]byte, 1)) // nobody writes
	require.ErrorIs(t, err, io.EOF)
}

// After a second Goexit on top of them, DialStaggered and ListenAll end the ctx of what they
// have called, and leave nothing open.
func TestTwoGoexitsOnTopOfOthers(t *testing.T) {
	testkit.Guard(t)
	var open, dials atomic.Int32
	cutShort(t, func(ctx context.Context, begun func()) {
		_, _ = network.DialStaggered(ctx, "tcp", "127.0.0.1:80",
			network.WithDial(func(ctx context.Context, _ string, _, _ netip.AddrPort) (net.Conn, error) {
				begun()
				<-ctx.Done()
				c := pipe(&open)
				dials.Add(1)
				return c, nil
			}))
	})
	testkit.Poll(t, func() string {
		if dials.Load() != 1 || open.Load() != 0 {
			return "the connection stays open"
		}
		return ""
	})

	found := make(chan struct{})
	cutShort(t, func(ctx context.Context, begun func()) {
		_, _ = network.ListenAll(ctx, "tcp", []string{"host"}, 0,
			network.WithResolver(ending{names{"host": addrs("127.0.0.1")}, func(ctx context.Context) {
				defer close(found)
				begun()
				<-ctx.Done()
			}}),
			network.WithListenConfig(net.ListenConfig{Control: func(string, string, syscall.RawConn) error {
				t.Error("a socket is opened for nobody")
				return nil
			}}))
	})
	<-found

	release, bound := make(chan struct{}), make(chan string, 1)
	cutShort(t, func(ctx context.Context, begun func()) {
		_, _ = network.ListenAll(ctx, "tcp", []string{"127.0.0.1", "127.0.0.2"}, 0,
			network.WithListenConfig(net.ListenConfig{Control: func(_, address string, _ syscall.RawConn) error {
				if host, port, err := net.SplitHostPort(address); err == nil && host == "127.0.0.2" {
					bound <- port // of both
					begun()
					<-release
				}
				return nil
			}}))
	})
	close(release)
	port := <-bound
	testkit.Poll(t, func() string {
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			return "the socket stays open"
		}
		_ = l.Close()
		return ""
	})
}
