package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/task"
)

// A lot is values of a pool that know their thread, and counts them.
type lot struct {
	open, most, opened, closed atomic.Int32

	mu   sync.Mutex
	sick map[*touchy]bool
}

func (l *lot) config(c asyncsync.HandlePoolConfig[*touchy]) asyncsync.HandlePoolConfig[*touchy] {
	c.Open = func(ctx context.Context) (*touchy, error) {
		n := l.open.Add(1)
		for {
			most := l.most.Load()
			if n <= most || l.most.CompareAndSwap(most, n) {
				break
			}
		}
		l.opened.Add(1)
		return openTouchy(ctx)
	}
	c.Close = func(v *touchy) error {
		err := v.use()
		v.close++
		l.open.Add(-1)
		l.closed.Add(1)
		return err
	}
	return c
}

// checks has the pool ask whether a value is good.
func (l *lot) checks(c asyncsync.HandlePoolConfig[*touchy]) asyncsync.HandlePoolConfig[*touchy] {
	c.Check = func(_ context.Context, v *touchy) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.sick[v] {
			return errors.New("sick")
		}
		return v.use()
	}
	return c
}

func (l *lot) spoil(v *touchy) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sick == nil {
		l.sick = map[*touchy]bool{}
	}
	l.sick[v] = true
}

func newHandlePool(t *testing.T, l *lot, c asyncsync.HandlePoolConfig[*touchy], opts ...asyncsync.ContextOption) *asyncsync.HandlePool[*touchy] {
	t.Helper()
	p := asyncsync.NewHandlePool(l.config(c), opts...)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if n := l.open.Load(); n != 0 {
			t.Errorf("%d values are open after Close", n)
		}
	})
	return p
}

// use uses a value, and returns it.
func use(ctx context.Context, p *asyncsync.HandlePool[*touchy]) (*touchy, error) {
	return asyncsync.GetFrom(ctx, p, func(_ context.Context, v *touchy) (*touchy, error) { return v, v.use() })
}

// A value outlives the requests that use it; what is made for a context does not.
func TestHandlePoolReusesValues(t *testing.T) {
	guard(t)
	l := &lot{}
	p := newHandlePool(t, l, asyncsync.HandlePoolConfig[*touchy]{})
	var first *touchy
	for range 10 {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		v, err := use(ctx, p)
		require.NoError(t, err)
		if first == nil {
			first = v
		}
		require.Same(t, first, v)
		require.NoError(t, tsc.Close())
	}
	require.EqualValues(t, 1, l.opened.Load())
	s := p.Stats()
	require.Equal(t, 1, s.Open)
	require.Equal(t, 1, s.Idle)
	require.EqualValues(t, 1, s.Opened)
}

// Many at once, a few values: each touched on its thread by one at a time.
func TestHandlePoolIsBounded(t *testing.T) {
	guard(t)
	l := &lot{}
	p := newHandlePool(t, l, l.checks(asyncsync.HandlePoolConfig[*touchy]{Max: 3}))
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			for j := range 50 {
				v, err := use(context.Background(), p)
				if err != nil {
					t.Error(err)
				}
				if i == 0 && j%10 == 0 {
					l.spoil(v)
				}
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, l.most.Load(), int32(3))
	require.Zero(t, p.Stats().Waiting)
}

// A call below somebody who has a value gets that value, however it comes to be
// below; with one value nothing else could end.
func TestHandlePoolNested(t *testing.T) {
	l := &lot{}
	p := newHandlePool(t, l, asyncsync.HandlePoolConfig[*touchy]{Max: 1})
	_, other := newContext(t)
	again := func(ctx context.Context, v *touchy) error {
		got, err := use(ctx, p)
		if err == nil && got != v {
			err = errors.New("another value")
		}
		return err
	}
	for name, below := range map[string]func(ctx context.Context, v *touchy) error{
		"inline":        again,
		"ctx of nobody": func(_ context.Context, v *touchy) error { return again(context.Background(), v) },
		"async": func(ctx context.Context, v *touchy) error {
			return from(ctx, func(ctx context.Context) error { return again(ctx, v) })
		},
		"async, ctx of nobody": func(ctx context.Context, v *touchy) error {
			return from(ctx, func(context.Context) error { return again(context.Background(), v) })
		},
		"on another thread": func(ctx context.Context, v *touchy) error {
			_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, again(ctx, v) }, asyncsync.On(other))
			return err
		},
		"task": func(ctx context.Context, v *touchy) error {
			_, err := task.Go(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, again(ctx, v) }).Wait(ctx)
			return err
		},
		"task, begun before it is waited for": func(ctx context.Context, v *touchy) error {
			begun := make(chan struct{})
			tk := task.Go(ctx, func(ctx context.Context) (struct{}, error) { close(begun); return struct{}{}, again(ctx, v) })
			<-begun
			_, err := tk.Wait(ctx)
			return err
		},
		"lease": func(ctx context.Context, v *touchy) error {
			lease, err := p.Acquire(ctx)
			if err != nil {
				return err
			}
			defer lease.Release()
			return again(lease.Context(), v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			guard(t)
			require.NoError(t, p.Do(context.Background(), func(ctx context.Context, v *touchy) error {
				return errors.Join(v.use(), below(ctx, v), v.use())
			}))
			require.Equal(t, 1, p.Stats().Idle, "all is given back")
		})
	}
	require.EqualValues(t, 1, l.opened.Load())
}

// What is detached, and a ctx of a function that has ended, are below nobody.
func TestHandlePoolNotNested(t *testing.T) {
	guard(t)
	l := &lot{}
	p := newHandlePool(t, l, asyncsync.HandlePoolConfig[*touchy]{Max: 2})
	var stale context.Context
	require.NoError(t, p.Do(context.Background(), func(ctx context.Context, v *touchy) error {
		stale = ctx
		_, err := task.Go(asyncsync.Detach(ctx), func(ctx context.Context) (struct{}, error) {
			w, err := use(ctx, p)
			require.NotSame(t, v, w)
			return struct{}{}, err
		}).Wait(ctx)
		return err
	}))
	lease, err := p.Acquire(context.Background())
	require.NoError(t, err)
	defer lease.Release()
	other, err := p.Acquire(context.Background())
	require.NoError(t, err)
	defer other.Release()
	ctx, cancel := context.WithCancelCause(stale)
	r := start(func() error { _, err := use(ctx, p); return err })
	poll(t, func() string {
		if p.Stats().Waiting != 1 {
			return "the stale ctx has got a value that is another's"
		}
		return ""
	})
	cancel(errCause)
	require.Same(t, errCause, r.Wait().Err)
}

// A task that its starter never waits for keeps the value until its call is over.
func TestHandlePoolTaskOutlivesFunction(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := &lot{}
		p := asyncsync.NewHandlePool(l.config(asyncsync.HandlePoolConfig[*touchy]{Max: 1, IdleTimeout: -1}))
		gate := make(chan struct{})
		var tk *task.Task[struct{}]
		first := start(func() error {
			return p.Do(context.Background(), func(ctx context.Context, v *touchy) error {
				tk = task.Go(ctx, func(ctx context.Context) (struct{}, error) {
					return struct{}{}, p.Do(ctx, func(_ context.Context, w *touchy) error {
						require.Same(t, v, w)
						<-gate
						return w.use()
					})
				})
				synctest.Wait() // the call is queued on this very thread
				return v.use()
			})
		})
		require.NoError(t, first.Wait().Err)
		synctest.Wait()
		require.Zero(t, p.Stats().Idle)
		second := start(func() error { _, err := use(context.Background(), p); return err })
		synctest.Wait()
		require.Equal(t, 1, p.Stats().Waiting)
		close(gate)
		_, err := tk.Wait(context.Background())
		require.NoError(t, err)
		require.NoError(t, second.Wait().Err)
		require.NoError(t, p.Close())
	})
}

// What stands in line: it goes in order, and ends with its ctx, or its patience.
func TestHandlePoolLine(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := &lot{}
		p := asyncsync.NewHandlePool(l.config(asyncsync.HandlePoolConfig[*touchy]{Max: 1, MaxWaiting: 2, MaxWait: time.Second, IdleTimeout: -1}), asyncsync.WithName("db"))
		lease, err := p.Acquire(context.Background())
		require.NoError(t, err)
		ctx, cancel := context.WithCancelCause(context.Background())
		never := func(ctx context.Context) error {
			return p.Do(ctx, func(context.Context, *touchy) error { t.Error("has run"); return nil })
		}
		begin := time.Now()
		cancelled := start(func() error { return never(ctx) })
		synctest.Wait()
		late := start(func() error { return never(context.Background()) })
		synctest.Wait()
		err = never(context.Background())
		require.ErrorIs(t, err, asyncsync.ErrPoolFull)
		require.EqualError(t, err, `asyncsync: handle pool "db": all 1 values are in use, and 2 callers wait for one`)
		cancel(errCause)
		require.Same(t, errCause, cancelled.Wait().Err)
		err = late.Wait().Err
		require.ErrorIs(t, err, asyncsync.ErrPoolFull)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, `asyncsync: handle pool "db": all 1 values have been in use for 1s`)
		require.Equal(t, time.Second, time.Since(begin))
		require.EqualValues(t, 2, p.Stats().Refused)
		require.EqualValues(t, 2, p.Stats().Waited)
		require.Equal(t, time.Second, p.Stats().WaitTime)

		var order []int
		next := func(n int) *runningFunc {
			r := start(func() error {
				return p.Do(context.Background(), func(context.Context, *touchy) error { order = append(order, n); return nil })
			})
			synctest.Wait()
			return r
		}
		one, two := next(1), next(2)
		lease.Release()
		require.NoError(t, one.Wait().Err)
		require.NoError(t, two.Wait().Err)
		require.Equal(t, []int{1, 2}, order)
		require.NoError(t, p.Close())
	})
}

// Callers inside the call tree and callers outside of it wait in one line. One that gives
// up holds nobody up.
func TestHandlePoolLineOfBoth(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{Max: 1, IdleTimeout: -1, Open: func(context.Context) (int, error) { return 1, nil }})
		known := func(ctx context.Context, fn func(context.Context) error) error {
			_, err := task.Go(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) }).Wait(context.Background())
			return err
		}
		unknown := func(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) }
		callers := []func(context.Context, func(context.Context) error) error{unknown, known, known, unknown, unknown, known, unknown}
		for _, holder := range callers[:2] {
			gate := make(chan struct{})
			first := start(func() error {
				return holder(context.Background(), func(ctx context.Context) error {
					return p.Do(ctx, func(context.Context, int) error { <-gate; return nil })
				})
			})
			synctest.Wait()
			var order []int
			var all []*runningFunc
			ctx, cancel := context.WithCancel(context.Background())
			for i, caller := range callers {
				for _, ctx := range []context.Context{context.Background(), ctx} { // the second will be cancelled
					all = append(all, start(func() error {
						return caller(ctx, func(ctx context.Context) error {
							return p.Do(ctx, func(context.Context, int) error { order = append(order, i); return nil })
						})
					}))
					synctest.Wait()
				}
			}
			cancel()
			synctest.Wait()
			require.Equal(t, len(callers), p.Stats().Waiting)
			close(gate)
			require.NoError(t, first.Wait().Err)
			for i, r := range all {
				if err := r.Wait().Err; i%2 == 0 {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, context.Canceled)
				}
			}
			require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6}, order)
			require.Equal(t, 1, p.Stats().Idle)
		}
		require.NoError(t, p.Close())
	})
}

// A thread that stands in line runs what the holder of the value calls there.
func TestHandlePoolLineServes(t *testing.T) {
	guard(t)
	l := &lot{}
	p := newHandlePool(t, l, asyncsync.HandlePoolConfig[*touchy]{Max: 1})
	ctx, _ := newContext(t)
	has := make(chan struct{})
	line := make(chan struct{})
	_, err := task.Go(ctx, func(ctx context.Context) (struct{}, error) {
		holder := task.Go(ctx, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, p.Do(ctx, func(in context.Context, v *touchy) error {
				close(has)
				<-line
				return to(ctx, func(context.Context) error { return nil })
			})
		})
		<-has
		err := to(ctx, func(ctx context.Context) error {
			go func() {
				for p.Stats().Waiting == 0 {
					runtime.Gosched()
				}
				close(line)
			}()
			_, err := use(ctx, p)
			return err
		})
		_, herr := holder.Wait(ctx)
		return struct{}{}, errors.Join(err, herr)
	}).Wait(context.Background())
	require.NoError(t, err)
}

// A value that is not good is closed on its thread, and the caller gets another one.
func TestHandlePoolCheck(t *testing.T) {
	for _, leased := range []bool{false, true} {
		t.Run(fmt.Sprintf("lease %t", leased), func(t *testing.T) {
			guard(t)
			l := &lot{}
			p := newHandlePool(t, l, l.checks(asyncsync.HandlePoolConfig[*touchy]{Max: 2}))
			get := func() (v *touchy, err error) {
				if !leased {
					return use(context.Background(), p)
				}
				lease, err := p.Acquire(context.Background())
				if err != nil {
					return nil, err
				}
				defer lease.Release()
				return use(lease.Context(), p)
			}
			v, err := get()
			require.NoError(t, err)
			same, err := get()
			require.NoError(t, err)
			require.Same(t, v, same)
			l.spoil(v)
			w, err := get()
			require.NoError(t, err)
			require.NotSame(t, v, w)
			require.Equal(t, 1, v.close)
			require.EqualValues(t, 1, p.Stats().Unhealthy)
			require.Equal(t, 1, p.Stats().Open)
		})
	}
}

// The three endings, of each function: the pool goes on.
func TestHandlePoolEndings(t *testing.T) {
	endings := map[string]func(){
		"panic":  func() { panic(errOwn) },
		"Goexit": runtime.Goexit,
	}
	for what, where := range map[string]string{"Open": "open", "Check": "check", "Do": "do", "lease": "lease"} {
		for name, end := range endings {
			t.Run(what+"/"+name, func(t *testing.T) {
				guard(t)
				var in string
				at := func(s string) {
					if s == in {
						end()
					}
				}
				var opened, closed atomic.Int32
				p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int32]{
					Max:   1,
					Open:  func(context.Context) (int32, error) { at("open"); return opened.Add(1), nil },
					Close: func(int32) error { closed.Add(1); return nil },
					Check: func(context.Context, int32) error { at("check"); return nil },
				})
				do := func() error {
					if in == "lease" {
						lease, err := p.Acquire(context.Background())
						if err != nil {
							return err
						}
						defer lease.Release()
						return lease.Do(context.Background(), func(context.Context, int32) error { at("lease"); return nil })
					}
					return p.Do(context.Background(), func(context.Context, int32) error { at("do"); return nil })
				}
				if where != "open" {
					require.NoError(t, do())
				}
				in = where
				o := start(do).Wait()
				if name == "panic" {
					require.Same(t, errOwn, o.Value)
				} else {
					require.Equal(t, "goexit", o.How)
				}
				in = ""
				require.NoError(t, do())
				want := int32(1)
				if where == "check" {
					want = 2
				}
				require.Equal(t, want, opened.Load())
				require.NoError(t, p.Close())
				require.Equal(t, opened.Load(), closed.Load())
			})
		}
	}
}

// An error of Open is the call's, and holds nobody up.
func TestHandlePoolOpenFails(t *testing.T) {
	guard(t)
	fail := true
	p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{Max: 1, Open: func(context.Context) (int, error) {
		if fail {
			return 0, errOwn
		}
		return 7, nil
	}})
	for range 3 {
		_, err := asyncsync.GetFrom(context.Background(), p, func(context.Context, int) (int, error) { return 0, nil })
		require.Same(t, errOwn, err)
	}
	fail = false
	n, err := asyncsync.GetFrom(context.Background(), p, func(_ context.Context, n int) (int, error) { return n, nil })
	require.NoError(t, err)
	require.Equal(t, 7, n)
	require.NoError(t, p.Close())
}

// A value that its caller has left is used until its function has ended.
func TestHandlePoolAbandon(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := &lot{}
		p := asyncsync.NewHandlePool(l.config(asyncsync.HandlePoolConfig[*touchy]{Max: 1, IdleTimeout: -1}))
		ctx, cancel := context.WithCancelCause(context.Background())
		gate := make(chan struct{})
		r := start(func() error {
			return p.Do(ctx, func(_ context.Context, v *touchy) error { <-gate; return v.use() }, asyncsync.Abandon())
		})
		synctest.Wait()
		cancel(errCause)
		require.ErrorIs(t, r.Wait().Err, asyncsync.ErrAbandoned)
		require.Zero(t, p.Stats().Idle)
		next := start(func() error { _, err := use(context.Background(), p); return err })
		synctest.Wait()
		require.Equal(t, 1, p.Stats().Waiting)
		close(gate)
		require.NoError(t, next.Wait().Err)
		synctest.Wait()
		require.Equal(t, 1, p.Stats().Idle)

		// One that is over before it is abandoned, and one that is the last.
		require.NoError(t, p.Do(context.Background(), func(_ context.Context, v *touchy) error { return v.use() }, asyncsync.Abandon()))
		gate = make(chan struct{})
		ctx, cancel = context.WithCancelCause(context.Background())
		r = start(func() error {
			return p.Do(ctx, func(_ context.Context, v *touchy) error { <-gate; return v.use() }, asyncsync.Abandon())
		})
		synctest.Wait()
		cancel(errCause)
		require.ErrorIs(t, r.Wait().Err, asyncsync.ErrAbandoned)
		closer := start(p.Close)
		synctest.Wait()
		require.False(t, closer.Over())
		close(gate)
		require.NoError(t, closer.Wait().Err)
		require.Zero(t, l.open.Load())
	})
}

// What nobody has used for a while is closed, on its thread; what is used is not.
func TestHandlePoolIdle(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := &lot{}
		p := asyncsync.NewHandlePool(l.config(asyncsync.HandlePoolConfig[*touchy]{Max: 3, IdleTimeout: time.Minute}))
		a, err := p.Acquire(context.Background())
		require.NoError(t, err)
		b, err := p.Acquire(context.Background())
		require.NoError(t, err)
		c, err := p.Acquire(context.Background())
		require.NoError(t, err)
		c.Release()
		time.Sleep(30 * time.Second)
		b.Release()
		time.Sleep(30*time.Second + 1)
		synctest.Wait()
		require.EqualValues(t, 1, l.closed.Load())
		require.EqualValues(t, 1, p.Stats().Expired)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 2, l.closed.Load())
		require.Equal(t, 1, p.Stats().Open)
		time.Sleep(time.Hour)
		a.Release()
		require.Equal(t, 1, p.Stats().Idle)
		time.Sleep(time.Minute + 1)
		synctest.Wait()
		require.Zero(t, p.Stats().Open)
		_, err = use(context.Background(), p)
		require.NoError(t, err)
		require.EqualValues(t, 4, l.opened.Load())
		require.NoError(t, p.Close())
	})
}

// A lease: one value for all of a request, and nobody else's meanwhile.
func TestLease(t *testing.T) {
	guard(t)
	l := &lot{}
	p := newHandlePool(t, l, asyncsync.HandlePoolConfig[*touchy]{Max: 2})
	lease, err := p.Acquire(context.Background())
	require.NoError(t, err)
	var v *touchy
	require.NoError(t, lease.Do(context.Background(), func(ctx context.Context, got *touchy) error {
		v = got
		same, err := use(ctx, p)
		require.Same(t, v, same)
		return err
	}))
	type key struct{}
	for _, ctx := range []context.Context{lease.Context(), context.WithValue(lease.Context(), key{}, 1)} {
		same, err := use(ctx, p)
		require.NoError(t, err)
		require.Same(t, v, same)
	}
	_, err = task.Go(lease.Context(), func(ctx context.Context) (struct{}, error) {
		same, err := use(ctx, p)
		require.Same(t, v, same)
		return struct{}{}, err
	}).Wait(context.Background())
	require.NoError(t, err)
	w, err := use(context.Background(), p)
	require.NoError(t, err)
	require.NotSame(t, v, w)
	lease.Release()
	lease.Release()
	require.Equal(t, 2, p.Stats().Idle)
	err = lease.Do(context.Background(), func(context.Context, *touchy) error { return nil })
	require.ErrorIs(t, err, asyncsync.ErrClosed)
	require.ErrorContains(t, err, "released")
	_, err = use(lease.Context(), p)
	require.NoError(t, err, "its ctx is like any other then")
}

// A lease that is released while a function runs with it: others get the value after.
func TestLeaseReleasedInUse(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := &lot{}
		p := asyncsync.NewHandlePool(l.config(asyncsync.HandlePoolConfig[*touchy]{Max: 1, IdleTimeout: -1}))
		lease, err := p.Acquire(context.Background())
		require.NoError(t, err)
		gate := make(chan struct{})
		r := start(func() error {
			return lease.Do(context.Background(), func(_ context.Context, v *touchy) error { <-gate; return v.use() })
		})
		synctest.Wait()
		lease.Release()
		require.Zero(t, p.Stats().Idle)
		close(gate)
		require.NoError(t, r.Wait().Err)
		require.Equal(t, 1, p.Stats().Idle)
		require.NoError(t, p.Close())
	})
}

// A tainted value is not used again.
func TestHandlePoolTaint(t *testing.T) {
	guard(t)
	l := &lot{}
	p := newHandlePool(t, l, asyncsync.HandlePoolConfig[*touchy]{})
	require.NoError(t, p.Do(context.Background(), func(ctx context.Context, v *touchy) error { return asyncsync.Taint(ctx) }))
	require.Zero(t, p.Stats().Open)
	require.EqualValues(t, 1, l.closed.Load())
	_, err := use(context.Background(), p)
	require.NoError(t, err)
}

// Close waits for who uses a value and for who stands in line, and no longer.
func TestHandlePoolClose(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := &lot{}
		c := l.config(asyncsync.HandlePoolConfig[*touchy]{Max: 1})
		closing := c.Close
		c.Close = func(v *touchy) error { return errors.Join(closing(v), errOwn) }
		p := asyncsync.NewHandlePool(c, asyncsync.WithName("db"))
		lease, err := p.Acquire(context.Background())
		require.NoError(t, err)
		inLine := start(func() error { _, err := use(context.Background(), p); return err })
		synctest.Wait()
		closer, second := start(p.Close), start(p.Close)
		synctest.Wait()
		require.False(t, closer.Over())
		_, err = use(context.Background(), p)
		require.ErrorIs(t, err, asyncsync.ErrClosed)
		require.ErrorContains(t, err, `handle pool "db"`)
		lease.Release()
		require.NoError(t, inLine.Wait().Err)
		require.ErrorIs(t, errors.Join(closer.Wait().Err, second.Wait().Err), errOwn)
		require.Zero(t, l.open.Load())
		_, err = p.Acquire(context.Background())
		require.ErrorIs(t, err, asyncsync.ErrClosed)
	})
}

// Close and Shutdown from below a holder: when it gives the value back.
func TestHandlePoolCloseInside(t *testing.T) {
	guard(t)
	l := &lot{}
	p := newHandlePool(t, l, asyncsync.HandlePoolConfig[*touchy]{})
	require.NoError(t, p.Do(context.Background(), func(ctx context.Context, v *touchy) error {
		require.ErrorIs(t, p.Shutdown(ctx), deadlock.ErrDeadlock)
		require.NoError(t, from(ctx, func(context.Context) error { return p.Close() }))
		_, err := use(ctx, p)
		return errors.Join(err, v.use())
	}))
	require.Zero(t, l.open.Load())
	_, err := use(context.Background(), p)
	require.ErrorIs(t, err, asyncsync.ErrClosed)
}

// A Shutdown that gives up: the line is refused, what is in use is closed when it
// comes back.
func TestHandlePoolShutdown(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := &lot{}
		p := asyncsync.NewHandlePool(l.config(asyncsync.HandlePoolConfig[*touchy]{Max: 2}), asyncsync.WithName("db"))
		a, err := p.Acquire(context.Background())
		require.NoError(t, err)
		b, err := p.Acquire(context.Background())
		require.NoError(t, err)
		inLine := start(func() error { _, err := use(context.Background(), p); return err })
		synctest.Wait()
		ctx, cancel := context.WithCancelCause(context.Background())
		shutdown := start(func() error { return p.Shutdown(ctx) })
		synctest.Wait()
		cancel(errCause)
		err = shutdown.Wait().Err
		require.ErrorIs(t, err, errCause)
		require.ErrorContains(t, err, `shutdown of handle pool "db" gave up, 2 of its values are in use`)
		require.ErrorIs(t, inLine.Wait().Err, asyncsync.ErrClosed)
		_, err = use(a.Context(), p)
		require.NoError(t, err, "who has a value goes on with it")
		a.Release()
		b.Release()
		synctest.Wait()
		require.Zero(t, l.open.Load())
		require.NoError(t, p.Shutdown(context.Background()))
	})
}

// Many at once: nothing is opened after Close, and nothing is left open.
func TestHandlePoolCloseRace(t *testing.T) {
	guard(t)
	for range 100 {
		l := &lot{}
		p := asyncsync.NewHandlePool(l.config(asyncsync.HandlePoolConfig[*touchy]{Max: 2}))
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				for range 3 {
					if _, err := use(context.Background(), p); err != nil && !errors.Is(err, asyncsync.ErrClosed) {
						t.Error(err)
					}
				}
			})
		}
		all.Go(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if n := l.open.Load(); n != 0 {
				t.Errorf("%d values are open after Close", n)
			}
		})
		all.Wait()
		require.Zero(t, l.open.Load())
	}
}

// A thread that waits until a value is closed may run a call that ends its wait by a
// Goexit. The pool gets the token back all the same, and goes on to close what is left.
func TestHandlePoolGoexitWhileAValueCloses(t *testing.T) {
	var (
		nothing = func(context.Context, int) error { return nil }
		taint   = func(ctx context.Context, _ int) error { asyncsync.Taint(ctx); return nil }
	)
	for _, c := range []struct {
		name   string
		idle   int // values that are open and unused before
		check  bool
		do     func(context.Context, *asyncsync.HandlePool[int]) error
		closed bool // the pool, in the end
	}{
		{"tainted", 0, false, func(ctx context.Context, p *asyncsync.HandlePool[int]) error { return p.Do(ctx, taint) }, false},
		{"not good", 1, true, func(ctx context.Context, p *asyncsync.HandlePool[int]) error { return p.Do(ctx, nothing) }, false},
		{"Close", 2, false, func(_ context.Context, p *asyncsync.HandlePool[int]) error { return p.Close() }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				closing, goOn := make(chan struct{}), make(chan struct{})
				var opened, closed atomic.Int32
				cfg := asyncsync.HandlePoolConfig[int]{
					Open: func(context.Context) (int, error) { opened.Add(1); return 0, nil },
					Close: func(int) error {
						if closed.Add(1) == 1 {
							close(closing)
							<-goOn
						}
						return nil
					},
					Max: max(1, c.idle),
				}
				if c.check {
					cfg.Check = func(context.Context, int) error { return errOwn }
				}
				p := asyncsync.NewHandlePool(cfg)
				var leases []*asyncsync.Lease[int]
				for range c.idle {
					l, err := p.Acquire(context.Background())
					require.NoError(t, err)
					leases = append(leases, l)
				}
				for _, l := range leases {
					l.Release()
				}
				ctx, _ := newContext(t, asyncsync.Serve(asyncsync.All))
				below := start(func() error { return to(ctx, func(ctx context.Context) error { return c.do(ctx, p) }) })
				<-closing
				onTop := start(func() error { return to(ctx, func(context.Context) error { runtime.Goexit(); return nil }) })
				synctest.Wait()
				if !c.closed {
					inLine := start(func() error { return p.Do(context.Background(), nothing) })
					synctest.Wait()
					require.False(t, inLine.Over(), "the value is still open")
					close(goOn)
					require.NoError(t, inLine.Wait().Err)
				} else {
					close(goOn)
				}
				require.Equal(t, "goexit", string(below.Wait().How))
				require.Equal(t, "goexit", string(onTop.Wait().How))
				synctest.Wait()
				if c.closed {
					require.Zero(t, p.Stats().Open)
				}
				require.NoError(t, p.Close())
				require.Equal(t, opened.Load(), closed.Load())
			})
		})
	}
}

// A pool that was closed from inside closes a value that its next user, who stood in
// line, does not come to use.
func TestHandlePoolClosedInsideAndTheLineIsLeft(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := &lot{}
		p := asyncsync.NewHandlePool(l.config(asyncsync.HandlePoolConfig[*touchy]{Max: 1}))
		ctx, _ := newContext(t, asyncsync.Serve(asyncsync.All))
		has, shut, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
		holder := start(func() error {
			return p.Do(context.Background(), func(context.Context, *touchy) error {
				close(has)
				<-shut
				err := p.Close()
				<-goOn
				return err
			})
		})
		<-has
		leave, cancel := context.WithCancelCause(context.Background())
		inLine := start(func() error {
			return to(ctx, func(ctx context.Context) error {
				ctx, cancel := context.WithCancelCause(ctx)
				defer context.AfterFunc(leave, func() { cancel(context.Cause(leave)) })()
				_, err := use(ctx, p)
				return err
			})
		})
		synctest.Wait()
		hold := make(chan struct{})
		onTop := start(func() error { return to(ctx, func(context.Context) error { <-hold; return nil }) })
		close(shut)
		synctest.Wait()
		require.Equal(t, 1, p.Stats().Waiting)
		cancel(errCause)
		synctest.Wait()
		close(goOn) // the value is given back while the one in line, who has no use for it, cannot leave
		require.NoError(t, holder.Wait().Err)
		close(hold)
		require.ErrorIs(t, inLine.Wait().Err, errCause)
		require.NoError(t, onTop.Wait().Err)
		synctest.Wait()
		require.Zero(t, l.open.Load(), "nobody will use the value")
		require.NoError(t, p.Close())
	})
}

// Close waits for values that an earlier Close, from inside, has begun to close.
func TestHandlePoolCloseAfterCloseInside(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		var opened, closed atomic.Int32
		p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int32]{
			Open: func(context.Context) (int32, error) { return opened.Add(1), nil },
			Close: func(n int32) error {
				if n == 2 {
					<-goOn
				}
				closed.Add(1)
				return nil
			},
			Max: 2,
		})
		first, err := p.Acquire(context.Background())
		require.NoError(t, err)
		require.NoError(t, p.Do(context.Background(), func(context.Context, int32) error { return nil }))
		require.NoError(t, first.Do(context.Background(), func(context.Context, int32) error { return p.Close() }))
		synctest.Wait() // the second, unused value is being closed
		first.Release()
		outside := start(p.Close)
		synctest.Wait()
		require.False(t, outside.Over())
		close(goOn)
		require.NoError(t, outside.Wait().Err)
		require.EqualValues(t, 2, closed.Load())
	})
}

// Check runs below the one who acquires: what it calls gets the value.
func TestHandlePoolNestedInCheck(t *testing.T) {
	for _, leased := range []bool{false, true} {
		t.Run(fmt.Sprintf("lease %t", leased), func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				l := &lot{}
				c := l.config(asyncsync.HandlePoolConfig[*touchy]{Max: 1})
				var p *asyncsync.HandlePool[*touchy]
				checked := 0
				c.Check = func(ctx context.Context, v *touchy) error {
					checked++
					return from(ctx, func(ctx context.Context) error {
						nested, err := use(ctx, p)
						if err == nil && nested != v {
							err = errOwn
						}
						return err
					})
				}
				p = asyncsync.NewHandlePool(c)
				_, err := use(context.Background(), p)
				require.NoError(t, err)
				if leased {
					lease, err := p.Acquire(context.Background())
					require.NoError(t, err)
					lease.Release()
				} else {
					_, err = use(context.Background(), p)
					require.NoError(t, err)
				}
				require.Equal(t, 1, checked)
				require.EqualValues(t, 1, l.opened.Load(), "Check has found the value good")
				require.NoError(t, p.Close())
			})
		})
	}
}

func TestHandlePoolMisuse(t *testing.T) {
	guard(t)
	open := func(context.Context) (int, error) { return 0, nil }
	p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{Open: open})
	_, tsc := newContext(t)
	for _, fn := range []func(){
		func() { asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{}) },
		func() { asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{Open: open, Max: -1}) },
		func() { asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{Open: open, MaxWait: -1}) },
		func() { p.Do(context.Background(), nil) },
		func() { p.Do(nil, func(context.Context, int) error { return nil }) }, //lint:ignore SA1012 it is the test
		func() {
			p.Do(context.Background(), func(context.Context, int) error { return nil }, asyncsync.On(tsc))
		},
		func() { new(asyncsync.HandlePool[int]).Close() },
		func() { (*asyncsync.Lease[int])(nil).Release() },
	} {
		requireMisusePanic(t, fn)
	}
	require.Zero(t, p.Stats().Open)
	require.NoError(t, p.Close())
}

// A known limit: a call of a HandlePool in the pool's own Open waits for the value that is
// being opened, where there may be only one. The wait is not refused.
func TestHandlePoolNestedInOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *asyncsync.HandlePool[int]
		p = asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{Max: 1, Open: func(ctx context.Context) (int, error) {
			return 1, p.Do(ctx, func(context.Context, int) error { return nil })
		}})
		patience := errors.New("patience is out")
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Do(ctx, func(context.Context, int) error { return nil }) }()
		synctest.Wait()
		require.Empty(t, done)
		cancel(patience)
		require.ErrorIs(t, <-done, patience)
		require.NoError(t, p.Close())
	})
}

// A known limit: a call that a thread serves with policy All waits for the value that the
// function below it has. The wait is not refused; MaxWait or its ctx ends it.
func TestHandlePoolNestedInACallOfAll(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{
			Max: 1, MaxWait: time.Minute,
			Open: func(context.Context) (int, error) { return 1, nil },
		})
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.Serve(asyncsync.All))
		blocked, goOn := make(chan struct{}), make(chan struct{})
		has := start(func() error {
			return to(ctx, func(ctx context.Context) error {
				lease, err := p.Acquire(ctx)
				if err != nil {
					return err
				}
				defer lease.Release()
				return from(ctx, func(context.Context) error {
					close(blocked)
					<-goOn
					return nil
				})
			})
		})
		<-blocked
		wants := func(ctx context.Context) error {
			return p.Do(ctx, func(context.Context, int) error { return nil })
		}
		began := time.Now()
		require.ErrorIs(t, to(ctx, wants), asyncsync.ErrPoolFull)
		require.Equal(t, time.Minute, time.Since(began))
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.ErrorIs(t, to(short, wants), context.DeadlineExceeded)
		close(goOn)
		require.NoError(t, has.Wait().Err)
		require.NoError(t, to(ctx, wants))
		require.NoError(t, tsc.Close())
		require.NoError(t, p.Close())
	})
}

// A Shutdown that has nothing to wait for returns nil, even if its ctx has ended. One
// that has does not wait.
func TestHandlePoolShutdownOfEndedCtx(t *testing.T) {
	guard(t)
	ended, cancel := context.WithCancelCause(context.Background())
	cancel(errCause)
	for name, c := range map[string]struct {
		before func(*asyncsync.HandlePool[*touchy]) (after func())
		want   error
	}{
		"unused":        {func(*asyncsync.HandlePool[*touchy]) func() { return nil }, nil},
		"an idle value": {func(p *asyncsync.HandlePool[*touchy]) func() { _, _ = use(context.Background(), p); return nil }, nil},
		"after a Close": {func(p *asyncsync.HandlePool[*touchy]) func() { _ = p.Close(); return nil }, nil},
		"a value in use": {func(p *asyncsync.HandlePool[*touchy]) func() {
			l, _ := p.Acquire(context.Background())
			return l.Release
		}, errCause},
	} {
		t.Run(name, func(t *testing.T) {
			l := &lot{}
			p := newHandlePool(t, l, asyncsync.HandlePoolConfig[*touchy]{Max: 2})
			after := c.before(p)
			require.ErrorIs(t, p.Shutdown(ended), c.want)
			_, err := use(context.Background(), p)
			require.ErrorIs(t, err, asyncsync.ErrClosed)
			if after != nil {
				after()
			}
		})
	}
}

// Release does not wait for the Close function of a value that is not kept, and nobody
// takes the caller for the one who closes it. The error of it reaches the Close of the
// pool.
func TestLeaseReleaseDoesNotWait(t *testing.T) {
	for _, why := range []string{"tainted", "closed"} {
		t.Run(why, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{
					Max:   1,
					Open:  func(context.Context) (int, error) { return 1, nil },
					Close: func(int) error { <-gate; return errOwn },
				})
				closer := start(func() error { return nil })
				released := task.Go(context.Background(), func(ctx context.Context) (int, error) {
					lease, err := p.Acquire(ctx)
					if err != nil {
						return 0, err
					}
					var next *task.Task[int]
					if why == "tainted" {
						err = lease.Do(ctx, func(ctx context.Context, _ int) error { return asyncsync.Taint(ctx) })
						next = task.Go(context.Background(), func(ctx context.Context) (int, error) {
							return asyncsync.GetFrom(ctx, p, func(_ context.Context, n int) (int, error) { return n, nil })
						})
					} else {
						closer = start(p.Close)
					}
					synctest.Wait()
					lease.Release()
					go func() { synctest.Wait(); close(gate) }()
					if err == nil && next != nil {
						return next.Wait(ctx)
					}
					return 1, err
				})
				n, err := released.Wait(context.Background())
				require.NoError(t, err)
				require.Equal(t, 1, n)
				require.ErrorIs(t, errors.Join(closer.Wait().Err, p.Close()), errOwn)
			})
		})
	}
}
