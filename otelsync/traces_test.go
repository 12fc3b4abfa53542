package otelsync

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// record adds the hooks of Traces for the rest of the test.
func record(t testing.TB) (*tracetest.SpanRecorder, trace.Tracer) {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	p := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	remove := asyncsync.AddHooks(Traces(p))
	t.Cleanup(func() {
		remove()
		require.NoError(t, p.Shutdown(context.Background()))
		require.Len(t, spans.Ended(), len(spans.Started()), "spans that have not ended")
	})
	return spans, p.Tracer("the test")
}

func newContext(t testing.TB, opts ...asyncsync.ContextOption) (context.Context, *asyncsync.ThreadSensitiveContext) {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
	t.Cleanup(func() { tsc.Close() })
	return ctx, tsc
}

// to and from call fn on the thread and off it.
func to(ctx context.Context, name string, fn func(context.Context) error, opts ...asyncsync.Option) error {
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, append(opts, asyncsync.Named(name))...)
	return err
}

func from(ctx context.Context, name string, fn func(context.Context) error) error {
	_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, asyncsync.Named(name))
	return err
}

// ended returns the span of that name.
func ended(t *testing.T, spans *tracetest.SpanRecorder, name string) sdktrace.ReadOnlySpan {
	t.Helper()
	var found sdktrace.ReadOnlySpan
	for _, s := range spans.Ended() {
		if s.Name() == name {
			require.Nil(t, found, "two spans %s", name)
			found = s
		}
	}
	require.NotNil(t, found, "no span %s", name)
	return found
}

func attr(s sdktrace.ReadOnlySpan, key attribute.Key) (attribute.Value, bool) {
	for _, a := range s.Attributes() {
		if a.Key == key {
			return a.Value, true
		}
	}
	return attribute.Value{}, false
}

func text(s sdktrace.ReadOnlySpan, key attribute.Key) string {
	v, _ := attr(s, key)
	return v.AsString()
}

func events(s sdktrace.ReadOnlySpan) (names []string) {
	for _, e := range s.Events() {
		names = append(names, e.Name)
	}
	return names
}

// Each span hangs below that of the call it was made in, over threads and back, and
// so do those that functions make.
func TestParents(t *testing.T) {
	for name, opts := range map[string][]asyncsync.ContextOption{"a thread": nil, "unpinned": {asyncsync.Unpinned()}} {
		t.Run(name, func(t *testing.T) {
			testkit.Guard(t)
			spans, tracer := record(t)
			ctx, _ := newContext(t, opts...)
			_, other := newContext(t)
			ctx, request := tracer.Start(ctx, "request")
			own := func(ctx context.Context, name string) {
				_, s := tracer.Start(ctx, name)
				s.End()
			}
			var tk *task.Task[int]
			require.NoError(t, to(ctx, "outer", func(ctx context.Context) error {
				own(ctx, "in outer")
				if err := to(ctx, "inline", func(ctx context.Context) error { own(ctx, "in inline"); return nil }); err != nil {
					return err
				}
				return from(ctx, "async", func(ctx context.Context) error {
					own(ctx, "in async")
					tk = task.Go(ctx, func(ctx context.Context) (int, error) {
						own(ctx, "in task")
						return 0, to(ctx, "from task", func(context.Context) error { return nil })
					}, task.Named("task"))
					if _, err := tk.Wait(ctx); err != nil {
						return err
					}
					return to(ctx, "nested", func(ctx context.Context) error {
						own(ctx, "in nested")
						return to(ctx, "elsewhere", func(ctx context.Context) error { own(ctx, "in elsewhere"); return nil }, asyncsync.On(other))
					})
				})
			}))
			request.End()
			for child, parent := range map[string]string{
				"outer": "request", "in outer": "outer", "inline": "outer", "in inline": "inline",
				"async": "outer", "in async": "async", "task": "async", "in task": "task", "from task": "task",
				"nested": "async", "in nested": "nested", "elsewhere": "nested", "in elsewhere": "elsewhere",
			} {
				require.Equal(t, ended(t, spans, parent).SpanContext().SpanID(), ended(t, spans, child).Parent().SpanID(), "%s below %s", child, parent)
			}
			v, _ := attr(ended(t, spans, "inline"), keyInline)
			require.True(t, v.AsBool())
			require.Empty(t, events(ended(t, spans, "inline")), "there is no wait to be told apart")
		})
	}
}

// The wait is told apart from the run, exactly, by the clock of a bubble.
func TestQueueTime(t *testing.T) {
	testkit.Guard(t)
	synctest.Test(t, func(t *testing.T) {
		spans, _ := record(t)
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("db"))
		first := task.Go(context.Background(), func(context.Context) (int, error) {
			return 0, to(ctx, "first", func(context.Context) error { time.Sleep(3 * time.Second); return nil })
		})
		synctest.Wait()
		require.NoError(t, to(ctx, "second", func(context.Context) error { time.Sleep(5 * time.Second); return nil }))
		_, err := first.Wait(context.Background())
		require.NoError(t, err)
		require.NoError(t, tsc.Close())
		s := ended(t, spans, "second")
		require.Equal(t, 8*time.Second, s.EndTime().Sub(s.StartTime()))
		require.Equal(t, []string{"begun"}, events(s))
		require.Equal(t, 3*time.Second, s.Events()[0].Time.Sub(s.StartTime()))
		v, _ := attr(s, keyQueue)
		require.Equal(t, 3.0, v.AsFloat64())
		require.Equal(t, "db", text(s, keyContext))
		require.Equal(t, "returned", text(s, keyOutcome))
		if runtime.GOOS == "linux" {
			_, ok := attr(s, keyThread)
			require.True(t, ok)
		}
	})
}

var errOwn = errors.New("the function's own error")

// How a function ends is the status; a panic is an event where it began, and there
// only, with the stack of that place.
func TestEndings(t *testing.T) {
	for _, e := range []struct {
		outcome     string
		do          func() error
		code        codes.Code
		description string
		event       string
	}{
		{"returned", func() error { return nil }, codes.Unset, "", ""},
		{"error", func() error { return errOwn }, codes.Error, errOwn.Error(), "exception"},
		{"panic", func() error { culprit(); return nil }, codes.Error, "panic: oh dear", "exception"},
		{"goexit", func() error { runtime.Goexit(); return nil }, codes.Error, "runtime.Goexit", ""},
	} {
		t.Run(e.outcome, func(t *testing.T) {
			testkit.Guard(t)
			spans, _ := record(t)
			ctx, _ := newContext(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { _ = recover() }()
				_ = to(ctx, "outer", func(ctx context.Context) error {
					return from(ctx, "async", func(ctx context.Context) error {
						return to(ctx, "inner", func(context.Context) error { return e.do() })
					})
				})
			}()
			<-done
			for _, name := range []string{"inner", "async", "outer"} {
				s := ended(t, spans, name)
				require.Equal(t, e.outcome, text(s, keyOutcome), name)
				require.Equal(t, sdktrace.Status{Code: e.code, Description: e.description}, s.Status(), name)
				want := []string{"begun"}
				if e.event != "" && (name == "inner" || e.outcome == "error") {
					want = append(want, e.event)
				}
				require.Equal(t, want, events(s), name)
			}
			if e.outcome == "panic" {
				stack := ""
				for _, a := range ended(t, spans, "inner").Events()[1].Attributes {
					if a.Key == "exception.stacktrace" {
						stack = a.Value.AsString()
					}
				}
				require.Contains(t, stack, "culprit")
			}
		})
	}
}

//go:noinline
func culprit() { panic("oh dear") }

// A picky error is one that must not be nil to be asked what it says.
type picky struct{ text string }

func (e *picky) Error() string { return e.text }

// Errors and panics whose text cannot be had do not disturb the calls that end so.
func TestErrorsThatSayNothing(t *testing.T) {
	spans, _ := record(t)
	ctx, _ := newContext(t)
	require.True(t, to(ctx, "error", func(context.Context) error { return (*picky)(nil) }) == (*picky)(nil))
	require.PanicsWithValue(t, (*picky)(nil), func() {
		_ = to(ctx, "panic", func(context.Context) error { panic((*picky)(nil)) })
	})
	for _, name := range []string{"error", "panic"} {
		s := ended(t, spans, name)
		require.Equal(t, codes.Error, s.Status().Code)
		outcome, _ := attr(s, keyOutcome)
		require.Equal(t, name, outcome.AsString())
		require.Equal(t, "exception", s.Events()[len(s.Events())-1].Name)
	}
}

// Calls that do not run have spans, too, which say why; a function that its caller has
// left has one until it ends.
func TestCallsThatDoNotRun(t *testing.T) {
	testkit.Guard(t)
	spans, _ := record(t)
	ctx, tsc := newContext(t, asyncsync.QueueLimit(1))
	release, running := make(chan struct{}), make(chan struct{})
	cctx, leave := context.WithCancelCause(ctx)
	left := task.Go(context.Background(), func(context.Context) (int, error) {
		return 0, to(cctx, "left", func(context.Context) error { close(running); <-release; return nil }, asyncsync.Abandon())
	})
	<-running
	qctx, cancel := context.WithCancelCause(ctx)
	queued := asyncsync.Go(qctx, func(context.Context) (int, error) { return 0, nil }, asyncsync.Named("cancelled"))
	require.ErrorIs(t, to(ctx, "full", func(context.Context) error { return nil }), asyncsync.ErrQueueFull)
	why := errors.New("changed my mind")
	cancel(why)
	_, err := queued.Wait(ctx)
	require.ErrorIs(t, err, why)
	leave(why)
	_, err = left.Wait(ctx)
	require.ErrorIs(t, err, asyncsync.ErrAbandoned)
	close(release)
	require.NoError(t, tsc.Close())

	s := ended(t, spans, "full")
	require.Equal(t, "refused", text(s, keyOutcome))
	require.Equal(t, codes.Error, s.Status().Code)
	require.Equal(t, []string{"exception"}, events(s))
	s = ended(t, spans, "cancelled")
	require.Equal(t, "cancelled", text(s, keyOutcome))
	require.Equal(t, why.Error(), s.Status().Description)
	_, ok := attr(s, keyQueue)
	require.True(t, ok)
	require.Equal(t, "returned", text(ended(t, spans, "left"), keyOutcome))
}

// A call that is cancelled is no refused one, whatever the cause resembles, and a
// refused one is none that is cancelled.
func TestCausesThatResembleRefusals(t *testing.T) {
	for name, cause := range map[string]error{
		"closed":     fmt.Errorf("the request is over: %w", asyncsync.ErrClosed),
		"queue full": asyncsync.ErrQueueFull,
		"deadlock":   fmt.Errorf("elsewhere: %w", deadlock.ErrDeadlock),
		"stopped":    fmt.Errorf("elsewhere: %w", loop.ErrStopped),
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Guard(t)
			spans, _ := record(t)
			ctx, tsc := newContext(t, asyncsync.QueueLimit(2))
			release, running := make(chan struct{}), make(chan struct{})
			first := asyncsync.Go(ctx, func(context.Context) (int, error) { close(running); <-release; return 0, nil })
			<-running
			cctx, cancel := context.WithCancelCause(ctx)
			queued := asyncsync.Go(cctx, func(context.Context) (int, error) { return 0, nil }, asyncsync.Named("a task"))
			waits := task.Go(context.Background(), func(context.Context) (int, error) {
				return 0, to(cctx, "a call", func(context.Context) error { return nil })
			})
			for tsc.Stats().Queued < 2 {
				runtime.Gosched()
			}
			require.ErrorIs(t, to(ctx, "full", func(context.Context) error { return nil }), asyncsync.ErrQueueFull)
			cancel(cause)
			_, err := queued.Wait(ctx)
			require.ErrorIs(t, err, cause)
			_, err = waits.Wait(ctx)
			require.ErrorIs(t, err, cause)
			close(release)
			_, err = first.Wait(ctx)
			require.NoError(t, err)
			require.NoError(t, tsc.Close())
			for _, name := range []string{"a task", "a call"} {
				require.Equal(t, "cancelled", text(ended(t, spans, name), keyOutcome), name)
			}
			require.Equal(t, "refused", text(ended(t, spans, "full"), keyOutcome))
			require.ErrorIs(t, to(ctx, "late", func(context.Context) error { return nil }), asyncsync.ErrClosed)
			require.Equal(t, "refused", text(ended(t, spans, "late"), keyOutcome))
		})
	}
}

// Two of them do not end each other's spans.
func TestTwoTraces(t *testing.T) {
	testkit.Guard(t)
	a, _ := record(t)
	b, _ := record(t)
	ctx, _ := newContext(t)
	require.NoError(t, to(ctx, "call", func(context.Context) error { return nil }))
	require.Equal(t, "returned", text(ended(t, a, "call"), keyOutcome))
	require.Equal(t, "returned", text(ended(t, b, "call"), keyOutcome))
}

// A function that is no call, and has the ctx of one, does not end its span when it
// ends in a way that hooks are told of, nor is its panic the call's.
func TestWhatIsNoCall(t *testing.T) {
	for name, do := range map[string]func(){"panic": culprit, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			testkit.Guard(t)
			spans, _ := record(t)
			told := make(chan struct{}, 1)
			tell := func(i asyncsync.CallInfo) {
				if i.ID == 0 {
					told <- struct{}{}
				}
			}
			defer asyncsync.AddHooks(asyncsync.Hooks{Ended: tell, Panicked: tell})()
			_, err := loop.Run(context.Background(), loop.Goroutines(), func(ctx context.Context) (int, error) {
				_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
					l, _ := loop.Current(ctx)
					if err := l.Spawn(ctx, func(context.Context) { do() }); err != nil {
						return 0, err
					}
					<-told
					require.Empty(t, spans.Ended())
					return 0, nil
				}, task.Named("call")).Wait(ctx)
				return 0, err
			})
			require.NoError(t, err)
			s := ended(t, spans, "call")
			require.Equal(t, "returned", text(s, keyOutcome))
			require.Equal(t, []string{"begun"}, events(s))
		})
	}
}

// Without a provider it is that of the process.
func TestGlobalProvider(t *testing.T) {
	testkit.Guard(t)
	spans := tracetest.NewSpanRecorder()
	before := otel.GetTracerProvider()
	defer otel.SetTracerProvider(before)
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	ctx, _ := newContext(t, asyncsync.WithHooks(Traces(nil)))
	require.NoError(t, to(ctx, "call", func(context.Context) error { return nil }))
	require.Len(t, spans.Ended(), 1)
}
