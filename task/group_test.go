package task_test

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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// Wait waits for all, and what the members did synchronizes before its return.
func TestGroup_Wait(t *testing.T) {
	guard(t)
	const n = 50
	var results [n]int // race probes
	_, g := task.NewGroup(t.Context())
	for i := range n {
		g.Go(func(context.Context) error {
			results[i] = i * i
			return nil
		})
	}
	require.NoError(t, g.Wait(t.Context()))
	for i, got := range results {
		require.Equal(t, i*i, got)
	}
}

// Without members there is nothing to wait for, and the group's ctx ends.
func TestGroup_Empty(t *testing.T) {
	guard(t)
	for name, ctx := range map[string]context.Context{"live ctx": t.Context(), "ended ctx": ended(t, nil)} {
		t.Run(name, func(t *testing.T) {
			gctx, g := task.NewGroup(t.Context())
			require.NoError(t, gctx.Err())
			require.NoError(t, g.Wait(ctx))
			require.ErrorIs(t, gctx.Err(), context.Canceled)
		})
	}
}

func ended(t *testing.T, cause error) context.Context {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	return ctx
}

func TestGroup_Misuse(t *testing.T) {
	_, g := task.NewGroup(t.Context())
	for name, misuse := range map[string]func(){
		"NewGroup without ctx": func() { task.NewGroup(noCtx) },
		"Go without function":  func() { g.Go(nil) },
		"Go with nil option":   func() { g.Go(func(context.Context) error { return nil }, nil) },
		"Wait without ctx":     func() { g.Wait(noCtx) },
	} {
		t.Run(name, func(t *testing.T) { requireMisusePanic(t, misuse) })
	}
	guard(t)
	require.NoError(t, g.Wait(t.Context()), "misuse has left nothing to wait for")
}

// The errors of all members come back, joined in the order in which the
// members ended, and nil ones do not.
func TestGroup_AllErrorsInOrder(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		errs := []error{errors.New("zero"), errors.New("one"), nil, errors.New("three")}
		order := []int{3, 2, 0, 1}
		gates := make([]chan struct{}, len(errs))
		_, g := task.NewGroup(t.Context())
		for i := range errs {
			gates[i] = make(chan struct{})
			g.Go(func(context.Context) error {
				<-gates[i]
				return errs[i]
			})
		}
		for _, i := range order {
			close(gates[i])
			synctest.Wait()
		}
		err := g.Wait(t.Context())
		require.EqualError(t, err, "three\nzero\none")
		for _, want := range errs {
			if want != nil {
				require.ErrorIs(t, err, want)
			}
		}
	})
}

// The first failure of any kind ends the ctx of all, with the cause, and the
// ctx from NewGroup is that ctx. The starter's is left alone.
func TestGroup_FirstFailureCancels(t *testing.T) {
	failure := errors.New("the first")
	for _, tc := range []struct {
		name string
		fail func() error
		want func(*testing.T, error)
	}{
		{"an error", func() error { return failure }, func(t *testing.T, cause error) {
			require.True(t, cause == failure, "%v", cause)
		}},
		{"a panic", func() error { panic("boom") }, func(t *testing.T, cause error) {
			require.ErrorContains(t, cause, "panicked")
		}},
		{"a Goexit", func() error { runtime.Goexit(); return nil }, func(t *testing.T, cause error) {
			require.ErrorContains(t, cause, "Goexit")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				gctx, g := task.NewGroup(t.Context())
				gate := make(chan struct{})
				var causes [3]error
				for i := range causes {
					g.Go(func(ctx context.Context) error {
						<-ctx.Done()
						causes[i] = context.Cause(ctx)
						return errors.New("a later failure, which is no cause any more")
					})
				}
				g.Go(func(context.Context) error { return nil }) // a success cancels nothing
				g.Go(func(context.Context) error { <-gate; return tc.fail() })
				synctest.Wait()
				require.NoError(t, gctx.Err())
				close(gate)
				endingOf(func() { g.Wait(t.Context()) })
				for _, cause := range causes {
					tc.want(t, cause)
				}
				tc.want(t, context.Cause(gctx))
				require.NoError(t, t.Context().Err())
			})
		})
	}
}

// The first panic is raised anew in Wait with its value, over errors and
// Goexits, and after all members have ended.
func TestGroup_Panic(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		value := new(int)
		left := 3 // a race probe, by turns
		_, g := task.NewGroup(t.Context())
		first, second := make(chan struct{}), make(chan struct{})
		g.Go(func(context.Context) error { <-first; panic(value) })
		g.Go(func(ctx context.Context) error { <-second; panic("a later one") })
		g.Go(func(ctx context.Context) error {
			<-ctx.Done()
			close(second)
			time.Sleep(time.Hour)
			left = 0
			return errors.New("an error")
		})
		g.Go(func(ctx context.Context) error { <-ctx.Done(); runtime.Goexit(); return nil })
		close(first)
		for range 2 { // every Wait
			e := endingOf(func() {
				defer func() { require.Zero(t, left, "Wait has left a member running") }()
				g.Wait(t.Context())
			})
			require.True(t, e.Value == any(value), "%v", e)
		}
	})
}

// A member's Goexit (t.FailNow, say) is no success: Wait ends so too, whatever
// the others returned.
func TestGroup_Goexit(t *testing.T) {
	guard(t)
	for name, other := range map[string]error{"beside a success": nil, "beside an error": errors.New("oh")} {
		t.Run(name, func(t *testing.T) {
			_, g := task.NewGroup(t.Context())
			g.Go(func(context.Context) error { runtime.Goexit(); return nil })
			g.Go(func(context.Context) error { return other })
			require.Equal(t, testkit.Outcome{How: "goexit"}, endingOf(func() { g.Wait(t.Context()) }))
		})
	}
}

// When Wait's ctx ends it cancels the members with the cause and goes on
// waiting; what they make of it is what it returns.
func TestGroup_WaitContextEnds(t *testing.T) {
	cause := errors.New("enough")
	for name, run := range map[string]func(context.Context, func(context.Context)) error{
		"on a goroutine": func(ctx context.Context, fn func(context.Context)) error { fn(ctx); return nil },
		"on a thread":    toThread,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				require.NoError(t, run(ctx, func(ctx context.Context) {
					failure := errors.New("could not finish")
					gctx, g := task.NewGroup(ctx)
					left := 2
					g.Go(func(ctx context.Context) error {
						<-ctx.Done()
						if got := context.Cause(ctx); got != cause {
							return got
						}
						// Cleaning up takes an hour and the thread.
						time.Sleep(time.Hour)
						err := toThread(context.WithoutCancel(ctx), func(context.Context) { left-- })
						return errors.Join(err, failure)
					})
					g.Go(func(context.Context) error {
						time.Sleep(3 * time.Hour)
						return toThread(context.WithoutCancel(gctx), func(context.Context) { left-- })
					})
					short, cancel := context.WithTimeoutCause(ctx, time.Hour, cause)
					defer cancel()
					start := time.Now()
					err := g.Wait(short)
					require.ErrorIs(t, err, failure)
					require.NotErrorIs(t, err, cause, "the members' outcome, not the cancellation")
					require.Equal(t, 3*time.Hour, time.Since(start))
					require.Zero(t, left)
					require.True(t, context.Cause(gctx) == cause)
				}))
			})
		})
	}

	t.Run("ended before", func(t *testing.T) {
		guard(t)
		_, g := task.NewGroup(t.Context())
		g.Go(func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
		require.NoError(t, g.Wait(ended(t, cause)), "a member that makes nothing of it")
	})
}

// Members may start members, also when all others have ended; Wait waits for
// the last.
func TestGroup_GoFromMembers(t *testing.T) {
	guard(t)
	var count atomic.Int32
	_, g := task.NewGroup(t.Context())
	var member func(depth int) func(context.Context) error
	member = func(depth int) func(context.Context) error {
		return func(context.Context) error {
			count.Add(1)
			if depth == 0 {
				return nil
			}
			g.Go(member(depth - 1))
			g.Go(member(depth - 1))
			return nil
		}
	}
	g.Go(member(8))
	require.NoError(t, g.Wait(t.Context()))
	require.EqualValues(t, 1<<9-1, count.Load())
}

// A thread waits for a group whose members call into it, calls queued before
// the wait included, and for tasks that the members wait for.
func TestGroup_WaitFromThread(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		const n = 10
		var j journal
		calls := 0 // only the thread touches it
		start := make(chan struct{})
		foreign := caller(ctx, start, &j, "foreign")
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			_, g := task.NewGroup(ctx)
			for range n {
				g.Go(func(ctx context.Context) error {
					return toThread(ctx, func(ctx context.Context) {
						calls++
						require.NoError(t, fromThread(ctx, func(ctx context.Context) {
							require.NoError(t, toThread(ctx, func(context.Context) { calls++ }))
						}))
					})
				})
			}
			g.Go(func(ctx context.Context) error {
				close(start)
				_, err := foreign.Wait(ctx)
				return err
			})
			synctest.Wait()
			require.Zero(t, calls)
			require.Equal(t, n+1, tsc.Stats().Queued)
			require.NoError(t, g.Wait(ctx))
			require.Equal(t, 2*n, calls)
			require.Equal(t, []string{"foreign"}, j.read())
		}))
	})
}

// A group made elsewhere is foreign to the thread until it waits.
func TestGroup_ForeignToThread(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		var j journal
		_, g := task.NewGroup(ctx)
		start := make(chan struct{})
		g.Go(func(ctx context.Context) error {
			<-start
			return noted(ctx, &j, "member's call")
		})
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			close(start)
			synctest.Wait()
			require.NoError(t, fromThread(ctx, func(ctx context.Context) {
				synctest.Wait()
				require.Equal(t, 1, tsc.Stats().Queued, "not served in a wait for something else")
				require.NoError(t, g.Wait(ctx))
			}))
			j.add("thread's function over")
		}))
		require.Equal(t, []string{"member's call", "thread's function over"}, j.read())
	})
}

// Members start with a fork of the local variables of the caller of Go.
func TestGroup_ForksLocals(t *testing.T) {
	guard(t)
	v := local.New[string]()
	defer v.Set("starter")()
	_, g := task.NewGroup(t.Context())
	g.Go(func(context.Context) error {
		got, _ := v.Get()
		require.Equal(t, "starter", got)
		v.Set("member")
		g.Go(func(context.Context) error {
			got, _ := v.Get()
			require.Equal(t, "member", got)
			return nil
		})
		return nil
	})
	require.NoError(t, g.Wait(t.Context()))
	got, _ := v.Get()
	require.Equal(t, "starter", got)
}

func TestGroup_Names(t *testing.T) {
	guard(t)
	var names journal
	t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{Ended: func(i asyncsync.CallInfo) { names.add(fmt.Sprint(i.Name, " ", i.Err)) }}))
	_, g := task.NewGroup(t.Context())
	g.Go(func(context.Context) error { return errors.New("oh") }, task.Named("member"))
	require.EqualError(t, g.Wait(t.Context()), "oh")
	require.Equal(t, []string{"member oh"}, names.read())
}

// Several may wait at once; each is told the same.
func TestGroup_SeveralWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		failure := errors.New("oh")
		gate := make(chan struct{})
		_, g := task.NewGroup(ctx)
		g.Go(func(ctx context.Context) error {
			<-gate
			return errors.Join(toThread(ctx, func(context.Context) {}), failure)
		})
		var waits sync.WaitGroup
		for range 3 {
			waits.Go(func() { require.ErrorIs(t, g.Wait(ctx), failure) })
		}
		waits.Go(func() {
			require.NoError(t, toThread(ctx, func(ctx context.Context) { require.ErrorIs(t, g.Wait(ctx), failure) }))
		})
		synctest.Wait()
		close(gate)
		waits.Wait()
	})
}

// A group that has been waited for is over: its ctx has ended, its outcome
// stays, and it takes no further members.
func TestGroup_AfterWait(t *testing.T) {
	guard(t)
	failure := errors.New("failure")
	gctx, g := task.NewGroup(t.Context())
	g.Go(func(context.Context) error { return failure })
	require.EqualError(t, g.Wait(t.Context()), "failure")
	require.Error(t, gctx.Err())

	never := func(context.Context) error { t.Error("it runs"); return nil }
	require.PanicsWithValue(t, "task: Group.Go after Wait", func() { g.Go(never) })
	require.PanicsWithValue(t, "task: Group.TryGo after Wait", func() { g.TryGo(never) })
	require.EqualError(t, g.Wait(t.Context()), "failure")
}

// A member that is started when all others have just ended, and before Wait
// has noticed, is waited for.
func TestGroup_GoAtTheLastMoment(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		busy, first, second := make(chan struct{}), make(chan struct{}), make(chan struct{})
		ended := false
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			_, g := task.NewGroup(ctx)
			g.Go(func(ctx context.Context) error {
				task.Go(ctx, func(ctx context.Context) (int, error) {
					return 0, toThread(ctx, func(context.Context) { <-busy })
				})
				<-first
				return nil
			})
			go func() {
				synctest.Wait() // the waiter's thread is kept busy
				close(first)
				synctest.Wait() // no member runs
				g.Go(func(context.Context) error {
					<-second
					ended = true
					return nil
				})
				close(busy)
				synctest.Wait()
				close(second)
			}()
			require.NoError(t, g.Wait(ctx))
			require.True(t, ended)
		}))
	})
}

// A long-lived parent ctx keeps nothing of a group that has been waited for.
func TestGroup_NoLeakInLongLivedParent(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		up := newCountingCtx(t.Context())
		for range 1000 {
			gctx, g := task.NewGroup(up)
			for range 5 {
				g.Go(func(context.Context) error { return nil })
			}
			_ = gctx
			require.NoError(t, g.Wait(context.Background()))
		}
		synctest.Wait()
		now, ever := up.counts()
		require.Zero(t, now)
		require.Equal(t, 1000, ever, "members hang from their group")
	})
}

// What a member leaves behind is no member: Wait does not wait for it. It is
// cancelled, though, for its ctx is the group's.
func TestGroup_TaskLeftByMember(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		var left *task.Task[error]
		_, g := task.NewGroup(t.Context())
		g.Go(func(ctx context.Context) error {
			left = task.Go(ctx, func(ctx context.Context) (error, error) {
				<-ctx.Done()
				return context.Cause(ctx), nil
			})
			return nil
		})
		require.NoError(t, g.Wait(t.Context()))
		got, err := left.Wait(t.Context())
		require.NoError(t, err)
		require.EqualError(t, got, "task: the group has ended: context canceled")
	})
}

// Go and Wait from everywhere at once lose no member and no error.
func TestGroup_Stress(t *testing.T) {
	guard(t)
	for range 100 {
		_, g := task.NewGroup(t.Context())
		var ran atomic.Int32
		var starters sync.WaitGroup
		gate := make(chan struct{})
		g.Go(func(context.Context) error { <-gate; return nil })
		for range 4 {
			starters.Go(func() {
				for range 5 {
					g.Go(func(context.Context) error {
						g.Go(func(context.Context) error { ran.Add(1); return errors.New("x") })
						ran.Add(1)
						return nil
					})
				}
			})
		}
		waited := make(chan error)
		go func() { waited <- g.Wait(context.Background()) }()
		starters.Wait()
		close(gate)
		err := <-waited
		require.EqualValues(t, 40, ran.Load())
		require.Len(t, err.(interface{ Unwrap() []error }).Unwrap(), 20)
	}
}

// A task that is turned away is counted out once, though the hook that is told of it
// ends the call of Go: Wait ends, as the hook did.
func TestGroup_EndedHookOfATaskTurnedAway(t *testing.T) {
	for _, e := range testkit.Ends[1:] {
		t.Run(e.How, func(t *testing.T) {
			told := 0
			hook := asyncsync.Hooks{Ended: func(i asyncsync.CallInfo) {
				if i.Err != nil {
					told++
					_ = e.Do()
				}
			}}
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				over := loop.NewThread()
				require.NoError(t, libkit.Run(context.Background(), over, func(context.Context) error { return nil }))
				_, g := task.NewGroup(ctx)
				endingOf(func() {
					g.Go(func(context.Context) error { t.Error("has begun"); return nil }, task.On(over))
				})
				require.Equal(t, 1, told)
				e.Check(t, testkit.OutcomeOf(func() error { return g.Wait(context.Background()) }))
				// Another round of the count: a group that believes in fewer tasks than it has
				// does not wait for this one.
				_, g = task.NewGroup(ctx)
				g.SetLimit(1)
				endingOf(func() { g.Go(func(context.Context) error { return nil }, task.On(over)) })
				require.True(t, g.TryGo(func(context.Context) error { return nil }), "there is a place")
				e.Check(t, testkit.OutcomeOf(func() error { return g.Wait(context.Background()) }))
			}, asyncsync.WithHooks(hook))
		})
	}
}

// The cancellation of a task that did not begin is told only if nothing else is,
// though it may be the first to be noted.
func TestGroup_CancellationBesideAnError(t *testing.T) {
	for name, opts := range map[string][]task.GroupOption{
		"all errors": nil, "FirstError": {task.FirstError()}, "NoCancel": {task.NoCancel()},
	} {
		t.Run(name, func(t *testing.T) {
			guard(t)
			leavesNothing(t)
			require.NoError(t, libkit.Run(context.Background(), loop.NewThread(), func(ctx context.Context) error {
				over, cancel := context.WithCancelCause(ctx)
				_, g := task.NewGroup(over, opts...)
				release := make(chan struct{})
				g.Go(func(ctx context.Context) error {
					_ = comes(context.WithoutCancel(ctx), release)
					return errReal
				})
				yield(ctx) // it has begun
				g.Go(func(context.Context) error { t.Error("has begun"); return nil })
				cancel(errCause)
				yield(ctx) // the other was not to begin
				close(release)
				for range 2 {
					err := g.Wait(ctx)
					assert.ErrorIs(t, err, errReal)
					assert.NotErrorIs(t, err, errCause)
				}
				return nil
			}))
		})
	}
}

// A ctx that belongs to a task that is over ends for what is above the task: the tasks
// get that cause, and not the end of that task.
func TestGroup_WaitWithContextOfEndedTask(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		over, cancel := overCtx(t)
		time.AfterFunc(time.Second, func() { cancel(errCause) })
		_, g := task.NewGroup(t.Context())
		g.Go(func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		require.ErrorIs(t, g.Wait(over), errCause)
	})
}
