package main

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// dialBlocking connects to an address of IPv4. The runtime's poller doesn't know of the
// connection.
func dialBlocking(addr string) (fd int, err error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil || !to.Addr().Is4() {
		return 0, fmt.Errorf("want an address such as 127.0.0.1:8181, got %q", addr)
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("making a socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}),
	)
	if err != nil {
		return 0, fmt.Errorf("connecting: %w", errors.Join(err, unix.Close(fd)))
	}
	return fd, nil
}
