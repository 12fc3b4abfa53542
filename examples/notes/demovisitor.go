package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// A ledger is what visitors wrote, by their own account.
type ledger struct {
	notes   map[string]wantNote // by title, which is unique
	tags    map[string]bool
	imports int
	links   int // notes that came from imports
	broken  int // imports that were refused, as they should be
	pages   int // answers that had to be rendered: all but redirects
}

// A wantNote is a note as it should be found.
type wantNote struct {
	body string
	url  string
	tags map[string]bool
}

func newLedger() *ledger {
	return &ledger{notes: map[string]wantNote{}, tags: map[string]bool{}}
}

func (l *ledger) write(title, body, url string, tags ...string) {
	n := wantNote{body, url, map[string]bool{}}
	l.notes[title] = n
	l.tag(title, tags...)
}

func (l *ledger) tag(title string, tags ...string) {
	for _, t := range tags {
		l.notes[title].tags[t] = true
		l.tags[t] = true
	}
}

// merge adds ledgers up.
func merge(ledgers []*ledger) *ledger {
	sum := newLedger()
	for _, l := range ledgers {
		maps.Copy(sum.notes, l.notes)
		maps.Copy(sum.tags, l.tags)
		sum.imports += l.imports
		sum.links += l.links
		sum.broken += l.broken
		sum.pages += l.pages
	}
	return sum
}

// A visitor makes one request after the other and checks each answer.
type visitor struct {
	site   string
	http   *http.Client
	ledger *ledger

	title string // of the note it added last; "" at first
	path  string // where that note is
}

// visit makes request number i, which decides what it is. What needs a note of
// the visitor's own is an addition while it has none.
func (v *visitor) visit(ctx context.Context, i int) error {
	kind := i % 10
	if v.title == "" && (kind == 2 || kind == 6 || kind == 8) {
		kind = 0
	}
	switch kind {
	case 1, 7:
		return v.importLinks(ctx, i)
	case 2:
		return v.search(ctx)
	case 4:
		return v.importBroken(ctx, i)
	case 5:
		return v.get(ctx, "/", "<h2>Latest notes</h2>")
	case 6:
		return v.tag(ctx, i)
	case 8:
		return v.get(ctx, v.path, html.EscapeString(v.title))
	default:
		return v.add(ctx, i)
	}
}

func (v *visitor) add(ctx context.Context, i int) error {
	title := fmt.Sprintf(`Note %d. <b>100%% "bold" & brave</b>`, i)
	body := fmt.Sprintf("Written by request %d,\non two lines.", i)
	location, err := v.post(ctx, "/notes", url.Values{
		"title": {title}, "body": {body}, "tags": {topic(i)},
	})
	if err != nil {
		return err
	}
	v.ledger.write(title, body, "", topic(i))
	v.title, v.path = title, location.Path
	return nil
}

func (v *visitor) importLinks(ctx context.Context, i int) error {
	links := []string{linkOf(i, 1), linkOf(i, 2), linkOf(i, 3)}
	// The second tag is new, so it is looked up and written while the first of
	// the notes is being written: the deepest nesting there is.
	tags := []string{topic(i), fmt.Sprintf("import-%d", i)}
	_, err := v.post(ctx, "/import", url.Values{
		"links": {strings.Join(links, "\n")}, "tags": {strings.Join(tags, " ")},
	})
	if err != nil {
		return err
	}
	for _, link := range links {
		title, ok := titleOf(link)
		if !ok {
			return fmt.Errorf("the demo's own link %s has no title", link)
		}
		v.ledger.write(title, "", link, tags...)
	}
	v.ledger.imports++
	v.ledger.links += len(links)
	return nil
}

// importBroken imports links of which one does not exist, with a new tag.
func (v *visitor) importBroken(ctx context.Context, i int) error {
	missing := fmt.Sprintf("https://example.invalid/%d", i)
	status, _, page, err := v.do(ctx, http.MethodPost, "/import", url.Values{
		"links": {strings.Join([]string{linkOf(i, 1), missing, linkOf(i, 2)}, "\n")},
		"tags":  {fmt.Sprintf("broken-%d", i)},
	})
	if err != nil {
		return err
	}
	if status != http.StatusUnprocessableEntity || !strings.Contains(page, missing+" could not be looked up") {
		return fmt.Errorf("an import of a missing page was answered with status %d:\n%s", status, page)
	}
	v.ledger.broken++
	v.ledger.pages++
	return nil
}

func (v *visitor) tag(ctx context.Context, i int) error {
	tags := []string{topic(i), fmt.Sprintf("later-%d", i)}
	if _, err := v.post(ctx, v.path+"/tags", url.Values{"tags": {strings.Join(tags, ",")}}); err != nil {
		return err
	}
	v.ledger.tag(v.title, tags...)
	return nil
}

func (v *visitor) search(ctx context.Context) error {
	return v.get(ctx, "/?"+url.Values{"q": {v.title}}.Encode(), "<h3><a href=\""+v.path+"\">"+html.EscapeString(v.title)+"</a></h3>")
}

// get fetches a page that should contain want.
func (v *visitor) get(ctx context.Context, target, want string) error {
	status, _, page, err := v.do(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	if status != http.StatusOK || !strings.Contains(page, want) {
		return fmt.Errorf("GET %s: status %d, and the page should contain %q:\n%s", target, status, want, page)
	}
	v.ledger.pages++
	return nil
}

// post sends a form that should be accepted, and returns where it leads.
func (v *visitor) post(ctx context.Context, target string, values url.Values) (*url.URL, error) {
	status, location, page, err := v.do(ctx, http.MethodPost, target, values)
	if err != nil {
		return nil, err
	}
	if status != http.StatusSeeOther {
		return nil, fmt.Errorf("POST %s: status %d instead of a redirect:\n%s", target, status, page)
	}
	return location, nil
}

func (v *visitor) do(ctx context.Context, method, target string, values url.Values) (status int, location *url.URL, page string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, v.site+target, strings.NewReader(values.Encode()))
	if err != nil {
		return 0, nil, "", err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := v.http.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, "", err
	}
	if location, err = resp.Location(); err != nil && !errors.Is(err, http.ErrNoLocation) {
		return 0, nil, "", err
	}
	return resp.StatusCode, location, string(body), nil
}

// topic is a tag that many requests share, so that some of them meet while it
// is new.
func topic(i int) string { return fmt.Sprintf("topic-%d", i/3%25) }

// linkOf is link number k of request i.
func linkOf(i, k int) string {
	return "https://example.org/" + path.Join("demo", fmt.Sprintf("link-%d-%d", i, k))
}
