package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"asyncsync.dev/loop"
	"asyncsync.dev/network"
	"asyncsync.dev/task"
)

// A listener on two addresses, with one port for both.
func ExampleListenAll() {
	listeners, err := network.ListenAll(context.Background(), "tcp", []string{"127.0.0.1", "127.0.0.2"}, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	var ports []string
	for _, l := range listeners {
		host, port, _ := net.SplitHostPort(l.Addr().String())
		fmt.Println(host)
		ports = append(ports, port)
		_ = l.Close()
	}
	fmt.Println(ports[0] == ports[1])
	// Output:
	// 127.0.0.1
	// 127.0.0.2
	// true
}

// The first address does not answer. The second one is tried meanwhile.
func ExampleDialStaggered() {
	resolver := hosts{"db.example": {netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.1")}}
	c, err := network.DialStaggered(context.Background(), "tcp", "db.example:5432",
		network.WithResolver(resolver), network.Delay(time.Millisecond),
		network.WithDial(func(ctx context.Context, _ string, _, remote netip.AddrPort) (net.Conn, error) {
			if remote.Addr().Is6() {
				<-ctx.Done() // a black hole
				return nil, ctx.Err()
			}
			fmt.Println("connected to", remote)
			c, _ := net.Pipe()
			return c, nil
		}))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Close())
	// Output:
	// connected to 10.0.0.1:5432
	// <nil>
}

type hosts map[string][]netip.Addr

func (h hosts) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return h[host], nil
}

// A server whose handlers share a counter without a lock: they are tasks of one thread,
// and take turns where they wait.
func ExampleServe() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	go func() { // a client
		for range 3 {
			c, err := net.Dial("tcp", l.Addr().String())
			if err == nil {
				_ = c.Close()
			}
		}
	}()
	_, err = loop.Run(context.Background(), loop.NewThread(), func(ctx context.Context) (int, error) {
		ctx, g := task.NewGroup(ctx)
		enough := errors.New("enough")
		serving, stop := context.WithCancelCause(ctx)
		count := 0
		err := network.Serve(serving, l, g, func(context.Context, net.Conn) error {
			if count++; count == 3 {
				stop(enough)
			}
			return nil
		})
		fmt.Println(count, err)
		return 0, g.Wait(ctx)
	})
	fmt.Println(err)
	// Output:
	// 3 enough
	// <nil>
}

// A read that gives up leaves the connection as it was.
func ExampleRead() {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	buffer := make([]byte, 16)
	_, err := network.Read(ctx, a, buffer)
	fmt.Println(err)

	go func() { _, _ = b.Write([]byte("late")) }()
	n, err := network.Read(context.Background(), a, buffer)
	fmt.Printf("%s %v\n", buffer[:n], err)
	// Output:
	// context deadline exceeded
	// late <nil>
}
