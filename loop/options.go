package loop

import (
	"fmt"
	"sync/atomic"
)

// An Option configures [NewThread] or [Goroutines]. The zero Option does
// nothing.
type Option struct{ apply func(*config) }

type config struct{ name string }

// Named names a backend. Its String method returns the name, and profiles show
// the name as the label asyncsync.loop on its goroutines. The default is the
// kind and a number.
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

// Builtin returns a new backend of the named kind: "goroutines" or "thread".
// For any other name it returns an error. It is for programs that read the kind
// from their configuration.
func Builtin(name string) (Backend, error) {
	switch name {
	case "goroutines":
		return Goroutines(), nil
	case "thread":
		return NewThread(), nil
	}
	return nil, fmt.Errorf("loop: no backend is named %q; there are goroutines and thread", name)
}
