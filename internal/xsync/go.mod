module asyncsync.dev/internal/xsync

go 1.25

require (
	asyncsync.dev v0.0.0
	github.com/stretchr/testify v1.12.1
	golang.org/x/sync v0.16.0
)

require (
	github.com/petermattis/goid v0.0.0-20260820044319-269ab09b5261 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)

replace asyncsync.dev => ../..
