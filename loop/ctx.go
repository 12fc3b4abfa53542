package loop

import "context"

func checkCtx(ctx context.Context, what string) {
	if ctx == nil {
		panic("loop: " + what + " with a nil ctx")
	}
}
