package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	muxado "golang.ngrok.com/muxado/v2"
)

// request is a command line. Each command uses some of the fields.
type request struct {
	ID         json.RawMessage `json:"id"`
	Cmd        string          `json:"cmd"`
	Background bool            `json:"background"`
	Timeout    float64         `json:"timeout"` // seconds

	Handle int     `json:"handle"`
	Type   *uint32 `json:"type"`

	N      *int64  `json:"n"`
	Seed   uint64  `json:"seed"`
	Chunk  *int64  `json:"chunk"`
	Jitter float64 `json:"jitter_ms"`
	Data   *string `json:"data"` // hexadecimal

	Once    bool    `json:"once"`
	Show    bool    `json:"show"`
	Untyped bool    `json:"untyped"`
	MS      float64 `json:"ms"`

	Behaviour string `json:"behaviour"`
	Report    string `json:"report"`

	Count       int64   `json:"count"`
	Concurrency int64   `json:"concurrency"`
	Min         int64   `json:"min"`
	Max         int64   `json:"max"`
	Mode        string  `json:"mode"`
	Sizes       []int64 `json:"sizes"`
	Path        string  `json:"path"`
	Chunked     bool    `json:"chunked"`
	KeepAlive   bool    `json:"keepalive"`
	Get         bool    `json:"get"`

	Code  uint32 `json:"code"`
	Debug string `json:"debug"`
}

// badRequest is the driver's mistake, as opposed to something that happened.
type badRequest string

func (b badRequest) Error() string { return string(b) }

var commands = map[string]func(*peer, context.Context, *request) (fields, error){
	"open":           (*peer).cmdOpen,
	"write":          (*peer).cmdWrite,
	"read":           (*peer).cmdRead,
	"close-write":    (*peer).cmdCloseWrite,
	"close":          (*peer).cmdClose,
	"write-deadline": (*peer).cmdWriteDeadline,
	"stream":         (*peer).cmdStream,
	"run":            (*peer).cmdRun,
	"check":          (*peer).cmdCheck,
	"many":           (*peer).cmdMany,
	"digest":         (*peer).cmdDigest,
	"behaviour":      (*peer).cmdBehaviour,
	"goaway":         (*peer).cmdGoAway,
	"close-session":  (*peer).cmdCloseSession,
	"wait":           (*peer).cmdWait,
	"stats":          (*peer).cmdStats,
	"beat":           (*peer).cmdBeat,
	"http-serve":     (*peer).cmdHTTPServe,
	"http-client":    (*peer).cmdHTTPClient,
}

// execute carries out one line and replies. Lines are executed concurrently.
func (p *peer) execute(line []byte) {
	var r request
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	err := dec.Decode(&r)
	if err != nil {
		err = badRequest("not a command: " + err.Error())
	}
	handler, known := commands[r.Cmd]
	if err == nil && !known {
		err = badRequest(fmt.Sprintf("unknown command %q", r.Cmd))
	}
	if err != nil {
		p.reply(&r, nil, err)
		return
	}
	if r.Background {
		p.out.line(fields{"id": r.ID, "ok": true, "started": true})
	}

	timeout := p.opts.timeout
	if r.Timeout > 0 {
		timeout = seconds(r.Timeout)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	type outcome struct {
		result fields
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		result, err := handler(p, ctx, &r)
		done <- outcome{result, err}
	}()
	select {
	case o := <-done:
		p.reply(&r, o.result, o.err)
		return
	case <-ctx.Done():
	}
	// Those who look at ctx get a moment to come back with what they have. A
	// muxado Write or Close waiting for window cannot be interrupted: it goes on
	// behind our back until the session ends.
	select {
	case o := <-done:
		p.reply(&r, o.result, o.err)
	case <-time.After(time.Second):
		p.reply(&r, nil, ctx.Err())
	}
}

func (p *peer) reply(r *request, result fields, err error) {
	f := fields{}
	for k, v := range result {
		f[k] = v
	}
	f["id"], f["ok"] = r.ID, err == nil
	f.setError(err)
	if r.Background {
		f["cmd"] = r.Cmd
		p.out.event("done", f)
		return
	}
	p.out.line(f)
}

func (p *peer) handle(r *request) (*held, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.handles[r.Handle]; h != nil {
		return h, nil
	}
	return nil, badRequest(fmt.Sprintf("no stream has handle %d", r.Handle))
}

func (p *peer) cmdOpen(_ context.Context, r *request) (fields, error) {
	str, err := p.open(r.Type, r.Untyped)
	if err != nil {
		return nil, err
	}
	handle, _ := p.hold(str, r.Type)
	return fields{"handle": handle, "stream": str.Id()}, nil
}

func (p *peer) cmdWrite(_ context.Context, r *request) (fields, error) {
	h, err := p.handle(r)
	if err != nil {
		return nil, err
	}
	var data io.Reader = newData(r.Seed)
	var n int64
	switch {
	case (r.N == nil) == (r.Data == nil):
		return nil, badRequest("write needs either n or data")
	case r.Data != nil:
		b, err := hex.DecodeString(*r.Data)
		if err != nil {
			return nil, badRequest("data: " + err.Error())
		}
		n, data = int64(len(b)), bytes.NewReader(b)
	default:
		n = *r.N
	}
	s := r.schedule(-1)
	h.writing.Add(1)
	defer h.writing.Add(-1)
	out := &meter{str: h.Stream, hash: sha256.New()}
	if n == 0 {
		_, err = out.Write(nil)
	} else {
		err = feed(progress{out, h}, data, n, &s)
	}
	return fields{"n": out.n, "sha256": hexSum(out.hash)}, err
}

// progress keeps the running total that the stream command shows.
type progress struct {
	w io.Writer
	h *held
}

func (w progress) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	w.h.written.Add(int64(n))
	return n, err
}

func (p *peer) cmdRead(ctx context.Context, r *request) (fields, error) {
	const shown = 4096
	h, err := p.handle(r)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = h.SetReadDeadline(deadline)
	defer func() { _ = h.SetReadDeadline(time.Time{}) }()

	left := int64(-1) // to EOF
	if r.N != nil {
		left = *r.N
	}
	size := int64(32 << 10)
	if r.Chunk != nil && *r.Chunk > 0 {
		size = *r.Chunk
	}
	buf := make([]byte, size)
	in := &meter{str: h.Stream, hash: sha256.New()}
	var show []byte
	eof := false
	for left != 0 && !eof && err == nil {
		b := buf
		if left > 0 {
			b = buf[:min(left, size)]
		}
		var n int
		n, err = in.Read(b)
		h.read.Add(int64(n))
		if left > 0 {
			left -= int64(n)
		}
		if r.Show && len(show) < shown {
			show = append(show, b[:min(n, shown-len(show))]...)
		}
		if err == io.EOF {
			eof, err = true, nil
		}
		if r.Once {
			break
		}
	}
	result := fields{"n": in.n, "sha256": hexSum(in.hash), "eof": eof}
	if r.Show {
		result["data"] = hex.EncodeToString(show)
	}
	return result, err
}

func (p *peer) cmdCloseWrite(_ context.Context, r *request) (fields, error) {
	h, err := p.handle(r)
	if err != nil {
		return nil, err
	}
	return nil, h.CloseWrite()
}

func (p *peer) cmdClose(_ context.Context, r *request) (fields, error) {
	// The handle stays: reads, writes and closes after Close have effects on the
	// wire that a test may want to see.
	h, err := p.handle(r)
	if err != nil {
		return nil, err
	}
	return nil, h.Close()
}

func (p *peer) cmdWriteDeadline(_ context.Context, r *request) (fields, error) {
	h, err := p.handle(r)
	if err != nil {
		return nil, err
	}
	var deadline time.Time
	if r.MS != 0 {
		deadline = time.Now().Add(milliseconds(r.MS))
	}
	return nil, h.SetWriteDeadline(deadline)
}

func (p *peer) cmdStream(_ context.Context, r *request) (fields, error) {
	h, err := p.handle(r)
	if err != nil {
		return nil, err
	}
	return fields{
		"stream":  h.Id(),
		"type":    h.typ,
		"read":    h.read.Load(),
		"written": h.written.Load(),
		"writing": h.writing.Load() > 0,
	}, nil
}

func (p *peer) cmdRun(_ context.Context, r *request) (fields, error) {
	h, err := p.handle(r)
	if err != nil {
		return nil, err
	}
	b, err := parseBehaviour(r.Behaviour)
	if err != nil {
		return nil, badRequest(err.Error())
	}
	return p.perform(h.Stream, h.typ, b)
}

func (p *peer) cmdCheck(ctx context.Context, r *request) (fields, error) {
	var n int64
	if r.N != nil {
		n = *r.N
	}
	c := &check{n: n, seed: r.Seed, typ: r.Type, mode: r.Mode, schedule: r.schedule(0)}
	if err := c.validate(); err != nil {
		return nil, err
	}
	var result fields
	rng := newRand(r.Seed)
	retries, err := retryRefused(ctx, rng, func() (err error) {
		result, err = p.check(ctx, c)
		return err
	})
	if result == nil {
		result = fields{}
	}
	result["retries"] = retries
	return result, err
}

func (c *check) validate() error {
	if c.mode != "" && c.mode != "echo" && c.mode != "hash" {
		return badRequest("mode must be echo or hash")
	}
	return nil
}

func (p *peer) cmdMany(ctx context.Context, r *request) (fields, error) {
	if r.Count < 1 || r.Min < 0 || r.Max < r.Min {
		return nil, badRequest("many needs count, and 0 <= min <= max")
	}
	if err := (&check{mode: r.Mode}).validate(); err != nil {
		return nil, err
	}
	t := newTally(r.Count)
	inParallel(ctx, r.Count, r.Concurrency, func(i int64) {
		// Each stream has its own random numbers, so that the seed determines
		// sizes and cuts whatever the order of events.
		rng := newRand(r.Seed + uint64(i))
		c := &check{seed: r.Seed + uint64(i), typ: r.Type, mode: r.Mode, schedule: r.schedule(0)}
		c.n = logUniform(rng, r.Min, r.Max)
		retries, err := retryRefused(ctx, rng, func() error {
			_, err := p.check(ctx, c)
			return err
		})
		t.add(retries, c.n, 0, err)
	})
	return t.result()
}

func (p *peer) cmdDigest(_ context.Context, r *request) (fields, error) {
	if r.N == nil {
		return nil, badRequest("digest needs n")
	}
	h := sha256.New()
	_, err := io.CopyN(h, newData(r.Seed), *r.N)
	return fields{"n": *r.N, "sha256": hexSum(h)}, err
}

func (p *peer) cmdBehaviour(_ context.Context, r *request) (fields, error) {
	b, err := parseBehaviour(r.Behaviour)
	switch {
	case err != nil:
		return nil, badRequest(err.Error())
	case b.name == "http":
		return nil, badRequest("use http-serve")
	case b.name == "type-echo" && p.typed == nil:
		return nil, badRequest("type-echo needs -typed")
	case r.Report != "" && r.Report != "all" && r.Report != "some" && r.Report != "none":
		return nil, badRequest("report must be all, some or none")
	}
	p.setBehaviour(b, r.Report)
	return nil, nil
}

func (p *peer) cmdGoAway(ctx context.Context, r *request) (fields, error) {
	// Not in muxado's public interface, but the session has it.
	session, ok := p.raw.(interface {
		GoAway(muxado.ErrorCode, []byte, time.Time) error
	})
	if !ok {
		return nil, errors.New("this muxado version cannot send a GOAWAY without closing")
	}
	deadline, _ := ctx.Deadline()
	return nil, session.GoAway(muxado.ErrorCode(r.Code), []byte(r.Debug), deadline)
}

func (p *peer) cmdCloseSession(context.Context, *request) (fields, error) {
	return nil, p.sess.Close()
}

func (p *peer) cmdWait(ctx context.Context, _ *request) (fields, error) {
	select {
	case <-p.dead:
		return fields{"end": p.end}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *peer) cmdStats(context.Context, *request) (fields, error) {
	in, out := p.frames.snapshot()
	table, err := tableSize(p.raw)
	if err != nil {
		return nil, err
	}
	ended := false
	select {
	case <-p.dead:
		ended = true
	default:
	}
	return fields{
		"accepted":      p.counts.accepted.Load(),
		"accept_errors": p.counts.acceptErrors.Load(),
		"opened":        p.counts.opened.Load(),
		"active":        p.counts.active.Load(),
		"failed":        p.counts.failed.Load(),
		"read":          p.counts.read.Load(),
		"written":       p.counts.written.Load(),
		"table":         table,
		"ended":         ended,
		"frames_in":     in,
		"frames_out":    out,
	}, nil
}

func (p *peer) cmdBeat(context.Context, *request) (fields, error) {
	if p.beats == nil {
		return nil, badRequest("beat needs -heartbeat")
	}
	latency, answered := p.beats.Beat()
	return fields{"latency_us": latency.Microseconds(), "answered": answered}, nil
}

func (r *request) schedule(chunk int64) schedule {
	if r.Chunk != nil {
		chunk = *r.Chunk
	}
	return schedule{chunk: chunk, jitter: milliseconds(r.Jitter), rng: newRand(r.Seed)}
}

func seconds(s float64) time.Duration       { return time.Duration(s * float64(time.Second)) }
func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
