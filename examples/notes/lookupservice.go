package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
)

// A lookupService stands for the web: it makes up an answer from the question.
//
// It must never use the store. Its requests reach it over the network, with
// contexts of their own; so to the database's thread they are strangers, and a
// call of theirs would wait for the very transaction that waits for them. The
// library cannot see that circle, since half of it is outside the process's
// calls. Having no store to call rules it out.
type lookupService struct {
	mu    sync.Mutex
	asked map[string]int // by question
}

func newLookupService() *lookupService { return &lookupService{asked: map[string]int{}} }

func (s *lookupService) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/title", func(w http.ResponseWriter, r *http.Request) {
		link := r.FormValue("url")
		s.count("title of " + link)
		title, ok := titleOf(link)
		respond(w, title, ok)
	})
	mux.HandleFunc("GET /api/tag", func(w http.ResponseWriter, r *http.Request) {
		name := r.FormValue("name")
		s.count("tag " + name)
		respond(w, aboutTag(name), name != "")
	})
	return mux
}

func respond(w http.ResponseWriter, text string, ok bool) {
	if !ok {
		http.Error(w, "no answer", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// An error means that the asker has gone.
	_ = json.NewEncoder(w).Encode(answer{text})
}

// titleOf makes up what a page is called: "https://example.org/on-threads" is
// "on threads (example.org)". Pages below .invalid do not exist (RFC 6761).
func titleOf(link string) (string, bool) {
	u, err := url.Parse(link)
	if err != nil || u.Hostname() == "" || strings.HasSuffix(u.Hostname(), ".invalid") {
		return "", false
	}
	words := strings.NewReplacer("-", " ", "_", " ").Replace(path.Base(u.Path))
	if words == "." || words == "/" {
		return u.Hostname(), true
	}
	return words + " (" + u.Hostname() + ")", true
}

func aboutTag(name string) string { return "Notes that have to do with " + name }

func (s *lookupService) count(question string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[question]++
}

// counts returns how often each question was asked.
func (s *lookupService) counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.asked)
}
