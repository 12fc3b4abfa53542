package glib

/*
extern void asyncsyncCallback(void);

static void callBack(void) { asyncsyncCallback(); }
*/
import "C"

// callback is what C calls in CallBack. One thread does that at a time.
var callback func()

// CallBack calls fn from C, on the calling thread: what every cgo library does that
// takes callbacks.
func CallBack(fn func()) {
	before := callback
	defer func() { callback = before }()
	callback = fn
	C.callBack()
}

//export asyncsyncCallback
func asyncsyncCallback() { callback() }
