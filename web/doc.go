// Package web gives each request of a net/http server a thread: calls that its
// handler makes with the request's ctx run on one OS thread, one at a time,
// while other requests run on threads of their own.
//
//	mw := web.Middleware()
//	mux.Handle("GET /pages/{name}", mw(pages))
//
// [Middleware] makes an [asyncsync.ThreadSensitiveContext] for each request,
// named after the pattern that the request has matched. It closes the context
// when the handler, and the tasks that were started with the request's ctx,
// have ended. A request that makes no thread-sensitive call takes no thread,
// unless the pool is full when the request comes: then it waits for one, see
// Overload. The handler runs on the goroutine of the server with the server's
// own [http.ResponseWriter]. So Flush, Hijack, [http.ResponseController],
// HTTP/2, [http.TimeoutHandler] and [http.ErrAbortHandler] work as usual.
//
// # Overload
//
// The pool that the threads come from bounds how many requests run at a time,
// how many wait in line, and for how long: MaxThreads, MaxWaiting and MaxWait
// of [asyncsync.ThreadPoolConfig]. If the pool is full, a request waits in line
// before its handler begins. If the line is too long or the wait takes too
// long, it is answered with 503 Service Unavailable and Retry-After.
//
// A call that a handler makes may be refused in the same way, with
// [asyncsync.ErrPoolFull], or by a [asyncsync.Handle] with QueueLimit or
// QueueWait, with [asyncsync.ErrQueueFull]. [Unavailable] answers such a
// request. Neither error matches [context.DeadlineExceeded], which stands for
// an operation that took too long.
//
// # When the client has gone
//
// When a client disconnects, the server ends the request's ctx: queued calls do
// not run, and running calls are interrupted if they have an
// [asyncsync.Interrupt] option. Over HTTP/1 the server notices only once the
// body of the request has been read.
//
// # Work that outlives the request
//
// A task that was started with the request's ctx is part of the request: the
// answer is complete when the task has ended. For work that continues after the
// answer, use a [Background]. Its Shutdown waits for the work when the server
// stops.
//
// The idea of a thread for each request is asgiref's: Django's ASGI handler
// enters a ThreadSensitiveContext for each request.
package web
