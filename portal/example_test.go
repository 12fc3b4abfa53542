package portal_test

import (
	"context"
	"errors"
	"fmt"

	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
)

// Sync code starts a loop, and calls it. What the functions share needs no lock: they
// take turns on one thread.
func ExampleStart() {
	p, err := portal.Start(portal.Named("counter"))
	if err != nil {
		fmt.Println(err)
		return
	}
	counts := map[string]int{}
	for _, word := range []string{"a", "b", "a"} {
		_, err := portal.StartSoon(p, func(context.Context) (int, error) {
			counts[word]++
			return 0, nil
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	// What one caller has sent begins in order.
	n, err := portal.Call(context.Background(), p, func(context.Context) (int, error) {
		return counts["a"], nil
	})
	fmt.Println(n, err)
	fmt.Println("close:", p.Close(nil))
	// Output:
	// 2 <nil>
	// close: <nil>
}

// A task opens a portal for others, and waits until one of them stops it.
func ExampleOpen() {
	_, err := loop.Run(context.Background(), loop.NewThread(), func(ctx context.Context) (int, error) {
		p, err := portal.Open(ctx)
		if err != nil {
			return 0, err
		}
		go func() { // anybody
			_, err := portal.Call(context.Background(), p, func(context.Context) (int, error) {
				fmt.Println("in a task of the loop")
				return 0, nil
			})
			if err != nil {
				fmt.Println(err)
			}
			p.Stop(false)
		}()
		return 0, errors.Join(p.Wait(ctx), p.Close(nil))
	})
	fmt.Println(err)
	// Output:
	// in a task of the loop
	// <nil>
}

// The service says when it is ready, and goes on.
func ExampleStartTask() {
	p, err := portal.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	service, address, err := portal.StartTask(context.Background(), p,
		func(ctx context.Context, started func(string) error) (int, error) {
			if err := started("127.0.0.1:4711"); err != nil {
				return 0, err
			}
			return 3, p.Wait(ctx)
		})
	fmt.Println(address, err)
	p.Stop(false)
	served, err := service.Wait(context.Background())
	fmt.Println(served, err)
	fmt.Println(p.Close(nil))
	// Output:
	// 127.0.0.1:4711 <nil>
	// 3 <nil>
	// <nil>
}

// A session is opened and closed in one task, on the loop's thread, and used from sync
// code meanwhile.
func ExampleWrap() {
	p, err := portal.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close(nil)
	session, closeSession, err := portal.Wrap(context.Background(), p,
		func(ctx context.Context) (string, func(context.Context, error) error, error) {
			return "session 1", func(ctx context.Context, err error) error {
				if err != nil {
					fmt.Println("roll back:", err)
					return err
				}
				fmt.Println("commit")
				return nil
			}, nil
		})
	fmt.Println(session, err)
	fmt.Println(closeSession(errors.New("no such row")))
	// Output:
	// session 1 <nil>
	// roll back: no such row
	// no such row
}

// Users who overlap share one portal.
func ExampleProvider() {
	v := portal.NewProvider()
	first, release, err := v.Acquire(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	second, releaseSecond, err := v.Acquire(context.Background())
	fmt.Println(first == second, err)
	fmt.Println(release(), releaseSecond())

	third, release, err := v.Acquire(context.Background())
	fmt.Println(first == third, err)
	fmt.Println(release())
	// Output:
	// true <nil>
	// <nil> <nil>
	// false <nil>
	// <nil>
}
