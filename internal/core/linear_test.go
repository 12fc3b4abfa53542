package core

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

type bodyFunc func(context.Context)

func (f bodyFunc) Run(ctx context.Context) { f(ctx) }

// A call opens and closes the account of its own scope, and a few at most of
// those around it, however many there are.
func TestAccountsOfNestedScopes(t *testing.T) {
	t.Skip("not so yet: a call opens and closes the accounts of all scopes around its own")
	for _, depth := range []int{16, 256, 4096} {
		ctx := context.Background()
		scopes := make([]*Scope, depth)
		for i := range scopes {
			scopes[i] = &Scope{}
			ctx = scopes[i].Init(ctx, DefaultConfig)
		}
		open := 0
		err := scopes[depth-1].Do(ctx, &Call{}, bodyFunc(func(context.Context) {
			for _, s := range scopes {
				open += int(s.account.Load() / 2)
			}
		}), &Options{})
		require.NoError(t, err)
		require.LessOrEqual(t, open, 2, "accounts that one call opens, %d scopes deep", depth)
		for i := range scopes {
			require.NoError(t, scopes[depth-1-i].Close())
		}
	}
}
