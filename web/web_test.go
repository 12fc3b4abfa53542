package web_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/petermattis/goid"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/task"
	"asyncsync.dev/web"
)

// onThread makes a call of the request and returns the goroutine that it ran on.
func onThread(ctx context.Context, opts ...asyncsync.Option) (int64, error) {
	return asyncsync.ToThread(ctx, func(context.Context) (int64, error) { return goid.Get(), nil }, opts...)
}

// A site is a server with a pool, and a client.
type site struct {
	*httptest.Server
	pool *asyncsync.ThreadPool
	log  *logged
}

// logged is an ErrorLog.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

type serving struct {
	pool  asyncsync.ThreadPoolConfig
	http2 bool
	opts  []web.Option
	wrap  func(http.Handler) http.Handler // around the middleware
}

// serve serves h behind a middleware until the test ends.
func serve(t *testing.T, c serving, h http.Handler) *site {
	t.Helper()
	s := &site{pool: asyncsync.NewThreadPool(c.pool), log: &logged{}}
	h = web.Middleware(append(c.opts, web.Pool(s.pool))...)(h)
	if c.wrap != nil {
		h = c.wrap(h)
	}
	s.Server = httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(s.log, "", 0)
	s.EnableHTTP2 = c.http2
	if c.http2 {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() {
		s.Client().CloseIdleConnections()
		s.Server.Close()
		require.NoError(t, s.pool.Close())
	})
	return s
}

// get returns what comes back.
func (s *site) get(t *testing.T, path string) (*http.Response, string) {
	t.Helper()
	resp, err := s.Client().Get(s.URL + path)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

// free waits until nobody has a thread of the pool.
func (s *site) free(t *testing.T) {
	t.Helper()
	testkit.Poll(t, func() string {
		if st := s.pool.Stats(); st.Threads != st.Idle || st.Waiting != 0 {
			return fmt.Sprintf("%+v", st)
		}
		return ""
	})
}

func unavailable(t *testing.T, resp *http.Response, retry string) {
	t.Helper()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Equal(t, retry, resp.Header.Get("Retry-After"))
}

// One thread for each request, another one for the next at the same time.
func TestThreadOfARequest(t *testing.T) {
	testkit.Guard(t)
	var both sync.WaitGroup
	both.Add(2)
	s := serve(t, serving{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first, err := onThread(r.Context())
		require.NoError(t, err)
		second, err := task.Go(r.Context(), func(ctx context.Context) (int64, error) { return onThread(ctx) }).Wait(r.Context())
		require.NoError(t, err)
		require.Equal(t, first, second)
		require.NotEqual(t, goid.Get(), first)
		both.Done()
		both.Wait()
		fmt.Fprint(w, first)
	}))
	seen := make(chan string, 2)
	for range 2 {
		go func() {
			_, body := s.get(t, "/")
			seen <- body
		}()
	}
	require.NotEqual(t, <-seen, <-seen)
	s.free(t)
}

func TestNoCallNoThread(t *testing.T) {
	testkit.Guard(t)
	s := serve(t, serving{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "x") }))
	s.get(t, "/")
	require.Zero(t, s.pool.Stats().Started)
}

// The name is that of the pattern, inside of a mux and around it.
func TestName(t *testing.T) {
	testkit.Guard(t)
	name := func(w http.ResponseWriter, r *http.Request) {
		asyncsync.ToThread(r.Context(), func(context.Context) (int, error) { return 0, nil })
	}
	for _, c := range []struct {
		opts       []web.Option
		path, want string
	}{
		{nil, "/notes/7", "GET /notes/{id}"},
		{nil, "/other", "/"},
		{[]web.Option{web.Name(func(r *http.Request) string { return "mine " + r.URL.Path })}, "/notes/7", "mine /notes/7"},
	} {
		names := make(chan string, 1)
		hooks := web.Context(asyncsync.WithHooks(asyncsync.Hooks{Ended: func(i asyncsync.CallInfo) { names <- i.Context }}))
		mux := http.NewServeMux()
		mux.HandleFunc("GET /notes/{id}", name)
		mux.HandleFunc("/", name)
		seen := make(chan string, 1)
		s := serve(t, serving{opts: append(c.opts, hooks), wrap: func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, r)
				seen <- r.Pattern
			})
		}}, mux)
		s.get(t, c.path)
		require.Equal(t, c.want, <-names)
		require.NotEmpty(t, <-seen, "who is outside learns of the pattern, as without the middleware")

		inner := web.Middleware(append(c.opts, hooks, web.Pool(s.pool))...)
		mux = http.NewServeMux()
		mux.Handle("GET /notes/{id}", inner(http.HandlerFunc(name)))
		mux.Handle("/", inner(http.HandlerFunc(name)))
		plain := httptest.NewServer(mux)
		resp, err := http.Get(plain.URL + c.path)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, c.want, <-names)
		plain.Close()
	}
	names := make(chan string, 1)
	s := serve(t, serving{opts: []web.Option{web.Context(asyncsync.WithHooks(asyncsync.Hooks{
		Ended: func(i asyncsync.CallInfo) { names <- i.Context },
	}))}}, http.HandlerFunc(name))
	s.get(t, "/a/b?c=d")
	require.Equal(t, "GET /a/b", <-names)
}

// However the handler ends, the thread is given back, and the server goes on as
// it does without the middleware.
func TestEndings(t *testing.T) {
	testkit.Guard(t)
	value := new(int)
	panics := make(chan any, 1)
	var s *site
	ctxs := make(chan context.Context, 1)
	s = serve(t, serving{wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				v := recover()
				panics <- v
				if v != nil {
					panic(v)
				}
			}()
			h.ServeHTTP(w, r)
		})
	}}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := onThread(r.Context())
		require.NoError(t, err)
		ctxs <- r.Context()
		switch r.URL.Path {
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/panic":
			panic(value)
		case "/goexit":
			runtime.Goexit()
		case "/thread": // from the thread of the request
			asyncsync.ToThread(r.Context(), func(context.Context) (int, error) { panic(value) })
		}
		fmt.Fprint(w, "fine")
	}))
	for path, want := range map[string]any{"/abort": http.ErrAbortHandler, "/panic": value, "/goexit": nil, "/thread": value} {
		_, err := s.Client().Get(s.URL + path)
		require.Error(t, err, path)
		require.True(t, want == <-panics, path)
		ctx := <-ctxs
		require.ErrorIs(t, context.Cause(ctx), web.ErrAborted, path)
		_, err = onThread(context.WithoutCancel(ctx))
		require.ErrorIs(t, err, asyncsync.ErrClosed, path)
		s.free(t)
	}
	_, body := s.get(t, "/")
	require.Equal(t, "fine", body)
	require.Nil(t, <-panics)
	ctx := <-ctxs
	require.Equal(t, context.Canceled, context.Cause(ctx), "a request that is over has ended, like those of the server")
	require.Contains(t, s.log.String(), "panic serving", "of those that are not ErrAbortHandler")
}

// The request lasts until its tasks have ended, and these may call the thread.
func TestTasksOfARequest(t *testing.T) {
	testkit.Guard(t)
	for _, kind := range []string{"task", "nested", "group", "queued", "task of a task"} {
		t.Run(kind, func(t *testing.T) {
			leave := make(chan struct{})
			left := make(chan error, 1)
			work := func(ctx context.Context) (int, error) {
				<-leave
				_, err := onThread(ctx)
				left <- err
				return 0, err
			}
			s := serve(t, serving{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx := r.Context()
				_, err := onThread(ctx)
				require.NoError(t, err)
				switch kind {
				case "task":
					task.Go(ctx, work)
				case "nested":
					inner, tsc := asyncsync.NewThreadSensitiveContext(ctx)
					task.Go(inner, func(ctx context.Context) (int, error) {
						defer tsc.Close()
						return work(ctx)
					})
				case "group":
					_, g := task.NewGroup(ctx)
					g.Go(func(ctx context.Context) error { _, err := work(ctx); return err })
				case "queued":
					asyncsync.Go(ctx, func(ctx context.Context) (int, error) {
						return asyncsync.FromThread(ctx, work)
					})
				case "task of a task":
					task.Go(ctx, func(ctx context.Context) (int, error) { task.Go(ctx, work); return 0, nil })
				}
				io.WriteString(w, "answer")
				http.NewResponseController(w).Flush()
			}))
			resp, err := s.Client().Get(s.URL)
			require.NoError(t, err)
			defer resp.Body.Close()
			answer := make([]byte, 6)
			_, err = io.ReadFull(resp.Body, answer)
			require.NoError(t, err)
			require.Equal(t, "answer", string(answer))
			require.NotEqual(t, 0, s.pool.Stats().Threads-s.pool.Stats().Idle, "the context is open")
			close(leave)
			require.NoError(t, <-left, "the task could call the thread")
			_, err = io.ReadAll(resp.Body)
			require.NoError(t, err)
			s.free(t)
		})
	}
}

// A handler that was aborted takes its tasks with it.
func TestTasksOfAnAbortedRequest(t *testing.T) {
	testkit.Guard(t)
	causes := make(chan error, 1)
	s := serve(t, serving{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := make(chan struct{})
		task.Go(r.Context(), func(ctx context.Context) (int, error) {
			close(begun)
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return 0, nil
		})
		<-begun
		panic(http.ErrAbortHandler)
	}))
	_, err := s.Client().Get(s.URL)
	require.Error(t, err)
	require.ErrorIs(t, <-causes, web.ErrAborted)
}

// A full pool: no place in line, or not for long.
func TestFullPool(t *testing.T) {
	testkit.Guard(t)
	for _, c := range []struct {
		name string
		pool asyncsync.ThreadPoolConfig
		want error
	}{
		{"no line", asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWaiting: -1}, asyncsync.ErrPoolFull},
		{"no patience", asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWait: 10 * time.Millisecond}, asyncsync.ErrPoolFull},
	} {
		t.Run(c.name, func(t *testing.T) {
			begun, leave := make(chan struct{}, 1), make(chan struct{})
			entered := 0
			s := serve(t, serving{pool: c.pool, opts: []web.Option{web.RetryAfter(2500 * time.Millisecond)}},
				http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					entered++ // by one at a time: the race detector tells
					asyncsync.ToThread(r.Context(), func(context.Context) (int, error) {
						begun <- struct{}{}
						<-leave
						return 0, nil
					})
				}))
			first := make(chan int, 1)
			go func() {
				resp, _ := s.get(t, "/")
				first <- resp.StatusCode
			}()
			<-begun
			for range 3 {
				resp, body := s.get(t, "/")
				unavailable(t, resp, "3")
				require.Contains(t, body, "please try again later")
			}
			close(leave)
			require.Equal(t, 200, <-first)
			require.Equal(t, 1, entered, "who is refused has not come to the handler")
			s.free(t)
		})
	}
}

// Who has a place in line gets a thread.
func TestLineOfAFullPool(t *testing.T) {
	testkit.Guard(t)
	begun, leave := make(chan struct{}, 9), make(chan struct{})
	s := serve(t, serving{pool: asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWaiting: 2, MaxWait: time.Minute}},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asyncsync.ToThread(r.Context(), func(context.Context) (int, error) {
				begun <- struct{}{}
				<-leave
				return 0, nil
			})
		}))
	statuses := make(chan int, 3)
	for i := range 3 {
		go func() {
			resp, _ := s.get(t, "/")
			statuses <- resp.StatusCode
		}()
		if i == 0 {
			<-begun
		}
	}
	testkit.Poll(t, func() string {
		if n := s.pool.Stats().Waiting; n != 2 {
			return fmt.Sprintf("%d in line", n)
		}
		return ""
	})
	resp, _ := s.get(t, "/")
	unavailable(t, resp, "1")
	close(leave)
	for range 3 {
		require.Equal(t, 200, <-statuses)
	}
}

// A handle with a bounded queue, and the deadline of a query beside it.
func TestFullQueue(t *testing.T) {
	testkit.Guard(t)
	db, err := asyncsync.Open(context.Background(), func(context.Context) (int, error) { return 1, nil }, nil,
		asyncsync.QueueLimit(1), asyncsync.QueueWait(10*time.Millisecond))
	require.NoError(t, err)
	defer db.Close()
	s := serve(t, serving{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if r.URL.Path == "/deadline" {
			var cancel func()
			ctx, cancel = context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
		}
		err := db.Do(ctx, func(context.Context, int) error { return nil })
		switch {
		case web.Unavailable(w, r, err):
		case errors.Is(err, context.DeadlineExceeded):
			http.Error(w, "too slow", http.StatusGatewayTimeout)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	resp, _ := s.get(t, "/")
	require.Equal(t, 200, resp.StatusCode)
	begun, leave := make(chan struct{}), make(chan struct{})
	busy := make(chan error, 1)
	go func() {
		busy <- db.Do(context.Background(), func(context.Context, int) error { close(begun); <-leave; return nil })
	}()
	<-begun
	resp, _ = s.get(t, "/") // waits for its turn, not for ever
	unavailable(t, resp, "1")
	resp, _ = s.get(t, "/deadline")
	require.Equal(t, http.StatusGatewayTimeout, resp.StatusCode)
	close(leave)
	require.NoError(t, <-busy)
	resp, _ = s.get(t, "/")
	require.Equal(t, 200, resp.StatusCode)
}

func TestPoolIsClosed(t *testing.T) {
	testkit.Guard(t)
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
	got := make(chan error, 1)
	s := httptest.NewServer(web.Middleware(web.Pool(pool))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := onThread(r.Context())
		got <- err
	})))
	defer s.Close()
	require.NoError(t, pool.Close())
	resp, err := http.Get(s.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.ErrorIs(t, <-got, asyncsync.ErrClosed)
}

// The client goes: what runs is interrupted, over both versions of HTTP.
func TestClientGone(t *testing.T) {
	testkit.Guard(t)
	for _, http2 := range []bool{false, true} {
		begun, ended := make(chan string, 1), make(chan error, 2)
		s := serve(t, serving{http2: http2}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			stop := make(chan struct{})
			queued := task.Go(r.Context(), func(ctx context.Context) (int, error) {
				<-stop
				_, err := onThread(ctx)
				return 0, err
			})
			_, err := asyncsync.ToThread(r.Context(), func(ctx context.Context) (int, error) {
				begun <- r.Proto
				<-stop // as a query does that knows nothing of ctx
				return 0, context.Cause(ctx)
			}, asyncsync.InterruptOnce(func() { close(stop) }))
			ended <- err
			_, err = queued.Wait(context.Background())
			ended <- err
		}))
		ctx, cancel := context.WithCancel(context.Background())
		req, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
		require.NoError(t, err)
		go func() {
			proto := <-begun
			require.Equal(t, http2, proto == "HTTP/2.0")
			cancel()
		}()
		_, err = s.Client().Do(req)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, <-ended, context.Canceled)
		require.ErrorIs(t, <-ended, context.Canceled)
		s.free(t)
	}
}

// The writer is the server's own.
func TestResponseWriter(t *testing.T) {
	testkit.Guard(t)
	for _, http2 := range []bool{false, true} {
		next := make(chan struct{})
		s := serve(t, serving{http2: http2}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := http.NewResponseController(w)
			require.NoError(t, c.SetWriteDeadline(time.Now().Add(time.Minute)))
			require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
			_, flusher := w.(http.Flusher)
			require.True(t, flusher)
			_, hijacker := w.(http.Hijacker)
			require.Equal(t, !http2, hijacker)
			for i := range 3 {
				n, err := asyncsync.ToThread(r.Context(), func(context.Context) (int, error) { return i, nil })
				require.NoError(t, err)
				fmt.Fprintln(w, n)
				require.NoError(t, c.Flush())
				<-next
			}
		}))
		resp, err := s.Client().Get(s.URL)
		require.NoError(t, err)
		lines := bufio.NewReader(resp.Body)
		for i := range 3 {
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintln(i), line)
			next <- struct{}{}
		}
		resp.Body.Close()
		s.free(t)
	}
}

// A connection that is taken over, as a websocket is, keeps its thread as long as
// its handler runs.
func TestHijack(t *testing.T) {
	testkit.Guard(t)
	s := serve(t, serving{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		require.NoError(t, err)
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		rw.Flush()
		var thread int64
		for {
			line, err := rw.ReadString('\n')
			if err != nil {
				return
			}
			gid, err := onThread(r.Context())
			require.NoError(t, err)
			require.True(t, thread == 0 || thread == gid)
			thread = gid
			rw.WriteString(line)
			rw.Flush()
		}
	}))
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	require.NoError(t, err)
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	for i := range 100 {
		fmt.Fprintln(conn, i)
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintln(i), line)
	}
	require.Equal(t, 1, s.pool.Stats().Threads-s.pool.Stats().Idle)
	require.NoError(t, conn.Close())
	s.free(t)
}

// A TimeoutHandler around: its answer, and the request's ctx ends.
func TestTimeoutHandlerAround(t *testing.T) {
	testkit.Guard(t)
	errs := make(chan error, 1)
	s := serve(t, serving{wrap: func(h http.Handler) http.Handler { return http.TimeoutHandler(h, 10*time.Millisecond, "too slow") }},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			stop := make(chan struct{})
			_, err := asyncsync.ToThread(r.Context(), func(ctx context.Context) (int, error) {
				<-stop
				return 0, ctx.Err()
			}, asyncsync.InterruptOnce(func() { close(stop) }))
			require.False(t, web.Unavailable(w, r, err))
			errs <- err
		}))
	resp, body := s.get(t, "/")
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Equal(t, "too slow", body)
	require.ErrorIs(t, <-errs, context.DeadlineExceeded)
	s.free(t)
}

// A TimeoutHandler inside: its answer is sent though the handler that it has given
// up has a call that does not end; that keeps the thread, and gives it back.
func TestTimeoutHandlerInside(t *testing.T) {
	testkit.Guard(t)
	leave, ended := make(chan struct{}), make(chan error, 2)
	s := serve(t, serving{}, http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := asyncsync.ToThread(r.Context(), func(context.Context) (int, error) { <-leave; return 0, nil })
		ended <- err
		// The answer is sent before the context is closed.
		for err = nil; err == nil; _, err = onThread(context.WithoutCancel(r.Context())) {
			runtime.Gosched()
		}
		ended <- err
	}), 10*time.Millisecond, "too slow"))
	resp, body := s.get(t, "/")
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Equal(t, "too slow", body)
	require.Equal(t, 1, s.pool.Stats().Threads-s.pool.Stats().Idle)
	close(leave)
	require.NoError(t, <-ended)
	require.ErrorIs(t, <-ended, asyncsync.ErrClosed)
	s.free(t)

	quick := serve(t, serving{}, http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := onThread(r.Context())
		require.NoError(t, err)
		fmt.Fprint(w, "in time")
	}), time.Minute, "too slow"))
	_, body = quick.get(t, "/")
	require.Equal(t, "in time", body)
}

// The files of a form that the handler has parsed are removed, as without the
// middleware.
func TestMultipartFiles(t *testing.T) {
	testkit.Guard(t)
	names := make(chan string, 1)
	s := serve(t, serving{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.NoError(t, r.ParseMultipartForm(1))
		f, _, err := r.FormFile("file")
		require.NoError(t, err)
		defer f.Close()
		names <- f.(*os.File).Name()
	}))
	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	part, err := m.CreateFormFile("file", "name")
	require.NoError(t, err)
	part.Write(make([]byte, 1<<20))
	require.NoError(t, m.Close())
	resp, err := s.Client().Post(s.URL, m.FormDataContentType(), &form)
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	name := <-names
	testkit.Poll(t, func() string {
		if _, err := os.Stat(name); err == nil {
			return name + " is still there"
		}
		return ""
	})
}

// What the end of a thread comes to is in the server's log.
func TestExitFailure(t *testing.T) {
	testkit.Guard(t)
	s := serve(t, serving{opts: []web.Option{web.Context(asyncsync.OnThreadExit(func() { panic("lost") }))}},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { onThread(r.Context()) }))
	s.get(t, "/x")
	testkit.Poll(t, func() string {
		if text := s.log.String(); !strings.Contains(text, "web: closing the context of GET /x: ") || !strings.Contains(text, "lost") {
			return "the log is " + text
		}
		return ""
	})
}

// Inside of another middleware the request keeps its thread.
func TestNestedMiddleware(t *testing.T) {
	testkit.Guard(t)
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWaiting: -1})
	defer pool.Close()
	s := serve(t, serving{pool: asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWaiting: -1}, wrap: func(h http.Handler) http.Handler {
		return web.Middleware(web.Pool(pool))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			outer, err := onThread(r.Context())
			require.NoError(t, err)
			h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), outerKey{}, outer)))
		}))
	}}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner, err := onThread(r.Context())
		require.NoError(t, err)
		require.Equal(t, r.Context().Value(outerKey{}), inner)
	}))
	resp, _ := s.get(t, "/")
	require.Equal(t, 200, resp.StatusCode)
}

type outerKey struct{}

func TestUnpinned(t *testing.T) {
	testkit.Guard(t)
	s := httptest.NewServer(web.Middleware(web.Context(asyncsync.Unpinned()))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := onThread(r.Context())
		require.NoError(t, err)
	})))
	defer s.Close()
	resp, err := http.Get(s.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
}

func TestMisuse(t *testing.T) {
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	var none context.Context
	for name, f := range map[string]func(){
		"nil option":       func() { web.Middleware(nil) },
		"nil handler":      func() { web.Middleware()(nil) },
		"nil pool":         func() { web.Pool(nil) },
		"nil name":         func() { web.Name(nil) },
		"nil ctx option":   func() { web.Context(nil) },
		"no time":          func() { web.RetryAfter(0) },
		"unpinned, pool":   func() { web.Middleware(web.Context(asyncsync.Unpinned()), web.Pool(pool)) },
		"nil function":     func() { new(web.Background).Go(context.Background(), nil) },
		"nil ctx":          func() { new(web.Background).Go(none, func(context.Context) {}) },
		"nil shutdown ctx": func() { new(web.Background).Shutdown(none) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				text := fmt.Sprint(recover())
				require.True(t, strings.HasPrefix(text, "web: "), text)
			}()
			f()
		})
	}
}

// However a task ends, and if it never began, the request comes to its end.
func TestEndingsOfTasks(t *testing.T) {
	testkit.Guard(t)
	begin := map[string]func(ctx context.Context){
		"return": func(ctx context.Context) { task.Go(ctx, func(context.Context) (int, error) { return 0, nil }) },
		"panic":  func(ctx context.Context) { task.Go(ctx, func(context.Context) (int, error) { panic("lost") }) },
		"goexit": func(ctx context.Context) {
			task.Go(ctx, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
		},
		"cancelled in the queue": func(ctx context.Context) {
			leave := make(chan struct{})
			asyncsync.Go(ctx, func(context.Context) (int, error) { <-leave; return 0, nil })
			asyncsync.Go(ctx, func(context.Context) (int, error) { return 0, nil }).Cancel(nil)
			close(leave)
		},
		"refused": func(ctx context.Context) {
			inner, tsc := asyncsync.NewThreadSensitiveContext(ctx)
			tsc.Close()
			asyncsync.Go(inner, func(context.Context) (int, error) { return 0, nil })
		},
		"with an ended ctx": func(ctx context.Context) {
			ended, cancel := context.WithCancel(ctx)
			cancel()
			task.Go(ended, func(context.Context) (int, error) { return 0, nil })
			asyncsync.Go(ended, func(context.Context) (int, error) { return 0, nil })
		},
		"a hook panics": func(ctx context.Context) {
			remove := asyncsync.AddHooks(asyncsync.Hooks{Queued: func(asyncsync.CallInfo) { panic("hook") }})
			defer remove()
			defer func() { recover() }()
			task.Go(ctx, func(context.Context) (int, error) { return 0, nil })
		},
	}
	s := serve(t, serving{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin[r.URL.Query().Get("how")](r.Context())
		fmt.Fprint(w, "fine")
	}))
	for how := range begin {
		_, body := s.get(t, "/?how="+url.QueryEscape(how))
		require.Equal(t, "fine", body, how)
		s.free(t)
	}
}
