package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
	"time"

	muxado "golang.ngrok.com/muxado/v2"
)

const behaviourSyntax = "echo, discard, source:BYTES, hash, hold, slow:BYTES_PER_SECOND, close-unread[:DELAY], type-echo, http, none"

// behaviour is what happens to an accepted stream.
type behaviour struct {
	name  string
	n     int64         // of source and slow
	delay time.Duration // of close-unread
}

func parseBehaviour(text string) (behaviour, error) {
	name, arg, hasArg := strings.Cut(text, ":")
	b := behaviour{name: name}
	var err error
	switch name {
	case "echo", "discard", "hash", "hold", "type-echo", "http", "none":
		if hasArg {
			err = fmt.Errorf("%s takes no argument", name)
		}
	case "source":
		b.n, err = strconv.ParseInt(arg, 10, 64)
		if err == nil && b.n < 0 {
			err = errors.New("source needs a number of bytes")
		}
	case "slow":
		b.n, err = strconv.ParseInt(arg, 10, 64)
		if err == nil && b.n < 1 {
			err = errors.New("slow needs a positive number of bytes per second")
		}
	case "close-unread":
		if hasArg {
			b.delay, err = time.ParseDuration(arg)
		}
	default:
		err = fmt.Errorf("unknown behaviour %q; there are %s", text, behaviourSyntax)
	}
	return b, err
}

// reported tells whether a stream's end is worth an event under report "some":
// not where the other end sees the result for itself.
func (b behaviour) reported(report string) bool {
	switch report {
	case "all":
		return true
	case "none":
		return false
	}
	return b.name != "echo" && b.name != "type-echo" && b.name != "hash"
}

// behave treats one accepted stream according to b.
func (p *peer) behave(str muxado.Stream, typ *uint32, b behaviour, report string) {
	if b.name == "hold" {
		handle, _ := p.hold(str, typ)
		p.out.event("held", fields{"handle": handle, "stream": str.Id(), "type": typ})
		return
	}
	p.counts.active.Add(1)
	result, err := p.perform(str, typ, b)
	p.counts.active.Add(-1)
	if err != nil {
		p.counts.failed.Add(1)
	}
	if b.reported(report) {
		result["type"] = typ
		result.setError(err)
		p.out.event("stream-done", result)
	}
}

// perform runs a behaviour to its end and leaves the stream closed.
func (p *peer) perform(str muxado.Stream, typ *uint32, b behaviour) (fields, error) {
	in := &meter{str: str, idle: p.opts.timeout, hash: sha256.New()}
	out := &meter{str: str, hash: sha256.New()}
	var err error
	switch b.name {
	case "echo":
		in.hash, out.hash = nil, nil // hashing would only slow the copying
		_, err = io.Copy(out, in)
	case "type-echo":
		in.hash, out.hash = nil, nil
		if typ == nil {
			err = badRequest("type-echo needs a typed stream")
			break
		}
		t := *typ
		if _, err = out.Write([]byte{byte(t >> 24), byte(t >> 16), byte(t >> 8), byte(t)}); err == nil {
			_, err = io.Copy(out, in)
		}
	case "discard":
		_, err = io.Copy(io.Discard, in)
	case "slow":
		err = readSlowly(in, b.n)
	case "hash":
		if _, err = io.Copy(io.Discard, in); err == nil {
			_, err = out.Write(in.hash.Sum(nil))
		}
	case "source":
		err = feed(out, newData(p.opts.seed+uint64(str.Id())), b.n, &schedule{chunk: 64 << 10})
	case "close-unread":
		time.Sleep(b.delay)
	default:
		err = badRequest("behaviour " + b.name + " cannot be run on a stream")
	}
	if err == nil && b.name != "close-unread" {
		if err = str.CloseWrite(); err == nil && b.name == "source" {
			// Close() forgets the stream, and data still coming would then be
			// answered with a reset. Wait for the other end to finish.
			_, err = io.Copy(io.Discard, in)
		}
	}
	_ = str.Close()

	p.counts.read.Add(in.n)
	p.counts.written.Add(out.n)
	result := fields{"behaviour": b.name, "stream": str.Id(), "read": in.n, "written": out.n}
	if in.hash != nil {
		result["read_sha256"] = hexSum(in.hash)
		result["written_sha256"] = hexSum(out.hash)
	}
	return result, err
}

// readSlowly reads to EOF, about rate bytes a second.
func readSlowly(r io.Reader, rate int64) error {
	const steps = 20 // reads a second, unless the rate is lower
	buf := make([]byte, max(rate/steps, 1))
	for {
		n, err := r.Read(buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(n) * time.Second / time.Duration(rate))
	}
}

// meter counts and, if there is a hash, hashes what goes through a stream in
// one direction. With idle set a read fails when nothing has come for about
// that long.
type meter struct {
	str      muxado.Stream
	n        int64
	hash     hash.Hash
	idle     time.Duration
	deadline time.Time
}

func (m *meter) Read(p []byte) (int, error) {
	if m.idle > 0 {
		// Moving the deadline at every read would cost more than the read.
		if now := time.Now(); m.deadline.Sub(now) < m.idle*3/4 {
			m.deadline = now.Add(m.idle)
			_ = m.str.SetReadDeadline(m.deadline)
		}
	}
	n, err := m.str.Read(p)
	m.pass(p[:n])
	return n, err
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.str.Write(p)
	m.pass(p[:n])
	return n, err
}

func (m *meter) pass(p []byte) {
	m.n += int64(len(p))
	if m.hash != nil {
		m.hash.Write(p)
	}
}

func hexSum(h hash.Hash) string { return fmt.Sprintf("%x", h.Sum(nil)) }
