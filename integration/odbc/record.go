package odbc

// #cgo LDFLAGS: -lodbc
// #include <stdlib.h>
// #include "record.h"
import "C"

import "unsafe"

// A Call is a call of a function of ODBC, as the C library sees it.
type Call struct {
	Name   string // of the function
	Conn   int    // the number of the connection, 0 if the call is for none
	Thread int    // the OS thread that calls
}

// Record records all calls of ODBC from now on, until stop is called, which
// returns them. There is one record for the process.
func Record() (stop func() []Call) {
	C.asyncsync_record(1)
	return func() []Call {
		C.asyncsync_record(0)
		var first *C.asyncsync_call
		n := C.asyncsync_recorded(&first)
		calls := make([]Call, 0, n)
		for _, c := range unsafe.Slice(first, n) {
			calls = append(calls, Call{C.GoString(c.name), int(c.conn), int(c.thread)})
		}
		return calls
	}
}

// Hold has calls of the function of ODBC with that name wait, on their threads, until
// release is called. The channel is closed when there is such a call.
func Hold(name string) (reached <-chan struct{}, release func()) {
	hold(name)
	ch := make(chan struct{})
	go func() {
		C.asyncsync_await()
		close(ch)
	}()
	return ch, func() { hold("") }
}

func hold(name string) {
	c := C.CString(name)
	defer C.free(unsafe.Pointer(c))
	C.asyncsync_hold(c)
}
