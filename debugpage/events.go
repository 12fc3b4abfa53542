package debugpage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"sync"
	"time"
)

// How often live pages look, and what part of the time that may take.
const (
	liveInterval = time.Second
	liveShare    = 20
)

// shared is what live pages with the same filter show. The page that finds it
// out of date renews it for all.
type shared struct {
	users int // guarded by the mu of the page

	mu   sync.Mutex // held while it is renewed; guards the rest
	at   time.Time
	next time.Time // before which nobody takes a report
	html []byte
	bare string // html without what time alone changes
}

// An event is sent to a live page.
type event struct {
	kind string
	data any
}

// ages matches what changes with time alone in the HTML of a report.
var ages = regexp.MustCompile(`data-ns="\d+">[^<]*<`)

// look returns the current HTML, or the latest one if a new report would cost
// too much.
func (s *shared) look(p *Page, q string) (html []byte, bare string, at time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.html != nil && time.Now().Before(s.next) {
		return s.html, s.bare, s.at, nil
	}
	report, cost := p.take(q)
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, "live.html", p.view(report, q)); err != nil {
		return nil, "", time.Time{}, err
	}
	s.html, s.at = out.Bytes(), report.Time
	s.bare = ages.ReplaceAllString(out.String(), "")
	s.next = report.Time.Add(max(liveInterval/2, liveShare*cost))
	return s.html, s.bare, s.at, nil
}

// use returns what pages with the filter q share, and a function that gives it
// back. It returns nil if there are too many live pages.
func (p *Page) use(q string) (s *shared, done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streams >= maxStreams {
		return nil, nil
	}
	p.streams++
	s = p.shared[q]
	if s == nil {
		s = &shared{}
		p.shared[q] = s
	}
	s.users++
	return s, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.streams--
		if s.users--; s.users == 0 {
			delete(p.shared, q)
		}
	}
}

// serveEvents keeps a page live. It sends the event "page" with the HTML when
// that has changed, and otherwise "tick" with the time that has passed since.
func (p *Page) serveEvents(w http.ResponseWriter, r *http.Request, q string) {
	s, done := p.use(q)
	if s == nil {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many live pages", http.StatusServiceUnavailable)
		return
	}
	defer done()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(w)
	control.SetWriteDeadline(time.Time{}) // where it cannot be had there is none
	if r.Method == http.MethodHead {
		return
	}
	tick := time.NewTicker(liveInterval)
	defer tick.Stop()
	told := ""
	var at time.Time
	for {
		html, bare, taken, err := s.look(p, q)
		if err != nil {
			return // the page says that it is not live any more
		}
		e := event{"tick", time.Since(at).Milliseconds()}
		if bare != told {
			told, at = bare, taken
			e = event{"page", string(html)}
		}
		data, err := json.Marshal(e.data)
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", e.kind, data); err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-p.closing:
			return
		case <-tick.C:
		}
	}
}
