package local_test

import (
	"fmt"
	"sync"

	"asyncsync.dev/local"
)

var requestID = local.New[string]()

// logf knows the request without being told.
func logf(format string, args ...any) {
	id, ok := requestID.Get()
	if !ok {
		id = "-"
	}
	fmt.Printf("["+id+"] "+format+"\n", args...)
}

func handle(id string) {
	defer requestID.Set(id)()
	logf("begin")
	query("users")
	logf("end")
}

func query(table string) { logf("reading %s", table) }

// A request id that need not be passed to every function in between.
func Example() {
	logf("starting")
	handle("r1")
	handle("r2")
	logf("done")
	// Output:
	// [-] starting
	// [r1] begin
	// [r1] reading users
	// [r1] end
	// [r2] begin
	// [r2] reading users
	// [r2] end
	// [-] done
}

// The function that Set returns puts back what was there before.
func ExampleVar_Set() {
	user := local.New[string]()
	show := func() {
		name, ok := user.Get()
		fmt.Printf("%q %t\n", name, ok)
	}

	logout := user.Set("ada")
	show()

	asRoot := func() {
		defer user.Set("root")() // also undone if the function panics
		show()
	}
	asRoot()
	show()

	logout()
	show()
	// Output:
	// "ada" true
	// "root" true
	// "ada" true
	// "" false
}

// A goroutine started with Go has the values of its starter, one
// started by a go statement has none.
func ExampleGo() {
	defer requestID.Set("r7")()

	var wg sync.WaitGroup
	wg.Add(1)
	local.Go(func() {
		defer wg.Done()
		logf("in a fork")
		requestID.Set("r7/child") // the starter does not see this
		logf("in a fork")
	})
	wg.Wait()

	wg.Go(func() { logf("in a plain goroutine") })
	wg.Wait()

	logf("in the starter")
	// Output:
	// [r7] in a fork
	// [r7/child] in a fork
	// [-] in a plain goroutine
	// [r7] in the starter
}

// Values can be taken along to a function that somebody else calls later.
func ExampleCapture() {
	var callbacks []func()
	register := func(fn func()) {
		values := local.Capture()
		callbacks = append(callbacks, func() { values.Run(fn) })
	}

	for _, id := range []string{"r1", "r2"} {
		undo := requestID.Set(id)
		register(func() { logf("callback") })
		undo()
	}

	defer requestID.Set("event loop")()
	for _, fn := range callbacks {
		fn()
	}
	logf("idle")
	// Output:
	// [r1] callback
	// [r2] callback
	// [event loop] idle
}

// A connection may only be used on the thread that opened it.
type connection struct{ closed chan struct{} }

func (c *connection) Query(what string) { fmt.Println("query", what) }

func (c *connection) Close() {
	fmt.Println("close")
	close(c.closed)
}

// A handle for each thread, closed on that thread before it goes: when its
// ThreadSensitiveContext is closed, or, as here, when a goroutine started by Go ends.
func ExampleThreadCritical() {
	db := local.New[*connection](
		local.ThreadCritical(),
		local.OnThreadExit((*connection).Close),
	)
	closed := make(chan struct{})
	open := func() *connection {
		c, ok := db.Get()
		if !ok {
			fmt.Println("open")
			c = &connection{closed}
			db.Set(c)
		}
		return c
	}

	local.Go(func() {
		open().Query("users")
		open().Query("orders")
	})
	<-closed

	_, ok := db.Get()
	fmt.Println("a connection here:", ok)
	// Output:
	// open
	// query users
	// query orders
	// close
	// a connection here: false
}
