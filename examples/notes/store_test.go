package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"asyncsync.dev/asyncsync"
	"zombiezen.com/go/sqlite"
)

// fakeLookups are lookups made of functions; a nil one answers at once.
type fakeLookups struct {
	titleFunc func(ctx context.Context, link string) (string, error)
	aboutFunc func(ctx context.Context, tag string) (string, error)
}

func (f *fakeLookups) title(ctx context.Context, link string) (string, error) {
	if f.titleFunc == nil {
		return "title of " + link, nil
	}
	return f.titleFunc(ctx, link)
}

func (f *fakeLookups) about(ctx context.Context, tag string) (string, error) {
	if f.aboutFunc == nil {
		return "about " + tag, nil
	}
	return f.aboutFunc(ctx, tag)
}

func newTestStore(t *testing.T, l lookups) *store {
	t.Helper()
	s, err := openStore(context.Background(), filepath.Join(t.TempDir(), "notes.db"), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func mustAdd(t *testing.T, s *store, title string, tags ...string) int64 {
	t.Helper()
	id, err := s.add(t.Context(), draft{Title: title, Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func titles(t *testing.T, s *store, f filter) []string {
	t.Helper()
	notes, err := s.find(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	var titles []string
	for _, n := range notes {
		titles = append(titles, n.Title)
	}
	return titles
}

func wantTitles(t *testing.T, s *store, f filter, want ...string) {
	t.Helper()
	if got := titles(t, s, f); !slices.Equal(got, want) {
		t.Errorf("%+v finds %q, want %q", f, got, want)
	}
}

func TestAddKeepsTheWholeNote(t *testing.T) {
	s := newTestStore(t, &fakeLookups{})
	id, err := s.add(t.Context(), draft{Title: "One", Body: "two\nlines", Tags: []string{"b", "a"}})
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if n.Title != "One" || n.Body != "two\nlines" || !slices.Equal(n.Tags, []string{"a", "b"}) || n.Created.IsZero() {
		t.Errorf("found %+v", n)
	}
	tags, err := s.tags(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := []tag{{"a", "about a", 1}, {"b", "about b", 1}}; !slices.Equal(tags, want) {
		t.Errorf("tags %+v, want %+v", tags, want)
	}
}

func TestFind(t *testing.T) {
	s := newTestStore(t, &fakeLookups{})
	mustAdd(t, s, "50% off", "shop")
	mustAdd(t, s, "500 off")
	mustAdd(t, s, "a_b", "shop")
	mustAdd(t, s, `c:\d`)
	id := mustAdd(t, s, "last")

	wantTitles(t, s, filter{}, "last", `c:\d`, "a_b", "500 off", "50% off")
	wantTitles(t, s, filter{Query: "OFF"}, "500 off", "50% off")
	wantTitles(t, s, filter{Query: "50%"}, "50% off")
	wantTitles(t, s, filter{Query: "_"}, "a_b")
	wantTitles(t, s, filter{Query: `\`}, `c:\d`)
	wantTitles(t, s, filter{Query: `' OR 1 --`})
	wantTitles(t, s, filter{Tag: "shop"}, "a_b", "50% off")
	wantTitles(t, s, filter{Before: id, Limit: 2}, `c:\d`, "a_b")
}

func TestMissingNotes(t *testing.T) {
	s := newTestStore(t, &fakeLookups{aboutFunc: func(context.Context, string) (string, error) {
		t.Error("a tag was looked up for a note that does not exist")
		return "", nil
	}})
	for _, id := range []int64{-1, 0, 1} {
		if _, err := s.get(t.Context(), id); !errors.Is(err, errNoNote) {
			t.Errorf("get(%d): %v", id, err)
		}
		if err := s.tag(t.Context(), id, []string{"x"}); !errors.Is(err, errNoNote) {
			t.Errorf("tag(%d): %v", id, err)
		}
		if err := s.remove(t.Context(), id); !errors.Is(err, errNoNote) {
			t.Errorf("remove(%d): %v", id, err)
		}
	}
}

func TestTagsAreLookedUpWhenNew(t *testing.T) {
	var asked []string // by one task at a time, as each call has one new tag
	s := newTestStore(t, &fakeLookups{aboutFunc: func(_ context.Context, tag string) (string, error) {
		asked = append(asked, tag)
		return "x", nil
	}})
	id := mustAdd(t, s, "one", "old")
	mustAdd(t, s, "two", "old", "new")
	if err := s.tag(t.Context(), id, []string{"new", "old", "newer"}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"old", "new", "newer"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	wantTitles(t, s, filter{Tag: "new"}, "two", "one")
}

// TestImportLooksUpAtTheSameTime ends only if all look-ups of an import are
// under way together, while the database's thread waits for them.
func TestImportLooksUpAtTheSameTime(t *testing.T) {
	links := []string{"a", "b", "c", "d"}
	arrived, meet := make(chan string), make(chan struct{})
	go func() {
		for range links {
			<-arrived
		}
		close(meet)
	}()
	s := newTestStore(t, &fakeLookups{titleFunc: func(_ context.Context, link string) (string, error) {
		arrived <- link
		<-meet
		return link, nil
	}})
	if err := s.importLinks(t.Context(), links, nil); err != nil {
		t.Fatal(err)
	}
	got := titles(t, s, filter{})
	slices.Sort(got)
	if !slices.Equal(got, links) {
		t.Errorf("imported %q, want %q", got, links)
	}
}

func TestImportNestsOnOneThread(t *testing.T) {
	s := newTestStore(t, &fakeLookups{})
	before := s.usage.read()
	if err := s.importLinks(t.Context(), []string{"a", "b", "c"}, []string{"x", "y"}); err != nil {
		t.Fatal(err)
	}
	after := s.usage.read()
	// Three notes, and two tags that only the first of the notes found new.
	if n := after.nested - before.nested; n != 5 {
		t.Errorf("%d nested calls, want 5", n)
	}
	if after.deepest != 3 {
		t.Errorf("%d calls deep, want 3", after.deepest)
	}
	if len(after.threads) != 1 {
		t.Errorf("calls by thread: %v, want a single thread", after.threads)
	}
	wantTitles(t, s, filter{Tag: "y", Limit: 1}, titles(t, s, filter{})[0])
}

// TestFailedImportRollsBackWhole has one look-up fail after another link's note
// and tag have been written, in each way in which a function can end.
func TestFailedImportRollsBackWhole(t *testing.T) {
	errMissing := errors.New("missing")
	for name, fail := range map[string]func() error{
		"error":  func() error { return errMissing },
		"panic":  func() error { panic(errMissing) },
		"goexit": func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			fake := &fakeLookups{}
			s := newTestStore(t, fake)
			mustAdd(t, s, "before")
			fake.titleFunc = func(ctx context.Context, link string) (string, error) {
				for link == "bad" {
					// A related call: it runs inside the transaction, so it sees
					// what the other task has written there.
					notes, err := s.find(ctx, filter{Tag: "doomed"})
					if err != nil {
						return "", err
					}
					if len(notes) > 0 {
						return "", fail()
					}
					runtime.Gosched() // let the other task get there
				}
				return link, nil
			}

			ended := make(chan any)
			go func() {
				var outcome any = "goexit"
				defer func() {
					if p := recover(); p != nil {
						outcome = p
					}
					ended <- outcome
				}()
				outcome = s.importLinks(context.Background(), []string{"good", "bad"}, []string{"doomed"})
			}()
			switch outcome := <-ended; name {
			case "goexit":
				if outcome != "goexit" {
					t.Errorf("the import ended with %v, want Goexit", outcome)
				}
			default:
				if err, ok := outcome.(error); !ok || !errors.Is(err, errMissing) {
					t.Errorf("the import ended with %v, want %v", outcome, errMissing)
				}
			}

			wantTitles(t, s, filter{}, "before")
			if tags, err := s.tags(t.Context(), 0); err != nil || len(tags) > 0 {
				t.Errorf("tags %v (%v), want none", tags, err)
			}
			if n, err := s.batches(t.Context()); err != nil || n > 0 {
				t.Errorf("%d imports (%v), want none", n, err)
			}
			if n := s.usage.read().rollbacks; n != 1 {
				t.Errorf("%d rollbacks, want 1", n)
			}
			mustAdd(t, s, "after")
			wantTitles(t, s, filter{}, "after", "before")
		})
	}
}

// TestStrangersStayOutOfTransactions queues another request's note while an
// import waits for a look-up that will fail. Had the waiting thread run it, the
// note would be part of that transaction, and be rolled back with it.
func TestStrangersStayOutOfTransactions(t *testing.T) {
	errMissing := errors.New("missing")
	fake := &fakeLookups{}
	s := newTestStore(t, fake)
	stranger := make(chan error, 1)
	fake.titleFunc = func(ctx context.Context, _ string) (string, error) {
		go func() {
			_, err := s.add(context.Background(), draft{Title: "stranger"})
			stranger <- err
		}()
		for asyncsync.ReadStats().Queued == 0 {
			runtime.Gosched()
		}
		// A related call overtakes the stranger's, and does not see its note.
		notes, err := s.find(ctx, filter{})
		if err != nil {
			return "", err
		}
		if len(notes) > 0 {
			t.Errorf("%q is there in the middle of the import", notes[0].Title)
		}
		return "", errMissing
	}
	if err := s.importLinks(t.Context(), []string{"a"}, nil); !errors.Is(err, errMissing) {
		t.Errorf("the import ended with %v, want %v", err, errMissing)
	}
	if err := <-stranger; err != nil {
		t.Error(err)
	}
	wantTitles(t, s, filter{}, "stranger")
}

func TestImportEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the visitor is gone")
	s := newTestStore(t, &fakeLookups{titleFunc: func(ctx context.Context, _ string) (string, error) {
		cancel(gone)
		<-ctx.Done()
		return "", context.Cause(ctx)
	}})
	if err := s.importLinks(ctx, []string{"a", "b"}, nil); !errors.Is(err, gone) {
		t.Errorf("the import ended with %v, want %v", err, gone)
	}
	wantTitles(t, s, filter{})
	mustAdd(t, s, "after")
	wantTitles(t, s, filter{}, "after")
}

// TestQueryIsInterrupted ends only if SQLite gives up an endless query.
func TestQueryIsInterrupted(t *testing.T) {
	s := newTestStore(t, &fakeLookups{})
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	_, err := query(ctx, s, "endless", func(conn *sqlite.Conn) (int, error) {
		cancel(enough)
		return count(conn, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n`)
	})
	if !errors.Is(err, enough) {
		t.Errorf("the query ended with %v, want %v", err, enough)
	}
	// The connection is as good as before.
	mustAdd(t, s, "after")
	wantTitles(t, s, filter{}, "after")
}

func TestConcurrentAddsAreAllKept(t *testing.T) {
	s := newTestStore(t, &fakeLookups{})
	const adders, each = 8, 10
	errs := make(chan error)
	for a := range adders {
		go func() {
			var err error
			for i := range each {
				_, addErr := s.add(t.Context(), draft{Title: fmt.Sprintf("%d/%d", a, i), Tags: []string{fmt.Sprint("t", i)}})
				err = errors.Join(err, addErr)
			}
			errs <- err
		}()
	}
	for range adders {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	got := titles(t, s, filter{})
	slices.Sort(got)
	if n := len(slices.Compact(got)); n != adders*each {
		t.Errorf("%d different notes, want %d", n, adders*each)
	}
}
