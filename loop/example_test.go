package loop_test

import (
	"fmt"

	"asyncsync.dev/loop"
)

// A channel and a goroutine that drains it make a Poster.
func ExamplePosterFunc() {
	queue := make(chan func(), 8)
	p := loop.PosterFunc(func(fn func()) error {
		queue <- fn
		return nil
	})

	for i := range 3 {
		if err := p.Post(func() { fmt.Println("posted", i) }); err != nil {
			fmt.Println(err)
		}
	}
	close(queue)
	for fn := range queue {
		fn()
	}
	// Output:
	// posted 0
	// posted 1
	// posted 2
}
