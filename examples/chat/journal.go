package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// A journal stands for a library that blocks and is used by one thread: all of
// its functions are called on the thread of the journal. It is a file with one
// message in each line. When append has returned, its messages are on disk.
type journal struct {
	file    *os.File
	size    int64       // of what is whole
	threads map[int]int // the OS threads that it was used on
	syncs   int
}

// openJournal opens or makes the file, and returns the messages in it. It cuts
// off an incomplete last line, left by a machine that went down: no client was
// told that it is stored.
func openJournal(path string) (_ *journal, all []message, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, nil, err
	}
	j := &journal{file: f, threads: map[int]int{threadID(): 1}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
		}
	}()
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, nil, err
	}
	j.size = int64(bytes.LastIndexByte(text, '\n') + 1)
	for line := range bytes.Lines(text[:j.size]) {
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			return nil, nil, err
		}
		if m.Number != len(all)+1 {
			return nil, nil, fmt.Errorf("message %d comes after %d", m.Number, len(all))
		}
		all = append(all, m)
	}
	return j, all, j.cut()
}

// append writes messages, all or none.
func (j *journal) append(messages []message) error {
	j.threads[threadID()]++
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	for _, m := range messages {
		if err := enc.Encode(m); err != nil {
			return err
		}
	}
	_, err := j.file.Write(lines.Bytes())
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return errors.Join(err, j.cut())
	}
	j.syncs++
	j.size += int64(lines.Len())
	return nil
}

// cut takes off what is not whole, and goes to the end.
func (j *journal) cut() error {
	if err := j.file.Truncate(j.size); err != nil {
		return err
	}
	_, err := j.file.Seek(j.size, io.SeekStart)
	return err
}

func (j *journal) close() error {
	j.threads[threadID()]++
	return j.file.Close()
}
