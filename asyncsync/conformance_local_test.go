package asyncsync_test

// The scenarios of asgiref 3.12.1's tests/test_local.py, rows 59 to 74 of
// docs/conformance.md.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

// A reading is what Get returned.
type reading[T any] struct {
	value T
	ok    bool
}

func read[T any](v *local.Var[T]) reading[T] {
	value, ok := v.Get()
	return reading[T]{value, ok}
}

// is and unset are what a reading is compared with.
func is[T any](value T) reading[T] { return reading[T]{value, true} }

func unset[T any]() reading[T] { return reading[T]{} }

// onPlainGoroutine runs fn under a plain go statement and waits for it.
func onPlainGoroutine(fn func()) {
	spawn(func() (int, error) { fn(); return 0, nil }).Wait()
}

// lifeOf goes through everything that can be done with a variable on one
// goroutine, and returns what was read after each step.
func lifeOf(v *local.Var[int]) (readings []reading[int]) {
	see := func() { readings = append(readings, read(v)) }
	see()
	v.Set(1)
	see()
	undo := v.Set(2)
	see()
	undo()
	see()
	v.Delete()
	see()
	v.Delete()
	see()
	return readings
}

var lifeExpected = []reading[int]{
	unset[int](), is(1), is(2), is(1), unset[int](), unset[int](),
}

// asgiref: set, get, delete and reading what is missing, in a task.
//
// Here: the same, and Set can be undone.
func TestRow59_LocalTask(t *testing.T) {
	guard(t)
	v := local.New[int]()
	got, err := task.Go(t.Context(), func(context.Context) ([]reading[int], error) { return lifeOf(v), nil }).Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, lifeExpected, got)
	require.Equal(t, unset[int](), read(v))
}

// asgiref: the same in a thread with no event loop.
//
// Here: on a goroutine locked to its thread, with no context of ours anywhere.
func TestRow60_LocalThread(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	require.Equal(t, lifeExpected, lifeOf(local.New[int]()))
}

// asgiref: a plain new thread sees nothing of its parent's values and leaves
// nothing behind in them.
//
// Here: a plain go statement.
func TestRow61_LocalThreadNested(t *testing.T) {
	guard(t)
	v := local.New[int]()
	defer v.Set(61)()
	var first, own reading[int]
	onPlainGoroutine(func() {
		first = read(v)
		defer v.Set(-1)()
		own = read(v)
	})
	require.Equal(t, unset[int](), first)
	require.Equal(t, is(-1), own)
	require.Equal(t, is(61), read(v))
}

// asgiref: the storage of a Local that was collected is not inherited by a new
// one at the same address.
//
// Here: a thousand variables are set on a goroutine that lives on, dropped and
// collected; none of a thousand new ones has a value there.
func TestRow62_LocalCycle(t *testing.T) {
	guard(t)
	const many = 1000
	_, err := task.Go(t.Context(), func(context.Context) (int, error) {
		for round := range 3 {
			for i := range many {
				v := local.New[int]()
				if r := read(v); r != unset[int]() {
					return 0, fmt.Errorf("round %d: new variable %d has %+v", round, i, r)
				}
				v.Set(i)
			}
			runtime.GC()
			runtime.GC()
		}
		return 0, nil
	}).Wait(t.Context())
	require.NoError(t, err)
}

// asgiref: a value goes down through S2A, and what it was changed to comes back.
//
// Here: the same, also when the function returns an error or panics.
func TestRow63_LocalTaskToSync(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	v := local.New[string]()
	defer v.Delete()
	failure := errors.New("failure")
	for _, ending := range []string{"returns", "fails", "panics"} {
		v.Set("3")
		var below reading[string]
		value := panicOf(func() {
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
				below = read(v)
				v.Set("done")
				switch ending {
				case "fails":
					return 0, failure
				case "panics":
					panic(failure)
				}
				return 0, nil
			})
			if ending == "fails" {
				require.Same(t, failure, err)
			} else {
				require.NoError(t, err)
			}
		})
		if ending == "panics" {
			require.Same(t, failure, value)
		} else {
			require.Nil(t, value)
		}
		require.Equal(t, is("3"), below, ending)
		require.Equal(t, is("done"), read(v), ending)
	}

	_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
		v.Delete()
		return 0, nil
	})
	require.NoError(t, err)
	require.Equal(t, unset[string](), read(v), "a delete comes back as well")

	below, err := asyncsync.ToThread(ctx, func(context.Context) (reading[string], error) { return read(v), nil })
	require.NoError(t, err)
	require.Equal(t, unset[string](), below, "and the thread keeps nothing")
}

// asgiref: the same through A2S.
//
// Here: the function runs on another goroutine, its caller sees the same values.
func TestRow64_LocalThreadToAsync(t *testing.T) {
	guard(t)
	v := local.New[int]()
	defer v.Delete()
	v.Set(12)
	below, err := asyncsync.FromThread(context.Background(), func(context.Context) (reading[int], error) {
		r := read(v)
		v.Set(13)
		return r, nil
	})
	require.NoError(t, err)
	require.Equal(t, is(12), below)
	require.Equal(t, is(13), read(v))
}

// asgiref: down and up again through S2A and A2S.
//
// Here: what the innermost function sets is what the layers above read, each
// after its hop.
func TestRow65_LocalTaskToSyncToTask(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	v := local.New[string]()
	defer v.Delete()
	v.Set("top")
	var seen []reading[string]
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		seen = append(seen, read(v))
		v.Set("thread")
		_, err := asyncsync.FromThread(ctx, func(context.Context) (int, error) {
			seen = append(seen, read(v))
			v.Set("innermost")
			return 0, nil
		})
		seen = append(seen, read(v))
		return 0, err
	})
	require.NoError(t, err)
	seen = append(seen, read(v))
	require.Equal(t, []reading[string]{is("top"), is("thread"), is("innermost"), is("innermost")}, seen)
}

// asgiref: four alternating layers.
//
// Here: four, then random towers of 2 to 20 layers: hops both ways, calls that
// are no hops because the caller is already there, insensitive ones, and new
// contexts. Each layer must find what the one above, and the one below, left.
func TestRow66_LocalManyLayers(t *testing.T) {
	guard(t)
	v := local.New[int]()
	defer v.Delete()

	type kind int
	const (
		down kind = iota
		up
		insensitive
		scoped
		kinds
	)
	// Every layer counts once on its way in and once on its way out.
	var climb func(ctx context.Context, at int, tower []kind) (int, error)
	climb = func(ctx context.Context, at int, tower []kind) (int, error) {
		if at == len(tower) {
			return 0, nil
		}
		next := func(ctx context.Context) (int, error) {
			if r := read(v); r != is(at) {
				return 0, fmt.Errorf("layer %d of %v reads %+v on its way in", at, tower, r)
			}
			v.Set(at + 1)
			if _, err := climb(ctx, at+1, tower); err != nil {
				return 0, err
			}
			if r := read(v); r != is(2*len(tower)-1-at) {
				return 0, fmt.Errorf("layer %d of %v reads %+v on its way out", at, tower, r)
			}
			v.Set(2*len(tower) - at)
			return 0, nil
		}
		switch tower[at] {
		case down:
			return asyncsync.ToThread(ctx, next)
		case up:
			return asyncsync.FromThread(ctx, next)
		case insensitive:
			return asyncsync.ToThread(ctx, next, asyncsync.Insensitive())
		default:
			var result int
			err := asyncsync.WithThreadSensitiveContext(ctx, func(ctx context.Context) (err error) {
				result, err = asyncsync.ToThread(ctx, next)
				return err
			})
			return result, err
		}
	}
	run := func(tower []kind) {
		t.Helper()
		v.Set(0)
		_, err := climb(context.Background(), 0, tower)
		require.NoError(t, err)
		require.Equal(t, is(2*len(tower)), read(v), "tower %v", tower)
	}
	run([]kind{down, up, down, up})
	random := rand.New(rand.NewPCG(66, 3))
	for height := 2; height <= 20; height++ {
		for range 6 {
			tower := make([]kind, height)
			for i := range tower {
				tower[i] = kind(random.IntN(int(kinds)))
			}
			run(tower)
		}
	}
}

// asgiref: a thread-critical value does not cross S2A.
//
// Here: the caller's goroutine has its own, T has its own, and T's is there
// again at its next call, until the context is closed.
func TestRow67_LocalCriticalNoTaskToThread(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	crit := local.New[string](local.ThreadCritical())
	defer crit.Delete()
	crit.Set("86")
	first, err := asyncsync.ToThread(ctx, func(context.Context) (reading[string], error) {
		r := read(crit)
		crit.Set("secret")
		return r, nil
	})
	require.NoError(t, err)
	require.Equal(t, unset[string](), first)
	require.Equal(t, is("86"), read(crit))
	second, err := asyncsync.ToThread(ctx, func(context.Context) (reading[string], error) { return read(crit), nil })
	require.NoError(t, err)
	require.Equal(t, is("secret"), second)

	otherCtx, other := asyncsync.NewThreadSensitiveContext(t.Context())
	defer other.Close()
	elsewhere, err := asyncsync.ToThread(otherCtx, func(context.Context) (reading[string], error) { return read(crit), nil })
	require.NoError(t, err)
	require.Equal(t, unset[string](), elsewhere, "another thread")

	// The value is the context's thread's, not the OS thread's: who gets that
	// next finds nothing.
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
	defer pool.Close()
	for range 2 {
		err := asyncsync.WithThreadSensitiveContext(t.Context(), func(ctx context.Context) error {
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
				if r := read(crit); r != unset[string]() {
					return 0, fmt.Errorf("a new context's thread has %+v", r)
				}
				crit.Set("left behind")
				return 0, nil
			})
			return err
		}, asyncsync.WithPool(pool))
		require.NoError(t, err)
	}
}

// asgiref: nor does it cross A2S.
//
// Here: likewise, and the async function does not see the value of the
// goroutine that waits for T either, on whatever goroutine it runs.
func TestRow68_LocalCriticalNoThreadToTask(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	crit := local.New[int](local.ThreadCritical())
	defer crit.Delete()
	crit.Set(86)
	var below, after reading[int]
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		crit.Set(89)
		_, err := asyncsync.FromThread(ctx, func(context.Context) (int, error) {
			below = read(crit)
			crit.Set(-1)
			return 0, nil
		})
		after = read(crit)
		return 0, err
	})
	require.NoError(t, err)
	require.Equal(t, unset[int](), below)
	require.Equal(t, is(89), after)
	require.Equal(t, is(86), read(crit))
}

// asgiref: tasks, hops and plain threads, one through the other, never disturb
// a counter.
//
// Here: six increments, by direct calls, S2A, A2S and both; in between plain
// goroutines and tasks that set the same variable to something else.
func TestRow69_LocalThreadsAndTasks(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	counter := local.New[int]()
	defer counter.Delete()
	counter.Set(0)

	inc := func(context.Context) (int, error) {
		n, ok := counter.Get()
		if !ok {
			return 0, errors.New("the counter is not there")
		}
		counter.Set(n + 1)
		return 0, nil
	}
	disturb := func(ctx context.Context) error {
		var all []*pending[int]
		for range 5 {
			all = append(all, spawn(func() (int, error) {
				if r := read(counter); r != unset[int]() {
					return 0, fmt.Errorf("a plain goroutine starts with %+v", r)
				}
				defer counter.Set(-1)()
				if _, err := asyncsync.ToThread(context.Background(), inc, asyncsync.Insensitive()); err != nil {
					return 0, err
				}
				if r := read(counter); r != is(0) {
					return 0, fmt.Errorf("a plain goroutine ends with %+v", r)
				}
				return 0, nil
			}))
		}
		_, failed := task.Go(ctx, func(context.Context) (int, error) {
			counter.Set(-100)
			return 0, nil
		}).Wait(ctx)
		for _, p := range all {
			_, err := p.Wait()
			failed = errors.Join(failed, err)
		}
		return failed
	}

	for _, step := range []func(ctx context.Context) (int, error){
		inc,
		func(ctx context.Context) (int, error) { return asyncsync.ToThread(ctx, inc) },
		func(ctx context.Context) (int, error) { return asyncsync.FromThread(ctx, inc) },
		func(ctx context.Context) (int, error) {
			return asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				if err := disturb(ctx); err != nil {
					return 0, err
				}
				return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
					if err := disturb(ctx); err != nil {
						return 0, err
					}
					return inc(ctx)
				})
			})
		},
		inc,
		func(ctx context.Context) (int, error) { return through(ctx, 4, inc) },
	} {
		_, err := step(ctx)
		require.NoError(t, err)
		require.NoError(t, disturb(ctx))
	}
	require.Equal(t, is(6), read(counter))
}

// asgiref: in a sync thread a thread-critical Local is the thread's, wherever
// in its call stack it is set: what nested work sets that the parked thread
// serves is there for the parked code. An ordinary one set in a task is not.
//
// Here: the same for a goroutine that is the thread for the length of an A2S,
// and for T parked in one.
func TestRow70_ThreadCriticalLocalNotContextDependentInSyncThread(t *testing.T) {
	guard(t)
	crit, ordinary := local.New[string](local.ThreadCritical()), local.New[string]()
	defer crit.Delete()

	nested := func(ctx context.Context) (int, error) {
		return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
			return task.Go(ctx, func(ctx context.Context) (int, error) {
				return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
					crit.Set("of the thread")
					ordinary.Set("of the task")
					return 0, nil
				})
			}).Wait(ctx)
		})
	}

	_, err := nested(context.Background())
	require.NoError(t, err)
	require.Equal(t, is("of the thread"), read(crit))
	require.Equal(t, unset[string](), read(ordinary))
	crit.Delete()

	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	var critAfter, ordinaryAfter reading[string]
	_, err = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		_, err := nested(ctx)
		critAfter, ordinaryAfter = read(crit), read(ordinary)
		return 0, err
	})
	require.NoError(t, err)
	require.Equal(t, is("of the thread"), critAfter)
	require.Equal(t, unset[string](), ordinaryAfter)
	require.Equal(t, unset[string](), read(crit), "which is T, not the caller")
}

// asgiref: a new plain thread starts with nothing visible.
//
// Here: wherever the go statement stands: in a plain goroutine, in a call on T,
// in async code below it, in a task.
func TestRow71_VisibilityThreadAsgiref(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	ordinary, crit := local.New[int](), local.New[int](local.ThreadCritical())
	defer ordinary.Delete()
	defer crit.Delete()
	ordinary.Set(71)

	type found struct{ ordinary, critical reading[int] }
	look := func(context.Context) (f found, err error) {
		crit.Set(71)
		defer crit.Delete()
		if r := read(ordinary); r != is(71) {
			return f, fmt.Errorf("the starter itself reads %+v", r)
		}
		onPlainGoroutine(func() { f = found{read(ordinary), read(crit)} })
		return f, nil
	}
	for name, from := range map[string]func() (found, error){
		"plain":       func() (found, error) { return look(ctx) },
		"sync code":   func() (found, error) { return asyncsync.ToThread(ctx, look) },
		"async below": func() (found, error) { return through(ctx, 1, look) },
		"task":        func() (found, error) { return task.Go(ctx, look).Wait(ctx) },
	} {
		f, err := from()
		require.NoError(t, err, name)
		require.Equal(t, found{}, f, name)
		require.Equal(t, is(71), read(ordinary), name)
	}
}

// asgiref: even a thread that runs in a copy of the context does not see the
// Local's value.
//
// Here: values follow goroutines, not contexts. A raw goroutine that was given
// the parent's ctx sees nothing, its writes stay with it, through hops as well,
// and it races with nobody.
func TestRow72_LocalNotInheritedByNewThread(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	v := local.New[string]()
	defer v.Delete()
	v.Set("parent")

	const raws = 8
	set := newMeeting(raws + 1)
	var all []*pending[[]reading[string]]
	for i := range raws {
		all = append(all, spawn(func() (seen []reading[string], err error) {
			own := fmt.Sprint("raw ", i)
			seen = append(seen, read(v))
			defer v.Set(own)()
			set.attend()
			seen = append(seen, read(v))
			below, err := asyncsync.ToThread(ctx, func(context.Context) (reading[string], error) {
				r := read(v)
				v.Set(own + ", from T")
				return r, nil
			})
			return append(seen, below, read(v)), err
		}))
	}
	set.attend()
	require.Equal(t, is("parent"), read(v))
	onThread, err := asyncsync.ToThread(ctx, func(context.Context) (reading[string], error) { return read(v), nil })
	require.NoError(t, err)
	require.Equal(t, is("parent"), onThread)
	for i, p := range all {
		seen, err := p.Wait()
		require.NoError(t, err)
		own := fmt.Sprint("raw ", i)
		require.Equal(t, []reading[string]{unset[string](), is(own), is(own), is(own + ", from T")}, seen)
	}
	require.Equal(t, is("parent"), read(v))
}

// asgiref: a child task sees its parent's value; what it sets stays with it.
//
// Here: the same, for tasks and for local.Go. The fork is taken when the child
// is started, so a later change of the parent's is not seen either. Nor does it
// matter that parent and child run on one thread, the child's call on top of
// the parent's wait.
func TestRow73_VisibilityTask(t *testing.T) {
	guard(t)
	v := local.New[int]()
	defer v.Delete()
	for name, start := range map[string]func(fn func()){
		"task.Go": func(fn func()) {
			task.Go(t.Context(), func(context.Context) (int, error) { fn(); return 0, nil })
		},
		"local.Go": local.Go,
	} {
		v.Set(0)
		var first, own reading[int]
		changed, done := make(chan struct{}), make(chan struct{})
		start(func() {
			defer close(done)
			<-changed
			first = read(v)
			v.Set(1)
			own = read(v)
		})
		v.Set(73)
		close(changed)
		<-done
		require.Equal(t, is(0), first, name)
		require.Equal(t, is(1), own, name)
		require.Equal(t, is(73), read(v), name)
	}

	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	var child, parent reading[int]
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		v.Set(0)
		tk := task.Go(ctx, func(ctx context.Context) (int, error) {
			return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
				child = read(v)
				v.Set(1)
				return 0, nil
			})
		})
		_, err := tk.Wait(ctx)
		parent = read(v)
		return 0, err
	})
	require.NoError(t, err)
	require.Equal(t, is(0), child)
	require.Equal(t, is(0), parent)
}

// asgiref: a value deleted in a child task is still there in its parent.
//
// Here: the same, with siblings deleting side by side.
func TestRow74_Deletion(t *testing.T) {
	guard(t)
	v := local.New[int]()
	defer v.Delete()
	v.Set(123)
	var mu sync.Mutex
	var before, after []reading[int]
	var children []*task.Task[int]
	for range 4 {
		children = append(children, task.Go(t.Context(), func(context.Context) (int, error) {
			b := read(v)
			v.Delete()
			a := read(v)
			mu.Lock()
			defer mu.Unlock()
			before, after = append(before, b), append(after, a)
			return 0, nil
		}))
	}
	for _, child := range children {
		_, err := child.Wait(t.Context())
		require.NoError(t, err)
	}
	require.Equal(t, []reading[int]{is(123), is(123), is(123), is(123)}, before)
	require.Equal(t, make([]reading[int], 4), after)
	require.Equal(t, is(123), read(v))
}
