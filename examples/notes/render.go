package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
)

//go:embed templates/*.html
var templateFiles embed.FS

func parseTemplates() (*template.Template, error) {
	return template.ParseFS(templateFiles, "templates/*.html")
}

// A renderer makes the parts of one page. It stands for what many servers
// render with and what belongs to one thread: an embedded Lua, a C library for
// text or pictures. So it has state and no lock, lives on the thread of its
// request, and refuses to work on any other.
type renderer struct {
	thread    int
	templates *template.Template
	buf       bytes.Buffer
}

var errWrongThread = errors.New("a renderer was used on a thread that is not its own")

// newRenderer makes a renderer for the thread it is called on.
func newRenderer(templates *template.Template) *renderer {
	return &renderer{thread: threadID(), templates: templates}
}

// A part is one piece of a page to render.
type part struct {
	renderer *renderer
	template string
	data     any
}

// render is sync code: it must run on the thread of p's renderer.
func render(_ context.Context, p part) (template.HTML, error) {
	r := p.renderer
	if threadID() != r.thread {
		return "", errWrongThread
	}
	r.buf.Reset()
	if err := r.templates.ExecuteTemplate(&r.buf, p.template, p.data); err != nil {
		return "", err
	}
	// The template has escaped what needed it.
	return template.HTML(r.buf.String()), nil
}
