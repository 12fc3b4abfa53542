package goroutine

import "math/bits"

// Values is an immutable map from variable ids to values. The zero Values is empty. Set
// and Delete return a new version and leave the old one as it was, so copying a Values,
// which is copying one pointer, is a fork, a capture or a handover, whatever the number
// of variables.
//
// Two Values are == when they are the same version, not when they have the same contents;
// but all empty ones are ==.
//
// It is a hash array mapped trie whose hash is the id itself: each level uses four bits
// of the id, lowest first, and has room for just the children it has. Ids come from a
// counter, so their low bits are spread evenly and n values are about log16(n) levels
// deep.
type Values struct {
	root *node // nil, or with at least one slot
}

const (
	levelBits = 4
	levelMask = 1<<levelBits - 1
)

// A node is never changed once it is reachable from a Values. Except at the root, it has
// at least two values in it: a lone one is kept by the parent. So the shape follows from
// the contents, whatever happened before.
type node struct {
	used  uint16 // which children there are
	subs  uint16 // which of them are nodes
	slots []slot // the children that there are, in order
}

// A slot is an id with its value, or a node in x.
type slot struct {
	id uint64 // 0 for a node
	x  any    // *node for a node
}

// child returns the bit and the position in slots of the child of n that id belongs to,
// at the level that begins at the given shift.
func (n *node) child(id uint64, shift uint) (bit uint16, at int) {
	bit = 1 << (id >> shift & levelMask)
	return bit, bits.OnesCount16(n.used & (bit - 1))
}

// Get returns the value of id and whether there is one.
func (v Values) Get(id uint64) (any, bool) {
	n := v.root
	if n == nil {
		return nil, false
	}
	for shift := uint(0); ; shift += levelBits {
		bit, at := n.child(id, shift)
		if n.used&bit == 0 {
			return nil, false
		}
		s := &n.slots[at]
		if n.subs&bit == 0 {
			if s.id != id {
				return nil, false
			}
			return s.x, true
		}
		n = s.x.(*node)
	}
}

// Set returns v with x as the value of id.
func (v Values) Set(id uint64, x any) Values {
	s := slot{id: id, x: x}
	if v.root == nil {
		return Values{leaf(s, 0)}
	}
	return Values{v.root.set(s, 0)}
}

// Delete returns v without id. If id has no value it returns v itself, and if it was the
// only one, the zero Values.
func (v Values) Delete(id uint64) Values {
	if _, ok := v.Get(id); !ok {
		return v
	}
	n := v.root.del(id, 0)
	if len(n.slots) == 0 {
		return Values{}
	}
	return Values{n}
}

// leaf returns a node with the one value s.
func leaf(s slot, shift uint) *node {
	return &node{used: 1 << (s.id >> shift & levelMask), slots: []slot{s}}
}

// set returns n with s in it.
func (n *node) set(s slot, shift uint) *node {
	bit, at := n.child(s.id, shift)
	if n.used&bit == 0 {
		slots := make([]slot, len(n.slots)+1)
		copy(slots, n.slots[:at])
		slots[at] = s
		copy(slots[at+1:], n.slots[at:])
		return &node{used: n.used | bit, subs: n.subs, slots: slots}
	}
	old := n.slots[at]
	switch {
	case n.subs&bit != 0:
		return n.with(at, slot{x: old.x.(*node).set(s, shift+levelBits)}, n.subs)
	case old.id == s.id:
		return n.with(at, s, n.subs)
	default:
		// Both values belong here: they move down to where their ids differ.
		sub := leaf(old, shift+levelBits).set(s, shift+levelBits)
		return n.with(at, slot{x: sub}, n.subs|bit)
	}
}

// del returns n without id, which must be in it.
func (n *node) del(id uint64, shift uint) *node {
	bit, at := n.child(id, shift)
	if n.subs&bit == 0 {
		slots := make([]slot, len(n.slots)-1)
		copy(slots, n.slots[:at])
		copy(slots[at:], n.slots[at+1:])
		return &node{used: n.used &^ bit, subs: n.subs, slots: slots}
	}
	sub := n.slots[at].x.(*node).del(id, shift+levelBits)
	if len(sub.slots) == 1 && sub.subs == 0 {
		return n.with(at, sub.slots[0], n.subs&^bit)
	}
	return n.with(at, slot{x: sub}, n.subs)
}

// with returns n with another child in an existing place.
func (n *node) with(at int, s slot, subs uint16) *node {
	slots := make([]slot, len(n.slots))
	copy(slots, n.slots)
	slots[at] = s
	return &node{used: n.used, subs: subs, slots: slots}
}
