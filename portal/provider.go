package portal

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// A Provider lets all users that need a portal at the same time share one. The
// first Acquire starts it, the last release closes it. A Provider never has
// more than one portal at a time, not even while the previous one ends. Make
// one with [NewProvider]. Its methods may be called from anywhere.
type Provider struct {
	config config

	mu      sync.Mutex    // guards the rest; a leaf lock
	portal  *Portal       // nil while there is none
	leases  int           // not released yet
	busy    chan struct{} // closed when the start or end under way is over; nil if there is none
	ending  *Portal       // the portal that is ending
	started bool          // one was started
	idle    uint64        // counts how often the portal began to linger
	timer   *time.Timer   // ends the lingering
	late    []error       // errors of ends that nobody waited for
}

// NewProvider returns a Provider that starts its portals with opts, which may
// include [Linger]. It starts nothing.
//
// It is anyio's BlockingPortalProvider.
func NewProvider(opts ...Option) *Provider {
	return &Provider{config: configured(opts)}
}

// Acquire returns the portal and a function that releases it. If there is no
// portal, Acquire starts one. If the previous portal is still ending, Acquire
// first waits for that end.
//
// The last release closes the portal, unless the Provider lingers: it waits for
// the running functions and returns what [Portal.Close] returns. Where Close
// would have to wait for its own caller, release returns nil at once and the
// end goes on in the background. The next release returns the errors of an end
// that nobody waited for. A second call of the same release returns nil at once,
// also while the first one waits.
//
// Users must not stop the portal. It is shared, and other users would get
// ErrStopped until all have released it.
//
// Acquire returns the cause of ctx if ctx ends first, and the error of [Start]
// if that fails. Inside a function posted to a loop of [loop.NewThread] or
// [loop.FromPost] it returns [loop.ErrOnLoop]. In a task of the very portal
// whose end it would have to wait for, it returns [loop.ErrStopped].
func (v *Provider) Acquire(ctx context.Context) (p *Portal, release func() error, err error) {
	if v == nil {
		panic("portal: Acquire of a nil Provider")
	}
	checkCtx(ctx, "Acquire")
	if _, blocks := core.OnLoop(); blocks {
		return nil, nil, loop.ErrOnLoop
	}
	for {
		if err := core.Ended(ctx); err != nil {
			return nil, nil, err
		}
		v.mu.Lock()
		switch {
		case v.busy != nil:
			busy, ending := v.busy, v.ending
			v.mu.Unlock()
			if ending != nil && ending.inside() {
				return nil, nil, loop.ErrStopped
			}
			if err := core.Park(ctx, busy, "portal provider"); err != nil {
				return nil, nil, err
			}
			continue
		case v.portal != nil && v.leases == 0 && isStopped(v.portal):
			// It lingers, and a user has stopped it.
			finish := v.endLocked()
			v.mu.Unlock()
			v.keep(finish())
			continue
		case v.portal == nil:
			v.busy = make(chan struct{})
			config := v.config
			if v.started && config.backend != nil {
				config.backend = config.backend.(another).Another()
			}
			v.mu.Unlock()
			p, err = v.start(&config)
		default:
			p = v.portal
			v.leases++
			if v.timer != nil {
				v.timer.Stop()
				v.timer = nil
			}
			v.mu.Unlock()
		}
		if err != nil {
			return nil, nil, err
		}
		// No Once: a second call would wait for the first, and that may wait for its caller.
		var released atomic.Bool
		return p, func() error {
			if released.Swap(true) {
				return nil
			}
			return v.release()
		}, nil
	}
}

// another is implemented by the backends of package loop, for a Provider.
type another interface{ Another() loop.Backend }

func isStopped(p *Portal) bool {
	select {
	case <-p.stopping:
		return true
	default:
		return false
	}
}

// start starts the portal. busy is set.
func (v *Provider) start(c *config) (p *Portal, err error) {
	defer func() { // deferred, because Start may panic
		v.mu.Lock()
		if p != nil {
			v.portal, v.leases, v.started = p, 1, true
		}
		busy := v.busy
		v.busy = nil
		v.mu.Unlock()
		close(busy)
	}()
	return start(c)
}

// release gives one lease back.
func (v *Provider) release() error {
	v.mu.Lock()
	v.leases--
	late := v.late
	v.late = nil
	var finish func() error
	switch {
	case v.leases > 0:
	case v.config.linger > 0:
		v.idle++
		idle := v.idle
		v.timer = time.AfterFunc(v.config.linger, func() { v.expire(idle) })
	default:
		finish = v.endLocked()
	}
	v.mu.Unlock()
	if finish != nil {
		told := false
		defer func() {
			if !told { // a call that this thread served called Goexit
				v.keep(errors.Join(late...))
			}
		}()
		late = append(late, finish())
		told = true
	}
	return errors.Join(late...)
}

// expire closes the portal if it has been lingering since the given count.
func (v *Provider) expire(idle uint64) {
	v.mu.Lock()
	if v.portal == nil || v.leases > 0 || v.idle != idle {
		v.mu.Unlock()
		return
	}
	finish := v.endLocked()
	v.mu.Unlock()
	v.keep(finish())
}

// endLocked begins the end of the portal. It returns a function that completes
// the end without the lock.
func (v *Provider) endLocked() (finish func() error) {
	p, busy := v.portal, make(chan struct{})
	v.portal, v.ending, v.busy, v.timer = nil, p, busy, nil
	return func() error {
		_, blocks := core.OnLoop()
		inside := blocks || p.inside()
		p.Stop(false)
		if inside {
			go func() {
				v.keep(p.Close(nil))
				v.over(busy)
			}()
			return nil
		}
		var (
			mu      sync.Mutex // guards the rest
			ended   bool
			unheard bool // this caller has not come to the end
		)
		// What this caller serves meanwhile may wait for busy. So it is not the return of
		// Close, below that on the same stack, that closes it.
		go func() {
			_ = p.region.Wait(context.Background(), &p.ended)
			mu.Lock()
			ended = true
			late := unheard
			mu.Unlock()
			if late {
				v.keep(p.Close(nil))
			}
			v.over(busy)
		}()
		waited := false
		defer func() {
			if waited {
				return
			}
			mu.Lock()
			unheard = true
			late := ended
			mu.Unlock()
			if late {
				v.keep(p.Close(nil))
			}
		}()
		err := p.Close(nil)
		// Compare, do not match: a task may have returned such an error, and then
		// it is joined.
		if _, deadlock := err.(*core.DeadlockError); deadlock {
			return nil
		}
		waited = true
		return err
	}
}

// keep makes the next release return err.
func (v *Provider) keep(err error) {
	if err != nil {
		v.mu.Lock()
		v.late = append(v.late, err)
		v.mu.Unlock()
	}
}

// over records that the portal has ended.
func (v *Provider) over(busy chan struct{}) {
	v.mu.Lock()
	v.busy, v.ending = nil, nil
	v.mu.Unlock()
	close(busy)
}
