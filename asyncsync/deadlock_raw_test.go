package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/task"
)

// A hide makes a wait that the library does not see, and what ends it, once or
// more often.
type hide func() (wait, end func())

// hides are by what the runtime says of a goroutine in such a wait.
var hides = map[string]hide{
	"chan receive": hideChan,
	"select": func() (wait, end func()) {
		ch, never := make(chan struct{}), make(chan struct{})
		return func() {
			select {
			case <-ch:
			case <-never:
			}
		}, sync.OnceFunc(func() { close(ch) })
	},
	"chan send": func() (wait, end func()) {
		ch := make(chan struct{})
		return func() { ch <- struct{}{} }, sync.OnceFunc(func() { <-ch })
	},
	"sync.WaitGroup.Wait": func() (wait, end func()) {
		wg := new(sync.WaitGroup)
		wg.Add(1)
		return wg.Wait, sync.OnceFunc(wg.Done)
	},
	"sync.Cond.Wait": func() (wait, end func()) {
		c, over := sync.NewCond(new(sync.Mutex)), false
		return func() {
				c.L.Lock()
				defer c.L.Unlock()
				for !over {
					c.Wait()
				}
			}, func() {
				c.L.Lock()
				defer c.L.Unlock()
				over = true
				c.Broadcast()
			}
	},
	"sync.Mutex.Lock": func() (wait, end func()) {
		mu := new(sync.Mutex)
		mu.Lock()
		return func() { mu.Lock(); defer mu.Unlock() }, sync.OnceFunc(mu.Unlock)
	},
	"sync.RWMutex.RLock": func() (wait, end func()) {
		mu := new(sync.RWMutex)
		mu.Lock()
		return func() { mu.RLock(); defer mu.RUnlock() }, sync.OnceFunc(mu.Unlock)
	},
	"sync.RWMutex.Lock": func() (wait, end func()) {
		mu := new(sync.RWMutex)
		mu.RLock()
		return func() { mu.Lock(); defer mu.Unlock() }, sync.OnceFunc(mu.RUnlock)
	},
}

func hideChan() (wait, end func()) {
	ch := make(chan struct{})
	return func() { <-ch }, sync.OnceFunc(func() { close(ch) })
}

// unseen waits for fn, on a goroutine of its own, in a way that the library
// does not see, or until release.
func (s *stage) unseen(fn func() error) error {
	wait, end := s.hide()
	s.mu.Lock()
	s.ends = append(s.ends, end)
	s.mu.Unlock()
	s.helpers.Go(func() {
		defer end()
		// A group that was let go ends, and its ctx, before this does.
		if err := fn(); err != nil && !errors.Is(err, context.Canceled) {
			s.mu.Lock()
			s.fails = append(s.fails, err)
			s.mu.Unlock()
		}
	})
	wait()
	return nil
}

// release ends all waits that are hidden.
func (s *stage) release() {
	s.mu.Lock()
	ends := s.ends
	s.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

// settled waits for the helpers, and returns how they have ended.
func (s *stage) settled() error {
	s.helpers.Wait()
	return errors.Join(s.fails...)
}

// silent is what no verdict can be reached of: nothing is queued.
const silent deadlock.Kind = ""

// rawShapes are functions on threads that wait, unseen, for something that waits
// for them. want is the verdict.
var rawShapes = []struct {
	name string
	want deadlock.Kind
	play func(*stage) error
}{
	{"a goroutine that calls the thread", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error { return s.unseen(func() error { return to(in, ok) }) })
	}},
	{"a call that can be abandoned", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			return s.unseen(func() error { return to(in, ok, asyncsync.Abandon()) })
		})
	}},
	{"a call that nobody waits for", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			tk := asyncsync.Go(in, func(context.Context) (int, error) { return 0, nil })
			return s.unseen(func() error { <-tk.Done(); return nil })
		})
	}},
	{"a task that calls the thread", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			tk := s.task(in, func(ctx context.Context) error { return to(ctx, ok) })
			return s.unseen(func() error { <-tk.Done(); return nil })
		})
	}},
	{"a task of a task of a task", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		var down func(ctx context.Context, n int) error
		down = func(ctx context.Context, n int) error {
			if n == 0 {
				return to(ctx, ok)
			}
			_, err := s.task(ctx, func(ctx context.Context) error { return down(ctx, n-1) }).Wait(ctx)
			return err
		}
		return to(ctx, func(in context.Context) error { return s.unseen(func() error { return down(in, 3) }) })
	}},
	{"a group", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			gctx, g := task.NewGroup(in)
			for range 3 {
				g.Go(func(ctx context.Context) error { return to(ctx, ok) })
			}
			return s.unseen(func() error { return g.Wait(gctx) })
		})
	}},
	{"an insensitive function that calls back", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			return s.unseen(func() error {
				return to(in, func(ctx context.Context) error { return to(ctx, ok, asyncsync.On(s.tscs[0])) }, asyncsync.Insensitive())
			})
		})
	}},
	{"an async function that calls back", deadlock.Probable, func(s *stage) error {
		ctx, a := s.context("a")
		return to(ctx, func(in context.Context) error {
			return s.unseen(func() error {
				return from(in, func(ctx context.Context) error { return to(ctx, ok, asyncsync.On(a)) })
			})
		})
	}},
	{"eight levels down", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		_, err := through(ctx, 8, func(in context.Context) (int, error) {
			return 0, to(in, func(in context.Context) error { return s.unseen(func() error { return to(in, ok) }) })
		})
		return err
	}},
	{"on top of a blocked function", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			return from(in, func(in context.Context) error {
				return to(in, func(in context.Context) error { return s.unseen(func() error { return to(in, ok) }) })
			})
		})
	}},
	{"a nest of calls that calls back", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		_, b := s.context("b")
		return to(ctx, func(in context.Context) error {
			return s.unseen(func() error {
				return to(in, func(in context.Context) error {
					return from(in, func(in context.Context) error { return to(in, ok, asyncsync.On(s.tscs[0])) })
				}, asyncsync.On(b))
			})
		})
	}},
	{"by way of a second thread", deadlock.Probable, func(s *stage) error {
		ctx, a := s.context("a")
		_, b := s.context("b")
		return to(ctx, func(in context.Context) error {
			return s.unseen(func() error {
				return to(in, func(in context.Context) error { return to(in, ok, asyncsync.On(a)) }, asyncsync.On(b))
			})
		})
	}},
	{"by way of two more threads, unseen each time", deadlock.Probable, func(s *stage) error {
		ctx, a := s.context("a")
		_, b := s.context("b")
		_, c := s.context("c")
		return to(ctx, func(in context.Context) error {
			return s.unseen(func() error {
				return to(in, func(in context.Context) error {
					return s.unseen(func() error {
						return to(in, func(in context.Context) error {
							return s.unseen(func() error { return to(in, ok, asyncsync.On(a)) })
						}, asyncsync.On(c))
					})
				}, asyncsync.On(b))
			})
		})
	}},
	{"a thread called with the right ctx waits for its caller's thread", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		_, b := s.context("b")
		return to(ctx, func(in context.Context) error {
			return to(in, func(in context.Context) error {
				return s.unseen(func() error { return to(in, ok, asyncsync.On(b)) })
			}, asyncsync.On(b))
		})
	}},
	{"a handle", deadlock.Probable, func(s *stage) error {
		ctx := context.Background()
		h, err := asyncsync.Open(ctx, func(context.Context) (int, error) { return 1, nil }, nil)
		if err != nil {
			return err
		}
		err = h.Do(ctx, func(in context.Context, _ int) error {
			return s.unseen(func() error { return h.Do(in, func(context.Context, int) error { return nil }) })
		})
		return errors.Join(err, h.Close())
	}},
	{"an unpinned thread", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a", asyncsync.Unpinned())
		return to(ctx, func(in context.Context) error { return s.unseen(func() error { return to(in, ok) }) })
	}},
	{"policy All", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a", asyncsync.Serve(asyncsync.All))
		return to(ctx, func(in context.Context) error { return s.unseen(func() error { return to(in, ok) }) })
	}},
	{"policy None", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a", asyncsync.Serve(asyncsync.None))
		return to(ctx, func(in context.Context) error { return s.unseen(func() error { return to(in, ok) }) })
	}},
	{"a nested context", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			return s.unseen(func() error {
				return asyncsync.WithThreadSensitiveContext(in, func(in context.Context) error { return to(in, ok) })
			})
		})
	}},
	{"the thread is the caller of AsyncToSync", deadlock.Probable, func(s *stage) error {
		return from(context.Background(), func(ctx context.Context) error {
			return to(ctx, func(in context.Context) error { return s.unseen(func() error { return to(in, ok) }) })
		})
	}},
	{"in async code on the thread itself", deadlock.Probable, func(s *stage) error {
		ctx, a := s.context("a")
		return to(ctx, func(in context.Context) error {
			return from(in, func(in context.Context) error {
				return s.unseen(func() error { return to(in, ok, asyncsync.On(a)) })
			}, asyncsync.SameThread())
		})
	}},
	{"an iterator that calls the thread that pulls it", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			next, stop := iter.Pull(func(yield func(error) bool) {
				yield(s.unseen(func() error { return to(in, ok) }))
			})
			defer stop()
			err, _ := next()
			return err
		})
	}},
	{"a full pool: a nested context", deadlock.Probable, func(s *stage) error {
		p := s.pool(1)
		ctx, _ := s.context("a", p)
		return to(ctx, func(in context.Context) error {
			return s.unseen(func() error {
				return asyncsync.WithThreadSensitiveContext(in, func(in context.Context) error { return to(in, ok) }, p)
			})
		})
	}},
	{"a token whose holder needs the thread", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		l := task.NewLimiter(1)
		return to(ctx, func(in context.Context) error {
			held := make(chan struct{})
			tk := s.task(in, func(ctx context.Context) error {
				return to(ctx, func(ctx context.Context) error {
					close(held)
					return to(ctx, ok, asyncsync.On(s.tscs[0]))
				}, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
			})
			<-held
			err := s.unseen(func() error {
				return to(in, ok, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
			})
			_, e := tk.Wait(in)
			return errors.Join(err, e)
		})
	}},
	{"a stranger's call came first", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		var stranger *runningFunc
		err := to(ctx, func(in context.Context) error {
			stranger = start(func() error { return to(ctx, ok) })
			synctest.Wait()
			return s.unseen(func() error { return to(in, ok) })
		})
		return errors.Join(err, stranger.Wait().Err)
	}},
	{"many strangers' calls came first", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		var strangers []*runningFunc
		err := to(ctx, func(in context.Context) error {
			for range 40 {
				strangers = append(strangers, start(func() error { return to(ctx, ok) }))
			}
			synctest.Wait()
			return s.unseen(func() error { return to(in, ok) })
		})
		for _, r := range strangers {
			err = errors.Join(err, r.Wait().Err)
		}
		return err
	}},

	// The ctx says nothing, but who has started the goroutine does.
	{"outer ctx in a goroutine", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(context.Context) error { return s.unseen(func() error { return to(ctx, ok) }) })
	}},
	{"outer ctx in a goroutine of a goroutine", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(context.Context) error {
			return s.unseen(func() error {
				errs := make(chan error)
				go func() { errs <- to(ctx, ok) }()
				return <-errs
			})
		})
	}},
	{"the blocked function's ctx, on top of it", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(outer context.Context) error {
			return from(outer, func(in context.Context) error {
				return to(in, func(context.Context) error { return s.unseen(func() error { return to(outer, ok) }) })
			})
		})
	}},
	{"detached", deadlock.Slow, func(s *stage) error {
		ctx, a := s.context("a")
		return to(ctx, func(in context.Context) error {
			return s.unseen(func() error { return to(asyncsync.Detach(in), ok, asyncsync.On(a)) })
		})
	}},
	// A function that was posted belongs to nobody before it runs.
	{"an executor", deadlock.Slow, func(s *stage) error {
		ctx := context.Background()
		made, over := make(chan *asyncsync.CurrentThreadExecutor), make(chan struct{})
		r := start(func() error {
			e := asyncsync.NewCurrentThreadExecutor()
			made <- e
			return e.RunUntil(over)
		})
		e := <-made
		there := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithExecutor(e)}
		err := to(ctx, func(in context.Context) error { return s.unseen(func() error { return to(in, ok, there...) }) }, there...)
		close(over)
		return errors.Join(err, r.Wait().Err)
	}},
	// The function is in a wait of the library, and only what that waits for in
	// an unseen way.
	{"a wait group below a wait, with an outer ctx", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			return from(in, func(context.Context) error { return s.unseen(func() error { return to(ctx, ok) }) })
		})
	}},
	{"an async function waits for a call that nobody waits for", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			tk := asyncsync.Go(in, func(context.Context) (int, error) { return 0, nil })
			return from(in, func(context.Context) error { return s.unseen(func() error { <-tk.Done(); return nil }) })
		})
	}},
	{"so does a task", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			tk := asyncsync.Go(in, func(context.Context) (int, error) { return 0, nil })
			_, err := s.task(in, func(context.Context) error { return s.unseen(func() error { <-tk.Done(); return nil }) }).Wait(in)
			return err
		})
	}},
	{"so does a task that a task waits for", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			tk := asyncsync.Go(in, func(context.Context) (int, error) { return 0, nil })
			_, err := s.task(in, func(ctx context.Context) error {
				_, err := s.task(ctx, func(context.Context) error { return s.unseen(func() error { <-tk.Done(); return nil }) }).Wait(ctx)
				return err
			}).Wait(in)
			return err
		})
	}},
	{"so does the second member of a group of three", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			tk := asyncsync.Go(in, func(context.Context) (int, error) { return 0, nil })
			gctx, g := task.NewGroup(in)
			first, third := make(chan struct{}), make(chan struct{})
			g.Go(func(context.Context) error { close(first); return nil })
			g.Go(func(context.Context) error {
				defer close(third)
				return s.unseen(func() error { <-tk.Done(); return nil })
			})
			g.Go(func(context.Context) error { <-first; <-third; return nil })
			return g.Wait(gctx)
		})
	}},
	{"so does a function on another thread", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		_, b := s.context("b")
		return to(ctx, func(in context.Context) error {
			tk := asyncsync.Go(in, func(context.Context) (int, error) { return 0, nil })
			return to(in, func(context.Context) error { return s.unseen(func() error { <-tk.Done(); return nil }) }, asyncsync.On(b))
		})
	}},
	{"so does what runs on another thread before the call to it", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		bctx, b := s.context("b")
		called := make(chan (<-chan struct{}))
		r := start(func() error {
			return to(bctx, func(context.Context) error {
				done := <-called
				return s.unseen(func() error { <-done; return nil })
			})
		})
		for !b.Stats().Running {
			runtime.Gosched()
		}
		err := to(ctx, func(in context.Context) error {
			tk := asyncsync.Go(in, func(context.Context) (int, error) { return 0, nil })
			called <- tk.Done()
			return to(in, ok, asyncsync.On(b))
		})
		return errors.Join(err, r.Wait().Err)
	}},
	{"so does what is behind a thread, an async function, a task and a group", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		_, b := s.context("b")
		return to(ctx, func(in context.Context) error {
			tk := asyncsync.Go(in, func(context.Context) (int, error) { return 0, nil })
			return to(in, func(in context.Context) error {
				return from(in, func(in context.Context) error {
					_, err := s.task(in, func(ctx context.Context) error {
						gctx, g := task.NewGroup(ctx)
						g.Go(func(context.Context) error { return s.unseen(func() error { <-tk.Done(); return nil }) })
						return g.Wait(gctx)
					}).Wait(in)
					return err
				})
			}, asyncsync.On(b))
		})
	}},
	{"an iterator's body waits for a task of the thread that pulls it", deadlock.Probable, func(s *stage) error {
		ctx, _ := s.context("a")
		return to(ctx, func(in context.Context) error {
			tk := asyncsync.Go(in, func(context.Context) (int, error) { return 0, nil })
			next, stop := iter.Pull(func(yield func(error) bool) {
				yield(s.unseen(func() error { <-tk.Done(); return nil }))
			})
			defer stop()
			err, _ := next()
			return err
		})
	}},
	{"a Shutdown of its own context", deadlock.Probable, func(s *stage) error {
		ctx, a := asyncsync.NewThreadSensitiveContext(context.Background())
		return to(ctx, func(in context.Context) error { return s.unseen(func() error { return a.Shutdown(in) }) })
	}},
	{"a Close of its own context below a wait", deadlock.Probable, func(s *stage) error {
		ctx, a := asyncsync.NewThreadSensitiveContext(context.Background())
		return to(ctx, func(in context.Context) error {
			return from(in, func(context.Context) error { return s.unseen(a.Close) })
		})
	}},
	{"a Close of its own pool", deadlock.Probable, func(s *stage) error {
		p := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 2})
		ctx, a := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(p))
		err := to(ctx, func(context.Context) error {
			return s.unseen(p.Close)
		})
		return errors.Join(err, a.Close(), p.Close())
	}},
	// No call from below either function is in its thread's queue.
	{"two threads, each for the other's", deadlock.Slow, func(s *stage) error {
		s.context("a")
		s.context("b")
		both := newMeeting(2)
		var rs []*runningFunc
		for i := range 2 {
			rs = append(rs, start(func() error {
				return to(s.ctxs[i], func(in context.Context) error {
					both.attend()
					return s.unseen(func() error { return to(in, ok, asyncsync.On(s.tscs[1-i])) })
				})
			}))
		}
		return errors.Join(rs[0].Wait().Err, rs[1].Wait().Err)
	}},
	// It waits for its own end.
	{"a Close of its own context", deadlock.Probable, func(s *stage) error {
		ctx, a := asyncsync.NewThreadSensitiveContext(context.Background())
		return to(ctx, func(context.Context) error { return s.unseen(a.Close) })
	}},
	{"its own task", silent, func(s *stage) error {
		ctx, _ := s.context("a")
		tk := s.self(ctx, func(ctx context.Context, me *task.Task[int]) error {
			return to(ctx, func(context.Context) error { return s.unseen(func() error { <-me.Done(); return nil }) })
		})
		_, err := tk.Wait(ctx)
		return err
	}},
}

// hidden are the verdicts on the shapes of TestDeadlockShapes when the wait that
// closes the cycle is hidden, if they are not Slow: then the call is a stranger's
// and waits its turn, as far as can be seen.
var hidden = map[string]deadlock.Kind{
	// The function on the thread waits unseen for a call from below it.
	"task whose call is queued, policy None":                               deadlock.Probable,
	"a thread waits for a group, of which one calls it with a foreign ctx": deadlock.Probable,
	// It was started by what waits for it.
	"outer ctx below a wait: the context's own":                  deadlock.Probable,
	"outer ctx below a wait: the blocked function's":             deadlock.Probable,
	"outer ctx below a wait: a task's":                           deadlock.Probable,
	"outer ctx below eight levels":                               deadlock.Probable,
	"outer ctx, and the call is abandonable":                     deadlock.Probable,
	"nested call, policy None":                                   deadlock.Probable,
	"call to another thread and back, policy None":               deadlock.Probable,
	"an async function that has not been lent a goroutine":       deadlock.Probable,
	"an unpinned thread":                                         deadlock.Probable,
	"nested contexts share a thread":                             deadlock.Probable,
	"a thread waits for a task that calls it with a foreign ctx": deadlock.Probable,
	"the same, called after the wait":                            deadlock.Probable,
	"there and back, with an outer ctx":                          deadlock.Probable,
	"a handle below itself, with an outer ctx":                   deadlock.Probable,
	"Shutdown of a thread from another that it waits for":        deadlock.Probable,
	// Who holds the tokens waits, or is parked.
	"a limited function takes the last token":                             deadlock.Probable,
	"a limited function takes the last token, in a task":                  deadlock.Probable,
	"a limited function takes the last token, with another ctx":           deadlock.Probable,
	"two tokens, and both limited functions take another":                 deadlock.Probable,
	"a thread wants the token of a plain goroutine that wants the thread": deadlock.Probable,
	"a thread wants the token of one who wants the thread":                deadlock.Probable,
	// No thread has anything queued: tasks wait for each other.
	"a task and itself":                                                             silent,
	"a task and itself, from its thread":                                            silent,
	"a task and itself, as a thread of its own":                                     silent,
	"a task and itself, from two threads deep":                                      silent,
	"a task and itself, from a coroutine on the thread":                             silent,
	"a task and itself, in an executor":                                             silent,
	"a function that All serves on top of another waits for who waits for that one": silent,
	"two tasks":                                     silent,
	"a member and its group":                        silent,
	"a member's grandchild and the group":           silent,
	"a member and its group, from a thread":         silent,
	"a thread comes to wait for one that closes it": silent,
}

// Every raw wait that depends on itself is told of as soon as it has been seen
// twice; when it ends after all that is told too, with the time it took, and
// everything goes on.
func TestRawShapes(t *testing.T) {
	for _, shape := range rawShapes {
		t.Run(shape.name, func(t *testing.T) { playRaw(t, hideChan, "chan receive", shape.want, shape.play) })
	}
	for _, parked := range []string{"select", "chan send", "sync.WaitGroup.Wait", "sync.Cond.Wait"} {
		for _, shape := range rawShapes[:2] {
			t.Run(parked+": "+shape.name, func(t *testing.T) { playRaw(t, hides[parked], parked, shape.want, shape.play) })
		}
	}
	for _, shape := range shapes {
		if shape.told > 0 && shape.name != "full pool: both holders want another" { // that one goes by the clock of the bubble itself
			t.Run("shape: "+shape.name, func(t *testing.T) {
				want, ok := hidden[shape.name]
				if !ok {
					want = deadlock.Slow
				}
				playRaw(t, hideChan, "chan receive", want, shape.play)
			})
		}
	}
}

// playRaw plays a shape in a bubble, where a watcher looks at it each second.
func playRaw(t *testing.T, h hide, parked string, want deadlock.Kind, play func(*stage) error) {
	guard(t)
	// A collection may move the stack of a goroutine that is parked. The watcher compares what
	// the runtime prints of it, arguments included, and would take it for one that has moved.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC() // one that is under way ends
	synctest.Test(t, func(t *testing.T) {
		const (
			slow = 5 * time.Second
			rest = slow + 2*time.Second
		)
		s := &stage{T: t, hide: h}
		var mu sync.Mutex
		var got []deadlock.Verdict
		take := func() (vs []deadlock.Verdict) {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			vs, got = got, nil
			return vs
		}
		stop := deadlock.Watch(deadlock.Config{Slow: slow, Interval: time.Second, OnVerdict: func(v deadlock.Verdict) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, v)
		}})
		time.Sleep(time.Second / 2) // looks come between what happens
		r := start(func() error { return play(s) })
		leave := func() {
			for _, tsc := range s.tscs {
				require.NoError(t, tsc.Close())
			}
		}
		defer func() { // whatever has failed, the bubble must end
			stop()
			s.release()
			leave()
			r.Wait()
			s.helpers.Wait()
			for _, p := range s.pools {
				p.Close()
			}
		}()
		time.Sleep(time.Second)
		require.Empty(t, take(), "seen once")
		time.Sleep(time.Second)
		told := take()
		if want == deadlock.Probable {
			require.NotEmpty(t, told, "nothing is told\n%v", deadlock.Take())
		}
		// A verdict on a call that nobody waits for counts from when that was
		// first seen, and one on another wait does not know when that ended.
		closing := slices.ContainsFunc(told, func(v deadlock.Verdict) bool { return v.Wait != nil && v.Wait.Kind != "limiter" })
		unknown := func(v deadlock.Verdict) time.Duration {
			if v.Wait == nil && unwaited(v) {
				return time.Second / 2
			}
			return 0
		}
		for _, v := range told {
			require.Equal(t, deadlock.Probable, v.Kind)
			if v.Wait == nil || v.Wait.Kind != "limiter" {
				require.Equal(t, parked, v.Parked)
			}
			require.Equal(t, 3*time.Second/2-unknown(v), v.Age)
		}
		if want != deadlock.Probable {
			require.Empty(t, told)
		}
		time.Sleep(rest - 2*time.Second)
		late := take()
		for _, v := range late {
			require.Equal(t, deadlock.Slow, v.Kind)
		}
		if want != silent && !closing {
			require.NotEmpty(t, late, "nothing is told\n%v", deadlock.Take())
		} else {
			require.Empty(t, late)
		}

		s.release()
		if strings.Contains(t.Name(), "shape:_full_pool") {
			leave() // the call in line gets the thread that is given back
		}
		o := r.Wait()
		require.NoError(t, s.settled())
		require.Equal(t, outcome{How: "return"}, o)
		time.Sleep(time.Second)
		back := take()
		require.Len(t, back, len(told)+len(late), "each is taken back")
		for _, v := range back {
			require.Equal(t, deadlock.Retracted, v.Kind)
			if v.Retracts.Wait == nil {
				require.Equal(t, rest-unknown(*v.Retracts), v.Age, "when it moved")
			}
		}
		if !strings.Contains(t.Name(), "shape:_full_pool") {
			s.requireAsNew()
		}
	})
}

// unwaited reports whether nobody waits for the call of a verdict.
func unwaited(v deadlock.Verdict) bool {
	for _, t := range v.Report.Threads {
		for _, c := range t.Queue {
			if t.ID == v.Thread && c.Seq == v.Seq {
				return c.Waited < 0
			}
		}
	}
	return false
}

// Waits for locks are told of as well. A bubble's clock does not pass them.
func TestRawLocks(t *testing.T) {
	for parked, h := range hides {
		for _, shape := range rawShapes[:3] {
			t.Run(fmt.Sprint(parked, ": ", shape.name), func(t *testing.T) {
				guard(t)
				s := &stage{T: t, hide: h}
				told := make(chan deadlock.Verdict)
				stop := deadlock.Watch(deadlock.Config{Interval: time.Millisecond, OnVerdict: func(v deadlock.Verdict) { told <- v }})
				defer stop()
				r := start(func() error { return shape.play(s) })
				v := <-told
				require.Equal(t, deadlock.Probable, v.Kind)
				require.Equal(t, parked, v.Parked)
				s.release()
				require.Equal(t, outcome{How: "return"}, r.Wait())
				require.NoError(t, s.settled())
				require.Equal(t, deadlock.Retracted, (<-told).Kind)
				for _, tsc := range s.tscs {
					require.NoError(t, tsc.Close())
				}
			})
		}
	}
}
