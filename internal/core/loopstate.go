package core

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
)

// A LoopState is what one thread loop did at one moment.
type LoopState struct {
	ID        uint64 // never used again in the process
	Name      string
	OSThread  int64
	Goroutine int64 // that has called Run

	// Running is what runs, nil if nothing does. Turn is another one for each time
	// that something gets to run.
	Running *LoopTask
	Turn    [2]uint64
	Ready   int        // tasks and functions that have to wait until Running lets them run
	Waiting []LoopTask // tasks that wait for something, the first of them
	Tasks   int        // that have begun and not ended
}

// A LoopTask is one task of a loop.
type LoopTask struct {
	Goroutine int64
	Name      string
	Wait      *WaitState // nil for a wait that this module does not know; of what runs, one that blocks the loop
}

// A runningLoop is a thread loop that somebody runs.
type runningLoop struct {
	id       uint64
	name     string
	loop     *sched.Loop
	gid, tid int64
}

// runningLoops are those that there are. A leaf lock.
var runningLoops struct {
	sync.Mutex
	all map[*runningLoop]struct{}
}

var loopIDs atomic.Uint64

// EnlistLoop makes known that the calling goroutine, which is locked to its OS
// thread, runs l, until over is called.
func EnlistLoop(name string, l *sched.Loop) (over func()) {
	r := &runningLoop{loopIDs.Add(1), name, l, goroutine.ID(), osThread()}
	runningLoops.Lock()
	if runningLoops.all == nil {
		runningLoops.all = map[*runningLoop]struct{}{}
	}
	runningLoops.all[r] = struct{}{}
	runningLoops.Unlock()
	return func() {
		runningLoops.Lock()
		delete(runningLoops.all, r)
		runningLoops.Unlock()
	}
}

// graphTasks is how many tasks of a loop a graph names.
const graphTasks = 16

// loops adds the loops.
func (v *view) loops() {
	runningLoops.Lock()
	all := make([]*runningLoop, 0, len(runningLoops.all))
	for r := range runningLoops.all {
		all = append(all, r)
	}
	runningLoops.Unlock()
	slices.SortFunc(all, func(a, b *runningLoop) int { return cmp.Compare(a.id, b.id) })
	for _, r := range all {
		s := LoopState{ID: r.id, Name: r.name, OSThread: r.tid, Goroutine: r.gid}
		var nodes []*Node
		r.loop.Look(graphTasks, func(k sched.Look) {
			s.Ready, s.Tasks = k.Ready, k.Tasks
			add := func(t *sched.Task) LoopTask {
				name, n := title(t)
				nodes = append(nodes, n)
				return LoopTask{Goroutine: t.Goroutine(), Name: name}
			}
			if k.Now != nil {
				now := add(k.Now)
				s.Running, s.Turn = &now, [2]uint64{uint64(uintptr(unsafe.Pointer(k.Now))), k.Turn}
			}
			for _, t := range k.Waiting {
				s.Waiting = append(s.Waiting, add(t))
			}
		})
		// No lock of the loop is held: what a wait is for may be on a thread.
		v.part(func() {
			wait := func(n *Node, t *LoopTask) {
				if n == nil {
					return
				}
				if e := n.waits.Load(); e != nil && e.kind() != "" {
					t.Wait = v.state(e, "")
				}
			}
			if s.Running != nil {
				wait(nodes[0], s.Running)
				nodes = nodes[1:]
			}
			for i := range s.Waiting {
				wait(nodes[i], &s.Waiting[i])
			}
		})
		v.g.Loops = append(v.g.Loops, s)
	}
}
