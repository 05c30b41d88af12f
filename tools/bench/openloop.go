package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// giveUpAfter is how long an answer may take beyond the end of a leg.
const giveUpAfter = 10 * time.Second

// pace says when requests are due: so many, evenly, whatever becomes of them.
type pace struct {
	perSecond float64
	duration  time.Duration
}

// count is how many requests are due.
func (p pace) count() int { return int(p.perSecond * p.duration.Seconds()) }

// due is when request k is due, from the start.
func (p pace) due(k int) time.Duration {
	return time.Duration(float64(k) / p.perSecond * float64(time.Second))
}

// openLoad is what one run of the open-loop generator saw.
type openLoad struct {
	latencies histogram // from when a request was due, not from when it was sent
	lateness  histogram // of the generator: from due to sent, where a connection was free
	queued    int       // requests that were due while all connections waited for an answer
}

// openLoop sends requests when they are due, over connections that are free then. It is
// one thread with an epoll of its own: a goroutine's sleep may take a
// millisecond more than it should, which is as much as an answer takes.
type openLoop struct {
	openLoad
	target  *target
	pace    pace
	epoll   int
	streams []*stream
	idle    []*stream
	first   int // of the trace
	sent    int
	done    int
	start   time.Time
}

// stream is a connection of an open loop.
type stream struct {
	fd     int
	parser responseParser
	buf    []byte
	filled int
	asked  int           // question of the trace
	due    time.Duration // of the request in flight
	free   time.Duration // since when no request is in flight
}

// driveOpen asks the questions of the trace from the given one on, at a fixed pace.
// The first wrong answer ends the run.
func (t *target) driveOpen(ctx context.Context, connections int, p pace, first int) (sum *openLoad, err error) {
	l := &openLoop{target: t, pace: p, first: first, epoll: -1}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.open(connections); err != nil {
		return nil, err
	}
	runtime.LockOSThread() // so that its waits, and their accuracy, are this thread's own
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil { // ns; 50 µs without it
		return nil, fmt.Errorf("asking for exact timers: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)) }() // the default
	if err := l.run(ctx); err != nil {
		return nil, err
	}
	return &l.openLoad, nil
}

func (l *openLoop) open(connections int) (err error) {
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("making an epoll: %w", err)
	}
	for i := range connections {
		fd, err := dialBlocking(l.target.addr)
		if err != nil {
			return err
		}
		s := &stream{fd: fd, buf: make([]byte, largestResponse)}
		l.streams, l.idle = append(l.streams, s), append(l.idle, s)
		if err := errors.Join(unix.SetNonblock(fd, true), l.watch(fd, i)); err != nil {
			return fmt.Errorf("watching a connection: %w", err)
		}
	}
	return nil
}

// watch has the epoll tell index when fd can be read.
func (l *openLoop) watch(fd, index int) error {
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)})
}

func (l *openLoop) close() error {
	var errs []error
	for _, s := range l.streams {
		errs = append(errs, unix.Close(s.fd))
	}
	if l.epoll >= 0 {
		errs = append(errs, unix.Close(l.epoll))
	}
	return errors.Join(errs...)
}

func (l *openLoop) run(ctx context.Context) error {
	events := make([]unix.EpollEvent, len(l.streams))
	l.start = time.Now()
	for l.done < l.pace.count() {
		until, err := l.sendDue()
		if err != nil {
			return err
		}
		n, err := l.wait(events, until)
		if err != nil {
			return fmt.Errorf("waiting for answers: %w", err)
		}
		if time.Since(l.start) > l.pace.duration+giveUpAfter {
			return fmt.Errorf("%d of %d answers didn't come in time", l.pace.count()-l.done, l.pace.count())
		}
		for _, e := range events[:n] {
			if err := l.handle(int(e.Fd)); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for answers, at most for that long. It is epoll_pwait2, whose time is in
// nanoseconds: a timer beside the connections would be two more calls of the system for each
// question, on the cores of the server that is measured.
func (l *openLoop) wait(events []unix.EpollEvent, atMost time.Duration) (int, error) {
	timeout := unix.NsecToTimespec(atMost.Nanoseconds())
	//nolint:gosec // the system reads the time and writes the events before it returns
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&timeout)), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	default:
		return 0, errno
	}
}

// sendDue sends what is due as far as connections are free, and returns how long it is
// until something is due next. Without a free connection the next answer is what is waited for.
func (l *openLoop) sendDue() (next time.Duration, err error) {
	for len(l.idle) > 0 && l.sent < l.pace.count() {
		due := l.pace.due(l.sent)
		now := time.Since(l.start)
		if due > now {
			return due - now, nil
		}
		s := l.idle[0] // in turns, so that no connection is idle for long
		l.idle = l.idle[:copy(l.idle, l.idle[1:])]
		if s.free > due {
			l.queued++
		} else {
			l.lateness.add(now - due)
		}
		s.due, s.asked = due, (l.first+l.sent)%len(l.target.requests)
		l.sent++
		request := l.target.requests[s.asked]
		if n, err := unix.Write(s.fd, request); err != nil || n < len(request) {
			return 0, fmt.Errorf("sending: %d of %d bytes: %w", n, len(request), errors.Join(err, errShort))
		}
	}
	return giveUpAfter, nil
}

var errShort = errors.New("the connection takes no more")

// handle reads what there is to read of the connection of that index.
func (l *openLoop) handle(index int) error {
	s := l.streams[index]
	n, err := unix.Read(s.fd, s.buf[s.filled:])
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil:
		return fmt.Errorf("receiving: %w", err)
	case n == 0:
		return errors.New("receiving: the server hung up")
	}
	s.filled += n
	complete, err := l.target.accept(&s.parser, s.buf[:s.filled], s.asked)
	if err != nil {
		return fmt.Errorf("asking question %d of the trace: %w", s.asked, err)
	}
	if complete {
		s.free, s.filled = time.Since(l.start), 0
		l.latencies.add(s.free - s.due)
		l.idle = append(l.idle, s)
		l.done++
	}
	return nil
}
