package core_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

// A call that a thread serves leaves the function below its local variables, however it
// ends: the wait of the function brings none. The values that the call has set go to its
// caller.
func TestAServedCallLeavesTheValuesBelow(t *testing.T) {
	v := local.New[string]()
	value := func() string { s, _ := v.Get(); return s }
	for _, e := range testkit.Ends[:2] { // a Goexit ends the function below as well
		t.Run(e.How, func(t *testing.T) {
			testkit.Guard(t)
			ctx, _ := libkit.NewContext(t)
			require.NoError(t, libkit.To(ctx, func(ctx context.Context) error {
				defer v.Set("below")()
				tk := task.Go(ctx, func(ctx context.Context) (string, error) {
					v.Set("task")
					o := testkit.Outcome{}
					o.Record(func() error {
						return libkit.To(ctx, func(context.Context) error { v.Set("served"); return e.Do() })
					})
					e.Check(t, o)
					return value(), nil
				})
				got, err := tk.Wait(ctx)
				require.NoError(t, err)
				require.Equal(t, "served", got)
				require.Equal(t, "below", value())
				return nil
			}))
		})
	}
}
