package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

//go:embed page.html
var page []byte

// longestWait is how long a request waits for messages at most.
const longestWait = 30 * time.Second

// handler serves HTTP. Its functions run on goroutines of net/http, and do in the room
// what they do through the portal.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
	mux.HandleFunc("POST /say", func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
		from, text := r.FormValue("from"), r.FormValue("text")
		m, err := portal.Call(r.Context(), s.portal, func(ctx context.Context) (message, error) {
			if s.room.names[from] {
				return message{}, errTaken
			}
			return s.room.say(ctx, from, text)
		})
		answer(w, m, err)
	})
	mux.HandleFunc("GET /messages", func(w http.ResponseWriter, r *http.Request) {
		after, err := strconv.Atoi(r.FormValue("after"))
		if err != nil || after < 0 {
			http.Error(w, "after: want a number", http.StatusBadRequest)
			return
		}
		all, err := portal.Call(r.Context(), s.portal, func(ctx context.Context) ([]message, error) {
			return s.room.await(ctx, after)
		})
		answer(w, all, err)
	})
	return http.NewCrossOriginProtection().Handler(mux)
}

// await returns the messages after a number, and if there are none waits for a while.
func (r *room) await(ctx context.Context, after int) (all []message, err error) {
	_, err = task.MoveOn(ctx, longestWait, func(ctx context.Context) error {
		for r.last <= after && !r.stopping {
			if err := r.more.wait(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if r.last <= after && r.stopping {
		return nil, errClosing
	}
	all, _ = r.since(after)
	// A copy: the goroutine that has asked is beside the loop.
	return append([]message{}, all...), nil
}

// answer sends a result or what has become of it.
func answer(w http.ResponseWriter, result any, err error) {
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(result)
	case errors.Is(err, errClosing), errors.Is(err, loop.ErrStopped):
		http.Error(w, errClosing.Error(), http.StatusServiceUnavailable)
	case errors.Is(err, errName), errors.Is(err, errText):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case errors.Is(err, errTaken):
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		http.Error(w, "It was not stored: "+err.Error(), http.StatusInternalServerError)
	}
}
