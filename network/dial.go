package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"asyncsync.dev/internal/core"
)

// DialStaggered connects to address, "host:port", as RFC 8305 (Happy Eyeballs)
// describes. It tries the addresses of the host one after another, without
// waiting for each to fail: the next one is tried after [Delay], or at once
// when one fails. IPv6 goes first, and the families alternate. The first
// connection that succeeds is returned. The other attempts are cancelled, and
// connections that they make nonetheless are closed.
//
// network is "tcp", or "tcp4" or "tcp6" for one family. For any other network
// DialStaggered returns a [net.UnknownNetworkError]. An empty host is this
// machine: ::1 and 127.0.0.1. The port may be the name of a service. If all
// attempts fail, the error joins all of theirs in the order of the addresses.
// If ctx ends first, its cause is returned. A panic or a [runtime.Goexit] of a
// resolver or a function of [WithDial] reaches the caller, after the other
// attempts have been cancelled and have ended, and what they connected has been
// closed.
//
// [net.Dialer] races two lists, one for each family. If the first of several
// addresses of one family is a black hole, it waits for the system's timeout.
//
// It is EasyNetwork's create_tcp_connection, with its happy_eyeballs_delay.
func DialStaggered(ctx context.Context, network, address string, opts ...Option) (net.Conn, error) {
	checkCtx(ctx, "DialStaggered")
	c := configured("DialStaggered", "dial", opts)
	family, err := familyOf(network, "tcp")
	if err != nil {
		return nil, err
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return await(ctx, func(ctx context.Context, got func(net.Conn)) (net.Conn, error) {
		conn, err := c.dialHost(ctx, network, family, host, service)
		if err == nil {
			got(conn)
		}
		return conn, err
	}, discard(ctx, "network.DialStaggered"))
}

func (c *config) dialHost(ctx context.Context, network, family, host, service string) (net.Conn, error) {
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, orCause(ctx, err)
	}
	addrs := []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if host != "" {
		if addrs, err = c.lookUp(ctx, family, host); err != nil {
			return nil, orCause(ctx, err)
		}
	}
	var remotes []netip.AddrPort
	for _, a := range interleave(addrs) {
		if isOf(a, family) {
			remotes = append(remotes, netip.AddrPortFrom(a, uint16(port)))
		}
	}
	return c.race(ctx, remotes)
}

// orCause returns the cause of ctx if ctx has ended, otherwise err.
func orCause(ctx context.Context, err error) error {
	if cause := core.Ended(ctx); cause != nil {
		return cause
	}
	return err
}

// interleave puts IPv6 first and alternates the families.
func interleave(addrs []netip.Addr) []netip.Addr {
	var six, four, mixed []netip.Addr
	for _, a := range addrs {
		if a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	for i := range max(len(six), len(four)) {
		if i < len(six) {
			mixed = append(mixed, six[i])
		}
		if i < len(four) {
			mixed = append(mixed, four[i])
		}
	}
	return mixed
}

// An attempt is the outcome of trying one address.
type attempt struct {
	number int
	conn   net.Conn // not nil if it has succeeded, and nil if it has not
	err    error
	ending ending
}

// race tries the remotes and returns the first connection.
func (c *config) race(ctx context.Context, remotes []netip.AddrPort) (net.Conn, error) {
	racing, cancel := context.WithCancel(ctx)
	results := make(chan attempt)
	over := make(chan struct{}) // closed when nobody receives results any more
	end := sync.OnceFunc(func() {
		close(over)
		cancel()
	})
	defer end()
	var attempts sync.WaitGroup
	begin := func(number int) {
		attempts.Go(func() {
			a := attempt{number: number}
			defer func() { // a Goexit goes on from here
				select {
				case results <- a:
				case <-over:
					if a.conn != nil {
						// It comes late.
						dropUnheard(ctx, "network.DialStaggered", func() { _ = a.conn.Close() })
					}
					a.ending.unheard(ctx, "network.DialStaggered")
				}
			}()
			a.ending.of(func() {
				conn, err := c.dialFrom(racing, remotes[number])
				switch {
				case err != nil:
					a.err = err
				case conn == nil:
					panic("network: the function of WithDial has returned neither a connection nor an error")
				default:
					a.conn = conn
				}
			})
		})
	}
	errs := make([]error, len(remotes))
	next, running := 0, 0
	var timer *time.Timer
	var later <-chan time.Time
	for {
		if next < len(remotes) && (running == 0 || later == nil) {
			begin(next)
			next, running = next+1, running+1
			if c.delay <= 0 {
				continue
			}
			if timer != nil {
				timer.Stop()
			}
			timer = time.NewTimer(c.delay)
			defer timer.Stop()
			later = timer.C
		}
		select {
		case a := <-results:
			running--
			switch {
			case a.ending.ended():
				end()
				attempts.Wait()
				a.ending.raise()
			case a.err == nil:
				if err := core.Ended(ctx); err != nil {
					discard(ctx, "network.DialStaggered")(a.conn)
					return nil, err
				}
				return a.conn, nil
			}
			errs[a.number] = a.err
			later = nil // the next one at once
			if running == 0 && next == len(remotes) {
				return nil, orCause(ctx, errors.Join(errs...))
			}
		case <-later:
			later = nil
		case <-ctx.Done():
			return nil, core.Cause(ctx)
		}
	}
}

// dialFrom connects to remote, from a local address of its family if local
// addresses are configured.
func (c *config) dialFrom(ctx context.Context, remote netip.AddrPort) (net.Conn, error) {
	network := "tcp" + familyDigit(remote.Addr())
	if len(c.local) == 0 {
		return c.dial(ctx, network, netip.AddrPort{}, remote)
	}
	var errs []error
	for _, local := range c.local {
		if local.Addr().Unmap().Is4() != remote.Addr().Is4() {
			continue
		}
		conn, err := c.dial(ctx, network, local, remote)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if errs == nil {
		return nil, fmt.Errorf("network: no local address of the family of %s: %w", remote,
			&net.AddrError{Err: "no suitable address", Addr: remote.Addr().String()})
	}
	return nil, errors.Join(errs...)
}

// dialOne is the default of WithDial.
func dialOne(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
	}
	return d.DialContext(ctx, network, remote.String())
}
