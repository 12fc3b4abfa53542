// Package xsync compares package task with golang.org/x/sync: Group with its
// errgroup, and Limiter with its semaphore, by random programs that both run.
// It is a module of its own, so that the core does not depend on x/sync.
package xsync
