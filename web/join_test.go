package web_test

import (
	"context"
	"log"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
	"asyncsync.dev/web"
)

// call has h serve a request with ctx, without a server.
func call(ctx context.Context, h http.Handler) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx))
	return w.Code
}

// middleware returns one whose threads end with the test.
func middleware(t *testing.T) func(http.Handler) http.Handler {
	t.Helper()
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	return web.Middleware(web.Pool(pool))
}

// logTo returns ctx as the middleware gets it from a server with that ErrorLog.
func logTo(ctx context.Context, l *logged) context.Context {
	return context.WithValue(ctx, http.ServerContextKey, &http.Server{ErrorLog: log.New(l, "", 0)})
}

// Whoever calls a wrapped handler, and however that ends, the tasks of the request come
// to their end: those that need the caller's thread, and those that need its loop.
func TestTasksWhoeverCallsTheHandler(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	for _, c := range libkit.Callers {
		for _, e := range testkit.Ends {
			called := make(chan error, 1)
			h := middleware(t)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				task.Go(context.WithoutCancel(r.Context()), func(ctx context.Context) (int, error) {
					_, err := onThread(ctx)
					called <- err
					return 0, err
				})
				if e.How != "return" {
					e.Do()
				}
			}))
			o := testkit.OutcomeOf(func() error {
				return c.Run(context.Background(), func(ctx context.Context) error {
					defer func() { require.Len(t, called, 1, "the task has been waited for") }()
					call(ctx, h)
					return e.Want.Err
				})
			})
			e.Check(t, o, c.Name)
			require.NoError(t, <-called)
		}
	}
}

// The outer request waits for its own tasks and those of the inner one.
func TestHandlerOnTheThreadOfARequest(t *testing.T) {
	testkit.Guard(t)
	mw := middleware(t)
	ended := make(chan error, 2)
	work := func(ctx context.Context) (int, error) {
		_, err := onThread(ctx)
		ended <- err
		return 0, nil
	}
	inner := mw(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { task.Go(r.Context(), work) }))
	outer := mw(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asyncsync.ToThread(r.Context(), func(ctx context.Context) (int, error) {
			call(ctx, inner)
			require.Len(t, ended, 1)
			task.Go(ctx, work)
			return 0, nil
		})
	}))
	call(context.Background(), outer)
	require.Len(t, ended, 2)
	require.NoError(t, <-ended)
	require.NoError(t, <-ended)
}

// The request's ctx knows nothing of the thread that waits: the wait itself makes the
// task and the thread related.
func TestHandlerWithACtxOfItsOwn(t *testing.T) {
	testkit.Guard(t)
	handle, err := asyncsync.Open(context.Background(), func(context.Context) (int, error) { return 7, nil }, nil)
	require.NoError(t, err)
	defer handle.Close()
	ended := make(chan error, 1)
	h := middleware(t)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		task.Go(r.Context(), func(ctx context.Context) (int, error) {
			err := handle.Do(ctx, func(context.Context, int) error { return nil })
			ended <- err
			return 0, err
		})
	}))
	require.NoError(t, handle.Do(context.Background(), func(context.Context, int) error {
		call(context.Background(), h)
		require.Len(t, ended, 1)
		return nil
	}))
	require.NoError(t, <-ended)
}

// A Goexit of a call that the wait has served ends the caller. The tasks are cancelled,
// and still waited for.
func TestGoexitInTheWaitForTasks(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	ended := make(chan error, 1)
	h := middleware(t)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		task.Go(r.Context(), func(ctx context.Context) (int, error) {
			<-ctx.Done()
			_, err := onThread(context.WithoutCancel(ctx)) // served by the wait that goes on
			require.NoError(t, err)
			ended <- context.Cause(ctx)
			return 0, nil
		})
		task.Go(r.Context(), func(ctx context.Context) (int, error) {
			return asyncsync.ToThread(ctx, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
		})
	}))
	o := testkit.OutcomeOf(func() error {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		defer tsc.Close()
		return libkit.To(ctx, func(ctx context.Context) error {
			defer func() { require.Len(t, ended, 1) }()
			call(ctx, h)
			return nil
		})
	})
	require.Equal(t, testkit.Outcome{How: "goexit"}, o)
	require.ErrorIs(t, <-ended, web.ErrAborted)
}

// Where a wait cannot be made at all it says so, and the handler's context is closed.
func TestHandlerWhereALoopMustNotWait(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	causes := make(chan error, 1)
	h := middleware(t)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		task.Go(r.Context(), func(ctx context.Context) (int, error) { return 0, nil })
		context.AfterFunc(r.Context(), func() { causes <- context.Cause(r.Context()) })
	}))
	require.NoError(t, libkit.Run(context.Background(), loop.NewThread(), func(ctx context.Context) error {
		b, _ := loop.Current(ctx)
		return b.Park(ctx, func(wake func()) {
			defer wake()
			var o testkit.Outcome
			o.Record(func() error { call(ctx, h); return nil })
			require.Equal(t, "panic", o.How)
		})
	}))
	require.ErrorIs(t, <-causes, web.ErrAborted)
}

// A task that waits for the caller of the handler is refused.
func TestTaskThatWaitsForTheCaller(t *testing.T) {
	testkit.Guard(t)
	for _, on := range []string{"goroutine", "thread loop"} {
		refused := make(chan error, 1)
		caller := make(chan *task.Task[int], 1)
		h := middleware(t)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			task.Go(r.Context(), func(ctx context.Context) (int, error) {
				_, err := (<-caller).Wait(ctx)
				refused <- err
				return 0, nil
			})
		}))
		body := func(ctx context.Context) (int, error) { call(ctx, h); return 0, nil }
		var tk *task.Task[int]
		if on == "goroutine" {
			tk = task.Go(context.Background(), body)
			caller <- tk
			_, err := tk.Wait(context.Background())
			require.NoError(t, err)
		} else {
			require.NoError(t, libkit.Run(context.Background(), loop.NewThread(), func(ctx context.Context) error {
				tk = task.Go(ctx, body)
				caller <- tk
				_, err := tk.Wait(ctx)
				return err
			}))
		}
		require.ErrorIs(t, <-refused, deadlock.ErrDeadlock, on)
	}
}

// The wait for the tasks is the one that closes the cycle. It cancels them, and leaves
// behind those that do not end then.
func TestWaitForTasksThatWaitForTheCaller(t *testing.T) {
	testkit.Guard(t)
	for _, heeds := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var mu task.Mutex
			locked := testkit.Start(func() error { return nil })
			h := web.Middleware(web.Context(asyncsync.Unpinned()))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx := r.Context()
				if !heeds {
					ctx = context.WithoutCancel(ctx)
				}
				tk := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, mu.Lock(ctx) })
				locked = testkit.Start(func() error { _, err := tk.Wait(context.Background()); return err })
				synctest.Wait() // until it is in line
			}))
			var l logged
			_, err := task.Go(logTo(context.Background(), &l), func(ctx context.Context) (int, error) {
				if err := mu.Lock(ctx); err != nil {
					return 0, err
				}
				defer mu.Unlock()
				call(ctx, h)
				synctest.Wait()
				require.Equal(t, heeds, locked.Over())
				return 0, nil
			}).Wait(context.Background())
			require.NoError(t, err)
			o := locked.Wait()
			require.Contains(t, l.String(), "web: waiting for the tasks of GET /: deadlock: ")
			if heeds {
				require.ErrorIs(t, o.Err, deadlock.ErrDeadlock)
				require.NotContains(t, l.String(), "behind")
			} else {
				require.NoError(t, o.Err)
				require.Contains(t, l.String(), "web: leaving tasks of GET / behind: deadlock: ")
			}
		})
	}
}

// A report says what a thread that waits for the tasks of a request waits for.
func TestReportOfTheWaitForTasks(t *testing.T) {
	testkit.Guard(t)
	h := middleware(t)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		task.Go(r.Context(), func(context.Context) (int, error) {
			testkit.Poll(t, func() string {
				for _, w := range deadlock.Take().Waits {
					if w.Kind == "group" && w.From.Thread != 0 {
						return ""
					}
				}
				return "the wait is not in the report"
			})
			return 0, nil
		})
	}))
	ctx, _ := libkit.NewContext(t)
	require.NoError(t, libkit.To(ctx, func(ctx context.Context) error { call(ctx, h); return nil }))
}

// A failingCtx ends the at-th one who asks it something as end does, and nobody else.
type failingCtx struct {
	context.Context
	asked atomic.Int64
	at    int64
	end   func()
}

func (c *failingCtx) ask() {
	if c.asked.Add(1) == c.at {
		c.end()
	}
}

func (c *failingCtx) Done() <-chan struct{}       { c.ask(); return c.Context.Done() }
func (c *failingCtx) Err() error                  { c.ask(); return c.Context.Err() }
func (c *failingCtx) Deadline() (time.Time, bool) { c.ask(); return c.Context.Deadline() }
func (c *failingCtx) Value(key any) any           { c.ask(); return c.Context.Value(key) }

// Whatever code of a user keeps a task from starting, it is not waited for: that of its
// ctx, at any of the moments when that is asked something, and that of its loop.
func TestTaskThatFailsToStart(t *testing.T) {
	testkit.Guard(t)
	ends := []testkit.End{
		{How: "panic", Do: func() error { panic("bad") }},
		{How: "goexit", Do: func() error { runtime.Goexit(); return nil }},
	}
	// start has a request start a task, and reports whether that has failed.
	start := func(goTask func(ctx context.Context)) (failed bool) {
		h := middleware(t)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			failed = testkit.OutcomeOf(func() error { goTask(r.Context()); return nil }).How != "return"
		}))
		call(context.Background(), h) // hangs if the task counts
		_, err := task.Go(context.Background(), func(ctx context.Context) (int, error) { call(ctx, h); return 0, nil }).
			Wait(context.Background())
		require.NoError(t, err)
		return failed
	}
	nothing := func(context.Context) (int, error) { return 0, nil }
	running := libkit.Running(t, loop.Goroutines())
	for _, e := range ends {
		for name, goTask := range map[string]func(ctx context.Context){
			"goroutine": func(ctx context.Context) { task.Go(ctx, nothing) },
			"thread":    func(ctx context.Context) { asyncsync.Go(ctx, nothing) },
			"loop":      func(ctx context.Context) { task.Go(ctx, nothing, task.On(running)) },
		} {
			at := int64(0)
			for failed := true; failed; {
				at++
				failed = start(func(ctx context.Context) {
					goTask(&failingCtx{Context: ctx, at: at, end: func() { e.Do() }})
				})
			}
			require.Greater(t, at, int64(3), "%s: the ctx is asked more than that", name)
		}
		broken := loop.FromPost(func(func()) error { return e.Do() }, nil)
		require.True(t, start(func(ctx context.Context) { task.Go(ctx, nothing, task.On(broken)) }), "loop that fails")
		late := loop.FromPost(func(fn func()) error { go fn(); return e.Do() }, nil)
		require.True(t, start(func(ctx context.Context) { task.Go(ctx, nothing, task.On(late)) }), "loop that fails too late")
	}
}
