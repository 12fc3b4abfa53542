package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"

	"asyncsync.dev/internal/core"
)

// ListenAll listens on every address of every host, with one socket for each:
// on all of them, or on none. network is "tcp", or "tcp4" or "tcp6" for the
// addresses of one family. A host is a name or an IP address. "" means every
// interface, and so does an empty list. An address that several hosts share
// gets one socket.
//
// IPv6 sockets accept IPv6 only. So every interface is two sockets, or one if
// the system lacks a family. All sockets have the same port. If port is 0, that
// is one that is free on all addresses.
//
// The listeners are in the order of the hosts, and for each host in the order
// of its addresses. If a host cannot be looked up, or an address cannot be
// listened on, ListenAll closes what it has opened and returns all such errors,
// joined. If ctx ends first, it also closes what it has opened, and returns the
// cause. The end of ctx after that does not matter. For a network that it does
// not know ListenAll returns a [net.UnknownNetworkError], and for a port that
// is not in 0 to 65535 a [net.AddrError].
//
// It is EasyNetwork's create_tcp_listeners, which chooses a different port for
// each address.
func ListenAll(ctx context.Context, network string, hosts []string, port int, opts ...Option) ([]net.Listener, error) {
	checkCtx(ctx, "ListenAll")
	c := configured("ListenAll", "listen", opts)
	return listenAll(ctx, c, network, "tcp", hosts, port,
		func(ctx context.Context, network, address string) (net.Listener, net.Addr, error) {
			l, err := c.listen.Listen(ctx, network, address)
			if err != nil {
				return nil, nil, err
			}
			return l, l.Addr(), nil
		})
}

// ListenAllPacket is [ListenAll] for packets: network is "udp", "udp4" or "udp6".
//
// It is EasyNetwork's create_udp_listeners.
func ListenAllPacket(ctx context.Context, network string, hosts []string, port int, opts ...Option) ([]net.PacketConn, error) {
	checkCtx(ctx, "ListenAllPacket")
	c := configured("ListenAllPacket", "listen", opts)
	return listenAll(ctx, c, network, "udp", hosts, port,
		func(ctx context.Context, network, address string) (net.PacketConn, net.Addr, error) {
			l, err := c.listen.ListenPacket(ctx, network, address)
			if err != nil {
				return nil, nil, err
			}
			return l, l.LocalAddr(), nil
		})
}

type listenFunc[L io.Closer] func(ctx context.Context, network, address string) (L, net.Addr, error)

func listenAll[L io.Closer](ctx context.Context, c *config, network, proto string, hosts []string, port int, listen listenFunc[L]) ([]L, error) {
	family, err := familyOf(network, proto)
	if err != nil {
		return nil, err
	}
	if port < 0 || port > 65535 {
		return nil, &net.AddrError{Err: "invalid port", Addr: fmt.Sprint(port)}
	}
	return await(ctx, func(ctx context.Context, got func([]L)) ([]L, error) {
		places, err := c.lookUpAll(ctx, family, hosts)
		if err != nil {
			return nil, err
		}
		opened, err := bindAll(ctx, proto, places, port, listen)
		if err == nil {
			got(opened)
		}
		return opened, err
	}, closeAll[L])
}

// familyOf returns "ip", "ip4" or "ip6" for a network of proto.
func familyOf(network, proto string) (string, error) {
	family, ok := strings.CutPrefix(network, proto)
	if !ok || family != "" && family != "4" && family != "6" {
		return "", net.UnknownNetworkError(network)
	}
	return "ip" + family, nil
}

// A place is an address to listen on.
type place struct {
	addr netip.Addr
	any  bool // one of those of every interface, which the system may not have
}

// lookUpAll returns the addresses of all hosts, in order and without
// duplicates.
func (c *config) lookUpAll(ctx context.Context, family string, hosts []string) ([]place, error) {
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	found, errs := make([][]netip.Addr, len(hosts)), make([]error, len(hosts))
	var lookUps sync.WaitGroup
	ends := make([]ending, len(hosts))
	looking, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, host := range hosts {
		if host == "" {
			continue
		}
		lookUps.Go(func() {
			defer func() {
				if ends[i].ended() {
					cancel() // the others are waited for
				}
			}()
			ends[i].of(func() { found[i], errs[i] = c.lookUp(looking, family, host) })
		})
	}
	lookUps.Wait()
	for _, e := range ends {
		e.raise()
	}
	if err := errors.Join(errs...); err != nil {
		return nil, orCause(ctx, err)
	}
	var places []place
	seen := map[netip.Addr]bool{}
	add := func(p place) {
		if !seen[p.addr] {
			seen[p.addr] = true
			places = append(places, p)
		}
	}
	for i, host := range hosts {
		if host == "" {
			for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
				if isOf(a, family) {
					add(place{a, true})
				}
			}
		}
		for _, a := range found[i] {
			add(place{a, false})
		}
	}
	return places, nil
}

// lookUp returns the addresses of host, which may itself be an address.
func (c *config) lookUp(ctx context.Context, family, host string) ([]netip.Addr, error) {
	var found []netip.Addr
	if a, err := netip.ParseAddr(host); err == nil {
		found = []netip.Addr{a}
	} else if found, err = c.resolver.LookupNetIP(ctx, family, host); err != nil {
		return nil, err
	}
	var fit []netip.Addr
	for _, a := range found {
		// A resolver may return addresses of IPv4 in the form of IPv6.
		if a = a.Unmap(); isOf(a, family) {
			fit = append(fit, a)
		}
	}
	if len(fit) == 0 {
		return nil, &net.AddrError{Err: "no suitable address", Addr: host}
	}
	return fit, nil
}

func isOf(a netip.Addr, family string) bool {
	return family == "ip" || a.Is4() == (family == "ip4")
}

// familyDigit is "4" or "6", as in "tcp4".
func familyDigit(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// portTries bounds the search for a port that is free on all addresses.
const portTries = 32

// bindAll listens at all places. With port 0 the first place chooses a port. If
// that port is taken at another place, bindAll tries again with another port.
//
// A socket of package net can be had even if ctx has ended. So bindAll looks at
// ctx when it has all.
func bindAll[L io.Closer](ctx context.Context, proto string, places []place, port int, listen listenFunc[L]) ([]L, error) {
	for try := 1; ; try++ {
		var opened []L
		var errs, missing []error
		chosen, taken := port, false
		done := false
		func() {
			defer func() {
				if !done { // a Control function has panicked
					closeAll(opened)
				}
			}()
			for _, p := range places {
				if core.Ended(ctx) != nil {
					break
				}
				l, addr, err := listen(ctx, proto+familyDigit(p.addr), netip.AddrPortFrom(p.addr, uint16(chosen)).String())
				switch {
				case err == nil:
					opened = append(opened, l)
					if chosen == 0 {
						chosen = portOf(addr)
					}
				case p.any && isOne(err, noFamily):
					missing = append(missing, err)
				default:
					errs = append(errs, err)
					taken = taken || chosen != port && isOne(err, inUse)
				}
			}
			done = true
		}()
		if len(opened) == 0 {
			errs = append(errs, missing...)
		}
		cause := core.Ended(ctx)
		if len(errs) == 0 && cause == nil {
			return opened, nil
		}
		closeAll(opened)
		if cause != nil {
			return nil, cause
		}
		if !taken || try == portTries {
			return nil, errors.Join(errs...)
		}
	}
}

var (
	noFamily = []error{syscall.EAFNOSUPPORT, syscall.EADDRNOTAVAIL, syscall.Errno(10047), syscall.Errno(10049)}
	inUse    = []error{syscall.EADDRINUSE, syscall.Errno(10048)} // the numbers are those of Windows
)

func portOf(a net.Addr) int {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.Port
	case *net.UDPAddr:
		return a.Port
	}
	return 0
}

func closeAll[L io.Closer](all []L) {
	for _, l := range all {
		_ = l.Close()
	}
}
