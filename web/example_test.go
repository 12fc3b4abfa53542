package web_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/web"
)

// What a handler calls runs on the request's thread. When there is too much to do
// clients are told so at once.
func Example() {
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{
		MaxThreads: 64,
		MaxWaiting: 128,
		MaxWait:    2 * time.Second,
	})
	defer pool.Close()

	// render is thread-sensitive: it uses a library with state in its thread.
	render := asyncsync.SyncToAsync(func(_ context.Context, name string) (string, error) {
		return "hello " + name, nil
	})

	mw := web.Middleware(web.Pool(pool))
	mux := http.NewServeMux()
	mux.Handle("GET /hello/{name}", mw(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, err := render(r.Context(), r.PathValue("name"))
		switch {
		case web.Unavailable(w, r, err): // 503 and Retry-After
		case errors.Is(err, context.DeadlineExceeded):
			http.Error(w, "this took too long", http.StatusGatewayTimeout)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			fmt.Fprint(w, page)
		}
	})))
	server := httptest.NewServer(mux)
	defer server.Close()

	resp, err := http.Get(server.URL + "/hello/ada")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	fmt.Println(string(page), err)
	// Output: hello ada <nil>
}

// An order is confirmed at once, and its invoice written behind the answer.
func ExampleBackground() {
	var background web.Background
	write := asyncsync.SyncToAsync(func(_ context.Context, order string) (string, error) {
		return "invoice of order " + order, nil
	})

	server := httptest.NewServer(web.Middleware()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		order := r.FormValue("order")
		err := background.Go(r.Context(), func(ctx context.Context) {
			fmt.Println(write(ctx, order))
		})
		if err != nil { // the server is about to stop
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})))

	resp, err := http.Get(server.URL + "?order=7")
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	server.Close() // and then what it has left behind
	fmt.Println(background.Shutdown(context.Background()))
	// Output:
	// invoice of order 7 <nil>
	// <nil>
}
