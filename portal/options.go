package portal

import (
	"fmt"
	"sync/atomic"
	"time"

	"asyncsync.dev/loop"
)

// An Option configures [Start] or [NewProvider]. The zero Option does nothing.
type Option struct{ apply func(*config) }

type config struct {
	backend   loop.Backend
	name      string
	linger    time.Duration
	lingering bool
}

// WithBackend makes Start run b, which must be a backend of package loop that
// has not been run. The default is a [loop.NewThread]: an OS thread of its own.
// A nil b panics.
//
// A Provider runs b for its first portal. Since a backend can be run only once,
// each further portal gets a new one of the same kind and name.
func WithBackend(b loop.Backend) Option {
	if b == nil {
		panic("portal: WithBackend with a nil backend")
	}
	return Option{func(c *config) { c.backend = b }}
}

// Named names the loop that Start makes: see [loop.Named]. The default is
// "portal" and a number. With WithBackend it has no effect: that loop keeps its
// name.
func Named(name string) Option {
	return Option{func(c *config) { c.name = name }}
}

// Linger makes a Provider keep an unused portal for d, so that users who come
// in bursts find the loop running. By default, and with d <= 0, the last
// release closes the portal. It is for [NewProvider]; with it [Start] panics.
func Linger(d time.Duration) Option {
	return Option{func(c *config) { c.linger, c.lingering = d, true }}
}

func configured(opts []Option) config {
	var c config
	for _, o := range opts {
		if o.apply != nil {
			o.apply(&c)
		}
	}
	return c
}

var portals atomic.Uint64

// newBackend returns the backend for a new portal.
func (c *config) newBackend() loop.Backend {
	if c.backend != nil {
		return c.backend
	}
	name := c.name
	if name == "" {
		name = fmt.Sprintf("portal-%d", portals.Add(1))
	}
	return loop.NewThread(loop.Named(name))
}
