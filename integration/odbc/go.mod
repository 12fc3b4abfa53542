module asyncsync.dev/integration/odbc

go 1.25

require (
	asyncsync.dev v0.0.0
	asyncsync.dev/sqlthread v0.0.0-00010101000000-000000000000
	github.com/alexbrainman/odbc v0.0.0-20250601004241-49e6b2bc0cf0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/petermattis/goid v0.0.0-20260820044319-269ab09b5261 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.33.0 // indirect
)

replace asyncsync.dev => ../..

replace asyncsync.dev/sqlthread => ../../sqlthread
