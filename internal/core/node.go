package core

import (
	"slices"

	"asyncsync.dev/internal/goroutine"
)

// setParent makes p the parent of n. It cuts out the nodes right above p as which no
// function runs now. A wait that is joined to such a node (see Region.TakeIn) is no
// longer found from p.
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

// epoch returns the number of the run that began last.
func (n *Node) epoch() uint32 { return uint32(n.state.Load() >> 32) }

// within reports whether a is n or an ancestor of n. It looks at no more than
// limit nodes, so false may be wrong.
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
// other nodes, until visit returns false. A frame may be visited more than once, and after
// it was popped: see Frame.live. visit must take no lock.
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

// name returns the name of the task that runs as n, "a function" if no task does. Only a
// wait for another function knows its name. n may be nil.
func (n *Node) name() string {
	if n != nil && n.life != nil && &n.life.own == n {
		return n.life.called()
	}
	return "a function"
}

// Node is what the task runs as.
func (t *Task) Node() *Node { return t.call.node }

// waiter returns the node that stands for the goroutine of rec as a waiter, or nil if
// the goroutine runs nothing of this module.
func waiter(rec *goroutine.Record) *Node {
	if rec == nil {
		return nil
	}
	n, _ := rec.Node.(*Node)
	return n
}
