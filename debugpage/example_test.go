package debugpage_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"asyncsync.dev/deadlock"
	"asyncsync.dev/debugpage"
)

// A server with a debug page on an address of its own, as one has pprof. The page
// watches, and what it finds is logged as well.
func Example() {
	page := debugpage.New(deadlock.Config{
		Slow:      5 * time.Second,
		OnVerdict: deadlock.Log(slog.Default()),
	})
	defer page.Close()
	debug := http.NewServeMux()
	debug.Handle("/debug/asyncsync/", page)
	server := httptest.NewServer(debug) // http.ListenAndServe("localhost:6060", debug)
	defer server.Close()
	server.Config.RegisterOnShutdown(func() { page.Close() }) // ends what is live

	for _, form := range []string{"", "report.json", "report.dot"} {
		resp, err := http.Get(server.URL + "/debug/asyncsync/" + form)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Println(resp.Status, resp.Header.Get("Content-Type"))
	}
	// Output:
	// 200 OK text/plain; charset=utf-8
	// 200 OK application/json; charset=utf-8
	// 200 OK text/vnd.graphviz; charset=utf-8
}
