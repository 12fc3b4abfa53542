// Package docs holds the documentation of this module as Markdown. Beside that it
// has a test, which compiles the code on its pages, runs the programs that are
// followed by their output, and checks links and names.
package docs

import "embed"

// Deadlock is the folder deadlock: a page for each diagnosis, for programs that
// show them.
//
//go:embed deadlock/*.md
var Deadlock embed.FS
