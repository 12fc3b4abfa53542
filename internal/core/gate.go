package core

// Open opens the gate, and wakes all who wait.
func (g *Gate) Open() {
	g.mu.Lock()
	g.open = true
	done, l := g.done, g.first
	g.done, g.first = nil, nil
	g.mu.Unlock()
	if done != nil {
		close(done)
	}
	for l != nil {
		// After Wake the listener may leave at once and be used again, so
		// read next first.
		next := l.next
		l.task.Wake(l.number)
		l = next
	}
}

// Done returns a channel that is closed when the gate is open.
func (g *Gate) Done() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.open:
		return closedDone
	case g.done == nil:
		g.done = make(chan struct{})
	}
	return g.done
}

// closedDone is that of gates that are open.
var closedDone = func() chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}()

// openGate is a gate that has always been open.
var openGate = &Gate{open: true}

// IsOpen reports whether the gate is open.
func (g *Gate) IsOpen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// listen makes the gate end the wait of l when it opens. It reports false if the
// gate is open already.
func (g *Gate) listen(l *listener) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open {
		return false
	}
	if l.next = g.first; l.next != nil {
		l.next.prev = l
	}
	g.first = l
	return true
}

// leave removes l, whose wait is over, and reports whether the gate is open.
func (g *Gate) leave(l *listener) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open {
		return true
	}
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		g.first = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	}
	return false
}

// gateOr returns the task's gate. If it has none yet, fresh becomes its gate.
func (t *Task) gateOr(fresh *Gate) *Gate {
	t.gate.CompareAndSwap(nil, fresh)
	return t.gate.Load()
}

// open opens the gate.
func (t *Task) open() {
	if !t.gate.CompareAndSwap(nil, openGate) {
		t.gate.Load().Open()
	}
}
