package web_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
	"asyncsync.dev/web"
)

// silent is a client that wants no answer.
type silent struct{ header http.Header }

func (s silent) Header() http.Header         { return s.header }
func (s silent) Write(b []byte) (int, error) { return len(b), nil }
func (s silent) WriteHeader(int)             {}

// What the middleware adds to a request, by what the handler does, and by who calls it.
func BenchmarkRequest(b *testing.B) {
	nothing := func(context.Context) (int, error) { return 0, nil }
	for _, c := range []struct {
		name string
		opts []web.Option
		work func(ctx context.Context)
	}{
		{"does=nothing", nil, func(context.Context) {}},
		{"does=call", nil, func(ctx context.Context) { asyncsync.ToThread(ctx, nothing) }},
		{"does=unpinned", []web.Option{web.Context(asyncsync.Unpinned())}, func(ctx context.Context) { asyncsync.ToThread(ctx, nothing) }},
		{"does=task", nil, func(ctx context.Context) { task.Go(ctx, nothing) }},
		{"does=wait", nil, func(ctx context.Context) { task.Go(ctx, nothing).Wait(ctx) }},
	} {
		h := web.Middleware(c.opts...)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { c.work(r.Context()) }))
		r := httptest.NewRequest("GET", "/", nil)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(silent{http.Header{}}, r)
			}
		})
		b.Run(c.name+"/in=task", func(b *testing.B) {
			b.ReportAllocs()
			_, err := task.Go(context.Background(), func(ctx context.Context) (int, error) {
				r := r.WithContext(ctx)
				for b.Loop() {
					h.ServeHTTP(silent{http.Header{}}, r)
				}
				return 0, nil
			}).Wait(context.Background())
			if err != nil {
				b.Error(err)
			}
		})
	}
}
