package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	muxado "golang.ngrok.com/muxado/v2"
	"golang.ngrok.com/muxado/v2/frame"
)

// peer is one muxado session and all that the commands work on.
type peer struct {
	opts *options
	out  *output

	raw   muxado.Session // as muxado.Client or muxado.Server made it
	sess  muxado.Session // the outermost wrapper, or raw
	typed muxado.TypedStreamSession
	beats *muxado.Heartbeat

	frames frameCounts
	counts struct {
		accepted, acceptErrors, opened, active, failed atomic.Int64
		read, written                                  atomic.Int64
	}

	mu         sync.Mutex
	behaviour  behaviour
	report     string
	changed    chan struct{} // closed when behaviour changes
	accepting  bool          // the accept loop has begun to call AcceptStream
	handles    map[int]*held
	lastHandle int

	dead chan struct{} // closed when the session has ended and end is set
	end  fields
}

// held is a stream that only moves when a command says so.
type held struct {
	muxado.Stream
	typ           *uint32
	read, written atomic.Int64
	writing       atomic.Int32 // Write calls under way
}

func newPeer(o *options, conn net.Conn, out *output) (*peer, error) {
	p := &peer{
		opts:      o,
		out:       out,
		behaviour: o.behaviour,
		report:    o.report,
		changed:   make(chan struct{}),
		handles:   make(map[int]*held),
		dead:      make(chan struct{}),
	}
	config := &muxado.Config{
		MaxWindowSize: uint32(o.window),
		AcceptBacklog: uint32(o.backlog),
		NewFramer: func(r io.Reader, w io.Writer) frame.Framer {
			framer := frame.NewFramer(r, w)
			if o.trace {
				framer = frame.NewNamedDebugFramer(o.role, os.Stderr, framer)
			}
			return &countingFramer{Framer: framer, counts: &p.frames, out: out}
		},
	}
	if o.role == "client" {
		p.raw = muxado.Client(conn, config)
	} else {
		p.raw = muxado.Server(conn, config)
	}
	p.sess = p.raw
	if o.nextID != 0 {
		if err := setNextID(p.raw, uint32(o.nextID)); err != nil {
			return nil, err
		}
	}
	if o.typed {
		p.typed = muxado.NewTypedStreamSession(p.raw)
		p.sess = p.typed
	}
	if o.heartbeat {
		p.beats = muxado.NewHeartbeat(p.typed, p.onBeat, &muxado.HeartbeatConfig{
			Interval:  o.interval,
			Tolerance: o.tolerance,
			Type:      muxado.NewHeartbeatConfig().Type,
		})
		p.typed, p.sess = p.beats, p.beats
	}
	return p, nil
}

// start begins to do what needs no command.
func (p *peer) start() {
	go p.watchEnd()
	if p.beats != nil {
		p.beats.Start()
	}
	go p.acceptLoop()
}

func (p *peer) onBeat(latency time.Duration, timedOut bool) {
	p.out.event("heartbeat", fields{"latency_us": latency.Microseconds(), "timed_out": timedOut})
}

func (p *peer) watchEnd() {
	const shown = 4096 // of up to a megabyte of debug text
	err, remoteErr, debug := p.raw.Wait()
	code, _ := muxado.GetError(err) // 255 for foreign errors, such as an unexpected EOF
	end := fields{"code": code, "error": fmt.Sprint(err), "remote_code": nil, "debug_len": len(debug)}
	if remoteErr != nil {
		// From the other end's GOAWAY; its text is the debug text.
		end["remote_code"], _ = muxado.GetError(remoteErr)
	}
	debug = debug[:min(len(debug), shown)]
	end["debug"], end["debug_hex"] = string(debug), hex.EncodeToString(debug)
	p.end = end
	close(p.dead)
	p.out.event("session-end", maps.Clone(end))
}

// open opens a stream. A typed session opens typed streams, of type 0 unless
// told otherwise; untyped leaves the type bytes to the caller.
func (p *peer) open(typ *uint32, untyped bool) (muxado.Stream, error) {
	switch {
	case p.typed == nil && typ != nil:
		return nil, badRequest("a type needs -typed")
	case p.typed == nil || untyped:
		p.counts.opened.Add(1)
		return p.raw.OpenStream()
	default:
		p.counts.opened.Add(1)
		var t muxado.StreamType
		if typ != nil {
			t = muxado.StreamType(*typ)
		}
		return p.typed.OpenTypedStream(t)
	}
}

// accept takes the next stream and its type, nil in an untyped session.
func (p *peer) accept() (muxado.Stream, *uint32, error) {
	if p.typed == nil {
		str, err := p.raw.AcceptStream()
		return str, nil, err
	}
	// The heartbeat wrapper answers beats only in AcceptTypedStream and Accept;
	// AcceptStream hands their streams out.
	accept := p.typed.AcceptTypedStream
	if p.opts.acceptStream {
		accept = func() (muxado.TypedStream, error) {
			str, err := p.beats.AcceptStream()
			if err != nil {
				return nil, err
			}
			return str.(muxado.TypedStream), nil
		}
	}
	str, err := accept()
	if err != nil {
		return nil, nil, err
	}
	typ := uint32(str.StreamType())
	return str, &typ, nil
}

// hold registers a stream under a new handle.
func (p *peer) hold(str muxado.Stream, typ *uint32) (int, *held) {
	h := &held{Stream: str, typ: typ}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastHandle++
	p.handles[p.lastHandle] = h
	return p.lastHandle, h
}

func (p *peer) setBehaviour(b behaviour, report string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.behaviour = b
	if report != "" {
		p.report = report
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// waitAccepting waits until the behaviour is another than none.
func (p *peer) waitAccepting() (b behaviour, report string, ok bool) {
	for {
		p.mu.Lock()
		b, report, changed := p.behaviour, p.report, p.changed
		p.accepting = p.accepting || b.name != "none"
		p.mu.Unlock()
		if b.name != "none" {
			return b, report, true
		}
		select {
		case <-changed:
		case <-p.dead:
			return b, report, false
		}
	}
}

func (p *peer) acceptLoop() {
	for {
		b, _, ok := p.waitAccepting()
		if !ok {
			return
		}
		if b.name == "http" {
			p.serveHTTP()
			return
		}
		str, typ, err := p.accept()
		if err != nil {
			// A typed accept also fails when a single stream ends before its
			// type has come. That is no reason to stop.
			select {
			case <-p.dead:
				return
			case <-time.After(10 * time.Millisecond):
			}
			p.counts.acceptErrors.Add(1)
			f := fields{}
			f.setError(err)
			p.out.event("accept-error", f)
			continue
		}
		p.counts.accepted.Add(1)
		// The behaviour may have become none while we were in accept: then this
		// one stream waits here, accepted but untouched.
		b, report, ok := p.waitAccepting()
		if !ok {
			return
		}
		go p.behave(str, typ, b, report)
	}
}
