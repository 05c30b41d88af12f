package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of times in /proc/PID/stat; 100 a second wherever Go runs on Linux.
const tick = 10 * time.Millisecond

// cpuTime returns the time that a process has spent on the cores, user and system.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the CPU time: %w", err)
	}
	return parseStat(string(text))
}

// parseStat reads the 14th and 15th field (proc_pid_stat(5)). The second one is a name
// in parentheses that may hold spaces, so the fields are counted from behind it.
func parseStat(text string) (time.Duration, error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, errors.New("reading the CPU time: want the fields of proc_pid_stat(5)")
	}
	var sum time.Duration
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading the CPU time: %w", err)
		}
		sum += time.Duration(ticks) * tick
	}
	return sum, nil
}

// ownCPUTime returns the same for this process.
func ownCPUTime() (time.Duration, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("reading the CPU time: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// residentBytes returns how much memory a process holds.
func residentBytes(pid int) (int64, error) {
	kilobytes, err := procValue(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
	if err != nil {
		return 0, fmt.Errorf("reading the resident memory: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(kilobytes, " kB"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the resident memory: %w", err)
	}
	return n << 10, nil
}

// procValue returns the first value of a key in a file of "key: value" lines.
func procValue(path, key string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if k, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("%s has no %s", path, key)
}

// machine says what a section was measured on.
func machine() string {
	processor, err := procValue("/proc/cpuinfo", "model name")
	if err != nil {
		processor = "unknown processor"
	}
	memory := "unknown"
	if total, err := procValue("/proc/meminfo", "MemTotal"); err == nil {
		if kilobytes, err := strconv.ParseInt(strings.TrimSuffix(total, " kB"), 10, 64); err == nil {
			memory = fmt.Sprintf("%.0f GiB", float64(kilobytes)/(1<<20))
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte("of unknown release")
	}
	return fmt.Sprintf("%d cores, %s, %s of memory, %s/%s, kernel %s, shared by servers and generator",
		runtime.NumCPU(), processor, memory, runtime.GOOS, runtime.GOARCH, strings.TrimSpace(string(kernel)))
}
