package main

import (
	"context"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// A site is a running app with a browser in front of it.
type site struct {
	t   *testing.T
	app *app
}

func newSite(t *testing.T) *site {
	t.Helper()
	a, err := start(t.Context(), options{addr: "127.0.0.1:0"}, testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := a.stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return &site{t, a}
}

func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// A page is what a browser ends up with, redirects followed.
type page struct {
	t      *testing.T
	status int
	path   string
	text   string
}

func (s *site) get(target string) *page {
	s.t.Helper()
	resp, err := http.Get(s.app.pages.url + target)
	return s.read(resp, err)
}

// post sends a form of names and values in turn.
func (s *site) post(target string, form ...string) *page {
	s.t.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	resp, err := http.PostForm(s.app.pages.url+target, values)
	return s.read(resp, err)
}

func (s *site) read(resp *http.Response, err error) *page {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return &page{s.t, resp.StatusCode, resp.Request.URL.Path, string(text)}
}

func (p *page) wantStatus(status int) *page {
	p.t.Helper()
	if p.status != status {
		p.t.Errorf("%s: status %d, want %d\n%s", p.path, p.status, status, p.text)
	}
	return p
}

func (p *page) wantPath(path string) *page {
	p.t.Helper()
	if p.path != path {
		p.t.Errorf("ended up at %s, want %s", p.path, path)
	}
	return p
}

func (p *page) has(texts ...string) *page {
	p.t.Helper()
	for _, text := range texts {
		if !strings.Contains(p.text, text) {
			p.t.Errorf("%s does not contain %q:\n%s", p.path, text, p.text)
		}
	}
	return p
}

func (p *page) lacks(texts ...string) *page {
	p.t.Helper()
	for _, text := range texts {
		if strings.Contains(p.text, text) {
			p.t.Errorf("%s contains %q:\n%s", p.path, text, p.text)
		}
	}
	return p
}

func TestEmptySite(t *testing.T) {
	s := newSite(t)
	s.get("/").wantStatus(http.StatusOK).has("<h2>Latest notes</h2>", "There are none.")
	s.get("/static/style.css").wantStatus(http.StatusOK).has("color-scheme")
	s.get("/nowhere").wantStatus(http.StatusNotFound)
}

func TestAddANote(t *testing.T) {
	s := newSite(t)
	s.post("/notes", "title", "Milk", "body", "two litres", "tags", "shop, home").
		wantStatus(http.StatusOK).wantPath("/notes/1").
		has("The note is stored.", "<h2>Milk</h2>", "two litres", `href="/?tag=home"`, `href="/?tag=shop"`)
	s.get("/").has(`<a href="/notes/1">Milk</a>`, "Notes that have to do with shop").lacks("There are none.", "The note is stored.")
}

func TestMarkupIsText(t *testing.T) {
	s := newSite(t)
	const evil = `<script>alert("x" & 'y')</script>`
	s.post("/notes", "title", evil, "body", evil).wantStatus(http.StatusOK).lacks("<script").has(html.EscapeString(evil))
	s.get("/").lacks("<script").has(html.EscapeString(evil))
	s.get("/?"+url.Values{"q": {evil}}.Encode()).lacks("<script").has(html.EscapeString(evil), `<a href="/notes/1">`)
	s.get("/?tag=" + url.QueryEscape(evil)).lacks("<script")
	s.post("/notes", "title", "", "body", "</textarea>"+evil).lacks("<script", "</textarea>&lt;")
	s.get("/?done="+url.QueryEscape(evil)).lacks("<script", `role="status"`)
}

func TestSearch(t *testing.T) {
	s := newSite(t)
	s.post("/notes", "title", "Milk", "body", "two litres", "tags", "shop")
	s.post("/notes", "title", "Bread")
	s.get("/?q=LITRE").has("Milk", "Notes with “LITRE”").lacks(">Bread<")
	s.get("/?q=cheese").has("There are none.")
	s.get("/?tag=shop").has("Milk", "Notes tagged shop").lacks(">Bread<")
}

func TestRefusedFormsKeepWhatWasTyped(t *testing.T) {
	s := newSite(t)
	s.post("/notes", "title", " ", "body", "long text", "tags", "x").
		wantStatus(http.StatusUnprocessableEntity).has(`role="alert"`, "A note needs a title.", ">long text</textarea>", `value="x"`)
	s.post("/notes", "title", "kept", "tags", "a/b").
		wantStatus(http.StatusUnprocessableEntity).has("is no tag", `value="kept"`)
	s.post("/import", "links", "javascript:alert(1)", "tags", "y").
		wantStatus(http.StatusUnprocessableEntity).has("is no web address", ">javascript:alert(1)</textarea>", `value="y"`)
	s.get("/").has("There are none.")
	s.post("/notes", "title", "x", "body", strings.Repeat("x", maxForm)).wantStatus(http.StatusRequestEntityTooLarge)
}

func TestImportLinks(t *testing.T) {
	s := newSite(t)
	s.post("/import", "links", "https://example.org/on-threads\r\nhttps://example.org/on-locks", "tags", "go").
		wantStatus(http.StatusOK).wantPath("/").
		has("All links are imported.", "on threads (example.org)", "on locks (example.org)",
			`<a href="https://example.org/on-locks"`, `go</a> (2)`)
	if u := s.app.store.usage.read(); u.deepest != 3 {
		t.Errorf("the import was %d calls deep, want 3", u.deepest)
	}
}

func TestBrokenImportStoresNothing(t *testing.T) {
	s := newSite(t)
	s.post("/import", "links", "https://example.org/a\nhttps://gone.invalid/b\nhttps://example.org/c", "tags", "go").
		wantStatus(http.StatusUnprocessableEntity).
		has("Nothing was stored", "https://gone.invalid/b could not be looked up", "There are none.").
		lacks("Notes that have to do with go")
	if n := s.app.store.usage.read().rollbacks; n != 1 {
		t.Errorf("%d rollbacks, want 1", n)
	}
}

func TestTagAndRemoveANote(t *testing.T) {
	s := newSite(t)
	s.post("/notes", "title", "Milk")
	s.post("/notes/1/tags", "tags", "shop").wantStatus(http.StatusOK).wantPath("/notes/1").has("The note has its tags.", `href="/?tag=shop"`)
	s.post("/notes/1/tags", "tags", "a/b").wantStatus(http.StatusUnprocessableEntity).has("is no tag", `value="a/b"`, "<h2>Milk</h2>")
	s.post("/notes/1/remove").wantStatus(http.StatusOK).wantPath("/").has("The note is gone.", "There are none.")
	s.get("/notes/1").wantStatus(http.StatusNotFound)
	s.get("/notes/x").wantStatus(http.StatusNotFound)
	s.post("/notes/1/tags", "tags", "x").wantStatus(http.StatusNotFound)
	s.post("/notes/1/remove").wantStatus(http.StatusNotFound)
}

func TestOlderNotes(t *testing.T) {
	s := newSite(t)
	for i := range pageSize + 1 {
		mustAdd(t, s.app.store, fmt.Sprintf("Note %d.", i), "x")
	}
	s.get("/?tag=x").has(">Note 30.<", ">Note 1.<", `href="/?q=&amp;tag=x&amp;before=2"`).lacks(">Note 0.<")
	s.get("/?q=&tag=x&before=2").has(">Note 0.<").lacks(">Note 1.<", "Older notes")
}

func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	s := newSite(t)
	req, err := http.NewRequest(http.MethodPost, s.app.pages.url+"/notes", strings.NewReader("title=x"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := http.DefaultClient.Do(req)
	s.read(resp, err).wantStatus(http.StatusForbidden)
	s.get("/").has("There are none.")
}

// TestThreads checks who ran where: the database on its thread, each page on
// another, and a request without sync code on none.
func TestThreads(t *testing.T) {
	s := newSite(t)
	s.get("/static/style.css")
	if n := s.app.threads.stats().leases; n != 0 {
		t.Errorf("a file took %d threads, want none", n)
	}
	s.get("/")
	leases, db := s.app.threads.stats(), s.app.store.usage.read()
	if leases.leases != 1 || leases.open != 0 {
		t.Errorf("a page took a thread %d times and kept %d, want 1 and 0", leases.leases, leases.open)
	}
	if len(db.threads) != 1 {
		t.Errorf("calls to the database by thread: %v, want a single thread", db.threads)
	}
	for id := range leases.threads {
		if db.threads[id] > 0 && threadsKnown {
			t.Errorf("the page was rendered on the database's thread %d", id)
		}
	}
}

// TestRendererStaysOnItsThread is why rendering goes through the library.
func TestRendererStaysOnItsThread(t *testing.T) {
	if !threadsKnown {
		t.Skip("threads cannot be told apart on this system")
	}
	templates, err := parseTemplates()
	if err != nil {
		t.Fatal(err)
	}
	on := newRenderer(templates)
	on.thread++ // as if it came from elsewhere
	if _, err := render(t.Context(), part{on, "tags", nil}); err != errWrongThread {
		t.Errorf("got %v, want %v", err, errWrongThread)
	}
}
