package debugpage

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"asyncsync.dev/deadlock"
	"asyncsync.dev/docs"
)

//go:embed assets
var assets embed.FS

// A Page is the [http.Handler] of the debug page, with its watcher. Make it
// with [New]. It serves at whatever path it is mounted, which must end in a
// slash. Its methods may be called from anywhere.
type Page struct {
	started time.Time
	stop    func() // of the watcher
	closing chan struct{}
	once    sync.Once

	taking sync.Mutex // held while a report is taken, so that one is at a time

	mu       sync.Mutex // a leaf lock; guards the rest
	verdicts []verdict  // of which the last are kept, the latest first
	counts   map[deadlock.Kind]int
	streams  int
	shared   map[string]*shared // what live pages show, by filter
}

// A verdict is a verdict shown on the page.
type verdict struct {
	deadlock.Verdict
	At    time.Time
	Moved time.Duration // how long it had lasted when it was taken back, -1 if it was not
}

// The bounds of a page, in addition to those of a report.
const (
	maxVerdicts = 32
	maxStreams  = 32
	maxFilter   = 200 // bytes
)

// New returns a page and starts to watch with cfg: see [deadlock.Watch]. Each
// verdict is kept for the page and then passed to cfg.OnVerdict, which may be
// nil here. So a program with a page needs no other watcher.
//
// It panics if cfg has negative durations.
func New(cfg deadlock.Config) *Page {
	p := &Page{started: time.Now(), closing: make(chan struct{}), counts: map[deadlock.Kind]int{}, shared: map[string]*shared{}}
	next := cfg.OnVerdict
	cfg.OnVerdict = func(v deadlock.Verdict) {
		p.note(v)
		if next != nil {
			next(v)
		}
	}
	p.stop = deadlock.Watch(cfg)
	return p
}

// Close stops the watcher and the connections of live pages, which would
// otherwise keep [http.Server.Shutdown] waiting: pass it to RegisterOnShutdown.
// Later requests are answered, but not live. Close may be called more than
// once, and returns nil.
func (p *Page) Close() error {
	p.once.Do(func() { close(p.closing) })
	p.stop()
	return nil
}

// note keeps a verdict.
func (p *Page) note(v deadlock.Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[v.Kind]++
	if v.Kind == deadlock.Retracted {
		if e := v.Retracts; e != nil {
			i := slices.IndexFunc(p.verdicts, func(o verdict) bool { return o.Report == e.Report && o.Kind == e.Kind })
			if i >= 0 {
				p.verdicts[i].Moved = v.Age
			}
		}
		return
	}
	p.verdicts = slices.Insert(p.verdicts, 0, verdict{v, time.Now(), -1})
	p.verdicts = p.verdicts[:min(len(p.verdicts), maxVerdicts)]
}

// take returns a report of the threads that match q, and how long it took.
func (p *Page) take(q string) (r *deadlock.Report, cost time.Duration) {
	p.taking.Lock()
	defer p.taking.Unlock()
	begin := time.Now()
	if q == "" {
		r = deadlock.Take()
	} else {
		r = deadlock.TakeMatching(q)
	}
	return r, time.Since(begin)
}

// ServeHTTP implements [http.Handler].
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "+
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")

	dir, name := path.Split(r.URL.Path)
	q := strings.TrimSpace(r.URL.Query().Get("q"))
	if len(q) > maxFilter {
		http.Error(w, fmt.Sprintf("the filter is longer than %d bytes", maxFilter), http.StatusBadRequest)
		return
	}
	if path.Base(dir) == "docs" {
		p.serveDoc(w, r, name)
		return
	}
	switch name {
	case "":
		h.Set("Vary", "Accept")
		p.serveReport(w, q, negotiate(r.Header.Values("Accept")))
	case "report.html", "report.txt", "report.json", "report.dot":
		p.serveReport(w, q, strings.TrimPrefix(path.Ext(name), "."))
	case "events":
		p.serveEvents(w, r, q)
	case "page.css", "page.js":
		h.Set("Cache-Control", "no-cache")
		http.ServeFileFS(w, r, assets, path.Join("assets", name))
	default:
		http.NotFound(w, r)
	}
}

// forms are the media types of a report. A client that likes several equally
// gets the first one. Text comes only if the client accepts anything.
var forms = []struct{ media, form string }{
	{"text/html", "html"},
	{"application/json", "json"},
	{"text/vnd.graphviz", "dot"},
	{"text/plain", "txt"},
}

// negotiate returns the form for a client with these Accept headers.
func negotiate(accept []string) string {
	best, quality := "txt", 0.0
	at := func(media string) float64 {
		q := -1.0
		for _, list := range accept {
			for one := range strings.SplitSeq(list, ",") {
				m, params, err := mime.ParseMediaType(one)
				if err != nil || m != media {
					continue
				}
				q = 1
				if s, ok := params["q"]; ok {
					if q, err = strconv.ParseFloat(s, 64); err != nil {
						q = 0
					}
				}
			}
		}
		return q
	}
	for _, f := range forms {
		if q := at(f.media); q > quality {
			best, quality = f.form, q
		}
	}
	return best
}

func (p *Page) serveReport(w http.ResponseWriter, q, form string) {
	report, _ := p.take(q)
	var out bytes.Buffer
	media := "text/plain"
	switch form {
	case "html":
		media = "text/html"
		if err := templates.ExecuteTemplate(&out, "page.html", p.view(report, q)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	case "json":
		media = "application/json"
		e := json.NewEncoder(&out)
		e.SetIndent("", "\t")
		if err := e.Encode(report); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	case "dot":
		media = "text/vnd.graphviz"
		report.WriteDOT(&out) // a Buffer does not fail
	default:
		out.WriteString(report.String())
	}
	w.Header().Set("Content-Type", media+"; charset=utf-8")
	out.WriteTo(w)
}

// serveDoc serves a page of the documentation, which is part of the program.
func (p *Page) serveDoc(w http.ResponseWriter, r *http.Request, name string) {
	text, err := fs.ReadFile(docs.Deadlock, "deadlock/"+name+".md")
	if err != nil {
		http.NotFound(w, r)
		return
	}
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, "doc.html", document(string(text))); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	out.WriteTo(w)
}
