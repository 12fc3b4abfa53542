package nesting

import (
	"context"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
)

const opLook kind = "look" // statistics and a report, of everybody

var lookOps = []operation{{kind: opLook, run: (*run).look}}

func (g *generator) look(*state) *Op { return g.newOp(opLook) }

// look asks everybody how they are.
func (x *run) look(context.Context, *Op, *activity) (int, error) {
	asyncsync.ReadStats()
	for _, c := range x.atTheStart {
		c.tsc.Stats()
	}
	for i, p := range x.pools {
		if st, n := p.Stats(), x.p.Pools[i]; !n.Wide && st.Threads > 2*n.Max || st.Threads < st.Idle {
			x.complain("pool%d: %+v, but MaxThreads and MaxOverflow are %d", i, st, n.Max)
		}
	}
	if r := deadlock.Take(); r.String() == "" {
		x.complain("an empty report")
	}
	return 0, nil
}
