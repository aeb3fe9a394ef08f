package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const behaviourSyntax = "echo, discard, source:BYTES, slow:BYTES_PER_SECOND, close-unread, hold, none"

// peer is the session and what is known about its streams.
type peer struct {
	opts *options
	out  *output
	sess session

	mu        sync.Mutex
	behaviour string
	handles   map[int]stream
	last      int

	accepted, failed, read, written atomic.Int64
	refused                         atomic.Int64
}

type request struct {
	ID         json.RawMessage `json:"id"`
	Cmd        string          `json:"cmd"`
	Timeout    float64         `json:"timeout"` // seconds
	Background bool            `json:"background"`
	Handle     int             `json:"handle"`
	N          *int64          `json:"n"`
	Seed       int64           `json:"seed"`
	Chunk      int64           `json:"chunk"`
	Data       *string         `json:"data"` // hexadecimal
	Show       bool            `json:"show"`
	Behaviour  string          `json:"behaviour"`
	Count      int64           `json:"count"`
	Max        int64           `json:"max"`
	Jitter     float64         `json:"jitter_ms"`
}

// hashed counts and hashes what passes.
type hashed struct {
	hash hash.Hash
	n    int64
}

func newHashed() *hashed { return &hashed{hash: sha256.New()} }

func (h *hashed) Write(p []byte) (int, error) {
	h.n += int64(len(p))
	return h.hash.Write(p)
}

func (h *hashed) sum() string { return hex.EncodeToString(h.hash.Sum(nil)) }

func (p *peer) watch() {
	<-p.sess.Done()
	p.out.event("session-end", fields{})
}

func (p *peer) accept() {
	for {
		p.mu.Lock()
		idle := p.behaviour == "none"
		p.mu.Unlock()
		if idle {
			select {
			case <-p.sess.Done():
				return
			case <-time.After(5 * time.Millisecond):
				continue
			}
		}
		str, err := p.sess.Accept()
		if err != nil {
			p.out.event("accept-error", fields{"error": err.Error()})
			return
		}
		p.accepted.Add(1)
		p.mu.Lock()
		behaviour := p.behaviour
		p.mu.Unlock()
		go p.behave(str, behaviour)
	}
}

func (p *peer) hold(str stream) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	p.handles[p.last] = str
	return p.last
}

// behave treats one accepted stream.
func (p *peer) behave(str stream, behaviour string) {
	name, arg, _ := strings.Cut(behaviour, ":")
	number, _ := strconv.ParseInt(arg, 10, 64)
	in, out := newHashed(), newHashed()
	var err error
	switch name {
	case "hold":
		p.out.event("held", fields{"handle": p.hold(str), "stream": str.Number()})
		return
	case "echo":
		_, err = io.Copy(io.MultiWriter(str, out), io.TeeReader(plain{str}, in))
	case "discard":
		p.out.event("discarding", fields{"stream": str.Number()})
		_, err = io.Copy(in, plain{str})
	case "slow":
		buf := make([]byte, max(number/20, 1))
		for err == nil {
			var n int
			n, err = str.Read(buf)
			_, _ = in.Write(buf[:n])
			time.Sleep(time.Duration(n) * time.Second / time.Duration(number))
		}
	case "source":
		err = feed(io.MultiWriter(str, out), int64(str.Number()), number, 64<<10, 0)
	case "close-unread":
	default:
		err = errors.New("there is no such behaviour")
	}
	if isEOF(err) && name != "close-unread" {
		err = str.CloseWrite()
		if err == nil && name == "source" {
			_, err = io.Copy(in, plain{str})
		}
	}
	// Given time to read the rest: a library may forget the stream at once.
	_ = str.Close()
	p.read.Add(in.n)
	p.written.Add(out.n)
	result := fields{
		"behaviour": name, "stream": str.Number(),
		"read": in.n, "read_sha256": in.sum(), "written": out.n, "written_sha256": out.sum(),
	}
	if err != nil {
		p.failed.Add(1)
		result["error"] = err.Error()
	}
	if name != "echo" {
		p.out.event("stream-done", result)
	}
}

// plain hides a stream's WriteTo, which smux has, and which would pass by the
// hash.
type plain struct{ io.Reader }

// feed writes n bytes that depend on the seed only, in pieces of so many; 0 is
// any sizes, below 0 is one piece.
func feed(w io.Writer, seed, n, chunk int64, jitter time.Duration) error {
	data := rand.New(rand.NewSource(seed))
	cuts := rand.New(rand.NewSource(seed + 1))
	buf := make([]byte, 512<<10)
	for n > 0 {
		size := chunk
		if chunk == 0 {
			size = 1 + cuts.Int63n(1<<(2*cuts.Intn(10)+1))
		}
		if size < 0 {
			size = n
		}
		size = min(size, n, int64(len(buf)))
		if jitter > 0 && cuts.Intn(8) == 0 {
			time.Sleep(time.Duration(cuts.Int63n(int64(jitter) + 1)))
		}
		_, _ = data.Read(buf[:size])
		if _, err := w.Write(buf[:size]); err != nil {
			return err
		}
		n -= size
	}
	return nil
}

func (p *peer) execute(line []byte) {
	var r request
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		p.out.line(fields{"id": r.ID, "ok": false, "error": err.Error(), "bad_request": true})
		return
	}
	if r.Background {
		p.out.line(fields{"id": r.ID, "ok": true, "started": true})
	}
	type outcome struct {
		result fields
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		result, err := p.perform(&r)
		done <- outcome{result, err}
	}()
	timeout := p.opts.timeout
	if r.Timeout > 0 {
		timeout = time.Duration(r.Timeout * float64(time.Second))
	}
	o := outcome{err: fmt.Errorf("%s took more than %v", r.Cmd, timeout)}
	select {
	case o = <-done:
	case <-time.After(timeout):
	}
	reply := fields{}
	for key, value := range o.result {
		reply[key] = value
	}
	reply["id"], reply["ok"] = r.ID, o.err == nil
	if o.err != nil {
		reply["error"] = o.err.Error()
	}
	if r.Background {
		reply["cmd"] = r.Cmd
		p.out.event("done", reply)
		return
	}
	p.out.line(reply)
}

func (p *peer) perform(r *request) (fields, error) {
	switch r.Cmd {
	case "open":
		str, err := p.sess.Open()
		if err != nil {
			return nil, err
		}
		return fields{"handle": p.hold(str), "stream": str.Number()}, nil
	case "check":
		return p.check(r.Seed, *r.N, r.Chunk, r.jitter())
	case "many":
		return p.many(r)
	case "behaviour":
		p.mu.Lock()
		p.behaviour = r.Behaviour
		p.mu.Unlock()
		return nil, nil
	case "goaway":
		return nil, p.sess.GoAway()
	case "ping":
		rtt, err := p.sess.Ping()
		return fields{"us": rtt.Microseconds()}, err
	case "close-session":
		return nil, p.sess.Close()
	case "wait":
		<-p.sess.Done()
		return nil, nil
	case "stats":
		return fields{
			"accepted": p.accepted.Load(), "failed": p.failed.Load(),
			"read": p.read.Load(), "written": p.written.Load(), "streams": p.sess.NumStreams(),
		}, nil
	}
	p.mu.Lock()
	str := p.handles[r.Handle]
	p.mu.Unlock()
	if str == nil {
		return fields{"bad_request": true}, errors.New("no such command or handle")
	}
	switch r.Cmd {
	case "write":
		out := newHashed()
		w := io.MultiWriter(str, out)
		if r.Data != nil {
			data, err := hex.DecodeString(*r.Data)
			if err == nil {
				_, err = w.Write(data)
			}
			return fields{"n": out.n, "sha256": out.sum()}, err
		}
		err := feed(w, r.Seed, *r.N, r.Chunk, r.jitter())
		return fields{"n": out.n, "sha256": out.sum()}, err
	case "read":
		in := newHashed()
		var shown bytes.Buffer
		var from io.Reader = plain{str}
		if r.N != nil {
			from = io.LimitReader(from, *r.N)
		}
		var to io.Writer = in
		if r.Show {
			to = io.MultiWriter(in, &shown)
		}
		_, err := io.Copy(to, from)
		result := fields{"n": in.n, "sha256": in.sum(), "eof": err == nil && (r.N == nil || in.n < *r.N)}
		if r.Show {
			result["data"] = hex.EncodeToString(shown.Bytes())
		}
		return result, err
	case "close-write":
		return nil, str.CloseWrite()
	case "close":
		return nil, str.Close()
	case "reset":
		return nil, str.Reset()
	}
	return fields{"bad_request": true}, errors.New("no such command")
}

func (r *request) jitter() time.Duration { return time.Duration(r.Jitter * float64(time.Millisecond)) }

var errMismatch = errors.New("what came back is not what was sent")

// check opens a stream, writes, ends its half and compares what comes back.
func (p *peer) check(seed, n, chunk int64, jitter time.Duration) (fields, error) {
	str, err := p.sess.Open()
	if err != nil {
		return nil, err
	}
	in, out := newHashed(), newHashed()
	written := make(chan error, 1)
	go func() {
		err := feed(io.MultiWriter(str, out), seed, n, chunk, jitter)
		if err == nil {
			err = str.CloseWrite()
		}
		written <- err
	}()
	_, readErr := io.Copy(in, plain{str})
	writeErr := <-written
	_ = str.Close()
	result := fields{
		"stream": str.Number(), "sent": out.n, "sent_sha256": out.sum(),
		"received": in.n, "received_sha256": in.sum(),
	}
	if readErr != nil {
		return result, fmt.Errorf("reading: %w", readErr)
	}
	if writeErr != nil {
		return result, fmt.Errorf("writing: %w", writeErr)
	}
	if in.sum() != out.sum() {
		return result, errMismatch
	}
	return result, nil
}

// many checks so many streams at once, with sizes up to max, small ones as
// likely as large ones.
func (p *peer) many(r *request) (fields, error) {
	var wait sync.WaitGroup
	var good, moved atomic.Int64
	errs := make(chan error, r.Count)
	for i := range r.Count {
		wait.Add(1)
		go func() {
			defer wait.Done()
			sizes := rand.New(rand.NewSource(r.Seed + i))
			n := int64(0)
			for limit := r.Max; limit > 0 && sizes.Intn(2) == 0; limit /= 4 {
				n = sizes.Int63n(limit)
			}
			if _, err := p.check(r.Seed+i, n, 0, r.jitter()); err != nil {
				errs <- err
				return
			}
			good.Add(1)
			moved.Add(n)
		}()
	}
	wait.Wait()
	result := fields{"count": r.Count, "good": good.Load(), "bytes": moved.Load()}
	select {
	case err := <-errs:
		return result, err
	default:
		return result, nil
	}
}
