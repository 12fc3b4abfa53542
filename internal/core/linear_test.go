package core

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

type bodyFunc func(context.Context)

func (f bodyFunc) Run(ctx context.Context) { f(ctx) }

// A known limit: a call opens and closes the accounts of all scopes around its
// own, for the close of each of them waits for it. Contexts are nested a few deep.
func TestAccountsOfNestedScopes(t *testing.T) {
	for _, depth := range []int{16, 256, 4096} {
		ctx := context.Background()
		scopes := make([]*Scope, depth)
		for i := range scopes {
			scopes[i] = &Scope{}
			ctx = scopes[i].Init(ctx, DefaultConfig)
		}
		open := 0
		err := scopes[depth-1].Do(ctx, &FullCall{}, bodyFunc(func(context.Context) {
			for _, s := range scopes {
				open += int(s.account.Load() / 2)
			}
		}), &Options{})
		require.NoError(t, err)
		require.Equal(t, depth, open, "if it is less the limit is gone: say so in the rules")
		for i := range scopes {
			require.NoError(t, scopes[depth-1-i].Close())
		}
	}
}
