//go:build !race

package nesting

const raceEnabled = false
