package core

// counted counts c, a task that is about to start, until it ends.
func (k *Tasks) counted(c *Call) {
	for u := k; u != nil; u = u.up {
		u.mu.Lock()
		u.n++
		u.mu.Unlock()
	}
	rest := c.more()
	before := rest.onEnd
	rest.onEnd = func() {
		if before != nil {
			before()
		}
		for u := k; u != nil; u = u.up {
			u.ended()
		}
	}
}

func (k *Tasks) ended() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n--
	if k.n == 0 && k.idle != nil {
		close(k.idle)
		k.idle = nil
	}
}

// Wait waits until no task is left. A task that another one starts is counted
// before that one is over. The end of each counted task synchronizes before the
// return of Wait.
func (k *Tasks) Wait() {
	k.mu.Lock()
	if k.n == 0 {
		k.mu.Unlock()
		return
	}
	if k.idle == nil {
		k.idle = make(chan struct{})
	}
	idle := k.idle
	k.mu.Unlock()
	<-idle
}
