//go:build amd64 || arm64

package core

import (
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
)

// TestCacheLines shows that a Thread has its fields in lines by who writes them.
func TestCacheLines(t *testing.T) {
	const size = 64
	made := func() *Thread {
		th := new(Thread)
		runtime.SetFinalizer(th, nil) // so that it is not on the stack
		return th
	}
	th := made()
	base := uintptr(unsafe.Pointer(th))
	line := func(offset uintptr) uintptr { return (base + offset) / size }

	for range 16 {
		assert.Equal(t, base%size, uintptr(unsafe.Pointer(made()))%size, "not all threads begin at the same place in a line")
	}

	shared := line(unsafe.Offsetof(th.mu))
	assert.Zero(t, (base+unsafe.Offsetof(th.mu))%size, "mu begins a line")
	for name, offset := range map[string]uintptr{
		"main":    unsafe.Offsetof(th.main),
		"seq":     unsafe.Offsetof(th.seq),
		"waiting": unsafe.Offsetof(th.waiting),
		"top":     unsafe.Offsetof(th.top),
		"run":     unsafe.Offsetof(th.run),
	} {
		assert.Equal(t, shared, line(offset), "%s, which calls write, is in the line of mu", name)
	}

	signal := line(unsafe.Offsetof(th.signal))
	own := line(unsafe.Offsetof(th.spin) + unsafe.Offsetof(th.spin.Never))
	asleep := line(unsafe.Offsetof(th.tenure)) // written when the thread sleeps, and to wake it
	assert.Equal(t, asleep, line(unsafe.Offsetof(th.crowd)+unsafe.Sizeof(th.crowd)-1), "crowd is in the line of tenure")

	read := map[string]uintptr{ // by callers, and not written while the thread is awake
		"identity": line(unsafe.Offsetof(th.identity) + unsafe.Sizeof(th.identity) - 1),
		"runner":   line(unsafe.Offsetof(th.runner) + unsafe.Sizeof(th.runner) - 1),
		"tenure":   asleep,
		"spin":     line(unsafe.Offsetof(th.spin)),
		"parking":  line(unsafe.Offsetof(th.parking)),
	}
	written := map[string]uintptr{ // at every call
		"mu":     shared,
		"signal": signal,
		"spin":   own,
		"pace":   line(unsafe.Offsetof(th.pace)),
		"tally":  line(unsafe.Offsetof(th.tally) + unsafe.Sizeof(th.tally) - 1),
		"raised": line(unsafe.Offsetof(th.raised)),
		"inline": line(unsafe.Offsetof(th.inline)),
	}
	for w, one := range written {
		for r, other := range read {
			assert.NotEqual(t, one, other, "%s is written at every call, and in a line with %s", w, r)
		}
	}
	assert.NotEqual(t, shared, signal, "the thread spins on signal")
	for _, w := range []string{"pace", "tally", "raised", "inline"} {
		assert.NotEqual(t, shared, written[w], "%s is the thread's", w)
		assert.NotEqual(t, signal, written[w], "%s is the thread's", w)
	}
}
