package main

import "sync"

// A leaseLog notes which threads are lent to requests, and complains when one
// is lent twice at a time.
type leaseLog struct {
	mu     sync.Mutex
	lent   map[int]bool // thread ids lent now
	seen   map[int]bool // thread ids ever lent
	leases int
	ended  int
	shared int // leases of a thread that was lent already
}

// leaseStats is a leaseLog's account.
type leaseStats struct {
	leases  int          // times a request took a thread
	threads map[int]bool // the threads they took
	shared  int          // leases of a thread that another request still had
	open    int          // leases that have not ended
}

func newLeaseLog() *leaseLog {
	return &leaseLog{lent: map[int]bool{}, seen: map[int]bool{}}
}

// begin is called on a thread that a request has just been given.
func (l *leaseLog) begin() {
	id := threadID()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lent[id] && threadsKnown {
		l.shared++
	}
	l.leases++
	l.lent[id] = true
	l.seen[id] = true
}

// end is called on that thread when the request gives it back.
func (l *leaseLog) end() {
	id := threadID()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended++
	delete(l.lent, id)
}

func (l *leaseLog) stats() leaseStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := leaseStats{leases: l.leases, threads: map[int]bool{}, shared: l.shared, open: l.leases - l.ended}
	for id := range l.seen {
		s.threads[id] = true
	}
	return s
}
