package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// evidence is what a run of the demo left behind.
type evidence struct {
	notes   []note // as another connection reads them from the file
	tags    []tag
	batches int

	usage  usage
	leases leaseStats
	asked  map[string]int
}

// examine collects the evidence. It reads the database through a second
// connection, which sees only what was committed.
func examine(ctx context.Context, a *app) (_ *evidence, err error) {
	e := &evidence{usage: a.store.usage.read(), leases: a.threads.stats(), asked: a.asked.counts()}
	second, err := openStore(ctx, a.dbPath, a.client)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, second.close()) }()
	if e.notes, err = second.find(ctx, filter{}); err != nil {
		return nil, err
	}
	if e.tags, err = second.tags(ctx, 0); err != nil {
		return nil, err
	}
	if e.batches, err = second.batches(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// lookups is how many questions were asked in all.
func (e *evidence) lookups() int {
	n := 0
	for _, times := range e.asked {
		n += times
	}
	return n
}

// A check is one thing that should hold.
type check struct {
	what   string
	ok     bool
	detail string
}

func (c check) String() string {
	verdict := "ok  "
	if !c.ok {
		verdict = "FAIL"
	}
	return fmt.Sprintf("  %s  %s: %s", verdict, c.what, c.detail)
}

// checks compares the evidence with what the visitors say they wrote.
func checks(written *ledger, e *evidence) []check {
	wrongNotes := compareNotes(written.notes, e.notes)
	wrongTags := compareTags(written.tags, e)
	leftovers := leftoversOfBroken(e)

	onDatabaseThread := 0
	for id := range e.leases.threads {
		if e.usage.threads[id] > 0 && threadsKnown {
			onDatabaseThread++
		}
	}
	// Each imported note was one nested call, and so was each new tag.
	minNested, minDepth := written.links+len(written.tags), 1
	switch {
	case written.imports > 0:
		minDepth = 3
	case len(written.tags) > 0:
		minDepth = 2
	}

	return []check{
		{"no note was lost or changed", len(wrongNotes) == 0,
			fmt.Sprintf("%d written, %d found%s", len(written.notes), len(e.notes), list(wrongNotes))},
		{"every tag was looked up and stored once", len(wrongTags) == 0,
			fmt.Sprintf("%d written, %d found%s", len(written.tags), len(e.tags), list(wrongTags))},
		{"every nested write-back was committed", e.batches == written.imports && e.usage.nested >= minNested && e.usage.deepest >= minDepth,
			fmt.Sprintf("%d of %d imports, %d nested calls for %d rows, %d deep", e.batches, written.imports, e.usage.nested, minNested, e.usage.deepest)},
		{"failed imports left nothing", e.usage.rollbacks == written.broken && len(leftovers) == 0,
			fmt.Sprintf("%d failed, %d transactions rolled back%s", written.broken, e.usage.rollbacks, list(leftovers))},
		{"the database had one thread", len(e.usage.threads) == 1,
			fmt.Sprintf("%d calls on %s", e.usage.calls, threadNames(e.usage.threads))},
		{"each page had a thread of its own, and not that one", e.leases.leases == written.pages && onDatabaseThread == 0 && e.leases.shared == 0 && e.leases.open == 0,
			fmt.Sprintf("%d pages, %d leases of %d threads; %d on the database's, %d shared, %d not given back",
				written.pages, e.leases.leases, len(e.leases.threads), onDatabaseThread, e.leases.shared, e.leases.open)},
	}
}

// compareNotes says how the notes found differ from those wanted.
func compareNotes(want map[string]wantNote, found []note) (wrong []string) {
	missing := maps.Clone(want)
	for _, n := range found {
		w, ok := missing[n.Title]
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%q is there without need, or twice", n.Title))
			continue
		}
		delete(missing, n.Title)
		tags := slices.Sorted(maps.Keys(w.tags))
		if n.Body != w.body || n.URL != w.url || !slices.Equal(n.Tags, tags) {
			wrong = append(wrong, fmt.Sprintf("%q has text %q, address %q, tags %q instead of %q, %q, %q",
				n.Title, n.Body, n.URL, n.Tags, w.body, w.url, tags))
		}
	}
	for title := range missing {
		wrong = append(wrong, fmt.Sprintf("%q is lost", title))
	}
	return wrong
}

// compareTags says which tags are wrong, or were not looked up just once. A new
// tag that several requests use at a time is looked up once all the same,
// since their transactions exclude each other although each of them waits.
func compareTags(want map[string]bool, e *evidence) (wrong []string) {
	missing := maps.Clone(want)
	for _, t := range e.tags {
		if !missing[t.Name] {
			wrong = append(wrong, fmt.Sprintf("%s is there without need, or twice", t.Name))
			continue
		}
		delete(missing, t.Name)
		if t.About != aboutTag(t.Name) {
			wrong = append(wrong, fmt.Sprintf("%s is described as %q", t.Name, t.About))
		}
		if times := e.asked["tag "+t.Name]; times != 1 {
			wrong = append(wrong, fmt.Sprintf("%s was looked up %d times", t.Name, times))
		}
	}
	for name := range missing {
		wrong = append(wrong, name+" is lost")
	}
	return wrong
}

// leftoversOfBroken lists what imports that failed should not have left.
func leftoversOfBroken(e *evidence) (left []string) {
	for _, t := range e.tags {
		if strings.HasPrefix(t.Name, "broken-") {
			left = append(left, "tag "+t.Name)
		}
	}
	for _, n := range e.notes {
		if strings.Contains(n.URL, ".invalid") {
			left = append(left, "note "+n.Title)
		}
	}
	return left
}

// threadNames lists thread ids.
func threadNames(threads map[int]int) string {
	var names []string
	for _, id := range slices.Sorted(maps.Keys(threads)) {
		names = append(names, fmt.Sprintf("thread %d", id))
	}
	return strings.Join(names, ", ")
}

// list is what is wrong, to be put after a count; a few of it will do.
func list(wrong []string) string {
	const few = 5
	if len(wrong) == 0 {
		return ""
	}
	if n := len(wrong); n > few {
		wrong = append(wrong[:few:few], fmt.Sprintf("and %d more", n-few))
	}
	return "\n        " + strings.Join(wrong, "\n        ")
}
