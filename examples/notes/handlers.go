package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxForm is how many bytes of a form are read.
const maxForm = 1 << 20

// Every form is answered with a redirect, so that reloading the next page
// repeats nothing; or, when it is refused, with its own page and a message.

func (s *server) getList(w http.ResponseWriter, r *http.Request) {
	values := r.URL.Query()
	before, err := strconv.ParseInt(values.Get("before"), 10, 64)
	if err != nil {
		before = 0
	}
	s.writeList(w, r, http.StatusOK, listPage{
		Done: doneMessage(values.Get("done")),
		Filter: filter{
			Query:  strings.TrimSpace(values.Get("q")),
			Tag:    values.Get("tag"),
			Before: before,
		},
	})
}

func (s *server) getNote(w http.ResponseWriter, r *http.Request) {
	s.writeNote(w, r, http.StatusOK, notePage{
		ID:   noteID(r),
		Done: doneMessage(r.URL.Query().Get("done")),
	})
}

func (s *server) postNote(w http.ResponseWriter, r *http.Request) {
	if !parseForm(w, r) {
		return
	}
	typed := form{Title: r.PostFormValue("title"), Body: r.PostFormValue("body"), Tags: r.PostFormValue("tags")}
	d, err := parseDraft(typed.Title, typed.Body, typed.Tags)
	var id int64
	if err == nil {
		id, err = s.store.add(r.Context(), d)
	}
	switch msg, refused := refusal(err); {
	case refused:
		s.writeList(w, r, http.StatusUnprocessableEntity, listPage{Error: msg, Form: typed})
	case err != nil:
		s.fail(w, r, err)
	default:
		redirect(w, r, fmt.Sprintf("/notes/%d", id), "added")
	}
}

func (s *server) postImport(w http.ResponseWriter, r *http.Request) {
	if !parseForm(w, r) {
		return
	}
	typed := form{Links: r.PostFormValue("links"), LinkTags: r.PostFormValue("tags")}
	links, err := parseLinks(typed.Links)
	var tags []string
	if err == nil {
		tags, err = parseTags(typed.LinkTags)
	}
	if err == nil {
		err = s.store.importLinks(r.Context(), links, tags)
	}
	switch msg, refused := refusal(err); {
	case refused:
		s.writeList(w, r, http.StatusUnprocessableEntity, listPage{Error: msg, Form: typed})
	case err != nil:
		s.fail(w, r, err)
	default:
		redirect(w, r, "/", "imported")
	}
}

func (s *server) postTags(w http.ResponseWriter, r *http.Request) {
	if !parseForm(w, r) {
		return
	}
	id, typed := noteID(r), r.PostFormValue("tags")
	tags, err := parseTags(typed)
	if err == nil {
		err = s.store.tag(r.Context(), id, tags)
	}
	switch msg, refused := refusal(err); {
	case refused:
		s.writeNote(w, r, http.StatusUnprocessableEntity, notePage{ID: id, Error: msg, Tags: typed})
	case err != nil:
		s.fail(w, r, err)
	default:
		redirect(w, r, fmt.Sprintf("/notes/%d", id), "tagged")
	}
}

func (s *server) postRemove(w http.ResponseWriter, r *http.Request) {
	if err := s.store.remove(r.Context(), noteID(r)); err != nil {
		s.fail(w, r, err)
		return
	}
	redirect(w, r, "/", "removed")
}

// noteID is the id in the address, or 0, which no note has.
func noteID(r *http.Request) int64 {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

// parseForm reads a form of bounded size, or answers the request itself.
func parseForm(w http.ResponseWriter, r *http.Request) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	err := r.ParseForm()
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return true
	case errors.As(err, &tooLarge):
		http.Error(w, "That is too much for one form.", http.StatusRequestEntityTooLarge)
	default:
		http.Error(w, "That is no form.", http.StatusBadRequest)
	}
	return false
}

// refusal is what to tell a person whose input led to err, if it was that.
func refusal(err error) (msg string, refused bool) {
	var input *inputError
	var lookup *lookupError
	switch {
	case errors.As(err, &input):
		return input.msg, true
	case errors.As(err, &lookup) && errors.Is(lookup, errNoAnswer):
		return fmt.Sprintf("Nothing was stored, because %s could not be looked up: %v.", lookup.subject, lookup.err), true
	}
	return "", false
}

func redirect(w http.ResponseWriter, r *http.Request, path, done string) {
	http.Redirect(w, r, path+"?"+url.Values{"done": {done}}.Encode(), http.StatusSeeOther)
}

// doneMessage words what a redirect says was done. Only these messages can be
// shown, whatever address somebody is sent to.
func doneMessage(done string) string {
	switch done {
	case "added":
		return "The note is stored."
	case "imported":
		return "All links are imported."
	case "tagged":
		return "The note has its tags."
	case "removed":
		return "The note is gone."
	}
	return ""
}
