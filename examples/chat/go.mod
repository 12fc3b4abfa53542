module asyncsync.dev/examples/chat

go 1.25.0

require asyncsync.dev v0.0.0

require github.com/petermattis/goid v0.0.0-20260820044319-269ab09b5261 // indirect

replace asyncsync.dev => ../..
