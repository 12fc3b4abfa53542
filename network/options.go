package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// A Resolver looks up the addresses of a host. [net.Resolver] is one.
type Resolver interface {
	// LookupNetIP returns the addresses of host; network is "ip", "ip4" or "ip6".
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// An Option configures [ListenAll], [ListenAllPacket] or [DialStaggered]. The
// zero Option does nothing. An option that is meant for another of these
// functions panics.
type Option struct {
	of    string // "listen", "dial", or "" for both
	name  string
	apply func(*config)
}

type config struct {
	resolver Resolver
	listen   net.ListenConfig
	dial     func(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error)
	delay    time.Duration
	local    []netip.AddrPort
}

// WithResolver makes r look up hosts. The default is [net.DefaultResolver].
func WithResolver(r Resolver) Option {
	if r == nil {
		panic("network: WithResolver with a nil resolver")
	}
	return Option{"", "WithResolver", func(c *config) { c.resolver = r }}
}

// WithListenConfig makes ListenAll and ListenAllPacket create each socket with
// lc. Its Control function can set socket options such as SO_REUSEPORT.
func WithListenConfig(lc net.ListenConfig) Option {
	return Option{"listen", "WithListenConfig", func(c *config) { c.listen = lc }}
}

// WithDial makes DialStaggered connect to each address with dial. network is
// "tcp4" or "tcp6", and local is not valid if any local address will do. The
// default is a [net.Dialer]. Several calls of dial may run at a time. When one
// has succeeded, the ctx of the others ends, and connections that they make
// nonetheless are closed. A panic or a [runtime.Goexit] of such a Close is told to
// the hooks of package asyncsync. What dial returns together with an error is
// ignored, and not closed: it may be a nil pointer.
func WithDial(dial func(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error)) Option {
	if dial == nil {
		panic("network: WithDial with a nil function")
	}
	return Option{"dial", "WithDial", func(c *config) { c.dial = dial }}
}

// Delay is how long DialStaggered waits for one address before it tries the
// next, as long as none has failed. The default is 250 ms. With d <= 0 it tries
// all at once.
func Delay(d time.Duration) Option {
	return Option{"dial", "Delay", func(c *config) { c.delay = d }}
}

// LocalAddr makes DialStaggered connect from one of these addresses: to each
// remote address from the first one of its family that works. If there is none
// of its family, the attempt fails.
func LocalAddr(addrs ...netip.AddrPort) Option {
	return Option{"dial", "LocalAddr", func(c *config) { c.local = append(c.local, addrs...) }}
}

func configured(what, of string, opts []Option) *config {
	c := &config{resolver: net.DefaultResolver, dial: dialOne, delay: 250 * time.Millisecond}
	for _, o := range opts {
		switch {
		case o.apply == nil:
		case o.of != "" && o.of != of:
			panic(fmt.Sprintf("network: %s does not support the option %s", what, o.name))
		default:
			o.apply(c)
		}
	}
	return c
}

func checkCtx(ctx context.Context, what string) {
	if ctx == nil {
		panic("network: " + what + " with a nil ctx")
	}
}
