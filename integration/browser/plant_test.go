package browser

import (
	"context"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/debugpage"
	"asyncsync.dev/task"
)

// A garden is a program with a deadlock in it: the function that posts a letter, on
// the thread of a ledger, waits on a channel for what it has started, and that
// calls the ledger. Beside it are things that merely wait.
type garden struct {
	url     string
	free    func() // ends the deadlock
	verdict chan deadlock.Verdict
}

//go:noinline
func postLetter(ctx context.Context, answers <-chan int, giveUp <-chan struct{}) (int, error) {
	started := make(chan int)
	go askTheLedger(ctx, started)
	select { // no wait of the library: the thread does not serve
	case n := <-started:
		return n, nil
	case n := <-answers:
		return n, nil
	case <-giveUp:
		return 0, context.Canceled
	}
}

//go:noinline
func askTheLedger(ctx context.Context, answer chan<- int) {
	n, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 7, nil }, asyncsync.Named("balance"))
	if err == nil {
		select {
		case answer <- n:
		default:
		}
	}
}

// plant starts a garden, which is over when the test is.
func plant(t *testing.T) *garden {
	t.Helper()
	giveUp := make(chan struct{})
	g := &garden{free: sync.OnceFunc(func() { close(giveUp) }), verdict: make(chan deadlock.Verdict, 16)}
	page := debugpage.New(deadlock.Config{
		Interval: 20 * time.Millisecond,
		OnVerdict: func(v deadlock.Verdict) {
			select {
			case g.verdict <- v:
			default:
			}
		},
	})
	server := httptest.NewServer(page)
	g.url = server.URL + "/"

	ctx, ledger := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("ledger"))
	var all sync.WaitGroup
	all.Go(func() {
		asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
			return postLetter(ctx, nil, giveUp)
		}, asyncsync.Named("post letter"))
	})
	// Beside it a thread that waits for another one, which is busy, and an idle one.
	lctx, press := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("printing press"))
	rctx, report := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("GET /reports/{year}"))
	_, idle := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("archive"))
	asyncsync.ToThread(context.Background(), func(context.Context) (int, error) { return 0, nil }, asyncsync.On(idle))
	printing := make(chan struct{})
	all.Go(func() {
		asyncsync.ToThread(lctx, func(context.Context) (int, error) { close(printing); <-giveUp; return 0, nil }, asyncsync.Named("print"))
	})
	<-printing
	all.Go(func() {
		asyncsync.ToThread(rctx, func(rctx context.Context) (int, error) {
			return asyncsync.FromThread(rctx, func(ctx context.Context) (int, error) {
				one := task.Go(ctx, func(ctx context.Context) (int, error) {
					return asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil }, asyncsync.On(press), asyncsync.Named("print the report"))
				}, task.Named("send to press"))
				return one.Wait(ctx)
			})
		}, asyncsync.Named("write report"))
	})
	for press.Stats().Queued == 0 || ledger.Stats().Queued == 0 {
		time.Sleep(time.Millisecond) // a bounded poll: the test has a time limit
	}
	t.Cleanup(func() {
		g.free()
		all.Wait()
		for _, c := range []*asyncsync.ThreadSensitiveContext{ledger, press, report, idle} {
			require.NoError(t, c.Close())
		}
		require.NoError(t, page.Close())
		server.Close()
	})
	return g
}
