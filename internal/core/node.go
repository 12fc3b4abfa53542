package core

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A Node is one entry of the call tree: a task, a call, or a group. Contexts
// carry it, and everything started with such a context is its child.
//
// A node is related to a frame when the frame waits for the node, for one of
// its ancestors, or for something that waits for one of these. Relation is
// looked up from the node upwards, so that submitting costs nothing for the
// number of frames, strangers or siblings: see [Thread.frameFor].
type Node struct {
	// parent is compressed past nodes that have ended when a child is added,
	// so that a chain of tasks each starting the next does not keep its
	// ancestors in memory for ever.
	parent atomic.Pointer[Node]

	// frame is the frame that waits for this node from birth. It is set before
	// the node is shared, and never changes.
	frame *Frame

	// raised is the panic that was last re-raised on the goroutine of this
	// node. Only that goroutine touches it.
	raised *Panic

	// life is that of the nearest task that n belongs to, n's own if n is a
	// task. Set before the node is shared.
	life *life

	// waits is what the goroutine that runs as this node waits for, nil while
	// it waits for nothing. Only that goroutine writes it. Who reads more of it
	// than whether it is nil holds cycles: see [edge].
	waits atomic.Pointer[edge]

	mu    sync.Mutex           // guards the list of joins; a leaf lock
	joins atomic.Pointer[Join] // the first; read without mu to see that there is none

	// born is the epoch that parent was in when this node was made. It is not
	// written in one step with parent, so that it may be that of another
	// parent for a moment: good enough for reports, the only ones to look.
	born atomic.Uint32

	// holder says that who runs as n has something of a pool: see Above.
	holder atomic.Bool

	// state counts, in its lower half, the functions that now run as this
	// node; zero means that the node has ended, or is a call's node that waits
	// to be used again. The upper half is the epoch: how many have begun. It
	// comes last because the thread writes it at every call, and callers read
	// the Ctx that lies before the node: see nodeCtx.
	state atomic.Uint64
}

// A Join says that somebody waits for a node: a node, a frame, or both. It is in
// the list of one node.
type Join struct {
	by    *Node
	frame *Frame

	prev, next *Join // guarded by the mu of that node
}

// setParent makes p the parent of n. Ancestors of p that have ended are cut
// out: nobody can wait for them any more.
func (n *Node) setParent(p *Node) {
	n.parent.Store(p)
	if p == nil {
		return
	}
	n.born.Store(p.epoch())
	n.life = p.life
	up := p.parent.Load()
	if up == nil || up.running() {
		return
	}
	born := p.born.Load()
	for up != nil && !up.running() {
		born = up.born.Load()
		up = up.parent.Load()
	}
	p.born.Store(born)
	p.parent.Store(up)
}

// Start marks the beginning of one run of a function as n.
func (n *Node) Start() { n.state.Add(1<<32 + 1) }

// End marks the end of one run.
func (n *Node) End() { n.state.Add(^uint64(0)) }

// running reports whether a function runs as n.
func (n *Node) running() bool { return uint32(n.state.Load()) != 0 }

// epoch returns that of the run which began last.
func (n *Node) epoch() uint32 { return uint32(n.state.Load() >> 32) }

// within reports whether a is n or an ancestor of n, looking at most limit
// steps up; the answer may be a false no.
func (n *Node) within(a *Node, limit int) bool {
	for ; n != nil && limit > 0; n, limit = n.parent.Load(), limit-1 {
		if n == a {
			return true
		}
	}
	return false
}

// addJoin records that j waits for n.
func (n *Node) addJoin(j *Join) {
	n.mu.Lock()
	defer n.mu.Unlock()
	j.next = n.joins.Load()
	if j.next != nil {
		j.next.prev = j
	}
	n.joins.Store(j)
}

// dropJoin forgets j, which was added.
func (n *Node) dropJoin(j *Join) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if j.next != nil {
		j.next.prev = j.prev
	}
	if j.prev != nil {
		j.prev.next = j.next
	} else {
		n.joins.Store(j.next)
	}
	j.prev, j.next = nil, nil
}

// waiters calls visit for every frame that waits for n, directly or through
// other nodes, until visit returns false. visit must take no lock.
//
// The walk goes up the parents and sideways along the joins. Parents alone
// cannot form a cycle; joins can (two tasks that wait for each other), so the
// nodes reached through them are remembered.
func (n *Node) waiters(visit func(*Frame) bool) {
	var todo []*Node // nodes reached through joins, visited ones included
	var seen map[*Node]struct{}
	next := 0
	reached := func(n *Node) bool {
		if seen == nil {
			return slices.Contains(todo, n)
		}
		_, ok := seen[n]
		return ok
	}
	for {
		for ; n != nil; n = n.parent.Load() {
			if n.frame != nil && !visit(n.frame) {
				return
			}
			if n.joins.Load() == nil {
				continue
			}
			more := true
			n.mu.Lock()
			for j := n.joins.Load(); j != nil && more; j = j.next {
				if j.frame != nil {
					more = visit(j.frame)
				}
				if j.by == nil || reached(j.by) {
					continue
				}
				todo = append(todo, j.by)
				if seen != nil {
					seen[j.by] = struct{}{}
				} else if len(todo) > 16 {
					seen = make(map[*Node]struct{})
					for _, n := range todo {
						seen[n] = struct{}{}
					}
				}
			}
			n.mu.Unlock()
			if !more {
				return
			}
		}
		if next == len(todo) {
			return
		}
		n, next = todo[next], next+1
	}
}

// name returns the name of the task that runs as n. What else runs as a node is known
// by name only to those who wait for it.
func (n *Node) name() string {
	if n != nil && n.life != nil && &n.life.own == n {
		return n.life.called()
	}
	return "a function"
}
