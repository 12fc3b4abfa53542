package network_test

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/network"
)

// names is a resolver that knows these hosts.
type names map[string][]netip.Addr

func (n names) LookupNetIP(ctx context.Context, family, host string) ([]netip.Addr, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	addrs, ok := n[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

func addrs(list ...string) (all []netip.Addr) {
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func portOf(t *testing.T, a net.Addr) int {
	t.Helper()
	_, port, err := net.SplitHostPort(a.String())
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	return n
}

// ListenAll listens on every address of every host, in order, once, with one port for all,
// for callers of every kind.
func TestListenAll(t *testing.T) {
	known := names{"many": addrs("127.0.0.2", "::ffff:127.0.0.3"), "one": addrs("127.0.0.2")}
	byAll(t, func(t *testing.T, ctx context.Context, meanwhile func(func())) {
		hosts := []string{"127.0.0.1", "many", "one"}
		ls, err := network.ListenAll(ctx, "tcp", hosts, 0, network.WithResolver(known))
		require.NoError(t, err)
		var at []string
		port := portOf(t, ls[0].Addr())
		require.NotZero(t, port)
		for _, l := range ls {
			defer l.Close()
			host, _, err := net.SplitHostPort(l.Addr().String())
			require.NoError(t, err)
			at = append(at, host)
			require.Equal(t, port, portOf(t, l.Addr()))
		}
		require.Equal(t, []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}, at)
		for _, l := range ls {
			dialed := make(chan struct{})
			meanwhile(func() {
				defer close(dialed)
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.Close()
			})
			c, err := network.Accept(ctx, l)
			require.NoError(t, err)
			require.NoError(t, c.Close())
			<-dialed
		}
		ps, err := network.ListenAllPacket(ctx, "udp4", hosts, 0, network.WithResolver(known))
		require.NoError(t, err)
		require.Len(t, ps, 3)
		for _, p := range ps {
			require.Equal(t, portOf(t, ps[0].LocalAddr()), portOf(t, p.LocalAddr()))
			require.NoError(t, p.Close())
		}
	})
}

// Every interface: one socket for each family that there is, and they do not get into
// each other's way.
func TestListenEverywhere(t *testing.T) {
	testkit.Guard(t)
	for _, hosts := range [][]string{nil, {""}} {
		ls, err := network.ListenAll(context.Background(), "tcp", hosts, 0)
		require.NoError(t, err)
		families := map[bool]bool{}
		for _, l := range ls {
			defer l.Close()
			at := l.Addr().(*net.TCPAddr)
			require.True(t, at.IP.IsUnspecified())
			require.False(t, families[at.IP.To4() != nil])
			families[at.IP.To4() != nil] = true
			require.Equal(t, portOf(t, ls[0].Addr()), at.Port)
		}
		require.NotEmpty(t, ls)
		ls, err = network.ListenAll(context.Background(), "tcp4", hosts, 0)
		require.NoError(t, err)
		require.Len(t, ls, 1)
		require.NoError(t, ls[0].Close())
	}
}

// All or nothing: what was opened is closed, and all errors are told.
func TestListenAllOrNothing(t *testing.T) {
	testkit.Guard(t)
	ctx := context.Background()
	// 198.51.100.0/24 is nobody's.
	_, err := network.ListenAll(ctx, "tcp", []string{"127.0.0.1", "198.51.100.1", "198.51.100.2", "127.0.0.2"}, 0)
	require.ErrorContains(t, err, "198.51.100.1")
	require.ErrorContains(t, err, "198.51.100.2")
	require.NotContains(t, err.Error(), "127.0.0")

	// One of the addresses is taken: the others are free again.
	taken, err := net.Listen("tcp", "127.0.0.2:0")
	require.NoError(t, err)
	defer taken.Close()
	port := portOf(t, taken.Addr())
	_, err = network.ListenAll(ctx, "tcp", []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}, port)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	ls, err := network.ListenAll(ctx, "tcp", []string{"127.0.0.1", "127.0.0.3"}, port)
	require.NoError(t, err)
	for _, l := range ls {
		require.NoError(t, l.Close())
	}

	// Hosts that are not known, and those without a fitting address.
	known := names{"v6": addrs("::1"), "none": nil}
	_, err = network.ListenAll(ctx, "tcp", []string{"127.0.0.1", "nobody", "no one"}, 0, network.WithResolver(known))
	require.ErrorContains(t, err, "nobody")
	require.ErrorContains(t, err, "no one")
	var of *net.AddrError
	_, err = network.ListenAll(ctx, "tcp4", []string{"v6"}, 0, network.WithResolver(known))
	require.ErrorAs(t, err, &of)
	_, err = network.ListenAll(ctx, "tcp", []string{"none"}, 0, network.WithResolver(known))
	require.ErrorAs(t, err, &of)
	_, err = network.ListenAll(ctx, "tcp", nil, -1)
	require.ErrorAs(t, err, &of)
	var unknown net.UnknownNetworkError
	for _, n := range []string{"", "udp", "tcp5", "unix"} {
		_, err = network.ListenAll(ctx, n, nil, 0)
		require.ErrorAs(t, err, &unknown)
	}
}

// A port that the first address has chosen, and that is taken at another one, is given
// up for one that is free at all.
func TestListenAllSearchesAPort(t *testing.T) {
	testkit.Guard(t)
	var (
		first  int
		thief  net.Listener
		rounds int
	)
	lc := net.ListenConfig{Control: func(_, address string, _ syscall.RawConn) error {
		at := netip.MustParseAddrPort(address)
		if at.Addr() != netip.MustParseAddr("127.0.0.2") {
			return nil
		}
		if rounds++; rounds == 1 { // somebody is faster
			first = int(at.Port())
			var err error
			thief, err = net.Listen("tcp", address)
			return err
		}
		return nil
	}}
	ls, err := network.ListenAll(context.Background(), "tcp", []string{"127.0.0.1", "127.0.0.2"}, 0, network.WithListenConfig(lc))
	require.NoError(t, err)
	require.NoError(t, thief.Close())
	require.GreaterOrEqual(t, rounds, 2)
	require.Len(t, ls, 2)
	for _, l := range ls {
		require.NotEqual(t, first, portOf(t, l.Addr()))
		require.Equal(t, portOf(t, ls[0].Addr()), portOf(t, l.Addr()))
		require.NoError(t, l.Close())
	}
}

// slow is a resolver that waits for the end of ctx, or ends as it likes.
type slow func(ctx context.Context) error

func (s slow) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) { return nil, s(ctx) }

// All hosts are looked up at the same time, and the end of ctx ends that.
func TestListenAllLooksUpConcurrently(t *testing.T) {
	byAll(t, func(t *testing.T, ctx context.Context, meanwhile func(func())) {
		ctx, cancel := context.WithCancelCause(ctx)
		var both sync.WaitGroup
		both.Add(2)
		meanwhile(func() {
			both.Wait()
			cancel(testkit.ErrEnd)
		})
		_, err := network.ListenAll(ctx, "tcp", []string{"a", "b"}, 0, network.WithResolver(slow(func(ctx context.Context) error {
			both.Done()
			<-ctx.Done()
			return ctx.Err()
		})))
		require.ErrorIs(t, err, testkit.ErrEnd)
		_, err = network.ListenAll(ctx, "tcp", []string{"127.0.0.1"}, 0)
		require.ErrorIs(t, err, testkit.ErrEnd)
	})
}

// ending is a resolver that ends a ctx or waits for its end, and finds what there is all the
// same.
type ending struct {
	names
	end func(ctx context.Context)
}

func (e ending) LookupNetIP(ctx context.Context, family, host string) ([]netip.Addr, error) {
	e.end(ctx)
	return e.names.LookupNetIP(context.Background(), family, host)
}

// A ctx that ends while hosts are looked up, or sockets are opened, leaves no socket, though
// nothing of that fails.
func TestListenAllWhenCtxEnds(t *testing.T) {
	testkit.Guard(t)
	for _, when := range []string{"looking up", "first socket", "last socket"} {
		ctx, cancel := context.WithCancelCause(context.Background())
		sockets := map[string]string{}
		lc := net.ListenConfig{Control: func(_, address string, _ syscall.RawConn) error {
			host, port, err := net.SplitHostPort(address)
			if sockets[host] = port; when == "first socket" || when == "last socket" && host == "127.0.0.2" {
				cancel(testkit.ErrEnd)
			}
			return err
		}}
		r := ending{names{"host": addrs("127.0.0.1", "127.0.0.2")}, func(context.Context) {
			if when == "looking up" {
				cancel(testkit.ErrEnd)
			}
		}}
		ls, err := network.ListenAll(ctx, "tcp", []string{"host"}, 0, network.WithResolver(r), network.WithListenConfig(lc))
		require.ErrorIs(t, err, testkit.ErrEnd, when)
		require.Empty(t, ls)
		require.Len(t, sockets, map[string]int{"looking up": 0, "first socket": 1, "last socket": 2}[when], when)
		if when == "last socket" {
			l, err := net.Listen("tcp", "127.0.0.1:"+sockets["127.0.0.2"])
			require.NoError(t, err, "still open")
			require.NoError(t, l.Close())
		}
		cancel(nil)
	}
}

// All three endings of a resolver, and of a Control function, reach the caller, and
// leave no socket.
func TestListenAllEndings(t *testing.T) {
	testkit.Guard(t)
	for _, end := range testkit.Ends {
		end.CheckIs(t, testkit.OutcomeOf(func() error {
			_, err := network.ListenAll(context.Background(), "tcp", []string{"a"}, 0,
				network.WithResolver(slow(func(context.Context) error { return end.Do() })))
			return err
		}))
		var port string
		// The others are cancelled, and waited for.
		var both sync.WaitGroup
		both.Add(2)
		first := make(chan struct{}, 1)
		first <- struct{}{}
		o := testkit.OutcomeOf(func() error {
			_, err := network.ListenAll(context.Background(), "tcp", []string{"a", "b"}, 0,
				network.WithResolver(slow(func(ctx context.Context) error {
					both.Done()
					both.Wait()
					select {
					case <-first:
						return end.Do()
					default:
					}
					if end.How != "return" {
						<-ctx.Done()
					}
					return testkit.ErrEnd
				})))
			return err
		})
		end.CheckIs(t, o)
		o = testkit.OutcomeOf(func() error {
			lc := net.ListenConfig{Control: func(_, address string, _ syscall.RawConn) error {
				host, p, err := net.SplitHostPort(address)
				if host == "127.0.0.2" {
					port = p
					return end.Do()
				}
				return err
			}}
			_, err := network.ListenAll(context.Background(), "tcp", []string{"127.0.0.1", "127.0.0.2"}, 0, network.WithListenConfig(lc))
			return err
		})
		end.CheckIs(t, o)
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		require.NoError(t, err, "still open after a %s", end.How)
		require.NoError(t, l.Close())
	}
}
