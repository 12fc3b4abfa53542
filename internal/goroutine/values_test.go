package goroutine_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/goroutine"
)

// same fails the test unless v holds exactly what the model does.
func same(t *testing.T, model map[uint64]any, v goroutine.Values, others ...uint64) {
	t.Helper()
	for id, want := range model {
		x, ok := v.Get(id)
		require.True(t, ok, "id %d", id)
		require.Equal(t, want, x, "id %d", id)
	}
	for _, id := range others {
		if _, in := model[id]; !in {
			x, ok := v.Get(id)
			require.False(t, ok, "id %d", id)
			require.Nil(t, x)
		}
	}
	require.Equal(t, len(model) == 0, v == goroutine.Values{})
}

// build returns values with the contents of the model, reached without detours.
func build(model map[uint64]any) (v goroutine.Values) {
	for id, x := range model {
		v = v.Set(id, x)
	}
	return v
}

func TestValuesBasics(t *testing.T) {
	var empty goroutine.Values
	same(t, nil, empty, 0, 1)
	assert.Equal(t, empty, empty.Delete(1))

	one := empty.Set(1, "a")
	same(t, map[uint64]any{1: "a"}, one, 0, 2, 17)
	same(t, nil, empty, 1)
	assert.True(t, one != empty)
	assert.True(t, one == one.Delete(17), "deleting what is not there gives the same version")
	assert.True(t, one.Delete(1) == empty)

	two := one.Set(17, "b") // 1 and 17 share their low bits
	same(t, map[uint64]any{1: "a", 17: "b"}, two, 0, 2, 33)
	same(t, map[uint64]any{1: "c", 17: "b"}, two.Set(1, "c"))
	same(t, map[uint64]any{17: "b"}, two.Delete(1), 1)

	null := empty.Set(0, nil)
	same(t, map[uint64]any{0: nil}, null, 16)
}

func TestValuesWithFarApartIDs(t *testing.T) {
	ids := []uint64{0, 1, 1 << 60, 1<<60 + 1, 1<<63 + 1, 1<<64 - 1, 1<<64 - 1 - 1<<60, 15, 16, 255, 256}
	model := make(map[uint64]any)
	var v goroutine.Values
	for i, id := range ids {
		v = v.Set(id, i)
		model[id] = i
		same(t, model, v, ids...)
	}
	for _, id := range ids {
		v = v.Delete(id)
		delete(model, id)
		same(t, model, v, ids...)
		require.Equal(t, build(model), v, "shape")
	}
}

func TestValuesModel(t *testing.T) {
	type version struct {
		v     goroutine.Values
		model map[uint64]any
	}
	rnd := rand.New(rand.NewPCG(4, 5))
	for _, span := range []uint64{4, 40, 5000} {
		var (
			v        goroutine.Values
			model    = make(map[uint64]any)
			versions []version
		)
		for i := range 4000 {
			id := rnd.Uint64N(span)
			if rnd.IntN(8) == 0 {
				id |= rnd.Uint64() &^ 0xff
			}
			if rnd.IntN(3) == 0 {
				v = v.Delete(id)
				delete(model, id)
			} else {
				v = v.Set(id, i)
				model[id] = i
			}
			x, ok := v.Get(id)
			want, in := model[id]
			require.Equal(t, in, ok)
			require.Equal(t, want, x)
			if i%97 == 0 {
				same(t, model, v)
				require.Equal(t, build(model), v, "the shape follows from the contents")
				versions = append(versions, version{v, maps.Clone(model)})
			}
		}
		for _, old := range versions {
			same(t, old.model, old.v)
		}
		for id := range model {
			v = v.Delete(id)
		}
		require.True(t, v == goroutine.Values{})
	}
}

// Each operation is three bytes: what to do, and an id of two bytes, of which
// the first chooses a position, so that ids share few or many low bits.
func FuzzValues(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 1, 0, 0, 1, 1, 0, 1})
	f.Add([]byte{0, 0, 1, 0, 0, 17, 1, 0, 1, 1, 0, 17})
	f.Add([]byte{0, 60, 1, 0, 60, 2, 0, 0, 0, 1, 60, 1})
	f.Add([]byte{0, 4, 1, 0, 8, 1, 0, 12, 1, 2, 16, 1, 1, 8, 1, 1, 12, 1, 1, 4, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var (
			v, saved   goroutine.Values
			model      = make(map[uint64]any)
			savedModel map[uint64]any
			ids        []uint64
		)
		for i := 0; i+2 < len(ops); i += 3 {
			id := uint64(ops[i+2]) << (ops[i+1] % 64)
			ids = append(ids, id)
			switch ops[i] % 3 {
			case 0:
				v = v.Set(id, i)
				model[id] = i
			case 1:
				v = v.Delete(id)
				delete(model, id)
			case 2:
				saved, savedModel = v, maps.Clone(model)
			}
		}
		same(t, model, v, ids...)
		same(t, savedModel, saved, ids...)
		require.Equal(t, build(model), v, "shape")
	})
}

func TestValuesGetAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var v goroutine.Values
	for id := range uint64(1000) {
		v = v.Set(id, "x")
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() { v.Get(999) }))
	assert.Zero(t, testing.AllocsPerRun(100, func() { v.Delete(5000) }))
	var few goroutine.Values
	for id := range uint64(10) {
		few = few.Set(id, "x")
	}
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { few.Set(5, "y") }), 2.0)
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { v.Set(5, "y") }), 6.0, "two for each of three levels")
}

func BenchmarkValues(b *testing.B) {
	for _, n := range []uint64{1, 10, 1000} {
		var v goroutine.Values
		for id := range n {
			v = v.Set(id+1, "x")
		}
		b.Run(fmt.Sprintf("op=get/values=%d", n), func(b *testing.B) {
			for b.Loop() {
				v.Get(n)
			}
		})
		b.Run(fmt.Sprintf("op=set/values=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				v.Set(n, "y")
			}
		})
	}
}
