package web_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/web"
)

// What a request is told that waits in line for a thread, by what ends that.
func TestAnswersBeforeTheHandler(t *testing.T) {
	errMine := errors.New("mine")
	for name, c := range map[string]struct {
		ctx    func(ctx context.Context) (context.Context, func())
		status int
		retry  string
	}{
		"line": {func(ctx context.Context) (context.Context, func()) {
			return context.WithTimeout(ctx, 2*time.Minute)
		}, http.StatusServiceUnavailable, "1"},
		"deadline": {func(ctx context.Context) (context.Context, func()) {
			return context.WithTimeout(ctx, time.Second)
		}, http.StatusGatewayTimeout, ""},
		"deadline with a cause": {func(ctx context.Context) (context.Context, func()) {
			return context.WithTimeoutCause(ctx, time.Second, errMine)
		}, http.StatusGatewayTimeout, ""},
		"cancelled": {func(ctx context.Context) (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(errMine) })
			return ctx, func() { cancel(nil) }
		}, http.StatusServiceUnavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWaiting: 1, MaxWait: time.Minute})
				first, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
				_, err := onThread(first) // now it has the thread
				require.NoError(t, err)
				begun := false
				h := web.Middleware(web.Pool(pool))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { begun = true }))
				ctx, cancel := c.ctx(context.Background())
				defer cancel()
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx))
				require.False(t, begun)
				require.Equal(t, c.status, w.Code, w.Body)
				require.Equal(t, c.retry, w.Header().Get("Retry-After"))
				require.NoError(t, tsc.Close())
				require.NoError(t, pool.Close())
			})
		})
	}
}
