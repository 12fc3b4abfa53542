// Package glib makes a loop of GLib's main context: what GTK, GStreamer and their
// kind run on. It shows how a foreign loop is made a [loop.Loop], and its test runs
// the contract of loops against it.
package glib

/*
#cgo pkg-config: glib-2.0
#include <glib.h>
#include <stdint.h>

extern gboolean asyncsyncRun(gpointer);
extern void asyncsyncForget(gpointer);

static GSource *idle(uintptr_t handle) {
	GSource *s = g_idle_source_new();
	// Idle sources have a low priority, and would wait for all others.
	g_source_set_priority(s, G_PRIORITY_DEFAULT);
	g_source_set_callback(s, asyncsyncRun, (gpointer)handle, asyncsyncForget);
	return s;
}

static void attach(GMainContext *c, uintptr_t handle) {
	GSource *s = idle(handle);
	g_source_attach(s, c);
	g_source_unref(s);
}

static void invoke(GMainContext *c, uintptr_t handle) {
	g_main_context_invoke_full(c, G_PRIORITY_DEFAULT, asyncsyncRun, (gpointer)handle, asyncsyncForget);
}
*/
import "C"

import (
	"runtime"
	"runtime/cgo"
	"sync"
	"unsafe"

	"asyncsync.dev/loop"
)

// How a function is handed to the context.
type How int

const (
	// Idle attaches an idle source for each function, as g_idle_add does.
	Idle How = iota
	// Invoke calls g_main_context_invoke_full, which runs the function at once
	// if the caller is on the loop.
	Invoke
)

// A Loop is a GMainLoop with a context of its own, on a thread of its own.
type Loop struct {
	loop.Loop
	how  How
	main *C.GMainLoop

	mu      sync.Mutex // guards what follows, and calls that use it
	context *C.GMainContext
	stopped bool
}

// Start starts a loop.
func Start(how How) *Loop {
	l := &Loop{how: how}
	done, started := make(chan struct{}), make(chan struct{})
	l.Loop = loop.FromPost(l.post, done)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		l.context = C.g_main_context_new()
		C.g_main_context_push_thread_default(l.context)
		l.main = C.g_main_loop_new(l.context, C.FALSE)
		close(started)
		C.g_main_loop_run(l.main)

		l.mu.Lock()
		l.stopped = true
		l.mu.Unlock()
		C.g_main_loop_unref(l.main)
		C.g_main_context_pop_thread_default(l.context)
		C.g_main_context_unref(l.context) // forgets the sources that are left
		close(done)
	}()
	<-started
	return l
}

// Quit ends the loop, and waits for that.
func (l *Loop) Quit() {
	// A source, so that it does not come before the loop has begun to run.
	_ = l.Post(func() { C.g_main_loop_quit(l.main) })
	<-l.Done()
}

func (l *Loop) post(fn func()) error {
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return loop.ErrStopped
	}
	h := C.uintptr_t(cgo.NewHandle(fn))
	if l.how == Invoke && C.g_main_context_is_owner(l.context) != 0 {
		// It runs now, and may post. The loop does not end meanwhile.
		l.mu.Unlock()
		C.invoke(l.context, h)
		return nil
	}
	defer l.mu.Unlock()
	if l.how == Invoke {
		C.invoke(l.context, h)
	} else {
		C.attach(l.context, h)
	}
	return nil
}

//export asyncsyncRun
func asyncsyncRun(p unsafe.Pointer) C.gboolean {
	cgo.Handle(uintptr(p)).Value().(func())()
	return C.FALSE // once
}

//export asyncsyncForget
func asyncsyncForget(p unsafe.Pointer) {
	cgo.Handle(uintptr(p)).Delete()
}
