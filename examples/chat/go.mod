module asyncsync.dev/examples/chat

go 1.25.0

require (
	asyncsync.dev v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/petermattis/goid v0.0.0-20260820044319-269ab09b5261 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)

replace asyncsync.dev => ../..
