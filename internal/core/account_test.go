package core

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
)

// A caller who has been told of the end of a call finds the account of the context closed,
// however the call has ended: one who closes the context next need not wait for the thread.
func TestAccountIsClosedBeforeTheCallerKnows(t *testing.T) {
	for _, end := range testkit.Ends {
		t.Run(end.How, func(t *testing.T) {
			testkit.Guard(t)
			s := &Scope{}
			s.Init(context.Background(), &Config{Pool: NewPool(1, 0, 1, DefaultIdleTimeout)})
			defer s.Close()
			for range 500 {
				f := &FullCall{}
				require.NoError(t, s.Do(context.Background(), f, bodyFunc(func(context.Context) { _ = end.Do() }), &Options{}))
				require.Zero(t, s.account.Load())
			}
		})
	}
}
