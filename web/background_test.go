package web_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/task"
	"asyncsync.dev/web"
)

type userKey struct{}

// Work goes on behind the answer, with the values of the request and a thread of
// its own; Shutdown waits for it, and refuses more.
func TestBackground(t *testing.T) {
	testkit.Guard(t)
	var b web.Background
	leave := make(chan struct{})
	type result struct {
		user any
		err  error
	}
	results := make(chan result, 1)
	s := serve(t, serving{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := b.Go(context.WithValue(r.Context(), userKey{}, "ada"), func(ctx context.Context) {
			<-leave
			_, err := onThread(ctx)
			results <- result{user: ctx.Value(userKey{}), err: err}
		}); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "accepted")
	}))
	_, body := s.get(t, "/job")
	require.Equal(t, "accepted", body)

	gone, cancel := context.WithCancelCause(context.Background())
	cancel(fmt.Errorf("no time"))
	err := b.Shutdown(gone)
	require.EqualError(t, err, "web: shutdown gave up, 1 background functions still run: no time")
	require.ErrorIs(t, err, context.Cause(gone))
	resp, body := s.get(t, "/job")
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Contains(t, body, asyncsync.ErrClosed.Error())
	close(leave)
	require.NoError(t, b.Shutdown(context.Background()))
	got := <-results
	require.Equal(t, "ada", got.user)
	require.EqualError(t, got.err, "no time", "the Shutdown that gave up has ended its ctx")
	s.free(t)
}

// endsWith is a ctx that has ended when somebody asks for its end, and everything that b
// ran has ended as well.
type endsWith struct {
	context.Context
	end func()
	b   *web.Background
}

func (c endsWith) Done() <-chan struct{} {
	c.end()
	if err := c.b.Shutdown(context.Background()); err != nil {
		panic(err)
	}
	return c.Context.Done()
}

// A Shutdown whose ctx ends when the last function does gives nothing up.
func TestShutdownEndsWithItsCtx(t *testing.T) {
	testkit.Guard(t)
	for range 100 { // which of the two it sees is chance
		var b web.Background
		ctx, cancel := context.WithCancel(context.Background())
		require.NoError(t, b.Go(context.Background(), func(context.Context) { <-ctx.Done() }))
		require.NoError(t, b.Shutdown(endsWith{ctx, cancel, &b}))
	}
}

func TestBackgroundHasAThread(t *testing.T) {
	testkit.Guard(t)
	var b web.Background
	names := make(chan string, 2)
	s := serve(t, serving{opts: []web.Option{web.Context(asyncsync.WithHooks(asyncsync.Hooks{
		Ended: func(i asyncsync.CallInfo) {
			if i.Thread != 0 || runtime.GOOS != "linux" {
				names <- i.Context
			}
		},
	}))}}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.NoError(t, b.Go(r.Context(), func(ctx context.Context) {
			<-r.Context().Done()                                                            // behind the answer
			task.Go(ctx, func(ctx context.Context) (int64, error) { return onThread(ctx) }) // is waited for
		}))
	}))
	s.get(t, "/job")
	require.NoError(t, b.Shutdown(context.Background()))
	require.Equal(t, "GET /job (background)", <-names)
	s.free(t)
}

// Whatever way it ends, Shutdown hears of it, and the server goes on.
func TestBackgroundEndings(t *testing.T) {
	testkit.Guard(t)
	for _, how := range []string{"return", "panic", "abort", "goexit"} {
		var b web.Background
		s := serve(t, serving{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			require.NoError(t, b.Go(r.Context(), func(ctx context.Context) {
				onThread(ctx)
				switch how {
				case "panic":
					panic("lost")
				case "abort":
					panic(http.ErrAbortHandler)
				case "goexit":
					runtime.Goexit()
				}
			}))
		}))
		s.get(t, "/job")
		require.NoError(t, b.Shutdown(context.Background()))
		s.free(t)
		if how == "panic" {
			require.Contains(t, s.log.String(), "web: panic in GET /job (background): lost\ngoroutine ")
			require.Contains(t, s.log.String(), "TestBackgroundEndings")
		} else {
			require.Empty(t, s.log.String(), how)
		}
	}
}

// Below no middleware it is a context of the default pool.
func TestBackgroundWithoutARequest(t *testing.T) {
	testkit.Guard(t)
	var b web.Background
	errs := make(chan error, 1)
	require.NoError(t, b.Go(context.Background(), func(ctx context.Context) {
		_, err := onThread(ctx)
		errs <- err
	}))
	require.NoError(t, b.Shutdown(context.Background()))
	require.NoError(t, <-errs)
}
