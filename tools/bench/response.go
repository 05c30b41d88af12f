package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// largestResponse bounds the buffer of a connection; the answers here are below 1 KiB.
const largestResponse = 64 << 10

// Statuses of right answers beside 200. The second one has no body and tells no length.
const (
	statusCreated   = 201
	statusNoContent = 204
)

// responseParser reads HTTP/1.1 responses out of a buffer, as much of the protocol as
// the servers here speak. It keeps nothing between responses but memory.
type responseParser struct {
	joined []byte // the body of a chunked response
}

// parse reads the response that buf begins with. Size is how many bytes of buf it takes,
// 0 while it is incomplete; body is valid until the next call and the next write to buf.
func (p *responseParser) parse(buf []byte) (status int, body []byte, size int, err error) {
	end := bytes.Index(buf, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, nil, 0, nil
	}
	status, length, chunked, err := parseHead(buf[:end])
	if err != nil {
		return 0, nil, 0, err
	}
	begin := end + 4
	if chunked {
		body, size, err = p.joinChunks(buf[begin:])
		if size > 0 {
			size += begin
		}
		return status, body, size, err
	}
	if begin+length > len(buf) {
		return 0, nil, 0, nil
	}
	return status, buf[begin : begin+length], begin + length, nil
}

// parseHead reads the status line and the one header that says where the body ends.
func parseHead(head []byte) (status, length int, chunked bool, err error) {
	if len(head) < 12 || string(head[:9]) != "HTTP/1.1 " {
		return 0, 0, false, fmt.Errorf("want a status line of HTTP/1.1, got %.40q", head)
	}
	if status, err = strconv.Atoi(string(head[9:12])); err != nil {
		return 0, 0, false, fmt.Errorf("reading the status: %w", err)
	}
	length = -1
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case isHeader(name, "content-length"):
			length, err = strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil || length < 0 {
				return 0, 0, false, fmt.Errorf("want a length as Content-Length, got %.40q", value)
			}
		case isHeader(name, "transfer-encoding"):
			chunked = true
		case isHeader(name, "connection"):
			if bytes.EqualFold(bytes.TrimSpace(value), []byte("close")) {
				return 0, 0, false, fmt.Errorf("the server hangs up, with status %d", status)
			}
		}
	}
	if status == statusNoContent {
		return status, 0, false, nil
	}
	if length < 0 && !chunked {
		return 0, 0, false, errors.New("want Content-Length or chunks, got a response without an end")
	}
	return status, length, chunked, nil
}

// isHeader compares lengths first, since most headers are none of those asked for.
func isHeader(name []byte, want string) bool {
	return len(name) == len(want) && bytes.EqualFold(name, []byte(want))
}

// joinChunks reads a chunked body (RFC 9112, section 7.1) without trailers.
func (p *responseParser) joinChunks(buf []byte) (body []byte, size int, err error) {
	p.joined = p.joined[:0]
	for {
		line := bytes.Index(buf[size:], []byte("\r\n"))
		if line < 0 {
			return nil, 0, nil
		}
		text, _, _ := bytes.Cut(buf[size:size+line], []byte(";"))
		length, err := strconv.ParseUint(string(text), 16, 31)
		if err != nil {
			return nil, 0, fmt.Errorf("reading the length of a chunk: %w", err)
		}
		begin := size + line + 2
		end := begin + int(length)
		if end+2 > len(buf) {
			return nil, 0, nil
		}
		if string(buf[end:end+2]) != "\r\n" {
			return nil, 0, errors.New("want a line end behind a chunk")
		}
		p.joined = append(p.joined, buf[begin:end]...)
		size = end + 2
		if length == 0 {
			return p.joined, size, nil
		}
	}
}
