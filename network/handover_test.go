package network

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever comes second, what is got or the waiter that leaves, has it closed, and nobody
// else does. The ctx of fn ends, whichever of the two is first.
func TestHandover(t *testing.T) {
	type step = func(h *handover[int], end func())
	begin := step(func(h *handover[int], end func()) { h.begin(end) })
	deliver := step(func(h *handover[int], _ func()) { h.deliver(7) })
	leave := step(func(h *handover[int], _ func()) { h.leave() })
	for name, c := range map[string]struct {
		steps []step
		lost  []int
		ended int
	}{
		"nobody leaves":             {[]step{begin, deliver}, nil, 0},
		"nothing is got":            {[]step{begin, leave}, nil, 1},
		"left before":               {[]step{begin, leave, deliver}, []int{7}, 1},
		"left afterwards":           {[]step{begin, deliver, leave}, []int{7}, 1},
		"left before fn has begun":  {[]step{leave, begin, deliver}, []int{7}, 1},
		"left, and fn never begins": {[]step{leave}, nil, 0},
	} {
		var lost []int
		ended := 0
		h := &handover[int]{forgo: func(n int) { lost = append(lost, n) }}
		for _, s := range c.steps {
			s(h, func() { ended++ })
		}
		require.Equal(t, c.lost, lost, name)
		require.Equal(t, c.ended, ended, name)
	}

	none := &handover[int]{} // of what needs no closing
	none.deliver(7)
	none.leave()
	none.deliver(7)

	for range 1000 { // at the same time; the race detector looks at the rest
		var both sync.WaitGroup
		lost := make(chan int, 2)
		h := &handover[int]{forgo: func(n int) { lost <- n }}
		both.Go(func() { h.begin(func() {}); h.deliver(7) })
		both.Go(h.leave)
		both.Wait()
		require.Len(t, lost, 1)
	}
}
