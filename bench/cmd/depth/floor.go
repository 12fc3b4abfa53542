package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

//go:embed floor.c
var floorSource []byte

// buildFloor compiles the C program in dir and returns its path.
func buildFloor(ctx context.Context, dir string) (string, error) {
	if runtime.GOOS != "linux" {
		return "", errors.New(runtime.GOOS + " has no futex")
	}
	compiler, err := exec.LookPath("cc")
	if err != nil {
		compiler, err = exec.LookPath("gcc")
	}
	if err != nil {
		return "", errors.New("no C compiler was found, neither cc nor gcc")
	}
	source, program := filepath.Join(dir, "floor.c"), filepath.Join(dir, "floor")
	if err := os.WriteFile(source, floorSource, 0o666); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, compiler, "-std=gnu11", "-O2", "-pthread", "-o", program, source).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", compiler, err, out)
	}
	return program, nil
}

// runFloor takes the round trip of the C program for one round.
func (l *lab) runFloor(ctx context.Context, r round, p place) error {
	cpus := l.bound(p)
	if len(cpus) == 0 {
		return nil
	}
	a, b := strconv.Itoa(cpus[0]), strconv.Itoa(cpus[len(cpus)-1])
	ms := strconv.FormatFloat(float64(l.each)/float64(time.Millisecond), 'f', -1, 64)
	out, err := exec.CommandContext(ctx, l.floor, a, b, ms).Output()
	if err != nil {
		return fmt.Errorf("floor.c: %w", err)
	}
	ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		return fmt.Errorf("floor.c: %w", err)
	}
	r[p.name+":call/futex"] = ns
	return nil
}
