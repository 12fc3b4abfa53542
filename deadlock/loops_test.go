package deadlock

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"

	"github.com/stretchr/testify/require"
)

// runLoop runs main on a thread loop called ui, on a goroutine of its own.
func runLoop(main func(ctx context.Context, b loop.Backend) error) (b loop.Backend, ended <-chan error) {
	b = loop.NewThread(loop.Named("ui"))
	done := make(chan error, 1)
	go func() {
		_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) { return 0, main(ctx, b) })
		done <- err
	}()
	return b, done
}

// A task that blocks its loop in a wait of its own is told of within two intervals,
// with its stack, and taken back when it goes on.
func TestProbableBlockedLoop(t *testing.T) {
	for name, block := range map[string]func(b loop.Backend, ctx context.Context, give <-chan struct{}) error{
		"a task": func(b loop.Backend, ctx context.Context, give <-chan struct{}) error {
			_, err := task.Go(ctx, func(context.Context) (int, error) { <-give; return 0, nil }, task.Named("blocks")).Wait(ctx)
			return err
		},
		"main": func(_ loop.Backend, _ context.Context, give <-chan struct{}) error { <-give; return nil },
		"a posted function": func(b loop.Backend, ctx context.Context, give <-chan struct{}) error {
			return b.Park(ctx, func(wake func()) {
				_ = b.Post(func() { <-give; wake() })
			})
		},
		"a wait of the library in a posted function": func(b loop.Backend, ctx context.Context, give <-chan struct{}) error {
			return b.Park(ctx, func(wake func()) {
				_ = b.Post(func() {
					_, _ = asyncsync.ToThread(context.Background(), func(context.Context) (int, error) { <-give; return 0, nil })
					wake()
				})
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				give, got := make(chan struct{}), &verdicts{}
				stop := Watch(Config{OnVerdict: got.add})
				time.Sleep(time.Second / 2)
				b, ended := runLoop(func(ctx context.Context, b loop.Backend) error { return block(b, ctx, give) })
				synctest.Wait()
				pass(3)
				require.Empty(t, got.take(), "nobody else has anything to do there")
				ran := false
				require.NoError(t, b.Post(func() { ran = true }))
				pass(1)
				require.Empty(t, got.take())
				pass(1)
				vs := got.take()
				require.Len(t, vs, 1)
				v := vs[0]
				require.Equal(t, []any{Probable, "ui"}, []any{v.Kind, v.Name})
				require.NotZero(t, v.Loop)
				require.Contains(t, v.Title(), "and keeps 1 other from running")
				require.True(t, strings.HasSuffix(v.String(), "\nsee go doc asyncsync.dev/deadlock PageBlockedLoop\n"))
				l := v.Report.Loops[0]
				require.Equal(t, []any{v.Loop, "ui", 1}, []any{l.ID, l.Name, l.Ready})
				require.Equal(t, v.Running, l.Running.Name)
				switch name {
				case "a task":
					require.Equal(t, "blocks", v.Running)
				case "main":
					require.Contains(t, v.Running, "runLoop", "the function that Run was given")
				}
				require.Contains(t, v.String(), "goroutine")
				require.NotNil(t, v.Report.goroutine(l.Running.Goroutine), "its stack is there")
				pass(3)
				require.Empty(t, got.take(), "once")
				close(give)
				require.NoError(t, <-ended)
				require.True(t, ran)
				pass(1)
				vs = got.take()
				require.Len(t, vs, 1)
				require.Equal(t, Retracted, vs[0].Kind)
				require.Contains(t, vs[0].Title(), "loop ui goes on after")
				stop()
			})
		})
	}
}

// A loop that is busy, or whose tasks wait as they should, is not told of.
func TestNoVerdictOnALoopThatGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, give := &verdicts{}, make(chan struct{})
		stop := Watch(Config{OnVerdict: got.add})
		b, ended := runLoop(func(ctx context.Context, b loop.Backend) error {
			task.Go(ctx, func(ctx context.Context) (int, error) {
				for range 20 { // a short wait that blocks, again and again
					time.Sleep(time.Second / 4)
					short := make(chan int)
					time.AfterFunc(time.Second/2, func() { close(short) })
					<-short
					if err := b.Park(ctx, func(wake func()) { wake() }); err != nil {
						return 0, err
					}
				}
				return 0, nil
			})
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { <-give; return 0, nil }, asyncsync.Insensitive())
			return err
		})
		for range 20 {
			require.NoError(t, b.Post(func() {}))
			pass(1)
		}
		require.Empty(t, got.take())
		close(give)
		require.NoError(t, <-ended)
		stop()
	})
}

// A report has the loops, what runs there, and what waits for what.
func TestReportOfLoops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		give := make(chan struct{})
		_, ended := runLoop(func(ctx context.Context, b loop.Backend) error {
			on := task.Go(context.Background(), func(context.Context) (int, error) { <-give; return 0, nil }, task.Named("outside"))
			for range 40 {
				task.Go(ctx, func(ctx context.Context) (int, error) { return on.Wait(ctx) }, task.Named("waits"))
			}
			_, err := on.Wait(ctx)
			return err
		})
		synctest.Wait()
		r := Take()
		require.Len(t, r.Loops, 1)
		l := r.Loops[0]
		require.Equal(t, []any{"ui", 41, 0}, []any{l.Name, l.Tasks, l.Ready})
		require.Nil(t, l.Running)
		require.Len(t, l.Waiting, 16, "they are bounded")
		for _, w := range l.Waiting {
			require.Equal(t, "waits", w.Name)
			require.NotZero(t, w.Goroutine)
			require.Equal(t, []any{"task", "outside"}, []any{w.Wait.Kind, w.Wait.For})
		}
		require.Contains(t, r.String(), "\nloop ui: ")
		require.Contains(t, r.String(), "  sleeps\n  waiting waits in goroutine ")
		require.Contains(t, r.String(), "  and 25 more tasks\n")
		close(give)
		require.NoError(t, <-ended)
		require.Empty(t, Take().Loops)
	})
}
