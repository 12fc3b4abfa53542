package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/network"
	"asyncsync.dev/task"
)

// A script says what becomes of the attempt at an address: after so long, an error or a
// connection. A stubborn attempt does not look at its ctx.
type script struct {
	after    time.Duration
	err      error
	stubborn bool
}

// A stage plays scripts, and notes who came when.
type stage struct {
	scripts map[string]script
	open    atomic.Int32 // connections

	mu    sync.Mutex
	begun time.Time
	lines []string
}

func (s *stage) dial(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error) {
	s.mu.Lock()
	line := fmt.Sprintf("%s %s at %v", network, remote.Addr(), time.Since(s.begun))
	if local.IsValid() {
		line += " from " + local.Addr().String()
	}
	s.lines = append(s.lines, line)
	s.mu.Unlock()
	p := s.scripts[remote.Addr().String()]
	done := ctx.Done()
	if p.stubborn {
		done = nil
	}
	select {
	case <-time.After(p.after):
	case <-done:
		return nil, ctx.Err()
	}
	if p.err != nil {
		return nil, p.err
	}
	return &named{pipe(&s.open), remote.Addr().String()}, nil
}

func (s *stage) log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines
}

type named struct {
	net.Conn
	to string
}

// play dials the addresses in a bubble. The bubble ends when all attempts have.
func play(t *testing.T, hosts []string, scripts map[string]script, test func(s *stage, dial func(ctx context.Context, opts ...network.Option) (string, error)), opts ...network.Option) {
	t.Helper()
	testkit.Guard(t)
	synctest.Test(t, func(t *testing.T) {
		s := &stage{scripts: scripts, begun: time.Now()}
		opts := append([]network.Option{network.WithResolver(names{"host": addrs(hosts...)}), network.WithDial(s.dial)}, opts...)
		test(s, func(ctx context.Context, more ...network.Option) (string, error) {
			c, err := network.DialStaggered(ctx, "tcp", "host:80", append(opts, more...)...)
			if err != nil {
				return "", err
			}
			require.NoError(t, c.Close())
			return c.(*named).to, nil
		})
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Zero(t, s.open.Load(), "connections that nobody has closed")
	})
}

const never = 24 * time.Hour

var errRefused = errors.New("refused")

// IPv6 first, families in turns, and one every 250 ms; a stubborn loser that connects
// late is closed.
func TestDialStaggers(t *testing.T) {
	play(t, []string{"10.0.0.1", "10.0.0.2", "::ffff:10.0.0.3", "fd00::1", "fd00::2"}, map[string]script{
		"fd00::1": {after: never}, "10.0.0.1": {after: time.Second, stubborn: true}, "fd00::2": {after: never},
		"10.0.0.2": {after: 100 * time.Millisecond}, "10.0.0.3": {},
	}, func(s *stage, dial func(context.Context, ...network.Option) (string, error)) {
		to, err := dial(context.Background())
		require.NoError(t, err)
		require.Equal(t, "10.0.0.2", to)
		require.Equal(t, 850*time.Millisecond, time.Since(s.begun))
		require.Equal(t, []string{"tcp6 fd00::1 at 0s", "tcp4 10.0.0.1 at 250ms", "tcp6 fd00::2 at 500ms", "tcp4 10.0.0.2 at 750ms"}, s.log())
	})
}

// The next one is tried at once when one fails, whether others are under way or not.
func TestDialGoesOnAfterAFailure(t *testing.T) {
	play(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}, map[string]script{
		"10.0.0.1": {after: 10 * time.Millisecond, err: errRefused}, "10.0.0.2": {after: never},
		"10.0.0.3": {after: 20 * time.Millisecond, err: errRefused}, "10.0.0.4": {after: time.Millisecond},
	}, func(s *stage, dial func(context.Context, ...network.Option) (string, error)) {
		to, err := dial(context.Background(), network.Delay(time.Second))
		require.NoError(t, err)
		require.Equal(t, "10.0.0.4", to)
		require.Equal(t, []string{"tcp4 10.0.0.1 at 0s", "tcp4 10.0.0.2 at 10ms", "tcp4 10.0.0.3 at 1.01s", "tcp4 10.0.0.4 at 1.03s"}, s.log())
	})
}

// Without a delay all are tried at once.
func TestDialAllAtOnce(t *testing.T) {
	play(t, []string{"10.0.0.1", "10.0.0.2"}, map[string]script{
		"10.0.0.1": {after: time.Second}, "10.0.0.2": {after: time.Second / 2},
	}, func(s *stage, dial func(context.Context, ...network.Option) (string, error)) {
		to, err := dial(context.Background(), network.Delay(0))
		require.NoError(t, err)
		require.Equal(t, "10.0.0.2", to)
		require.Equal(t, time.Second/2, time.Since(s.begun))
	})
}

// Two that connect at the same instant: one is returned, the other is closed.
func TestDialTwoWinners(t *testing.T) {
	play(t, []string{"10.0.0.1", "10.0.0.2"}, map[string]script{
		"10.0.0.1": {after: 500 * time.Millisecond}, "10.0.0.2": {after: 250 * time.Millisecond},
	}, func(s *stage, dial func(context.Context, ...network.Option) (string, error)) {
		_, err := dial(context.Background())
		require.NoError(t, err)
	})
}

// All errors are told, in the order of the addresses.
func TestDialAllFail(t *testing.T) {
	one, two := errors.New("one"), errors.New("two")
	play(t, []string{"10.0.0.1", "10.0.0.2"}, map[string]script{
		"10.0.0.1": {after: time.Second, err: one}, "10.0.0.2": {after: time.Millisecond, err: two},
	}, func(s *stage, dial func(context.Context, ...network.Option) (string, error)) {
		_, err := dial(context.Background())
		require.EqualError(t, err, "one\ntwo")
		require.ErrorIs(t, err, one)
		require.ErrorIs(t, err, two)
	})
}

// The end of ctx ends all attempts, and is told by its cause; who connects late is
// closed.
func TestDialEndOfCtx(t *testing.T) {
	play(t, []string{"10.0.0.1", "10.0.0.2"}, map[string]script{
		"10.0.0.1": {after: never}, "10.0.0.2": {after: time.Minute, stubborn: true},
	}, func(s *stage, dial func(context.Context, ...network.Option) (string, error)) {
		ctx, cancel := context.WithTimeoutCause(context.Background(), time.Second, testkit.ErrEnd)
		defer cancel()
		_, err := dial(ctx)
		require.ErrorIs(t, err, testkit.ErrEnd)
		require.Equal(t, time.Second, time.Since(s.begun))
		_, err = dial(ctx)
		require.ErrorIs(t, err, testkit.ErrEnd)
		require.Len(t, s.log(), 2)
	})
}

// A local address of the family of each remote one; where there is none the attempt
// fails.
func TestDialFromLocalAddr(t *testing.T) {
	local := network.LocalAddr(netip.MustParseAddrPort("10.1.0.1:0"), netip.MustParseAddrPort("10.1.0.2:0"))
	play(t, []string{"fd00::1", "10.0.0.1"}, map[string]script{"10.0.0.1": {}},
		func(s *stage, dial func(context.Context, ...network.Option) (string, error)) {
			to, err := dial(context.Background(), local)
			require.NoError(t, err)
			require.Equal(t, "10.0.0.1", to)
			require.Equal(t, []string{"tcp4 10.0.0.1 at 0s from 10.1.0.1"}, s.log())
		})
	play(t, []string{"fd00::1"}, nil, func(s *stage, dial func(context.Context, ...network.Option) (string, error)) {
		_, err := dial(context.Background(), local)
		var of *net.AddrError
		require.ErrorAs(t, err, &of)
		require.Empty(t, s.log())
	})
	play(t, []string{"10.0.0.1"}, map[string]script{"10.0.0.1": {err: errRefused}},
		func(s *stage, dial func(context.Context, ...network.Option) (string, error)) {
			_, err := dial(context.Background(), local)
			require.ErrorIs(t, err, errRefused)
			require.Len(t, s.log(), 2)
		})
}

// All three endings of an attempt reach the caller, when the others have ended and their
// connections are closed.
func TestDialEndings(t *testing.T) {
	testkit.Guard(t)
	for _, end := range testkit.Ends {
		synctest.Test(t, func(t *testing.T) {
			s := &stage{scripts: map[string]script{"10.0.0.1": {after: time.Minute, stubborn: true}}, begun: time.Now()}
			o := testkit.OutcomeOf(func() error {
				_, err := network.DialStaggered(context.Background(), "tcp", "host:80", network.Delay(0),
					network.WithResolver(names{"host": addrs("10.0.0.1", "10.0.0.2")}),
					network.WithDial(func(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error) {
						if remote.Addr().String() == "10.0.0.2" {
							return nil, end.Do()
						}
						c, err := s.dial(ctx, network, local, remote)
						return c, errors.Join(err)
					}))
				return err
			})
			if end.How == "return" { // the other one wins
				require.Equal(t, testkit.Outcome{How: "return"}, o)
				require.EqualValues(t, 1, s.open.Load())
				return
			}
			end.Check(t, o)
			require.Equal(t, time.Minute, time.Since(s.begun), "the other one has ended")
			require.Zero(t, s.open.Load())
		})
	}
}

// closing is a connection whose Close ends as it likes.
type closing struct {
	net.Conn
	close func() error
}

func (c *closing) Close() error { return c.close() }

// All three endings of the Close of a connection that nobody gets are told to the hooks. They
// reach neither the caller nor the process.
func TestDialEndingsOfClose(t *testing.T) {
	testkit.Guard(t)
	for _, end := range testkit.Ends {
		for _, c := range []struct {
			why   string
			first func(ctx context.Context) (net.Conn, error)
			ends  bool // the second attempt ends ctx before it connects
			want  testkit.Outcome
		}{
			{
				why:   "the first has won",
				first: func(context.Context) (net.Conn, error) { return pipe(new(atomic.Int32)), nil },
				want:  testkit.Outcome{How: "return"},
			}, {
				why:   "the first has panicked",
				first: func(context.Context) (net.Conn, error) { panic(testkit.ErrEnd) },
				want:  testkit.Outcome{How: "panic", Value: testkit.ErrEnd},
			}, {
				why:   "ctx has ended",
				first: func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
				ends:  true,
				want:  testkit.Outcome{How: "return", Err: testkit.ErrEnd},
			},
		} {
			heard := libkit.Listen(t)
			closed := false
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(context.Background())
				defer cancel(nil)
				o := testkit.OutcomeOf(func() error {
					_, err := network.DialStaggered(ctx, "tcp", "host:80", network.Delay(0),
						network.WithResolver(names{"host": addrs("10.0.0.1", "10.0.0.2")}),
						network.WithDial(func(ctx context.Context, _ string, _, remote netip.AddrPort) (net.Conn, error) {
							if remote.Addr().String() == "10.0.0.1" {
								return c.first(ctx)
							}
							if c.ends {
								cancel(testkit.ErrEnd)
							}
							<-ctx.Done()
							return &closing{close: func() error { closed = true; return end.Do() }}, nil
						}))
					return err
				})
				require.Equal(t, c.want, o, "%s, and Close ends with a %s", c.why, end.How)
				synctest.Wait()
				require.True(t, closed, c.why)
			})
			panics, goexits := heard.Unheard()
			if c.want.How == "panic" { // the caller has got the other
				panics = slices.DeleteFunc(panics, func(v any) bool { return v == testkit.ErrEnd })
			}
			require.Equal(t, end.How == "panic", len(panics) == 1, "%s: %v", c.why, panics)
			require.Equal(t, end.How == "goexit", goexits == 1, c.why)
		}
	}
}

// What comes together with an error is ignored, in time and late: it may be a nil pointer.
func TestDialConnWithAnError(t *testing.T) {
	testkit.Guard(t)
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var none *closing
			closed := false
			c, err := network.DialStaggered(context.Background(), "tcp", "host:80", network.Delay(0),
				network.WithResolver(names{"host": addrs("10.0.0.1", "10.0.0.2", "10.0.0.3")}),
				network.WithDial(func(ctx context.Context, _ string, _, remote netip.AddrPort) (net.Conn, error) {
					of := remote.Addr().String()
					if of == "10.0.0.3" {
						if !late {
							time.Sleep(time.Second) // the others have failed
						}
						return pipe(new(atomic.Int32)), nil
					}
					if late {
						<-ctx.Done()
					}
					if of == "10.0.0.1" {
						return none, errRefused
					}
					return &closing{close: func() error { closed = true; return nil }}, errRefused
				}))
			require.NoError(t, err)
			require.NoError(t, c.Close())
			synctest.Wait()
			require.False(t, closed)
		})
	}
}

// Real connections, for callers of every kind: the first addresses refuse, the others are
// no hosts.
func TestDialReal(t *testing.T) {
	byAll(t, func(t *testing.T, ctx context.Context, meanwhile func(func())) {
		l := listening(t)
		port := fmt.Sprint(portOf(t, l.Addr()))
		ran := make(chan struct{})
		meanwhile(func() { close(ran) })
		// Nobody listens there at 127.0.0.2 and 127.0.0.3.
		c, err := network.DialStaggered(ctx, "tcp", net.JoinHostPort("host", port),
			network.WithResolver(names{"host": addrs("127.0.0.2", "127.0.0.3", "127.0.0.1")}))
		require.NoError(t, err)
		require.Equal(t, l.Addr().String(), c.RemoteAddr().String())
		require.NoError(t, c.Close())
		c, err = network.DialStaggered(ctx, "tcp4", "127.0.0.1:"+port, network.LocalAddr(netip.MustParseAddrPort("127.0.0.9:0")))
		require.NoError(t, err)
		require.Equal(t, "127.0.0.9", c.LocalAddr().(*net.TCPAddr).IP.String())
		require.NoError(t, c.Close())
		c, err = network.DialStaggered(ctx, "tcp4", ":"+port)
		require.NoError(t, err)
		require.NoError(t, c.Close())

		_, err = network.DialStaggered(ctx, "tcp", "127.0.0.2:"+port)
		require.ErrorContains(t, err, "refused")
		var unknown net.UnknownNetworkError
		_, err = network.DialStaggered(ctx, "udp", "127.0.0.1:"+port)
		require.ErrorAs(t, err, &unknown)
		var of *net.AddrError
		_, err = network.DialStaggered(ctx, "tcp", "127.0.0.1")
		require.ErrorAs(t, err, &of)
		_, err = network.DialStaggered(ctx, "tcp6", "127.0.0.1:"+port)
		require.ErrorAs(t, err, &of)
		_, err = network.DialStaggered(ctx, "tcp", "host:no such service")
		require.Error(t, err)
		// A dial may be over before the other function has got to the thread.
		_, _, err = task.Recv(ctx, ran)
		require.NoError(t, err)
	})
}
