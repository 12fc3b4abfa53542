package spin

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// turn is one time that a thread has nothing to do: after calls have ended it asks for
// its budget, and learns whether spinning helped.
type turn struct {
	calls  int
	woke   bool
	budget int64
	then   func(*Spin)
}

func twoProcessors(t *testing.T) {
	if Processors() < 2 {
		t.Skip("a trial needs two processors")
	}
}

func TestSpinLearns(t *testing.T) {
	twoProcessors(t)
	hit, miss := (*Spin).Hit, (*Spin).Miss
	many := func(f func(*Spin), times int) func(*Spin) {
		return func(s *Spin) {
			for range times {
				f(s)
			}
		}
	}
	off := turn{budget: 0}
	tests := map[string][]turn{
		"off at first, tried after some calls": {
			off, {calls: minBackoff - 1, budget: 0}, {calls: 1, budget: trial, then: hit}, {budget: patience},
		},
		"longer while the caller sleeps": {
			off, {calls: minBackoff, budget: trial, then: hit}, {woke: true, budget: trial}, {budget: patience},
		},
		"given up after misses, for twice as long each time": {
			off, {calls: minBackoff, budget: trial, then: many(miss, maxMisses/2)},
			off, {calls: minBackoff, budget: trial, then: many(miss, maxMisses/2)},
			{calls: 2*minBackoff - 1, budget: 0}, {calls: 1, budget: trial},
		},
		"callers that miss count": {
			off, {calls: minBackoff, budget: trial, then: many((*Spin).CallerMissed, maxMisses)}, off,
		},
		"hits make up for misses": {
			off, {calls: minBackoff, budget: trial, then: many(miss, maxMisses/2-1)},
			{budget: patience, then: many(hit, 4*maxMisses)}, {budget: patience, then: many(miss, maxMisses/2-1)}, {budget: patience},
		},
		"many hits make the back-off begin anew": {
			off, {calls: minBackoff, budget: trial, then: many(miss, maxMisses/2)},
			{calls: minBackoff, budget: trial, then: many(hit, manyHits)}, {budget: patience, then: many(miss, maxMisses/2)},
			{calls: minBackoff, budget: trial},
		},
	}
	for name, turns := range tests {
		t.Run(name, func(t *testing.T) {
			var s Spin
			for i, turn := range turns {
				for range turn.calls {
					s.Ended()
				}
				require.Equal(t, turn.budget, s.Budget(turn.woke), "turn %d", i)
				require.Equal(t, turn.budget != 0, s.On(), "turn %d", i)
				if turn.then != nil {
					turn.then(&s)
				}
			}
		})
	}
}

func TestSpinOfOneProcessorIsNotTried(t *testing.T) {
	defer Processors()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var s Spin
	require.Zero(t, s.Budget(false))
	for range minBackoff {
		s.Ended()
	}
	require.Zero(t, s.Budget(false))
	for range minBackoff {
		s.Ended()
	}
	require.Zero(t, s.Budget(false), "the next trial is far away")
}

func TestNever(t *testing.T) {
	Set(1)
	defer Set(0)
	s := Spin{Never: true}
	require.Zero(t, s.Budget(false))
	require.Zero(t, s.Budget(true))
}

func TestSetForces(t *testing.T) {
	defer Set(0)
	s := Spin{Limit: 1000}
	Set(1)
	require.EqualValues(t, 1000, s.Budget(false))
	require.EqualValues(t, 8000, s.Budget(true))
	for range maxMisses {
		s.Miss()
	}
	require.True(t, s.On())
	Set(-1)
	require.Zero(t, s.Budget(false))
	require.False(t, s.On())
}

func TestUntil(t *testing.T) {
	var word atomic.Uint32
	require.True(t, Until(&word, 1, 0), "it has changed already")
	before := Count()
	spinners.Add(int32(Processors()))
	require.False(t, Until(&word, 0, 1<<62), "all processors are taken by others")
	spinners.Add(-int32(Processors()))
	require.Equal(t, before, Count())
	require.False(t, Until(&word, 0, 1000))
	require.Equal(t, before+1, Count())
	require.Zero(t, spinners.Load())

	asked := make(chan struct{})
	go func() {
		<-asked
		word.Store(1)
	}()
	close(asked)
	for !Until(&word, 0, 1_000_000) {
		runtime.Gosched()
	}
	require.Zero(t, spinners.Load())
}
