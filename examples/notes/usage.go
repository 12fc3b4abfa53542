package main

import (
	"context"
	"maps"
	"sync"
)

// A usageLog counts the calls on the database's thread, and on which thread
// each of them really was. If all is well that is a single one and the mutex
// is idle; but it is kept to find out whether all is well.
type usageLog struct {
	mu sync.Mutex
	usage
}

// A usage is a usageLog's account.
type usage struct {
	calls     int
	nested    int         // calls that ran while another one waited
	deepest   int         // most calls on top of each other
	threads   map[int]int // calls by thread id
	rollbacks int         // transactions rolled back
}

// depthKey is the context key of how many database calls we are in.
type depthKey struct{}

// enter records a call, and returns the context for what the call does.
func (s *store) enter(ctx context.Context) context.Context {
	depth, _ := ctx.Value(depthKey{}).(int)
	depth++
	s.usage.record(depth)
	return context.WithValue(ctx, depthKey{}, depth)
}

func (l *usageLog) record(depth int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if depth > 1 {
		l.nested++
	}
	l.deepest = max(l.deepest, depth)
	if l.threads == nil {
		l.threads = map[int]int{}
	}
	l.threads[threadID()]++
}

func (l *usageLog) rolledBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rollbacks++
}

func (l *usageLog) read() usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.usage
	u.threads = maps.Clone(u.threads)
	return u
}
