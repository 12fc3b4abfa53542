package task_test

// What Task.Wait does for threads: it joins. A call is related to a thread
// that is blocked, and is run there, when its submitter is what the thread
// waits for, was started below that, or is waited for by such in turn.
//
// "Foreign" is a task that was started elsewhere: not below the function that
// blocks the thread. Its calls are strangers to that function until a join.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/task"
)

// noted calls into the thread of ctx and notes that it was there.
func noted(ctx context.Context, j *journal, line string) error {
	return toThread(ctx, func(context.Context) { j.add(line) })
}

// caller starts a task that makes one call into the thread of ctx when gate
// closes.
func caller(ctx context.Context, gate <-chan struct{}, j *journal, line string) *task.Task[int] {
	return task.Go(ctx, func(ctx context.Context) (int, error) {
		<-gate
		return 1, noted(ctx, j, line)
	})
}

// open is a gate that stands open.
func open() <-chan struct{} {
	gate := make(chan struct{})
	close(gate)
	return gate
}

// Code on a thread waits for a task that it has started, and which calls back
// into the same thread, on several levels: everything ends.
func TestJoin_OwnTaskCallsBack(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var home int64
		depth := 0 // a race probe: only the thread touches it
		var down func(ctx context.Context, level int) (int, error)
		down = func(ctx context.Context, level int) (int, error) {
			return asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				if level == 0 {
					home = goid()
				}
				require.Equal(t, home, goid())
				depth++
				if level == 20 {
					return depth, nil
				}
				return task.Go(ctx, func(ctx context.Context) (int, error) {
					return down(ctx, level+1)
				}).Wait(ctx)
			})
		}
		got, err := down(ctx, 0)
		require.NoError(t, err)
		require.Equal(t, 21, got)
	})
}

// The thread waits for a foreign task, whose call has been queued on it all
// along: the join finds and runs it. So it does calls that come later, and
// those that tasks below the foreign one make.
func TestJoin_ForeignTask(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		var j journal
		start := make(chan struct{})
		foreign := task.Go(ctx, func(ctx context.Context) (int, error) {
			<-start
			require.NoError(t, noted(ctx, &j, "queued before the join"))
			require.NoError(t, noted(ctx, &j, "made after it"))
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
				return 0, noted(ctx, &j, "made by a child")
			}).Wait(context.Background())
			return 42, err
		})
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			close(start)
			synctest.Wait()
			require.Equal(t, 1, tsc.Stats().Queued)
			require.Empty(t, j.read())
			got, err := foreign.Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, 42, got)
			j.add("wait over")
		}))
		require.Equal(t, []string{"queued before the join", "made after it", "made by a child", "wait over"}, j.read())
	})
}

// The join works for everything that the thread waits for: async code below it, a task of
// that, code that passes a bare ctx.
func TestJoin_BelowFrame(t *testing.T) {
	for name, wait := range map[string]func(context.Context, *task.Task[int]) (int, error){
		"async code": func(ctx context.Context, tk *task.Task[int]) (int, error) { return tk.Wait(ctx) },
		"async code with a bare ctx": func(_ context.Context, tk *task.Task[int]) (int, error) {
			return tk.Wait(context.Background())
		},
		"a task below": func(ctx context.Context, tk *task.Task[int]) (int, error) {
			return task.Go(ctx, tk.Wait).Wait(ctx)
		},
		"a group below": func(ctx context.Context, tk *task.Task[int]) (n int, err error) {
			_, g := task.NewGroup(ctx)
			g.Go(func(ctx context.Context) error {
				var err error
				n, err = tk.Wait(ctx)
				return err
			})
			err = g.Wait(ctx)
			return n, err
		},
		"a plain goroutine with the ctx": func(ctx context.Context, tk *task.Task[int]) (n int, err error) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				n, err = tk.Wait(ctx)
			}()
			<-done
			return n, err
		},
		"WaitOrCancel": func(ctx context.Context, tk *task.Task[int]) (int, error) { return tk.WaitOrCancel(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				var j journal
				start := make(chan struct{})
				foreign := caller(ctx, start, &j, "call")
				require.NoError(t, toThread(ctx, func(ctx context.Context) {
					require.NoError(t, fromThread(ctx, func(ctx context.Context) {
						close(start)
						synctest.Wait()
						require.Empty(t, j.read(), "a stranger's, so far")
						got, err := wait(ctx, foreign)
						require.NoError(t, err)
						require.Equal(t, 1, got)
						j.add("async code over")
					}))
				}))
				require.Equal(t, []string{"call", "async code over"}, j.read())
			})
		})
	}
}

// A call is queued that belongs to a wait further down; then a function on top
// waits for its submitter. The join lifts the call to the frame on top, on
// threads of all kinds.
func TestJoin_LiftsCallToTopFrame(t *testing.T) {
	scenario := func(t *testing.T, ctx context.Context) {
		var home, ran int64
		start := make(chan struct{})
		sibling := task.Go(ctx, func(ctx context.Context) (int, error) {
			<-start
			return 0, toThread(ctx, func(context.Context) { ran = goid() })
		})
		err := toThread(ctx, func(ctx context.Context) {
			home = goid()
			close(start)
			synctest.Wait() // the sibling's call is in the lower frame
			_, err := sibling.Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, home, ran)
		})
		require.NoError(t, err)
	}
	t.Run("pooled", func(t *testing.T) {
		inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
			require.NoError(t, toThread(ctx, func(ctx context.Context) {
				require.NoError(t, fromThread(ctx, func(ctx context.Context) { scenario(t, ctx) }))
			}))
		})
	})
	t.Run("unpinned", func(t *testing.T) {
		inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
			require.NoError(t, toThread(ctx, func(ctx context.Context) {
				require.NoError(t, fromThread(ctx, func(ctx context.Context) { scenario(t, ctx) }))
			}))
		}, asyncsync.Unpinned())
	})
	t.Run("adopted", func(t *testing.T) {
		guard(t)
		synctest.Test(t, func(t *testing.T) {
			require.NoError(t, fromThread(t.Context(), func(ctx context.Context) { scenario(t, ctx) }))
		})
	})
	t.Run("default", func(t *testing.T) {
		guard(t)
		synctest.Test(t, func(t *testing.T) {
			require.NoError(t, toThread(t.Context(), func(ctx context.Context) {
				require.NoError(t, fromThread(ctx, func(ctx context.Context) { scenario(t, ctx) }))
			}))
		})
	})
}

// Joins of joins: the frame waits for A, A for B, and B has a call for the
// thread. In whatever order the three come about, the call runs.
func TestJoin_OfJoins(t *testing.T) {
	for _, order := range [][3]string{
		{"B calls", "A waits", "frame waits"}, {"B calls", "frame waits", "A waits"},
		{"A waits", "B calls", "frame waits"}, {"A waits", "frame waits", "B calls"},
		{"frame waits", "A waits", "B calls"}, {"frame waits", "B calls", "A waits"},
	} {
		for _, where := range []string{"on the thread", "below it"} {
			t.Run(fmt.Sprint(order, " ", where), func(t *testing.T) {
				inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
					var j journal
					steps := map[string]chan struct{}{}
					for _, step := range order {
						steps[step] = make(chan struct{})
					}
					b := caller(ctx, steps["B calls"], &j, "call")
					a := task.Go(ctx, func(ctx context.Context) (int, error) {
						<-steps["A waits"]
						return b.Wait(ctx)
					})
					go func() { // somebody who has nothing to do with any of them
						synctest.Wait()
						for i, step := range order {
							close(steps[step])
							synctest.Wait()
							require.Equal(t, i == 2, len(j.read()) == 1, "after %q", step)
						}
					}()
					require.NoError(t, toThread(ctx, func(ctx context.Context) {
						wait := func(ctx context.Context) {
							<-steps["frame waits"]
							got, err := a.Wait(ctx)
							require.NoError(t, err)
							require.Equal(t, 1, got)
						}
						if where == "on the thread" {
							wait(ctx)
							return
						}
						require.NoError(t, fromThread(ctx, wait))
					}))
				})
			})
		}
	}
}

// A long chain of joins, made from either end.
func TestJoin_Chain(t *testing.T) {
	const n = 100
	for _, from := range []string{"first", "last"} {
		t.Run("from the "+from, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				var j journal
				start := make(chan struct{})
				last := caller(ctx, start, &j, "call")
				gates := make([]chan struct{}, n)
				for i := range gates {
					gates[i] = make(chan struct{})
					next, gate := last, gates[i]
					last = task.Go(ctx, func(ctx context.Context) (int, error) {
						<-gate
						return next.Wait(ctx)
					})
				}
				require.NoError(t, toThread(ctx, func(ctx context.Context) {
					require.NoError(t, fromThread(ctx, func(ctx context.Context) {
						close(start)
						synctest.Wait()
						go func() {
							for i := range gates {
								if from == "last" {
									i = n - 1 - i
								}
								synctest.Wait()
								require.Empty(t, j.read())
								close(gates[i])
							}
						}()
						_, err := last.Wait(ctx)
						require.NoError(t, err)
					}))
				}))
				require.Len(t, j.read(), 1)
			})
		})
	}
}

// When the ctx of a joined wait ends, the calls are strangers' again: those
// that are queued wait until the thread is free, and so do those that come.
func TestJoin_EndsWithContext(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		var j journal
		early, late := make(chan struct{}), make(chan struct{})
		foreign := task.Go(ctx, func(ctx context.Context) (int, error) {
			<-early
			return 0, errors.Join(noted(ctx, &j, "queued during the join"), noted(ctx, &j, "made later"))
		})
		other := caller(ctx, late, &j, "queued after the join")
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			require.NoError(t, fromThread(ctx, func(ctx context.Context) {
				// The thread is kept busy, so that the call stays queued.
				busy := make(chan struct{})
				keeper := task.Go(ctx, func(ctx context.Context) (int, error) {
					return 0, toThread(ctx, func(context.Context) { <-busy })
				})
				synctest.Wait()
				short, cancel := context.WithCancelCause(ctx)
				cause := errors.New("not that patient")
				waiter := task.Go(ctx, func(ctx context.Context) (int, error) {
					_, err := foreign.Wait(short)
					require.True(t, err == cause, "%v", err)
					_, err = other.Wait(short)
					require.True(t, err == cause, "%v", err)
					return 0, nil
				})
				synctest.Wait()
				close(early)
				synctest.Wait()
				require.Equal(t, 1, tsc.Stats().Queued)
				cancel(cause)
				_, err := waiter.Wait(ctx)
				require.NoError(t, err)

				close(busy)
				close(late)
				_, err = keeper.Wait(ctx)
				require.NoError(t, err)
				synctest.Wait()
				require.Equal(t, 2, tsc.Stats().Queued)
				require.Empty(t, j.read(), "strangers' calls on top of a blocked function")
				j.add("async code over")
			}))
			j.add("thread's function over")
		}))
		for _, tk := range []*task.Task[int]{foreign, other} {
			_, err := tk.Wait(ctx)
			require.NoError(t, err)
		}
		lines := j.read()
		require.Equal(t, []string{"async code over", "thread's function over", "queued during the join"}, lines[:3])
		require.ElementsMatch(t, []string{"made later", "queued after the join"}, lines[3:])
	})
}

// The same for a thread that waits itself: when it gives up, the calls are
// strangers to what it does next.
func TestJoin_OfThreadEndsWithContext(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		var j journal
		start := make(chan struct{})
		foreign := caller(ctx, start, &j, "foreign call")
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			short, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			_, err := foreign.Wait(short)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			// In another wait the thread serves again, but not that.
			require.NoError(t, fromThread(ctx, func(ctx context.Context) {
				close(start)
				synctest.Wait()
				require.Equal(t, 1, tsc.Stats().Queued)
				require.NoError(t, noted(ctx, &j, "own call"))
			}))
		}))
		_, err := foreign.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, []string{"own call", "foreign call"}, j.read())
	})
}

// It is also gone for those who wait further down for the function that gave up: the join
// ends with the wait, not with the function.
func TestJoin_OfNestedThreadEndsWithContext(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		var j journal
		start := make(chan struct{})
		foreign := caller(ctx, start, &j, "foreign call")
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			require.NoError(t, fromThread(ctx, func(ctx context.Context) {
				require.NoError(t, toThread(ctx, func(ctx context.Context) {
					short, cancel := context.WithTimeout(ctx, time.Minute)
					defer cancel()
					_, err := foreign.Wait(short)
					require.ErrorIs(t, err, context.DeadlineExceeded)
				}))
				close(start)
				synctest.Wait()
				require.Equal(t, 1, tsc.Stats().Queued)
				require.Empty(t, j.read())
				j.add("async code over")
			}))
		}))
		_, err := foreign.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, []string{"async code over", "foreign call"}, j.read())
	})
}

// Two joins of one task are two: the end of one leaves the other.
func TestJoin_EndOfOneOfTwo(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var j journal
		start := make(chan struct{})
		foreign := caller(ctx, start, &j, "call")
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			require.NoError(t, fromThread(ctx, func(ctx context.Context) {
				patient := task.Go(ctx, foreign.Wait)
				synctest.Wait()
				short, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				_, err := task.Go(ctx, func(context.Context) (int, error) { return foreign.Wait(short) }).Wait(ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				close(start)
				_, err = patient.Wait(ctx)
				require.NoError(t, err)
			}))
		}))
	})
}

// What nobody waits for stays out: strangers' calls do not run on top of a
// function that waits for something else.
func TestJoin_StrangersStayOut(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		var j journal
		start := make(chan struct{})
		stranger := caller(ctx, start, &j, "stranger")
		// Somebody foreign waits for the stranger, but nobody for him.
		bystander := task.Go(ctx, stranger.Wait)
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
				close(start)
				synctest.Wait()
				require.Equal(t, 1, tsc.Stats().Queued)
				require.NoError(t, noted(ctx, &j, "own"))
				// A wait that says it has nothing to do with us joins nothing,
				// and so would not end: also not if it has a deadline.
				short, cancel := context.WithTimeout(asyncsync.Detach(ctx), time.Minute)
				defer cancel()
				_, err := stranger.Wait(short)
				require.ErrorIs(t, err, core.ErrDeadlock)
				return 0, nil
			}).Wait(ctx)
			require.NoError(t, err)
			j.add("over")
		}))
		_, err := bystander.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, []string{"own", "over", "stranger"}, j.read())
	})
}

// Policies: All runs strangers during a wait, None nobody, so that a wait for
// a task that calls back is refused.
func TestJoin_Policies(t *testing.T) {
	t.Run("All", func(t *testing.T) {
		inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
			var j journal
			require.NoError(t, toThread(ctx, func(threadCtx context.Context) {
				stranger := caller(ctx, open(), &j, "stranger")
				_, err := task.Go(threadCtx, func(context.Context) (int, error) {
					<-stranger.Done() // a wait the library does not see
					return 0, nil
				}).Wait(threadCtx)
				require.NoError(t, err)
				j.add("over")
			}))
			require.Equal(t, []string{"stranger", "over"}, j.read())
		}, asyncsync.Serve(asyncsync.All))
	})
	t.Run("None", func(t *testing.T) {
		inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
			var j journal
			require.NoError(t, toThread(ctx, func(ctx context.Context) {
				tk := caller(ctx, open(), &j, "call")
				synctest.Wait() // its call is queued
				_, err := tk.Wait(ctx)
				require.ErrorIs(t, err, core.ErrDeadlock)
				j.add("over")
			}))
			require.NoError(t, toThread(ctx, func(context.Context) {})) // behind the call
			require.Equal(t, []string{"over", "call"}, j.read())
		}, asyncsync.Serve(asyncsync.None))
	})
}

// Only the top frame serves. A call that is related to a wait further down
// runs when that one is on top again: work in between is not re-entered.
func TestJoin_OnlyTopFrameServes(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		var j journal
		start, inner := make(chan struct{}), make(chan struct{})
		foreign := caller(ctx, start, &j, "lower frame's call")
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			require.NoError(t, fromThread(ctx, func(ctx context.Context) {
				waiter := task.Go(ctx, foreign.Wait) // joins foreign to the lower frame
				require.NoError(t, toThread(ctx, func(ctx context.Context) {
					close(start)
					synctest.Wait()
					require.Equal(t, 1, tsc.Stats().Queued)
					short, cancel := context.WithTimeout(ctx, time.Minute)
					defer cancel()
					_, err := task.Go(ctx, func(context.Context) (int, error) {
						<-inner
						return 0, nil
					}).Wait(short)
					require.ErrorIs(t, err, context.DeadlineExceeded)
					close(inner)
					j.add("top function over")
				}))
				_, err := waiter.Wait(ctx)
				require.NoError(t, err)
			}))
		}))
		require.Equal(t, []string{"top function over", "lower frame's call"}, j.read())
	})
}

// Calls of one submitter run in the order in which they were made, also after
// they were moved into a frame by a join, out by its end, and in by another.
// Out again, they have their old places among those of others.
func TestJoin_KeepsOrder(t *testing.T) {
	for _, stay := range []bool{true, false} {
		t.Run(fmt.Sprint("joined in the end: ", stay), func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
				const n = 10
				var j journal
				start, more := make(chan struct{}), make(chan struct{})
				foreign := task.Go(ctx, func(ctx context.Context) (int, error) {
					<-start
					_, g := task.NewGroup(ctx)
					for i := range n {
						if i == n/2 {
							<-more
						}
						before := tsc.Stats().Queued
						g.Go(func(ctx context.Context) error { return noted(ctx, &j, fmt.Sprint(i)) })
						for tsc.Stats().Queued == before {
							runtime.Gosched() // until it is queued: one after the other
						}
					}
					return 0, g.Wait(ctx)
				})
				between := make(chan struct{})
				stranger := caller(ctx, between, &j, "stranger")
				require.NoError(t, toThread(ctx, func(ctx context.Context) {
					for i, gate := range []chan struct{}{start, between, more} {
						close(gate)
						synctest.Wait()
						require.Equal(t, []int{n / 2, n/2 + 1, n + 1}[i], tsc.Stats().Queued)
					}
					require.NoError(t, fromThread(ctx, func(ctx context.Context) {
						// A busy thread, so that nothing runs yet.
						busy := make(chan struct{})
						keeper := task.Go(ctx, func(ctx context.Context) (int, error) {
							return 0, toThread(ctx, func(context.Context) { <-busy })
						})
						synctest.Wait()
						for range 3 {
							short, cancel := context.WithTimeout(ctx, time.Minute)
							_, err := foreign.Wait(short)
							require.ErrorIs(t, err, context.DeadlineExceeded)
							cancel()
						}
						if stay {
							joined := task.Go(ctx, foreign.Wait)
							synctest.Wait()
							defer func() {
								_, err := joined.Wait(ctx)
								require.NoError(t, err)
							}()
						}
						close(busy)
						_, err := keeper.Wait(ctx)
						require.NoError(t, err)
					}))
				}))
				for _, tk := range []*task.Task[int]{foreign, stranger} {
					_, err := tk.Wait(ctx)
					require.NoError(t, err)
				}
				want := []string{"0", "1", "2", "3", "4", "stranger", "5", "6", "7", "8", "9"}
				if stay {
					want = []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "stranger"}
				}
				require.Equal(t, want, j.read())
			})
		})
	}
}

// A known limit: a Goexit in a call that is served on top of a blocked
// function unwinds that function as well. Each caller is told so, the joins
// are gone, and the thread survives.
func TestJoin_GoexitOnTopOfWait(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var home int64
		gate := make(chan struct{})
		var j journal
		tk := task.Go(ctx, func(ctx context.Context) (int, error) {
			<-gate
			return 0, toThread(ctx, func(context.Context) { runtime.Goexit() })
		})
		below := endingOf(func() {
			toThread(ctx, func(ctx context.Context) {
				home = goid()
				close(gate)
				tk.Wait(ctx)
				j.add("went on")
			})
		})
		require.Equal(t, testkit.Outcome{How: "goexit"}, below)
		require.Equal(t, testkit.Outcome{How: "goexit"}, endingOf(func() { tk.Wait(ctx) }))
		require.Empty(t, j.read())
		require.NoError(t, toThread(ctx, func(context.Context) { require.Equal(t, home, goid()) }))
	})
}

// What a blocked thread waits for, it can always run. Tasks run random
// programs of calls, nested waits, groups and waits for tasks started before
// them, on the thread and off it, most of them strangers to each other. As
// waits only go backwards there is no cycle, so that everything must end, and
// each step must run once.
func TestJoin_RandomPrograms(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
				r := rand.New(rand.NewPCG(seed, 1))
				w := world{root: ctx}
				tasks := make([]*task.Task[int], 30)
				for i := range tasks {
					program := w.program(r, tasks[:i], 4)
					tasks[i] = task.Go(ctx, func(ctx context.Context) (int, error) {
						program(ctx)
						return i, nil
					})
				}
				for i, tk := range tasks {
					got, err := tk.Wait(ctx)
					require.NoError(t, err)
					require.Equal(t, i, got)
				}
				require.NoError(t, tsc.Close())
				require.Equal(t, w.planned, w.done.Load())
				require.Equal(t, w.plannedSync, w.inSync)
			})
		})
	}
}

// A world counts what random programs were to do and what they have done.
type world struct {
	root                 context.Context
	planned, plannedSync int64
	done                 atomic.Int64
	inSync               int64 // plain: only the thread touches it
}

// program makes up what a function does: a few steps, each perhaps with
// programs inside. It runs on the thread or off it.
func (w *world) program(r *rand.Rand, earlier []*task.Task[int], depth int) func(context.Context) {
	var steps []func(context.Context)
	for range 1 + r.IntN(3) {
		var inner func(context.Context)
		kind := r.IntN(6)
		if depth == 0 || kind == 5 && len(earlier) > 0 {
			if len(earlier) == 0 {
				continue
			}
			awaited := earlier[r.IntN(len(earlier))]
			bare := r.IntN(4) == 0
			steps = append(steps, func(ctx context.Context) {
				if bare {
					ctx = context.Background()
				}
				if _, err := awaited.Wait(ctx); err != nil {
					panic(err)
				}
				w.done.Add(1)
			})
			w.planned++
			continue
		}
		inner = w.program(r, earlier, depth-1)
		w.planned++
		switch kind {
		case 0, 1:
			w.plannedSync++
			steps = append(steps, func(ctx context.Context) {
				err := toThread(ctx, func(ctx context.Context) {
					w.inSync++
					inner(ctx)
				})
				if err != nil {
					panic(err)
				}
				w.done.Add(1)
			})
		case 2:
			steps = append(steps, func(ctx context.Context) {
				if err := fromThread(ctx, inner); err != nil {
					panic(err)
				}
				w.done.Add(1)
			})
		case 3:
			another := w.program(r, earlier, depth-1)
			steps = append(steps, func(ctx context.Context) {
				_, g := task.NewGroup(ctx)
				for _, fn := range []func(context.Context){inner, another} {
					g.Go(func(ctx context.Context) error { fn(ctx); return nil })
				}
				if err := g.Wait(ctx); err != nil {
					panic(err)
				}
				w.done.Add(1)
			})
		default:
			foreign := r.IntN(2) == 0
			steps = append(steps, func(ctx context.Context) {
				from := ctx
				if foreign {
					from = w.root
				}
				tk := task.Go(from, func(ctx context.Context) (int, error) {
					inner(ctx)
					return 0, nil
				})
				if _, err := tk.Wait(ctx); err != nil {
					panic(err)
				}
				w.done.Add(1)
			})
		}
	}
	return func(ctx context.Context) {
		for _, step := range steps {
			step(ctx)
		}
	}
}

// asked is a user's ctx that does something of its own when it is asked.
type asked struct {
	context.Context
	ask func()
}

func (c asked) Done() <-chan struct{}       { c.ask(); return c.Context.Done() }
func (c asked) Err() error                  { c.ask(); return c.Context.Err() }
func (c asked) Value(key any) any           { c.ask(); return c.Context.Value(key) }
func (c asked) Deadline() (time.Time, bool) { c.ask(); return c.Context.Deadline() }

// No lock is held while a user's ctx is asked anything: it may call this library.
func TestJoin_CtxThatCallsTheLibrary(t *testing.T) {
	guard(t)
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := task.NewLimiter(1)
	ask := func() {
		deadlock.Take()
		asyncsync.ReadStats()
		l.Stats()
	}
	ctx := asked{base, ask}
	waits := map[string]func() error{
		"a task for itself": func() error {
			self := make(chan *task.Task[int], 1)
			tk := task.Go(context.Background(), func(context.Context) (int, error) { return (<-self).Wait(ctx) })
			self <- tk
			_, err := tk.Wait(context.Background())
			require.ErrorIs(t, err, deadlock.ErrDeadlock)
			return nil
		},
		"tasks below tasks": func() error {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
				return task.Go(asked{ctx, ask}, func(ctx context.Context) (int, error) {
					return task.Go(ctx, func(context.Context) (int, error) { return 1, nil }).Wait(ctx)
				}).Wait(ctx)
			}).Wait(ctx)
			return err
		},
		"a group": func() error {
			ctx, g := task.NewGroup(ctx)
			g.Go(func(ctx context.Context) error { return l.Acquire(asked{ctx, ask}) })
			g.Go(func(ctx context.Context) error { return ctx.Err() })
			err := g.Wait(asked{ctx, ask})
			l.Release()
			return err
		},
		"threads": func() error {
			tctx, tsc := asyncsync.NewThreadSensitiveContext(ctx)
			defer tsc.Close()
			_, err := asyncsync.ToThread(tctx, func(ctx context.Context) (int, error) {
				return asyncsync.FromThread(asked{ctx, ask}, func(ctx context.Context) (int, error) {
					tk := asyncsync.Go(asked{ctx, ask}, func(context.Context) (int, error) { return 1, nil })
					return tk.Wait(asked{ctx, ask})
				})
			})
			return errors.Join(err, tsc.Shutdown(ctx))
		},
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) { require.NoError(t, wait()) })
	}
}
