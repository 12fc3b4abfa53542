package asyncsync_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/loop"
)

// A journal keeps what is logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// entries returns the records so far, and forgets them.
func (j *journal) entries(t *testing.T) (all []map[string]any) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range bytes.Lines(j.text.Bytes()) {
		m := map[string]any{}
		require.NoError(t, json.Unmarshal(line, &m))
		all = append(all, m)
	}
	j.text.Reset()
	return all
}

// one returns the only record with a message.
func (j *journal) one(t *testing.T, msg string) map[string]any {
	t.Helper()
	var found []map[string]any
	for _, m := range j.entries(t) {
		if m["msg"] == msg {
			found = append(found, m)
		}
	}
	require.Len(t, found, 1, msg)
	return found[0]
}

func journaling(level slog.Level) (*journal, asyncsync.Hooks) {
	j := &journal{}
	return j, asyncsync.Log(slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: level})))
}

// Each ending has its record, and what applies is in it.
func TestLogOfEndings(t *testing.T) {
	guard(t)
	j, hooks := journaling(slog.LevelDebug)
	ctx, _ := newContext(t, asyncsync.WithName("ledger"), asyncsync.WithHooks(hooks))
	named := asyncsync.Named("add")

	require.ErrorIs(t, to(ctx, func(context.Context) error { return errOwn }, named), errOwn)
	m := j.one(t, "a call has ended")
	require.Equal(t, "DEBUG", m["level"])
	require.Equal(t, "add", m["call"])
	require.Equal(t, "ledger", m["context"])
	require.Equal(t, errOwn.Error(), m["err"])
	require.Contains(t, m, "queued")
	require.Positive(t, m["ran"])
	if runtime.GOOS == "linux" {
		require.Positive(t, m["thread"])
	}
	for _, absent := range []string{"panic", "stack", "goexit", "inline", "page", "cycle"} {
		require.NotContains(t, m, absent)
	}

	require.Equal(t, "panic", outcomeOf(func() error { return to(ctx, func(context.Context) error { panic("lost") }, named) }).How)
	all := j.entries(t)
	require.Len(t, all, 2)
	require.Equal(t, "a function panicked", all[0]["msg"])
	require.Equal(t, "ERROR", all[0]["level"])
	require.Equal(t, "lost", all[0]["panic"])
	require.Contains(t, all[0]["stack"], "TestLogOfEndings")
	require.Equal(t, "DEBUG", all[1]["level"])

	require.Equal(t, "goexit", outcomeOf(func() error { return to(ctx, func(context.Context) error { runtime.Goexit(); return nil }) }).How)
	require.Equal(t, true, j.one(t, "a call has ended")["goexit"])
}

// What did not run is told by its reason; what has failed is not taken for that.
func TestLogOfRefusals(t *testing.T) {
	guard(t)
	j, hooks := journaling(slog.LevelDebug)
	ctx, tsc := newContext(t, asyncsync.WithName("ledger"), asyncsync.WithHooks(hooks), asyncsync.QueueLimit(1))
	require.ErrorIs(t, to(ctx, func(context.Context) error { return asyncsync.ErrQueueFull }), asyncsync.ErrQueueFull)
	require.Equal(t, "DEBUG", j.one(t, "a call has ended")["level"], "an error of the function")

	release, r := occupy(ctx)
	cancelled, cancel := context.WithCancelCause(ctx)
	queued := start(func() error { return to(cancelled, neverRuns(t)) })
	poll(t, func() string {
		if tsc.Stats().Queued != 1 {
			return "not queued"
		}
		return ""
	})
	require.ErrorIs(t, to(ctx, neverRuns(t), asyncsync.Named("late")), asyncsync.ErrQueueFull)
	m := j.one(t, "a call was refused")
	require.Equal(t, "WARN", m["level"])
	require.Equal(t, "late", m["call"])
	cancel(fmt.Errorf("a cause that resembles a refusal: %w", asyncsync.ErrClosed))
	require.ErrorIs(t, queued.Wait().Err, asyncsync.ErrClosed)
	require.Equal(t, "DEBUG", j.one(t, "a call was taken out")["level"])
	release()
	require.NoError(t, r.Wait().Err)
}

// A call to an executor that has stopped is a refused one. A call whose ctx has a cause that
// resembles that was taken out.
func TestLogOfAStoppedExecutor(t *testing.T) {
	guard(t)
	j, hooks := journaling(slog.LevelDebug)
	defer asyncsync.AddHooks(hooks)()
	e := asyncsync.NewPoolExecutor(1)
	require.NoError(t, e.Close())
	call := func(ctx context.Context, opts ...asyncsync.Option) error {
		return to(ctx, neverRuns(t), append(opts, asyncsync.Named("late"))...)
	}
	require.ErrorIs(t, call(t.Context(), asyncsync.Insensitive(), asyncsync.WithExecutor(e)), loop.ErrStopped)
	m := j.one(t, "a call was refused")
	require.Equal(t, "WARN", m["level"])
	require.Equal(t, "late", m["call"])
	require.Equal(t, loop.ErrStopped.Error(), m["err"])

	ctx, tsc := newContext(t)
	release, r := occupy(ctx)
	cancelled, cancel := context.WithCancelCause(ctx)
	queued := start(func() error { return call(cancelled) })
	poll(t, func() string {
		if tsc.Stats().Queued != 1 {
			return "not queued"
		}
		return ""
	})
	cancel(fmt.Errorf("elsewhere: %w", loop.ErrStopped))
	require.ErrorIs(t, queued.Wait().Err, loop.ErrStopped)
	require.Equal(t, "DEBUG", j.one(t, "a call was taken out")["level"])
	release()
	require.NoError(t, r.Wait().Err)
}

// A deadlock has the name of its page, and its cycle. Each is said once, besides the text of
// the error.
func TestLogOfADeadlock(t *testing.T) {
	guard(t)
	j, hooks := journaling(slog.LevelWarn)
	ctx, _ := newContext(t, asyncsync.WithName("ledger"), asyncsync.WithHooks(hooks), asyncsync.Serve(asyncsync.None))
	err := to(ctx, func(ctx context.Context) error {
		return from(ctx, func(ctx context.Context) error { return to(ctx, neverRuns(t), asyncsync.Named("inner")) })
	})
	require.Error(t, err)
	all := j.entries(t)
	require.Len(t, all, 1, "the function below has failed with it, which is no refusal")
	m := all[0]
	require.Equal(t, "a call was refused", m["msg"])
	require.Equal(t, "inner", m["call"])
	require.Equal(t, deadlock.PageServeNone, m["page"])
	var d *deadlock.Error
	require.ErrorAs(t, err, &d)
	require.Equal(t, d.Error(), m["err"])
	lines := strings.Split(m["cycle"].(string), "\n")
	require.Len(t, lines, len(d.Cycle))
	for i, l := range d.Cycle {
		require.Contains(t, lines[i], l.String())
	}
}

func TestLogOfAbandoned(t *testing.T) {
	guard(t)
	j, hooks := journaling(slog.LevelWarn)
	told := make(chan struct{})
	defer asyncsync.AddHooks(asyncsync.Hooks{Abandoned: func(asyncsync.CallInfo) { close(told) }})()
	ctx, tsc := newContext(t, asyncsync.WithHooks(hooks))
	cctx, cancel := context.WithCancel(ctx)
	leave := make(chan struct{})
	err := to(cctx, func(context.Context) error { cancel(); <-leave; return errors.New("late") }, asyncsync.Abandon())
	require.ErrorIs(t, err, asyncsync.ErrAbandoned)
	close(leave)
	<-told // before the hooks of the context
	poll(t, func() string {
		j.mu.Lock()
		defer j.mu.Unlock()
		if !strings.Contains(j.text.String(), "an abandoned call has ended") {
			return "nothing logged"
		}
		return ""
	})
	m := j.one(t, "an abandoned call has ended")
	require.Equal(t, "WARN", m["level"])
	require.Equal(t, "late", m["err"])
	require.NoError(t, tsc.Close())
}

// Below the level nothing is written, and nothing made.
func TestLogLevel(t *testing.T) {
	guard(t)
	j, hooks := journaling(slog.LevelError)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		hooks.Ended(asyncsync.CallInfo{Ctx: context.Background(), Name: "x"})
	}))
	require.Empty(t, j.entries(t))
	requireMisusePanic(t, func() { asyncsync.Log(nil) })
}

// A call whose ctx has lost its context goes to the default thread. Log says so, once for
// each name, and nothing of calls that mean it.
func TestLogOfLostContexts(t *testing.T) {
	guard(t)
	var mu sync.Mutex
	var lost []asyncsync.CallInfo
	var buf bytes.Buffer
	defer asyncsync.AddHooks(asyncsync.Log(slog.New(slog.NewTextHandler(&buf, nil))))()
	defer asyncsync.AddHooks(asyncsync.Hooks{Ended: func(i asyncsync.CallInfo) {
		mu.Lock()
		defer mu.Unlock()
		if i.Lost {
			lost = append(lost, i)
		}
	}})()
	stray := func(ctx context.Context, name string) error {
		return to(ctx, func(context.Context) error { return nil }, asyncsync.Named(name))
	}
	bg := context.Background()
	ctx, tsc := newContext(t)
	require.NoError(t, stray(bg, "of nobody"))
	require.NoError(t, to(bg, func(context.Context) error { return stray(bg, "of the default thread") }))
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		return errors.Join(
			stray(ctx, "with ctx"),
			stray(asyncsync.Detach(ctx), "detached"),
			to(bg, func(context.Context) error { return nil }, asyncsync.On(tsc), asyncsync.Named("named")),
			stray(bg, "sync"), stray(bg, "sync"),
			from(ctx, func(ctx context.Context) error {
				return errors.Join(stray(bg, "async"), stray(ctx, "with ctx"))
			}),
		)
	}))
	var names []string
	for _, i := range lost {
		names = append(names, i.Name)
	}
	require.Equal(t, []string{"sync", "sync", "async"}, names)
	require.Equal(t, 2, strings.Count(buf.String(), `level=WARN msg="a call has lost its context"`), buf.String())
}
