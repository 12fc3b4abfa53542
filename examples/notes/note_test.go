package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParseTags(t *testing.T) {
	got, err := parseTags("  Go, sqlite  go,\tüber-uns 2026 ")
	if want := []string{"go", "sqlite", "über-uns", "2026"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for _, bad := range []string{"a/b", "<b>", strings.Repeat("x", maxTag+1), "a b c d e f g h i j k"} {
		if tags, err := parseTags(bad); !isInputError(err) {
			t.Errorf("%q gives %q, %v; want an input error", bad, tags, err)
		}
	}
}

func TestParseLinks(t *testing.T) {
	got, err := parseLinks("https://example.org/a\r\n\r\n  http://example.org/b?c=d#e  \n")
	if want := []string{"https://example.org/a", "http://example.org/b?c=d#e"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	var many strings.Builder
	for i := range maxLinks + 1 {
		fmt.Fprintf(&many, "https://example.org/%d\n", i)
	}
	for _, bad := range []string{"", "\n", "example.org", "javascript:alert(1)", "https://", "https://a b/", many.String()} {
		if links, err := parseLinks(bad); !isInputError(err) {
			t.Errorf("%q gives %q, %v; want an input error", bad, links, err)
		}
	}
}

func TestParseDraft(t *testing.T) {
	if d, err := parseDraft(" t ", " b\n", "x"); err != nil || d.Title != "t" || d.Body != "b" || !slices.Equal(d.Tags, []string{"x"}) {
		t.Errorf("got %+v, %v", d, err)
	}
	for _, bad := range []string{"", "  ", strings.Repeat("ü", maxTitle+1)} {
		if d, err := parseDraft(bad, "", ""); !isInputError(err) {
			t.Errorf("%q gives %+v, %v; want an input error", bad, d, err)
		}
	}
	if _, err := parseDraft(strings.Repeat("ü", maxTitle), "", ""); err != nil {
		t.Error(err)
	}
}

func isInputError(err error) bool {
	var input *inputError
	return errors.As(err, &input)
}

func TestTitleOf(t *testing.T) {
	for link, want := range map[string]string{
		"https://example.org/blog/on-threads": "on threads (example.org)",
		"https://example.org:8080/a_b/?c=d":   "a b (example.org)",
		"https://example.org/":                "example.org",
		"https://example.org":                 "example.org",
		"https://nowhere.invalid/x":           "",
		"://":                                 "",
	} {
		if got, ok := titleOf(link); got != want || ok != (want != "") {
			t.Errorf("%s is called %q, %v; want %q", link, got, ok, want)
		}
	}
}
