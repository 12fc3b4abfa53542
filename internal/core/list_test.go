package core

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// calls returns what is in l, forwards, and requires that l is whole.
func calls(t *testing.T, l *list) (all []*Call) {
	t.Helper()
	var before *Call
	for c := l.head; c != nil; before, c = c, c.next {
		require.Same(t, l, c.list)
		require.True(t, before == c.prev)
		all = append(all, c)
	}
	require.True(t, before == l.tail)
	require.Len(t, all, l.len)
	return all
}

// A list is in the order of the numbers, whatever the order in which calls come to it
// and go: a call that comes back from a frame that has ended goes where it was.
func TestListIsInOrder(t *testing.T) {
	const n = 40
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var l list
		all, model := make([]*Call, n), []*Call(nil)
		for i := range all {
			all[i] = &Call{seq: uint64(i)}
		}
		for range 10 * n {
			c := all[rnd.IntN(n)]
			if c.list == nil {
				l.push(c)
				model = append(model, c)
				slices.SortFunc(model, func(a, b *Call) int { return int(a.seq) - int(b.seq) })
			} else {
				l.remove(c)
				model = slices.DeleteFunc(model, func(d *Call) bool { return d == c })
				require.Nil(t, c.list)
				require.Nil(t, c.prev)
				require.Nil(t, c.next)
			}
			require.Equal(t, len(model), len(calls(t, &l)))
			for i, c := range calls(t, &l) {
				require.Same(t, model[i], c, "seed %d", seed)
			}
		}
	}
}
