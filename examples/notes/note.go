package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// Limits of what one form may carry.
const (
	maxTitle = 200
	maxTag   = 40
	maxTags  = 10
	maxLinks = 50
)

// A note is one row of the list.
type note struct {
	ID      int64
	Title   string
	Body    string
	URL     string // of an imported note
	Tags    []string
	Created time.Time
}

// A tag groups notes. What it is about was looked up when it was first used.
type tag struct {
	Name  string
	About string
	Notes int
}

// A draft is a note that a person typed in.
type draft struct {
	Title string
	Body  string
	Tags  []string
}

// An inputError is a mistake in what a person typed, worded for them.
type inputError struct{ msg string }

func (e *inputError) Error() string { return e.msg }

func inputErrorf(format string, args ...any) error {
	return &inputError{fmt.Sprintf(format, args...)}
}

// errNoNote says that a note does not exist, or no longer.
var errNoNote = errors.New("there is no such note")

func parseDraft(title, body, tags string) (draft, error) {
	title = strings.TrimSpace(title)
	switch n := len([]rune(title)); {
	case n == 0:
		return draft{}, inputErrorf("A note needs a title.")
	case n > maxTitle:
		return draft{}, inputErrorf("A title has at most %d characters, this one %d.", maxTitle, n)
	}
	parsed, err := parseTags(tags)
	if err != nil {
		return draft{}, err
	}
	return draft{Title: title, Body: strings.TrimSpace(body), Tags: parsed}, nil
}

// parseTags reads tags separated by spaces or commas, each of them once.
func parseTags(s string) ([]string, error) {
	var tags []string
	seen := map[string]bool{}
	for _, name := range strings.FieldsFunc(strings.ToLower(s), isTagSeparator) {
		if seen[name] {
			continue
		}
		seen[name] = true
		if len([]rune(name)) > maxTag || strings.ContainsFunc(name, isNotTagRune) {
			return nil, inputErrorf("%q is no tag: use up to %d letters, digits and dashes.", name, maxTag)
		}
		tags = append(tags, name)
	}
	if len(tags) > maxTags {
		return nil, inputErrorf("A note has at most %d tags.", maxTags)
	}
	return tags, nil
}

func isTagSeparator(r rune) bool { return r == ',' || unicode.IsSpace(r) }

func isNotTagRune(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' }

// parseLinks reads web addresses, one a line.
func parseLinks(s string) ([]string, error) {
	var links []string
	for line := range strings.Lines(s) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		u, err := url.Parse(line)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, inputErrorf("%q is no web address: it should begin with http:// or https://.", line)
		}
		links = append(links, line)
	}
	switch {
	case len(links) == 0:
		return nil, inputErrorf("Nothing to import: give at least one web address.")
	case len(links) > maxLinks:
		return nil, inputErrorf("At most %d addresses can be imported at once.", maxLinks)
	}
	return links, nil
}
