// Package debugpage serves a page that shows what the threads of this module do:
// what runs on each and what that waits for, what is queued behind it, who waits
// for whom as a picture, with a cycle in it if there is one, the stacks of all
// involved, limiters and pools, and what the watcher has found since the start. It
// is to package deadlock what [net/http/pprof] is to runtime/pprof.
//
//	page := debugpage.New(deadlock.Config{Slow: 5 * time.Second})
//	defer page.Close()
//	mux.Handle("/debug/asyncsync/", page)
//
// The page is live: ages grow, and what changes is redrawn, by server-sent events.
// It needs no network beside the server it comes from, and no script to be read.
// Keys: / for the filter, j and k for the next thread and the one before, p to hold
// it still, ? for the rest.
//
// # Other forms
//
// The address of the page answers with text to a client that does not ask for HTML,
// such as curl, and with JSON or DOT to one that asks for these. With a suffix it
// answers in that form to everybody:
//
//	curl localhost:8080/debug/asyncsync/
//	curl localhost:8080/debug/asyncsync/report.json?q=session
//	curl localhost:8080/debug/asyncsync/report.dot | dot -Tsvg
//
// q is the filter of the page: see [deadlock.TakeMatching]. Text and JSON are those
// of [deadlock.Report].
//
// # Who may see it
//
// It shows names, functions, paths and stacks of the program, no arguments and no
// values. It changes nothing. Serve it where pprof would be served: to those who
// run the program, not to the world.
//
// # What it costs
//
// Nothing while nobody looks, but for the watcher. A look takes a report: see
// [deadlock.Take], for which the runtime stops the program about 10 ms for each
// thousand goroutines. Looks are made one after another, and those that make the
// page live take at most a twentieth of the time, however many watch: where a
// report takes long they become rarer. Pages are as bounded as reports are.
package debugpage
