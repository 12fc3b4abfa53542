// Package debugpage serves a page that shows what the threads of this module
// do: what runs on each thread and what it waits for, what is queued behind it,
// a picture of who waits for whom that marks a cycle if there is one, the
// stacks involved, limiters and pools, and the last 32 findings of the watcher.
// It is to package deadlock what [net/http/pprof] is to runtime/pprof.
//
//	page := debugpage.New(deadlock.Config{Slow: 5 * time.Second})
//	defer page.Close()
//	mux.Handle("/debug/asyncsync/", page)
//
// The page is live: ages grow, and what changes is redrawn, by server-sent
// events. It uses no network except its own server, and can be read without
// scripts. Keys: / for the filter, j and k for the next and the previous
// thread, p to pause, ? for the rest.
//
// # Other forms
//
// The address of the page answers with text to a client that does not ask for
// HTML, such as curl, and with JSON or DOT to one that asks for these. With a
// suffix it always answers in that form:
//
//	curl localhost:8080/debug/asyncsync/
//	curl localhost:8080/debug/asyncsync/report.json?q=session
//	curl localhost:8080/debug/asyncsync/report.dot | dot -Tsvg
//
// q is the filter of the page: see [deadlock.TakeMatching]. Text and JSON are
// those of [deadlock.Report].
//
// # Who may see it
//
// The page shows names, functions, paths and stacks of the program, but no
// arguments and no values. It changes nothing. Serve it where you would serve
// pprof: to those who run the program, not to the world.
//
// # What it costs
//
// While nobody looks, it costs no more than the watcher. A look takes a report,
// for which the runtime stops the program about 10 ms for each thousand
// goroutines: see [deadlock.Take]. Looks are made one after another. Looks for
// live pages take at most a twentieth of the time, however many clients watch:
// if a report takes long, they become rarer. Pages have the same bounds as
// reports. At most 32 clients can have a live page at a time; others get status
// 503 for the live part. A filter has at most 200 bytes.
package debugpage
