// Package web gives each request of a net/http server a thread: what its handler
// calls with the request's ctx runs on one OS thread, one call at a time, while
// other requests run on theirs.
//
//	mw := web.Middleware()
//	mux.Handle("GET /pages/{name}", mw(pages))
//
// [Middleware] makes an [asyncsync.ThreadSensitiveContext] for each request, with
// the name of the pattern that the request has matched, and closes it when the
// handler and the tasks that were started with the request's ctx have ended. A
// request that makes no thread-sensitive call takes no thread. The handler runs on
// the goroutine of the server with the server's own [http.ResponseWriter], so that
// Flush, Hijack, [http.ResponseController], HTTP/2, [http.TimeoutHandler] and
// [http.ErrAbortHandler] work as without.
//
// # Too much to do
//
// The pool that the threads come from bounds how many requests run at a time, how
// many stand in line, and for how long: MaxThreads, MaxWaiting and MaxWait of
// [asyncsync.ThreadPoolConfig]. A request that comes while the pool is full stands
// in line before its handler begins, and is answered with 503 Service Unavailable
// and Retry-After if it cannot stay or its turn does not come. A call that a
// handler makes may be refused in the same way, with [asyncsync.ErrPoolFull], or by
// a [asyncsync.Handle] with QueueLimit or QueueWait, with [asyncsync.ErrQueueFull];
// [Unavailable] answers so then. Neither matches [context.DeadlineExceeded], which
// is a query that took too long.
//
// # When the client has gone
//
// Then the server ends the request's ctx: calls that are queued do not run, and
// those that run are interrupted, where [asyncsync.Interrupt] says how. Over
// HTTP/1 the server notices only once the body of the request has been read.
//
// # Work that outlives the request
//
// A task that was started with the request's ctx is part of the request: the
// answer ends when it has ended. What goes on behind the answer is started with a
// [Background], whose Shutdown waits for it when the server stops.
//
// The idea, a thread for each request, is that of asgiref's
// ThreadSensitiveContext, which Django's ASGI handler enters for each request.
package web
