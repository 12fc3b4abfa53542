package core

import "context"

// lendNearest gives s, which stands in line for a thread, the thread of the
// context that ctx carries. That context stays open until the caller has come
// to its end, so that waiting for its thread to be given back could take for
// ever, whether it is blocked or just idle.
//
// One that is blocked and serves nobody is not lent: c would wait there for
// the function that is blocked, and no other thread could take it any more.
func (s *Scope) lendNearest(ctx context.Context, c *Call) {
	near := ScopeOf(ctx)
	if near == nil || near.kind != contextScope || near.root == s.root {
		return
	}
	t, from := c.thread.Load(), near.root.thread.Load()
	if from == nil || from == t || t.pool == nil || from.pool != t.pool || t.pool.bubble != bubble() {
		return
	}
	from.mu.Lock()
	lend := from.policy != None || from.top == nil
	from.mu.Unlock()
	if lend {
		s.root.lend(t, from)
	}
}
