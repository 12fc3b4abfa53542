package loop

import (
	"context"
	"runtime/pprof"
	"sync"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/sched"
)

// goroutines is the Backend with a goroutine for each task.
type goroutines struct {
	name    string
	home    core.Home
	posted  core.Posting // what runs posted functions, which is no task
	labels  context.Context
	alive   context.Context
	endLife context.CancelCauseFunc
	done    chan struct{}

	mu       sync.Mutex  // guards what follows; a leaf
	begun    bool        // Run has been called
	refusing bool        // nothing new is accepted
	held     []*core.Job // waiting for Run
	posts    []func()    // that have not begun
	posting  bool        // a goroutine runs posts
	tasks    sched.List  // that have begun and not ended
	running  int         // goroutines of tasks, and the one that runs posts
	quiet    chan struct{}
}

// Goroutines returns a backend whose tasks are goroutines. They run
// concurrently, and a task that waits blocks no other. Posted functions run one
// after another, on a goroutine that is no task.
//
// Each call returns a new backend. [Run] waits for the tasks of the backend it
// is given, not for those of others.
func Goroutines(opts ...Option) Backend {
	g := &goroutines{name: named("goroutines", opts), done: make(chan struct{})}
	g.labels = pprof.WithLabels(context.Background(), pprof.Labels("asyncsync.loop", g.name))
	g.alive, g.endLife = context.WithCancelCause(context.Background())
	g.home = core.Home{Loop: g, Backend: goroutineTasks{g}, Stopped: ErrStopped}
	g.posted.Home = &g.home
	return g
}

// String returns the name of the backend.
func (g *goroutines) String() string { return g.name }

// Post implements [Poster].
func (g *goroutines) Post(fn func()) error {
	checkPost(fn)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refusing {
		return ErrStopped
	}
	g.posts = append(g.posts, fn)
	g.drainLocked()
	return nil
}

// Done implements [Loop].
func (g *goroutines) Done() <-chan struct{} { return g.done }

// Spawn implements [Backend].
func (g *goroutines) Spawn(ctx context.Context, fn func(context.Context)) error {
	return spawn(g, ctx, fn)
}

// Park implements [Backend].
func (g *goroutines) Park(ctx context.Context, arm func(wake func())) error {
	return park(ctx, arm)
}

func (g *goroutines) at() *core.Home { return &g.home }

// goroutineTasks is the core.Backend of goroutines.
type goroutineTasks struct{ *goroutines }

// Life implements [core.Backend].
func (g goroutineTasks) Life() context.Context { return g.alive }

// Start implements [core.Backend].
func (g goroutineTasks) Start(j *core.Job) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.refusing:
		return ErrStopped
	case !g.begun:
		g.held = append(g.held, j)
	default:
		g.goLocked(j)
	}
	return nil
}

// goLocked starts the goroutine of j.
func (g *goroutines) goLocked(j *core.Job) {
	g.running++
	go g.task(j)
}

func (g *goroutines) task(j *core.Job) {
	pprof.SetGoroutineLabels(g.labels)
	defer g.left()
	if !g.enter(j) {
		j.Body.Refused()
		return
	}
	defer g.leave(j)
	j.RunOwn()
}

// enter adds j to the running tasks, unless the backend stops.
func (g *goroutines) enter(j *core.Job) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refusing {
		return false
	}
	g.tasks.Add(&j.Task)
	return true
}

func (g *goroutines) leave(j *core.Job) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tasks.Remove(&j.Task)
}

// left records that a goroutine has nothing more to do.
func (g *goroutines) left() {
	g.mu.Lock()
	g.running--
	quiet := g.quiet
	over := quiet != nil && g.running == 0
	g.mu.Unlock()
	if over {
		close(quiet)
	}
}

// drainLocked starts the goroutine that runs posted functions.
func (g *goroutines) drainLocked() {
	if g.begun && !g.posting && len(g.posts) > 0 {
		g.posting = true
		g.running++
		go g.drain()
	}
}

func (g *goroutines) drain() {
	pprof.SetGoroutineLabels(g.labels)
	defer func() {
		g.mu.Lock()
		g.posting = false
		g.drainLocked() // if a Goexit left some
		g.mu.Unlock()
		g.left()
	}()
	for {
		g.mu.Lock()
		if len(g.posts) == 0 {
			g.posts = nil
			g.mu.Unlock()
			return
		}
		fn := g.posts[0]
		g.posts[0] = nil
		g.posts = g.posts[1:]
		g.mu.Unlock()
		runAlone(&g.posted, fn)
	}
}

// run runs the main task on the calling goroutine.
func (g *goroutines) run(_ context.Context, s *core.Solo) (end core.Ending, refusal error) {
	g.mu.Lock()
	if g.begun {
		g.mu.Unlock()
		s.Drop()
		return end, ErrStopped
	}
	g.begun = true
	held := g.held
	g.held = nil
	for _, j := range held {
		g.goLocked(j)
	}
	g.drainLocked()
	g.mu.Unlock()

	defer g.finish()
	if err := core.Ended(s.Ctx()); err != nil {
		s.Drop()
		return end, err
	}
	s.RunHere()
	return end, nil
}

// finish stops the backend and waits for everything that runs.
func (g *goroutines) finish() {
	g.mu.Lock()
	g.refusing = true
	var running []sched.Body
	g.tasks.All(func(t *sched.Task) bool {
		running = append(running, t.Body)
		return true
	})
	quiet := make(chan struct{})
	over := g.running == 0
	if !over {
		g.quiet = quiet
	}
	g.mu.Unlock()
	g.endLife(ErrStopped)
	for _, b := range running {
		b.Stop()
	}
	if !over {
		<-quiet
	}
	close(g.done)
}
