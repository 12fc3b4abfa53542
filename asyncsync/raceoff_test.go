//go:build !race

package asyncsync_test

const raceDetector = false
