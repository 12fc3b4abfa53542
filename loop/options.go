package loop

import (
	"fmt"
	"sync/atomic"
)

// An Option of [NewThread] or [Goroutines]. The zero Option does nothing.
type Option struct{ apply func(*config) }

type config struct{ name string }

// Named names a backend. The name is what its String method returns, and the value
// of the label asyncsync.loop that profiles show on its goroutines. Without it the
// kind and a number are the name.
func Named(name string) Option {
	return Option{func(c *config) { c.name = name }}
}

var backends atomic.Uint64

func named(kind string, opts []Option) string {
	var c config
	for _, o := range opts {
		if o.apply != nil {
			o.apply(&c)
		}
	}
	if c.name == "" {
		return fmt.Sprintf("%s-%d", kind, backends.Add(1))
	}
	return c.name
}

// Another returns a new backend of the same kind and name, for package portal.
func (b *thread) Another() Backend     { return NewThread(Named(b.name)) }
func (g *goroutines) Another() Backend { return Goroutines(Named(g.name)) }

// Builtin returns a new backend of the kind with that name: "goroutines" or
// "thread". It is for programs whose configuration says which.
func Builtin(name string) (Backend, error) {
	switch name {
	case "goroutines":
		return Goroutines(), nil
	case "thread":
		return NewThread(), nil
	}
	return nil, fmt.Errorf("loop: no backend is named %q; there are goroutines and thread", name)
}
