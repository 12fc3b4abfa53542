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

// An Option changes what [ListenAll], [ListenAllPacket] or [DialStaggered] do. The zero
// Option does nothing. One that is meant for another of these functions panics there.
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

// WithResolver has r look up hosts. The default is [net.DefaultResolver].
func WithResolver(r Resolver) Option {
	if r == nil {
		panic("network: WithResolver with a nil resolver")
	}
	return Option{"", "WithResolver", func(c *config) { c.resolver = r }}
}

// WithListenConfig has each socket of ListenAll and ListenAllPacket made with lc. Its
// Control function is the place for options of sockets, SO_REUSEPORT for one.
func WithListenConfig(lc net.ListenConfig) Option {
	return Option{"listen", "WithListenConfig", func(c *config) { c.listen = lc }}
}

// WithDial has DialStaggered connect to one address with dial; network is "tcp4" or
// "tcp6", and local is not valid if any address will do. The default is a [net.Dialer].
// Several calls of dial may run at a time; when one has succeeded the ctx of the others
// ends, and what they connect nonetheless is closed.
func WithDial(dial func(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error)) Option {
	if dial == nil {
		panic("network: WithDial with a nil function")
	}
	return Option{"dial", "WithDial", func(c *config) { c.dial = dial }}
}

// Delay is how long DialStaggered waits for one address before it tries the next, while
// none has failed. The default is 250 ms. With a d of 0 or less it tries all at once.
func Delay(d time.Duration) Option {
	return Option{"dial", "Delay", func(c *config) { c.delay = d }}
}

// LocalAddr has DialStaggered connect from one of these addresses: to each remote
// address from the first of its family that works; where there is none of the family,
// that is how the attempt fails.
func LocalAddr(addrs ...netip.AddrPort) Option {
	return Option{"dial", "LocalAddr", func(c *config) { c.local = append(c.local, addrs...) }}
}

func configured(what, of string, opts []Option) *config {
	c := &config{resolver: net.DefaultResolver, dial: dialOne, delay: 250 * time.Millisecond}
	for _, o := range opts {
		switch {
		case o.apply == nil:
		case o.of != "" && o.of != of:
			panic(fmt.Sprintf("network: %s with %s, which it does not know", what, o.name))
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
