package task

import "errors"

// ErrNotStarted is the error of a start whose function has returned nil and has not
// said that it had started.
var ErrNotStarted = errors.New("task: the function has ended without having started")

// ErrStartedTwice is returned by the started function where it was called before.
var ErrStartedTwice = errors.New("task: started was called before")
