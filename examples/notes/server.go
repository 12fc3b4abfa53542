package main

import (
	"context"
	"embed"
	"errors"
	"html/template"
	"io"
	"log/slog"
	"net/http"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// What the front page shows at most.
const (
	pageSize = 30 // notes
	tagCount = 30 // tags
)

//go:embed static
var staticFiles embed.FS

// A server answers people with pages.
type server struct {
	store     *store
	templates *template.Template
	log       *slog.Logger

	// render is made once and runs on whichever thread the request at hand
	// has: the thread is looked up at each call, in its context.
	render asyncsync.Func[part, template.HTML]
}

func newServer(s *store, log *slog.Logger) (*server, error) {
	templates, err := parseTemplates()
	if err != nil {
		return nil, err
	}
	return &server{
		store:     s,
		templates: templates,
		log:       log,
		render:    asyncsync.SyncToAsync(render, asyncsync.Named("render")),
	}, nil
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.getList)
	mux.HandleFunc("GET /notes/{id}", s.getNote)
	mux.HandleFunc("POST /notes", s.postNote)
	mux.HandleFunc("POST /notes/{id}/tags", s.postTags)
	mux.HandleFunc("POST /notes/{id}/remove", s.postRemove)
	mux.HandleFunc("POST /import", s.postImport)
	mux.Handle("GET /static/", http.FileServerFS(staticFiles))
	return http.NewCrossOriginProtection().Handler(withHeaders(mux))
}

// withThread gives every request a thread-sensitive context: the sync code of
// one request shares a thread, and different requests have different ones. A
// request that runs no sync code never takes a thread.
func withThread(threads *leaseLog, log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := asyncsync.WithThreadSensitiveContext(r.Context(), func(ctx context.Context) error {
			next.ServeHTTP(w, r.WithContext(ctx))
			return nil
		},
			asyncsync.WithName(r.Method+" "+r.URL.Path),
			asyncsync.OnThreadStart(threads.begin),
			asyncsync.OnThreadExit(threads.end),
		)
		if err != nil {
			log.Error("closing a request's thread", "url", r.URL.Path, "err", err)
		}
	})
}

// withHeaders says what no page of ours needs: scripts, frames, foreign pieces.
func withHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy",
			"default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// A listPage is the front page: the notes that a filter selects, the tags, and
// the forms with what was typed into them when that was refused.
type listPage struct {
	Done   string // what the request before this one achieved
	Error  string
	Filter filter
	Form   form

	Notes template.HTML
	Tags  template.HTML
}

// A form is what a person typed in.
type form struct {
	Title, Body, Tags string // a note
	Links, LinkTags   string // an import
}

// A notePage shows one note.
type notePage struct {
	ID    int64
	Done  string
	Error string
	Tags  string // typed in and refused
	Note  template.HTML
}

// noteList is the data of the notes template.
type noteList struct {
	Notes  []note
	Filter filter
	Older  int64 // the list goes on below this id; 0 if it ends
}

// writeList reads notes and tags at the same time, as async code does, and
// renders each as it arrives: sync code, in turn on the request's own thread.
func (s *server) writeList(w http.ResponseWriter, r *http.Request, status int, page listPage) {
	on, err := s.newRenderer(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	_, group := task.NewGroup(r.Context())
	group.Go(func(ctx context.Context) (err error) {
		page.Notes, err = s.renderNotes(ctx, on, page.Filter)
		return err
	})
	group.Go(func(ctx context.Context) (err error) {
		page.Tags, err = s.renderTags(ctx, on)
		return err
	})
	if err := group.Wait(r.Context()); err != nil {
		s.fail(w, r, err)
		return
	}
	s.write(w, r, status, part{on, "list.html", page})
}

func (s *server) renderNotes(ctx context.Context, on *renderer, f filter) (template.HTML, error) {
	f.Limit = pageSize + 1 // one more, to see whether there are more
	notes, err := s.store.find(ctx, f)
	if err != nil {
		return "", err
	}
	list := noteList{Notes: notes, Filter: f}
	if len(notes) > pageSize {
		list.Notes = notes[:pageSize]
		list.Older = list.Notes[pageSize-1].ID
	}
	return s.render(ctx, part{on, "notes", list})
}

func (s *server) renderTags(ctx context.Context, on *renderer) (template.HTML, error) {
	tags, err := s.store.tags(ctx, tagCount)
	if err != nil {
		return "", err
	}
	return s.render(ctx, part{on, "tags", tags})
}

// writeNote shows the page of one note.
func (s *server) writeNote(w http.ResponseWriter, r *http.Request, status int, page notePage) {
	ctx := r.Context()
	n, err := s.store.get(ctx, page.ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	on, err := s.newRenderer(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if page.Note, err = s.render(ctx, part{on, "note", n}); err != nil {
		s.fail(w, r, err)
		return
	}
	s.write(w, r, status, part{on, "note.html", page})
}

// newRenderer makes a renderer on the request's thread, its home.
func (s *server) newRenderer(ctx context.Context) (*renderer, error) {
	return asyncsync.ToThread(ctx, func(context.Context) (*renderer, error) {
		return newRenderer(s.templates), nil
	}, asyncsync.Named("new renderer"))
}

// write renders a whole page before it sends the first byte, so that what goes
// wrong can still be said.
func (s *server) write(w http.ResponseWriter, r *http.Request, status int, p part) {
	page, err := s.render(r.Context(), p)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if _, err := io.WriteString(w, string(page)); err != nil {
		s.log.Info("a page was not sent", "url", r.URL.Path, "err", err)
	}
}

// fail answers a request that cannot have its page.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody is there to read an answer
	}
	if errors.Is(err, errNoNote) {
		http.Error(w, "There is no such note.", http.StatusNotFound)
		return
	}
	s.log.Error("request failed", "method", r.Method, "url", r.URL.Path, "err", err)
	var lookup *lookupError
	switch {
	case errors.As(err, &lookup):
		http.Error(w, "Nothing was stored, because look-ups do not work just now.", http.StatusBadGateway)
	default:
		http.Error(w, "Something went wrong on our side. It has been written to the log.", http.StatusInternalServerError)
	}
}
