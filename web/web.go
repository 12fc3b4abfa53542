package web

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"strconv"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
)

// The bounds of the pool of a [Middleware] without [Pool], in addition to the
// defaults of [asyncsync.ThreadPoolConfig].
const (
	defaultMaxWaiting = 256
	defaultMaxWait    = 5 * time.Second
	defaultRetryAfter = time.Second
)

// ErrAborted is the cause of the ctx of a request whose handler has panicked or
// called [runtime.Goexit].
var ErrAborted = errors.New("web: the handler was aborted")

// An Option configures [Middleware].
type Option func(*middleware)

// Pool makes requests take their threads from p. Without it, all handlers of
// one [Middleware] share a pool of their own with at most 128 threads, in which
// 256 requests may wait in line for at most 5 seconds. In a pool without
// MaxWaiting and MaxWait, requests wait as long as their clients do.
func Pool(p *asyncsync.ThreadPool) Option {
	if p == nil {
		panic("web: Pool: nil ThreadPool; without this option there is a pool already")
	}
	return func(m *middleware) { m.opts = append(m.opts, asyncsync.WithPool(p)) }
}

// Name sets the function that names the context of a request. It must be safe
// for concurrent use. The default is the pattern that the request has matched,
// or will match if the handler is an [http.ServeMux], and otherwise its method
// and path.
func Name(name func(*http.Request) string) Option {
	if name == nil {
		panic("web: Name: nil function")
	}
	return func(m *middleware) { m.name = name }
}

// Context adds opts to the contexts of requests: exit functions, hooks, a queue
// limit. With [asyncsync.Unpinned] they take no threads, so the pool is never
// full. Options of one Middleware apply in order; the last one counts.
func Context(opts ...asyncsync.ContextOption) Option {
	for _, o := range opts {
		if o == nil {
			panic("web: Context: nil ContextOption")
		}
	}
	return func(m *middleware) { m.opts = append(m.opts, opts...) }
}

// RetryAfter sets when a refused client should try again. The default is one
// second. It is sent in whole seconds, rounded up. d must be positive.
func RetryAfter(d time.Duration) Option {
	if d <= 0 {
		panic("web: RetryAfter: the time must be positive")
	}
	return func(m *middleware) { m.retry = d }
}

// A middleware is what the handlers of one Middleware share. It never changes.
type middleware struct {
	opts  []asyncsync.ContextOption
	pool  *core.Pool // nil if contexts are unpinned
	name  func(*http.Request) string
	retry time.Duration
}

// Middleware returns a function that wraps handlers. Each request gets an
// [asyncsync.ThreadSensitiveContext], which the handler finds in the request's
// ctx. The returned function may wrap many handlers, which share the pool.
// Inside another wrapped handler, or any other context, the request uses the
// thread of that context.
//
// Wrap handlers before they are added to a mux, or wrap the mux, but nothing
// larger: then requests get the best names, and handlers that need no thread
// (files, health checks) need not wait for one when the pool is full.
//
// While the pool is full, a request waits in line before its handler begins. If the
// pool refuses it, or ends, the answer is 503 Service Unavailable with Retry-After. If
// the request's ctx ends first, the answer is 504 Gateway Timeout after a deadline, and
// else 503 without Retry-After: more room would not have helped.
//
// When the handler has returned, the tasks that were started with the request's
// ctx are waited for and not cancelled; they may still call the thread. A task
// that waits for the end of that ctx would wait for itself: give it a ctx that
// the handler ends. If the handler panics or calls [runtime.Goexit], the ctx
// ends first, with [ErrAborted] as its cause; the panic continues when the
// tasks have ended. Two kinds of calls are not waited for: those of plain
// goroutines that the handler has left behind, such as a handler that
// [http.TimeoutHandler] has given up, and those that the handler has abandoned
// with [asyncsync.Abandon]. Such a call keeps its thread of the pool until it has
// ended. In any case the ctx ends with the request.
//
// A wrapped handler may be called from anywhere. A thread serves while it waits
// for the tasks, and a task of a thread loop is parked. If a task waits for the
// caller of the handler, one of the two waits is refused, with an error that
// matches [asyncsync.dev/deadlock.ErrDeadlock]. If that is the wait for the
// tasks, their ctx ends with the error, and tasks that go on are left behind.
//
// Failures of [asyncsync.OnThreadExit] functions and refused waits go to the ErrorLog
// of the server.
func Middleware(opts ...Option) func(http.Handler) http.Handler {
	m := &middleware{retry: defaultRetryAfter}
	for _, o := range opts {
		if o == nil {
			panic("web: Middleware: nil Option")
		}
		o(m)
	}
	m.prepare()
	return func(next http.Handler) http.Handler {
		if next == nil {
			panic("web: Middleware: nil Handler")
		}
		return &handler{m, next}
	}
}

// prepare checks once that the options of the contexts fit together, and makes
// the pool if they name none.
func (m *middleware) prepare() {
	var cfg core.Config
	for _, o := range m.opts {
		o(&cfg)
	}
	if cfg.Unpinned && cfg.Pool != nil {
		panic("web: Middleware: an Unpinned context takes no thread from a pool: leave Pool out")
	}
	if cfg.Unpinned {
		return
	}
	if cfg.Pool == nil {
		o := asyncsync.WithPool(asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{
			MaxWaiting: defaultMaxWaiting, MaxWait: defaultMaxWait,
		}))
		m.opts = append(m.opts, o)
		o(&cfg)
	}
	m.pool = cfg.Pool
}

// A handler is a wrapped handler.
type handler struct {
	*middleware
	next http.Handler
}

// routing is implemented by [http.ServeMux].
type routing interface {
	Handler(*http.Request) (h http.Handler, pattern string)
}

func (h *handler) nameOf(r *http.Request) string {
	if h.name != nil {
		return h.name(r)
	}
	pattern := r.Pattern
	if mux, ok := h.next.(routing); ok {
		if _, inner := mux.Handler(r); inner != "" {
			pattern = inner
		}
	}
	if pattern == "" {
		pattern = r.Method + " " + r.URL.Path
	}
	return pattern
}

// A request is what the ctx of a request carries for the middleware.
type request struct {
	*middleware
	name string
}

type requestKey struct{}

func requestOf(ctx context.Context) *request {
	q, _ := ctx.Value(requestKey{}).(*request)
	return q
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := &request{h.middleware, h.nameOf(r)}
	inside := core.ScopeOf(r.Context()) != nil
	q.within(context.WithValue(r.Context(), requestKey{}, q), q.name, func(ctx context.Context) {
		if q.pool != nil && !inside && q.pool.Full() {
			// Wait in line before the handler begins, while a status can still
			// refuse the request. A request that finds no place here may still get
			// a thread later: the handler's calls decide.
			_, err := asyncsync.ToThread(ctx, admit, asyncsync.Named("admission"))
			if err != nil {
				q.turnAway(w, ctx, err)
				return
			}
		}
		in := r.WithContext(ctx)
		defer func() {
			// The server, and handlers around this one, read these from the request
			// that they know: the server removes the files of the form.
			r.Pattern = in.Pattern
			if in.MultipartForm != nil {
				r.MultipartForm = in.MultipartForm
			}
		}()
		h.next.ServeHTTP(w, in)
	})
}

// turnAway answers a request whose handler has not begun because of err. Only overload
// and the end of a pool are what Retry-After is for.
func (q *request) turnAway(w http.ResponseWriter, ctx context.Context, err error) {
	switch {
	case overloaded(err) || errors.Is(err, asyncsync.ErrClosed):
		q.refuse(w, err)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		answer(w, http.StatusGatewayTimeout, "the time of the request was over before its turn came")
	case ctx.Err() != nil:
		answer(w, http.StatusServiceUnavailable, "the request was cancelled before its turn came")
	default:
		logf(ctx, "web: admission of %s: %v", q.name, err)
		answer(w, http.StatusInternalServerError, "the request could not begin")
	}
}

// overloaded reports whether err says that there is too much to do.
func overloaded(err error) bool {
	return errors.Is(err, asyncsync.ErrPoolFull) || errors.Is(err, asyncsync.ErrQueueFull)
}

func answer(w http.ResponseWriter, status int, text string) {
	http.Error(w, fmt.Sprintf("%s: %s", http.StatusText(status), text), status)
}

func admit(context.Context) (struct{}, error) { return struct{}{}, nil }

// within calls fn with a ctx that carries a new context. It closes the context
// when fn and the tasks in it have ended.
func (m *middleware) within(ctx context.Context, name string, fn func(context.Context)) {
	tasks := &core.Tasks{}
	ctx, cancel := tasks.Begin(ctx)
	defer tasks.End()
	opts := append(m.opts[:len(m.opts):len(m.opts)], asyncsync.WithName(name),
		func(c *core.Config) { c.Tasks = tasks })
	inner, tsc := asyncsync.NewThreadSensitiveContext(ctx, opts...)
	defer func() {
		cancel(nil)
		// What still runs was left behind by plain goroutines and need not be
		// waited for: an answer of http.TimeoutHandler should be sent now.
		if s := tsc.Stats(); s.Running || s.Queued > 0 {
			go end(ctx, name, tsc)
		} else {
			end(ctx, name, tsc)
		}
	}()
	returned := false
	defer func() {
		if !returned {
			cancel(ErrAborted)
		}
		join(ctx, name, tasks, cancel)
	}()
	fn(inner)
	returned = true
}

// join waits for tasks, those of the context called name. If that could never end,
// it cancels them, and waits once more for those that end then.
func join(ctx context.Context, name string, tasks *core.Tasks, cancel context.CancelCauseFunc) {
	waited := false
	defer func() {
		if waited {
			return
		}
		// A Goexit of a call that the wait has served passes through. A panic says that
		// the caller cannot wait here, now or later.
		v := recover()
		cancel(ErrAborted)
		if v != nil {
			panic(v)
		}
		join(ctx, name, tasks, cancel)
	}()
	err := tasks.Wait()
	if err != nil {
		logf(ctx, "web: waiting for the tasks of %s: %v", name, err)
		cancel(err)
		err = tasks.Wait()
	}
	if err != nil {
		logf(ctx, "web: leaving tasks of %s behind: %v", name, err)
	}
	waited = true
}

func end(ctx context.Context, name string, tsc *asyncsync.ThreadSensitiveContext) {
	if err := tsc.Close(); err != nil {
		logf(ctx, "web: closing the context of %s: %v", name, err)
	}
}

// logf logs as net/http does.
func logf(ctx context.Context, format string, args ...any) {
	if s, _ := ctx.Value(http.ServerContextKey).(*http.Server); s != nil && s.ErrorLog != nil {
		s.ErrorLog.Printf(format, args...)
	} else {
		log.Printf(format, args...)
	}
}

// Unavailable answers a request that could not be served because of overload:
// if err matches [asyncsync.ErrPoolFull] or [asyncsync.ErrQueueFull], it
// answers with 503 Service Unavailable and Retry-After, and returns true.
// Otherwise it writes nothing and returns false. A handler that has begun its
// answer must not call it.
//
//	if web.Unavailable(w, r, err) {
//		return
//	}
func Unavailable(w http.ResponseWriter, r *http.Request, err error) bool {
	if !overloaded(err) {
		return false
	}
	m := &middleware{retry: defaultRetryAfter}
	if q := requestOf(r.Context()); q != nil {
		m = q.middleware
	}
	m.refuse(w, err)
	return true
}

// refuse answers a request that was not admitted. The reason is for the
// client's log: it names no function and no file.
func (m *middleware) refuse(w http.ResponseWriter, err error) {
	seconds := (m.retry + time.Second - 1) / time.Second
	w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	text := "too much to do; please try again later"
	if errors.Is(err, asyncsync.ErrClosed) {
		text = "about to stop; please try again later"
	}
	answer(w, http.StatusServiceUnavailable, text)
}
