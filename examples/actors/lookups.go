package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"asyncsync.dev/task"
)

// together is how many look-ups the demo wants to see under way at the same time.
const together = 8

// lookups asks a server over HTTP. Its functions are called by tasks of the shop.
type lookups struct {
	url    string
	http   *http.Client
	places *task.Limiter // of look-ups at a time
}

// errUnknown is what a look-up of somebody whom the server does not know returns.
var errUnknown = errors.New("unknown to the server")

func newLookups(url string) *lookups {
	return &lookups{
		url:    url,
		http:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * together}, Timeout: time.Minute},
		places: task.NewLimiter(2 * together),
	}
}

func (l *lookups) close() { l.http.CloseIdleConnections() }

func (l *lookups) price(ctx context.Context, item int) (int, error) {
	text, err := l.get(ctx, "/price", "item", strconv.Itoa(item))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

func (l *lookups) city(ctx context.Context, customer string) (string, error) {
	return l.get(ctx, "/city", "of", customer)
}

// get waits for a place and asks. Await calls the client on a goroutine, and the task
// is parked until that has the whole answer.
func (l *lookups) get(ctx context.Context, path, key, value string) (string, error) {
	if err := l.places.Acquire(ctx); err != nil {
		return "", err
	}
	defer l.places.Release()
	return task.Await(ctx, func(ctx context.Context) (string, error) {
		// This runs beside the tasks of the shop: it may use what it was given, the
		// client, which is made for that, and nothing of the shop's.
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+path+"?"+url.Values{key: {value}}.Encode(), nil)
		if err != nil {
			return "", err
		}
		resp, err := l.http.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		switch {
		case err != nil:
			return "", err
		case resp.StatusCode == http.StatusNotFound:
			return "", fmt.Errorf("%s: %w", value, errUnknown)
		case resp.StatusCode != http.StatusOK:
			return "", fmt.Errorf("%s %s: %s", path, value, resp.Status)
		}
		return string(text), nil
	})
}

// priceOf and cityOf are what the server knows.
func priceOf(item int) int { return 100 + 7*item }

func cityOf(customer string) string { return "city of " + customer }

// An answerer is the server that look-ups ask. It knows nothing of the shop, and
// runs on goroutines as HTTP servers do, so its data has a lock.
type answerer struct {
	url  string
	http *http.Server
	end  chan error // of Serve

	mu       sync.Mutex
	now, top int // requests under way, and the most there were
	hold     int // of how many that are under way at once the first is answered
	held     chan struct{}
}

// serveLookups starts the server. It answers nobody until hold requests are there at
// the same time, so that a shop that asks one after another would be found out.
func serveLookups(hold int) (*answerer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &answerer{url: "http://" + l.Addr().String(), end: make(chan error, 1), hold: hold, held: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /price", a.answer(func(r *http.Request) (string, bool) {
		item, err := strconv.Atoi(r.FormValue("item"))
		return strconv.Itoa(priceOf(item)), err == nil
	}))
	mux.HandleFunc("GET /city", a.answer(func(r *http.Request) (string, bool) {
		of := r.FormValue("of")
		return cityOf(of), of != "nobody"
	}))
	a.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { a.end <- a.http.Serve(l) }()
	return a, nil
}

// answer makes a handler of what knows the answer.
func (a *answerer) answer(know func(*http.Request) (string, bool)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.now++
		a.top = max(a.top, a.now)
		if a.now == a.hold {
			a.hold = 0
			close(a.held)
		}
		a.mu.Unlock()
		defer func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.now--
		}()
		select {
		case <-a.held:
		case <-r.Context().Done():
			return
		}
		text, ok := know(r)
		if !ok {
			http.Error(w, "not known", http.StatusNotFound)
			return
		}
		io.WriteString(w, text)
	}
}

// most is the largest number of requests that were under way at a time.
func (a *answerer) most() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.top
}

func (a *answerer) close() error {
	err := a.http.Close()
	<-a.end
	return err
}
