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
	"asyncsync.dev/web"
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
	onThread  func(http.Handler) http.Handler // of what renders pages
	debug     http.Handler

	// render is made once and runs on whichever thread the request at hand
	// has: the thread is looked up at each call, in its context.
	render asyncsync.Func[part, template.HTML]
}

func newServer(s *store, log *slog.Logger, onThread func(http.Handler) http.Handler, debug http.Handler) (*server, error) {
	templates, err := parseTemplates()
	if err != nil {
		return nil, err
	}
	return &server{
		store:     s,
		templates: templates,
		log:       log,
		onThread:  onThread,
		debug:     debug,
		render:    asyncsync.SyncToAsync(render, asyncsync.Named("render")),
	}, nil
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, page := range map[string]http.HandlerFunc{
		"GET /{$}":                s.getList,
		"GET /notes/{id}":         s.getNote,
		"POST /notes":             s.postNote,
		"POST /notes/{id}/tags":   s.postTags,
		"POST /notes/{id}/remove": s.postRemove,
		"POST /import":            s.postImport,
	} {
		mux.Handle(pattern, s.onThread(page))
	}
	mux.Handle("GET /static/", http.FileServerFS(staticFiles))
	// By default we listen for this machine alone. A server that listens to the
	// world would have a listener of its own for what is for its keepers.
	mux.Handle("/debug/asyncsync/", s.debug)
	return http.NewCrossOriginProtection().Handler(withHeaders(mux))
}

// onThreads returns the middleware of the pages: the sync code of one request shares
// a thread from pool, and different requests have different ones. A request that
// runs no sync code never takes a thread, and one that cannot have one soon is
// answered with 503.
func onThreads(pool *asyncsync.ThreadPool, threads *leaseLog) func(http.Handler) http.Handler {
	return web.Middleware(web.Pool(pool), web.Context(
		asyncsync.OnThreadStart(threads.begin),
		asyncsync.OnThreadExit(threads.end),
	))
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
	if web.Unavailable(w, r, err) {
		return // there is too much to do
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
