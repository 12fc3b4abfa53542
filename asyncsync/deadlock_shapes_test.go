package asyncsync_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/task"
)

// A stage is where a shape of waits is played, in a synctest bubble: if it
// hangs, the bubble says so and shows all goroutines.
type stage struct {
	*testing.T
	tscs  []*asyncsync.ThreadSensitiveContext
	ctxs  []context.Context
	pools []*asyncsync.ThreadPool

	// hide, if it is set, has the waits that close a cycle made through it,
	// unseen by the library: see [stage.unseen].
	hide    hide
	helpers sync.WaitGroup

	mu    sync.Mutex
	told  []*deadlock.Error
	ends  []func() // of the hidden waits
	fails []error  // of the helpers
}

// context returns a context that must be as good as new after the shape.
func (s *stage) context(name string, opts ...asyncsync.ContextOption) (context.Context, *asyncsync.ThreadSensitiveContext) {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), append(opts, asyncsync.WithName(name))...)
	s.tscs, s.ctxs = append(s.tscs, tsc), append(s.ctxs, ctx)
	return ctx, tsc
}

func (s *stage) pool(n int, overflow ...int) asyncsync.ContextOption {
	c := asyncsync.ThreadPoolConfig{MaxThreads: n}
	if len(overflow) > 0 {
		c.MaxOverflow = overflow[0]
	}
	p := asyncsync.NewThreadPool(c)
	s.pools = append(s.pools, p)
	return asyncsync.WithPool(p)
}

// closing makes the wait that may close a cycle. All shapes make theirs here,
// and go on when it was refused.
func (s *stage) closing(wait func() error) error {
	if s.hide != nil {
		return s.unseen(wait)
	}
	err := wait()
	if d := (*deadlock.Error)(nil); errors.As(err, &d) {
		s.mu.Lock()
		s.told = append(s.told, d)
		s.mu.Unlock()
		return nil
	}
	return err
}

func (s *stage) task(ctx context.Context, fn func(context.Context) error) *task.Task[int] {
	return task.Go(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) })
}

func (s *stage) wait(ctx context.Context, t *task.Task[int]) error {
	return s.closing(func() error { _, err := t.Wait(ctx); return err })
}

func (s *stage) to(ctx context.Context, fn func(context.Context) error, opts ...asyncsync.Option) error {
	return s.closing(func() error { return to(ctx, fn, opts...) })
}

// take takes a token and gives it back.
func (s *stage) take(ctx context.Context, l *task.Limiter) error {
	return s.closing(func() error {
		if err := l.Acquire(ctx); err != nil {
			return err
		}
		l.Release()
		return nil
	})
}

// self is a task that learns of itself.
func (s *stage) self(ctx context.Context, fn func(context.Context, *task.Task[int]) error) *task.Task[int] {
	me := make(chan *task.Task[int], 1)
	t := s.task(ctx, func(ctx context.Context) error { return fn(ctx, <-me) })
	me <- t
	return t
}

func ok(context.Context) error { return nil }

// ring has n functions, each on a thread of its own, call the next thread.
func ring(s *stage, n int) error {
	type place struct {
		ctx context.Context
		tsc *asyncsync.ThreadSensitiveContext
	}
	var ps []place
	for i := range n {
		ctx, tsc := s.context(fmt.Sprint("ring", i))
		ps = append(ps, place{ctx, tsc})
	}
	all := newMeeting(n)
	var rs []*runningFunc
	for i := range n {
		rs = append(rs, start(func() error {
			return to(ps[i].ctx, func(ctx context.Context) error {
				all.attend()
				return s.to(ctx, ok, asyncsync.On(ps[(i+1)%n].tsc))
			})
		}))
	}
	for _, r := range rs {
		if o := r.Wait(); o.Err != nil {
			return o.Err
		}
	}
	return nil
}

// shapes are waits that depend on each other. told is how many of them are
// refused: 0 for those that look like a cycle and are none.
var shapes = []struct {
	name string
	told int
	play func(*stage) error
}{
	{"outer ctx below a wait: the context's own", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			return from(in, func(context.Context) error { return s.to(ctx, ok) })
		})
	}},
	{"outer ctx below a wait: the blocked function's", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			return from(in, func(context.Context) error { return s.to(in, ok) })
		})
	}},
	{"outer ctx below a wait: a task's", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		return s.wait(ctx, s.task(ctx, func(outer context.Context) error {
			return to(outer, func(in context.Context) error {
				return from(in, func(context.Context) error { return s.to(outer, ok) })
			})
		}))
	}},
	{"outer ctx below eight levels", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		_, err := through(ctx, 8, func(in context.Context) (int, error) {
			return 0, s.to(ctx, ok)
		})
		return err
	}},
	{"outer ctx, and the call is abandonable", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			return from(in, func(context.Context) error { return s.to(ctx, ok, asyncsync.Abandon()) })
		})
	}},
	{"the right ctx below a wait", 0, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			return from(in, func(inner context.Context) error { return s.to(inner, ok) })
		})
	}},
	{"outer ctx, policy All", 0, func(s *stage) error {
		ctx, _ := s.context("a", asyncsync.Serve(asyncsync.All))
		return to(ctx, func(in context.Context) error {
			return from(in, func(context.Context) error { return s.to(ctx, ok) })
		})
	}},
	{"a function that All serves on top of another waits for who waits for that one", 1, func(s *stage) error {
		ctx, a := s.context("a", asyncsync.Serve(asyncsync.All))
		begun, ended := make(chan struct{}), make(chan struct{})
		tk := s.task(ctx, func(ctx context.Context) error {
			return to(ctx, func(in context.Context) error {
				return from(in, func(context.Context) error { close(begun); <-ended; return nil })
			})
		})
		<-begun
		err := to(ctx, func(in context.Context) error {
			defer close(ended)
			return s.wait(in, tk)
		}, asyncsync.On(a))
		_, e := tk.Wait(ctx)
		return errors.Join(err, e)
	}},
	{"nested call, policy None", 1, func(s *stage) error {
		ctx, _ := s.context("a", asyncsync.Serve(asyncsync.None))
		return to(ctx, func(in context.Context) error {
			return from(in, func(inner context.Context) error { return s.to(inner, ok) })
		})
	}},
	{"call to another thread and back, policy None", 1, func(s *stage) error {
		ctx, a := s.context("a", asyncsync.Serve(asyncsync.None))
		_, b := s.context("b")
		return to(ctx, func(in context.Context) error {
			return to(in, func(in context.Context) error { return s.to(in, ok, asyncsync.On(a)) }, asyncsync.On(b))
		})
	}},
	{"task whose call is queued, policy None", 1, func(s *stage) error {
		ctx, _ := s.context("a", asyncsync.Serve(asyncsync.None))
		return to(ctx, func(in context.Context) error {
			tk := s.task(in, func(ctx context.Context) error { return to(ctx, ok) })
			synctest.Wait()
			return s.wait(in, tk)
		})
	}},
	{"an async function that has not been lent a goroutine", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			return from(in, func(context.Context) error { return s.to(ctx, ok) }, asyncsync.Abandon())
		})
	}},
	{"an unpinned thread", 1, func(s *stage) error {
		ctx, _ := s.context("a", asyncsync.Unpinned())
		return to(ctx, func(in context.Context) error {
			return from(in, func(context.Context) error { return s.to(ctx, ok) })
		})
	}},
	{"nested contexts share a thread", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		inner, _ := asyncsync.NewThreadSensitiveContext(ctx)
		return to(ctx, func(in context.Context) error {
			return from(in, func(context.Context) error { return s.to(inner, ok) })
		})
	}},

	{"a task and itself", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		return s.wait(ctx, s.self(ctx, func(ctx context.Context, me *task.Task[int]) error { return s.wait(ctx, me) }))
	}},
	{"a task and itself, from its thread", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		return s.wait(ctx, s.self(ctx, func(ctx context.Context, me *task.Task[int]) error {
			return to(ctx, func(ctx context.Context) error { return s.wait(ctx, me) })
		}))
	}},
	{"a task and itself, as a thread of its own", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		return s.wait(ctx, s.self(ctx, func(ctx context.Context, me *task.Task[int]) error {
			return from(context.Background(), func(context.Context) error { return s.wait(ctx, me) })
		}))
	}},
	{"a task and itself, from two threads deep", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		_, b := s.context("b")
		return s.wait(ctx, s.self(ctx, func(ctx context.Context, me *task.Task[int]) error {
			return to(ctx, func(ctx context.Context) error {
				return to(ctx, func(ctx context.Context) error { return s.wait(ctx, me) }, asyncsync.On(b))
			})
		}))
	}},
	{"a task and itself, from a coroutine on the thread", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		return s.wait(ctx, s.self(ctx, func(ctx context.Context, me *task.Task[int]) error {
			return to(ctx, func(ctx context.Context) error {
				return from(ctx, func(ctx context.Context) error { return s.wait(ctx, me) }, asyncsync.SameThread())
			})
		}))
	}},
	{"a task and itself, in an executor", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		made, over := make(chan *asyncsync.CurrentThreadExecutor), make(chan struct{})
		r := start(func() error {
			e := asyncsync.NewCurrentThreadExecutor()
			made <- e
			return e.RunUntil(over)
		})
		e := <-made
		err := s.wait(ctx, s.self(ctx, func(ctx context.Context, me *task.Task[int]) error {
			return to(ctx, func(ctx context.Context) error { return s.wait(ctx, me) }, asyncsync.Insensitive(), asyncsync.WithExecutor(e))
		}))
		close(over)
		return errors.Join(err, r.Wait().Err)
	}},
	{"two tasks", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		other := make(chan *task.Task[int], 1)
		a := s.task(ctx, func(ctx context.Context) error { return s.wait(ctx, <-other) })
		b := s.task(ctx, func(ctx context.Context) error { return s.wait(ctx, a) })
		synctest.Wait()
		other <- b
		return errors.Join(s.wait(ctx, a), s.wait(ctx, b))
	}},
	{"a child waits for its parent, which waits for nothing", 0, func(s *stage) error {
		ctx, _ := s.context("a")
		gate := make(chan struct{})
		var child *task.Task[int]
		parent := s.self(ctx, func(ctx context.Context, me *task.Task[int]) error {
			child = s.task(ctx, func(ctx context.Context) error { return s.wait(ctx, me) })
			<-gate
			return nil
		})
		synctest.Wait()
		close(gate)
		return errors.Join(s.wait(ctx, parent), s.wait(ctx, child))
	}},
	{"a thread waits for a task that calls it with a foreign ctx", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			tk := s.task(in, func(context.Context) error { return s.to(ctx, ok) })
			synctest.Wait()
			return s.wait(in, tk)
		})
	}},
	{"the same, called after the wait", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			gate := make(chan struct{})
			tk := s.task(in, func(context.Context) error { <-gate; return s.to(ctx, ok) })
			go func() { synctest.Wait(); close(gate) }()
			return s.wait(in, tk)
		})
	}},
	{"a thread waits for a task that calls it", 0, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			tk := s.task(in, func(ctx context.Context) error { return s.to(ctx, ok) })
			synctest.Wait()
			return s.wait(in, tk)
		})
	}},
	{"a thread waits for a task that waits for one that calls it", 0, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			a := s.task(ctx, func(ctx context.Context) error { return s.to(ctx, ok) })
			synctest.Wait()
			return s.wait(in, s.task(in, func(ctx context.Context) error { return s.wait(ctx, a) }))
		})
	}},

	{"a member and its group", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		gctx, g := task.NewGroup(ctx)
		g.Go(func(ctx context.Context) error {
			return s.closing(func() error { return g.Wait(ctx) })
		})
		return g.Wait(gctx)
	}},
	{"a member's grandchild and the group", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		gctx, g := task.NewGroup(ctx)
		g.Go(func(ctx context.Context) error {
			return s.wait(ctx, s.task(ctx, func(ctx context.Context) error {
				return s.wait(ctx, s.task(ctx, func(ctx context.Context) error {
					synctest.Wait()
					return s.closing(func() error { return g.Wait(ctx) })
				}))
			}))
		})
		return g.Wait(gctx)
	}},
	{"a grandchild that no member waits for", 0, func(s *stage) error {
		ctx, _ := s.context("a")
		gctx, g := task.NewGroup(ctx)
		var tk *task.Task[int]
		g.Go(func(ctx context.Context) error {
			tk = s.task(ctx, func(ctx context.Context) error {
				return s.closing(func() error { return g.Wait(context.Background()) })
			})
			return nil
		})
		err := g.Wait(gctx)
		return errors.Join(err, s.wait(ctx, tk))
	}},
	{"a member and its group, from a thread", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		gctx, g := task.NewGroup(ctx)
		g.Go(func(ctx context.Context) error {
			return to(ctx, func(ctx context.Context) error {
				return s.closing(func() error { return g.Wait(ctx) })
			})
		})
		return g.Wait(gctx)
	}},
	{"a thread waits for a group, of which one calls it with a foreign ctx", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			gctx, g := task.NewGroup(in)
			for i := range 3 {
				g.Go(func(in context.Context) error {
					if i == 1 {
						return s.to(ctx, ok)
					}
					return s.to(in, ok)
				})
			}
			synctest.Wait()
			return s.closing(func() error { return g.Wait(gctx) })
		})
	}},

	{"two threads call each other", 1, func(s *stage) error { return ring(s, 2) }},
	{"three threads in a ring", 1, func(s *stage) error { return ring(s, 3) }},
	{"four threads in a ring", 1, func(s *stage) error { return ring(s, 4) }},
	{"there and back, with the right ctx", 0, func(s *stage) error {
		ctx, a := s.context("a")
		_, b := s.context("b")
		return to(ctx, func(in context.Context) error {
			return s.to(in, func(in context.Context) error { return s.to(in, ok, asyncsync.On(a)) }, asyncsync.On(b))
		})
	}},
	{"there and back, with an outer ctx", 1, func(s *stage) error {
		ctx, a := s.context("a")
		_, b := s.context("b")
		return to(ctx, func(in context.Context) error {
			return s.to(in, func(context.Context) error { return s.to(ctx, ok, asyncsync.On(a)) }, asyncsync.On(b))
		})
	}},
	{"a handle below itself, with an outer ctx", 1, func(s *stage) error {
		ctx := context.Background()
		h, err := asyncsync.Open(ctx, func(context.Context) (int, error) { return 1, nil }, nil)
		if err != nil {
			return err
		}
		err = h.Do(ctx, func(in context.Context, _ int) error {
			return from(in, func(context.Context) error {
				return s.closing(func() error { return h.Do(in, func(context.Context, int) error { return nil }) })
			})
		})
		return errors.Join(err, h.Close())
	}},
	{"a handle below itself, with a ctx that knows nothing", 0, func(s *stage) error {
		ctx := context.Background()
		h, err := asyncsync.Open(ctx, func(context.Context) (int, error) { return 1, nil }, nil)
		if err != nil {
			return err
		}
		err = h.Do(ctx, func(in context.Context, _ int) error {
			return from(in, func(context.Context) error {
				return s.closing(func() error { return h.Do(ctx, func(context.Context, int) error { return nil }) })
			})
		})
		return errors.Join(err, h.Close())
	}},
	{"two handles, crosswise", 1, func(s *stage) error {
		var hs [2]*asyncsync.Handle[int]
		for i := range hs {
			var err error
			if hs[i], err = asyncsync.Open(context.Background(), func(context.Context) (int, error) { return i, nil }, nil); err != nil {
				return err
			}
		}
		both := newMeeting(2)
		var rs []*runningFunc
		for i := range hs {
			rs = append(rs, start(func() error {
				return hs[i].Do(context.Background(), func(ctx context.Context, _ int) error {
					both.attend()
					return s.closing(func() error {
						return hs[1-i].Do(ctx, func(context.Context, int) error { return nil })
					})
				})
			}))
		}
		return errors.Join(rs[0].Wait().Err, rs[1].Wait().Err, hs[0].Close(), hs[1].Close())
	}},

	{"a limited function below itself", 0, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(1)
		limited := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithLimiter(l)}
		return s.wait(ctx, s.task(ctx, func(ctx context.Context) error {
			return to(ctx, func(ctx context.Context) error { return s.to(ctx, ok, limited...) }, limited...)
		}))
	}},
	{"a limited function below itself, on a plain goroutine", 0, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(1)
		limited := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithLimiter(l)}
		return to(ctx, func(ctx context.Context) error { return s.to(ctx, ok, limited...) }, limited...)
	}},
	{"a limited function below itself, with a ctx that knows nothing", 0, func(s *stage) error {
		ctx := context.Background()
		l := task.NewLimiter(1)
		limited := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithLimiter(l)}
		return to(ctx, func(ctx context.Context) error { return s.to(ctx, ok, limited...) }, limited...)
	}},
	{"a limited function takes the last token", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(1)
		return to(ctx, func(ctx context.Context) error { return s.take(ctx, l) }, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
	}},
	{"a limited function takes the last token, in a task", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(1)
		return s.wait(ctx, s.task(ctx, func(ctx context.Context) error {
			return to(ctx, func(ctx context.Context) error { return s.take(ctx, l) }, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
		}))
	}},
	{"a limited function takes the last token, with another ctx", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(1)
		return to(context.Background(), func(context.Context) error { return s.take(ctx, l) }, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
	}},
	{"two tokens, and both limited functions take another", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(2)
		both := newMeeting(2)
		gctx, g := task.NewGroup(ctx)
		for range 2 {
			g.Go(func(ctx context.Context) error {
				return to(ctx, func(ctx context.Context) error {
					both.attend()
					return s.take(ctx, l)
				}, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
			})
		}
		return g.Wait(gctx)
	}},
	{"a limited function waits for a task that takes the last token", 0, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(1)
		return to(ctx, func(ctx context.Context) error {
			return s.wait(ctx, s.task(ctx, func(ctx context.Context) error { return s.take(ctx, l) }))
		}, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
	}},
	{"a thread wants the token of a plain goroutine that wants the thread", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(1)
		limited := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithLimiter(l)}
		held, blocked := make(chan struct{}), make(chan struct{})
		holder := start(func() error {
			return to(context.Background(), func(context.Context) error {
				close(held)
				<-blocked
				return s.to(ctx, ok)
			}, limited...)
		})
		<-held
		err := to(ctx, func(in context.Context) error {
			go func() { synctest.Wait(); close(blocked) }()
			return s.to(asyncsync.Detach(in), ok, limited...)
		})
		return errors.Join(err, holder.Wait().Err)
	}},
	{"two tokens, and both holders want another", 0, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(2)
		limited := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithLimiter(l)}
		both := newMeeting(2)
		gctx, g := task.NewGroup(ctx)
		for range 2 {
			g.Go(func(ctx context.Context) error {
				return to(ctx, func(ctx context.Context) error {
					both.attend()
					return s.to(ctx, ok, limited...)
				}, limited...)
			})
		}
		return g.Wait(gctx)
	}},
	{"two tokens, and one holder wants another", 0, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(2)
		limited := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithLimiter(l)}
		both := newMeeting(2)
		gctx, g := task.NewGroup(ctx)
		for i := range 2 {
			g.Go(func(ctx context.Context) error {
				return to(ctx, func(ctx context.Context) error {
					both.attend()
					if i == 0 {
						return s.to(ctx, ok, limited...)
					}
					synctest.Wait()
					return nil
				}, limited...)
			})
		}
		return g.Wait(gctx)
	}},
	{"a thread wants the token of one who wants the thread", 1, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(1)
		limited := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithLimiter(l)}
		held, blocked := make(chan struct{}), make(chan struct{})
		holder := s.task(context.Background(), func(own context.Context) error {
			return to(own, func(context.Context) error {
				close(held)
				<-blocked
				return s.to(ctx, ok)
			}, limited...)
		})
		<-held
		err := to(ctx, func(in context.Context) error {
			go func() { synctest.Wait(); close(blocked) }()
			return s.to(asyncsync.Detach(in), ok, limited...)
		})
		return errors.Join(err, s.wait(context.Background(), holder))
	}},
	{"a semaphore that others release", 0, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(2)
		return s.wait(ctx, s.task(ctx, func(ctx context.Context) error {
			for range 8 {
				if err := s.closing(func() error { return l.Acquire(ctx) }); err != nil {
					return err
				}
				go func() {
					defer l.Release()
					runtime.Gosched()
				}()
			}
			return nil
		}))
	}},

	{"Shutdown of a thread from another that it waits for", 1, func(s *stage) error {
		ctx, a := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("a"))
		other, b := s.context("b")
		err := to(ctx, func(in context.Context) error {
			return from(in, func(context.Context) error {
				return to(other, func(context.Context) error {
					return s.closing(func() error { return a.Shutdown(context.Background()) })
				}, asyncsync.On(b))
			})
		})
		return errors.Join(err, a.Close())
	}},
	{"Close of a thread from another that it waits for", 0, func(s *stage) error {
		ctx, a := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("a"))
		other, b := s.context("b")
		err := to(ctx, func(in context.Context) error {
			return from(in, func(context.Context) error {
				return to(other, func(context.Context) error { return s.closing(a.Close) }, asyncsync.On(b))
			})
		})
		return errors.Join(err, a.Close())
	}},
	{"a thread comes to wait for one that closes it", 1, func(s *stage) error {
		ctx, a := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("a"))
		other, b := s.context("b")
		closes := make(chan *task.Task[int], 1)
		r := start(func() error {
			return to(ctx, func(in context.Context) error { return s.wait(asyncsync.Detach(in), <-closes) })
		})
		synctest.Wait()
		tk := s.task(other, func(other context.Context) error {
			return to(other, func(context.Context) error { return s.closing(a.Close) }, asyncsync.On(b))
		})
		synctest.Wait()
		closes <- tk
		return errors.Join(r.Wait().Err, s.wait(context.Background(), tk), a.Close())
	}},
	{"a thread comes to wait for a task that closes it", 0, func(s *stage) error {
		ctx, a := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("a"))
		closes := make(chan *task.Task[int], 1)
		r := start(func() error {
			return to(ctx, func(in context.Context) error { return s.wait(in, <-closes) })
		})
		synctest.Wait()
		tk := s.task(context.Background(), func(context.Context) error { return s.closing(a.Close) })
		synctest.Wait()
		closes <- tk
		return errors.Join(r.Wait().Err, s.wait(context.Background(), tk), a.Close())
	}},

	{"full pool: detached from the one who holds the thread", 1, func(s *stage) error {
		p := s.pool(1)
		ctx, _ := s.context("a", p)
		_, b := asyncsync.NewThreadSensitiveContext(context.Background(), p)
		err := to(ctx, func(in context.Context) error {
			return from(in, func(in context.Context) error { return s.to(asyncsync.Detach(in), ok, asyncsync.On(b)) })
		})
		return errors.Join(err, b.Close())
	}},
	{"full pool: the holder serves nobody", 0, func(s *stage) error {
		p := s.pool(1)
		ctx, _ := s.context("a", p, asyncsync.Serve(asyncsync.None))
		_, b := asyncsync.NewThreadSensitiveContext(context.Background(), p)
		err := to(ctx, func(in context.Context) error {
			return from(in, func(in context.Context) error { return s.to(in, ok, asyncsync.On(b)) })
		})
		return errors.Join(err, b.Close())
	}},
	{"full pool: a nested call without overflow", 1, func(s *stage) error {
		p := s.pool(1, -1)
		ctx, _ := s.context("a", p)
		_, b := asyncsync.NewThreadSensitiveContext(context.Background(), p)
		err := to(ctx, func(in context.Context) error { return s.to(in, ok, asyncsync.On(b)) })
		return errors.Join(err, b.Close())
	}},
	{"full pool: a nested call when the overflow is used up", 1, func(s *stage) error {
		p := s.pool(1, 1)
		ctx, _ := s.context("a", p)
		_, b := asyncsync.NewThreadSensitiveContext(context.Background(), p)
		_, c := asyncsync.NewThreadSensitiveContext(context.Background(), p)
		err := to(ctx, func(in context.Context) error {
			return to(in, func(in context.Context) error {
				return from(in, func(in context.Context) error { return s.to(in, ok, asyncsync.On(c)) })
			}, asyncsync.On(b))
		})
		return errors.Join(err, b.Close(), c.Close())
	}},
	{"full pool: both holders want another", 1, func(s *stage) error {
		p := s.pool(2)
		both := newMeeting(2)
		var rs []*runningFunc
		for i := range 2 {
			ctx, _ := s.context(fmt.Sprint("a", i), p)
			rs = append(rs, start(func() error {
				_, b := asyncsync.NewThreadSensitiveContext(context.Background(), p)
				err := to(ctx, func(in context.Context) error {
					return from(in, func(in context.Context) error {
						both.attend()
						return s.to(asyncsync.Detach(in), ok, asyncsync.On(b))
					})
				})
				return errors.Join(err, b.Close())
			}))
		}
		// The one who was not refused gets its thread when the other context
		// gives it back.
		var err error
		for {
			synctest.Wait()
			for i, r := range rs {
				if r.Over() && s.tscs[i] != nil {
					err = errors.Join(err, r.Wait().Err, s.tscs[i].Close())
					s.tscs[i] = nil
				}
			}
			if s.tscs[0] == nil && s.tscs[1] == nil {
				s.tscs, s.ctxs = nil, nil
				return err
			}
		}
	}},
	{"full pool: one holder only waits", 0, func(s *stage) error {
		p := s.pool(2)
		ctx, _ := s.context("a", p)
		idle, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), p)
		if err := to(idle, ok); err != nil {
			return err
		}
		_, b := asyncsync.NewThreadSensitiveContext(context.Background(), p)
		go func() { synctest.Wait(); tsc.Close() }()
		err := to(ctx, func(in context.Context) error {
			return from(in, func(in context.Context) error { return s.to(asyncsync.Detach(in), ok, asyncsync.On(b)) })
		})
		return errors.Join(err, b.Close())
	}},
	{"full pool: the thread of the ctx's own context is idle", 0, func(s *stage) error {
		p := s.pool(1)
		_, b := asyncsync.NewThreadSensitiveContext(context.Background(), p, asyncsync.WithName("b"))
		err := asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
			if err := to(ctx, ok); err != nil {
				return err
			}
			return s.to(ctx, ok, asyncsync.On(b))
		}, p)
		return errors.Join(err, b.Close())
	}},

	{"a task, a thread, a limiter, a group and another thread", 0, func(s *stage) error {
		ctx, _ := s.context("a")
		_, b := s.context("b")
		l := task.NewLimiter(1)
		limited := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithLimiter(l)}
		held, go_ := make(chan struct{}), make(chan struct{})
		// The token waits for thread b, whose function waits for a group, whose
		// member waits for a task, which wants the token from thread a.
		var tk *task.Task[int]
		holder := s.task(context.Background(), func(own context.Context) error {
			return to(own, func(own context.Context) error {
				close(held)
				<-go_
				return s.to(own, func(in context.Context) error {
					gctx, g := task.NewGroup(in)
					g.Go(func(ctx context.Context) error { return s.wait(ctx, tk) })
					return s.closing(func() error { return g.Wait(gctx) })
				}, asyncsync.On(b))
			}, limited...)
		})
		<-held
		tk = s.task(ctx, func(ctx context.Context) error {
			return to(ctx, func(ctx context.Context) error { return s.to(ctx, ok, limited...) })
		})
		synctest.Wait()
		close(go_)
		return errors.Join(s.wait(ctx, holder), s.wait(ctx, tk))
	}},
}

// pages is where the errors of shapes send their reader, if that is not
// call-to-blocked-thread.
var pages = map[string]string{
	"a function that All serves on top of another waits for who waits for that one": "serve-all",

	"nested call, policy None":                     "serve-none",
	"call to another thread and back, policy None": "serve-none",
	"task whose call is queued, policy None":       "serve-none",

	"a task and itself":                                 "self-wait",
	"a task and itself, from its thread":                "self-wait",
	"a task and itself, as a thread of its own":         "self-wait",
	"a task and itself, from two threads deep":          "self-wait",
	"a task and itself, from a coroutine on the thread": "self-wait",
	"a task and itself, in an executor":                 "self-wait",
	"two tasks":                                         "cycle-of-tasks",

	"a member and its group":                "group-member",
	"a member's grandchild and the group":   "group-member",
	"a member and its group, from a thread": "group-member",

	"a limited function takes the last token":                             "limiter",
	"a limited function takes the last token, in a task":                  "limiter",
	"a limited function takes the last token, with another ctx":           "limiter",
	"a thread wants the token of a plain goroutine that wants the thread": "limiter",
	"two tokens, and both limited functions take another":                 "limiter",
	"a thread wants the token of one who wants the thread":                "limiter",

	"Shutdown of a thread from another that it waits for": "shutdown-inside",
	"a thread comes to wait for one that closes it":       "shutdown-inside",

	"full pool: detached from the one who holds the thread": "full-pool",
	"full pool: a nested call without overflow":             "full-pool",
	"full pool: a nested call when the overflow is used up": "full-pool",
	"full pool: both holders want another":                  "full-pool",
}

// Every shape either succeeds or has the one who closes a cycle told, at once;
// none hangs, and afterwards everything works as before.
func TestDeadlockShapes(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				s := &stage{T: t}
				require.NoError(t, shape.play(s))
				require.Len(t, s.told, shape.told)
				for _, d := range s.told {
					requireCycle(t, d)
					require.Equal(t, cmp.Or(pages[shape.name], "call-to-blocked-thread"), d.Page)
				}
				s.requireAsNew()
			})
		})
	}
}

// requireAsNew requires that everything works as before, and closes it. It is
// called in a bubble.
func (s *stage) requireAsNew() {
	for i, ctx := range s.ctxs {
		require.NoError(s, to(ctx, func(in context.Context) error { return from(in, ok) }))
		st := s.tscs[i].Stats()
		require.Zero(s, st.Queued)
		synctest.Wait()
		require.False(s, s.tscs[i].Stats().Running)
		require.NoError(s, s.tscs[i].Close())
	}
	for _, p := range s.pools {
		require.NoError(s, p.Close())
	}
	require.Zero(s, asyncsync.ReadStats().Queued)
}

// requireCycle requires that d says what there is to say of a cycle.
func requireCycle(t *testing.T, d *deadlock.Error) {
	t.Helper()
	require.ErrorIs(t, d, deadlock.ErrDeadlock)
	require.NotEmpty(t, d.Message)
	require.NotEmpty(t, d.Cycle)
	require.True(t, strings.HasPrefix(d.Error(), "deadlock: "+d.Message+" (see go doc asyncsync.dev/deadlock Page"), d.Error())
	lines := strings.Split(d.Details(), "\n")
	require.Equal(t, d.Error(), lines[0])
	require.Len(t, lines, 1+len(d.Cycle))
	require.EqualValues(t, -1, d.Cycle[0].Age, "it did not come to sleep")
	require.Contains(t, d.Cycle[0].Site, "_test.go:")
	for _, l := range d.Cycle {
		require.NotEmpty(t, l.Kind, "%+v", d.Cycle)
		require.NotZero(t, l.Goroutine, "%+v", d.Cycle)
		require.NotEmpty(t, l.Who, "%+v", d.Cycle)
	}
}

// A cycle may close without a new wait. A call made with the ctx of a task that is
// not the one who waits for it is served as long as somebody joins that task; when
// the join goes while the thread is busy, the call is a stranger's, and what
// blocks the thread may be waiting for it: it is refused then.
func TestDeadlockClosedByAJoinThatEnds(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		leave, cancel := context.WithCancelCause(context.Background())
		defer cancel(nil)
		end, release, call := make(chan struct{}), make(chan struct{}), make(chan struct{})
		var borrowed context.Context
		joined := task.Go(context.Background(), func(ctx context.Context) (int, error) {
			borrowed = ctx
			<-end
			return 0, nil
		})
		waits := task.Go(leave, func(own context.Context) (int, error) {
			<-call
			// The ctx of joined, but for its end.
			with, stop := context.WithCancelCause(context.WithoutCancel(borrowed))
			defer context.AfterFunc(own, func() { stop(context.Cause(own)) })()
			return 0, to(with, ok, asyncsync.On(tsc))
		})
		r := start(func() error {
			return to(ctx, func(in context.Context) error {
				gctx, g := task.NewGroup(in)
				g.Go(func(ctx context.Context) error {
					return to(ctx, func(in context.Context) error {
						return from(in, func(in context.Context) error {
							go to(in, func(context.Context) error { <-release; return nil })
							_, err := joined.Wait(in)
							return err
						})
					})
				})
				g.Go(func(ctx context.Context) error {
					_, err := waits.Wait(asyncsync.Detach(ctx))
					return err
				})
				return g.Wait(gctx)
			})
		})
		synctest.Wait() // the thread is busy on top of the innermost wait
		close(call)
		synctest.Wait()
		require.Equal(t, 1, tsc.Stats().Queued)
		close(end)
		synctest.Wait() // nobody joins the submitter any more
		require.Zero(t, tsc.Stats().Queued, "the call is refused")
		close(release)
		err := r.Wait().Err
		var d *deadlock.Error
		require.ErrorAs(t, err, &d)
		require.NotEmpty(t, d.Cycle)
		require.Equal(t, "call", d.Cycle[0].Kind)
		require.NoError(t, tsc.Close())
	})
}

// An exit function calls the thread that closes its context, and that thread waits for
// the exit function. The later of the two waits is refused: nearly always that is the
// call.
func TestExitFunctionCallsWhoCloses(t *testing.T) {
	guard(t)
	outer, o := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("closes"))
	var refused error
	inner, i := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("closed"),
		asyncsync.OnThreadExit(func() {
			_, refused = asyncsync.ToThread(outer, func(context.Context) (int, error) { return 0, nil })
		}))
	_, err := asyncsync.ToThread(inner, func(context.Context) (int, error) { return 0, nil })
	require.NoError(t, err)
	_, err = asyncsync.ToThread(outer, func(ctx context.Context) (int, error) { return 0, i.Shutdown(context.WithoutCancel(ctx)) })
	require.NoError(t, i.Close(), "the exit function has ended")
	if refused == nil {
		refused, err = err, nil
	}
	require.NoError(t, err)
	require.ErrorIs(t, refused, deadlock.ErrDeadlock)
	require.NoError(t, o.Close())
}
