// Package docs holds the documentation of this module as Markdown. It has no
// code but a test, which compiles the code on its pages, runs the programs
// that are followed by their output, and checks links and names.
package docs
