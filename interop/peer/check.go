package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	muxado "golang.ngrok.com/muxado/v2"
)

// newData is an endless source of bytes that depends on the seed only.
func newData(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// newRand makes the decisions; it is kept apart from the data so that the data
// does not depend on how it is cut.
func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x6d757861646f)) }

// schedule says how data is cut into Write calls.
type schedule struct {
	chunk  int64         // pieces of so many bytes; 0: random sizes; below 0: one piece
	jitter time.Duration // pause up to so long before some of the pieces
	rng    *rand.Rand    // needed for random sizes and for jitter
}

func (s *schedule) next(left int64) int64 {
	if s.jitter > 0 && s.rng.IntN(8) == 0 {
		time.Sleep(time.Duration(s.rng.Int64N(int64(s.jitter) + 1)))
	}
	switch {
	case s.chunk > 0:
		return min(s.chunk, left)
	case s.chunk < 0:
		return left
	}
	// Every order of magnitude equally often, from single bytes to more than a window.
	return min(1+s.rng.Int64N(1<<(2*s.rng.IntN(10)+1)), left)
}

// feed writes n bytes of data to w, cut according to s.
func feed(w io.Writer, data io.Reader, n int64, s *schedule) error {
	var buf []byte
	for n > 0 {
		size := s.next(n)
		if int64(len(buf)) < size {
			buf = make([]byte, size)
		}
		if _, err := io.ReadFull(data, buf[:size]); err != nil {
			return err
		}
		if _, err := w.Write(buf[:size]); err != nil {
			return err
		}
		n -= size
	}
	return nil
}

func logUniform(rng *rand.Rand, low, high int64) int64 {
	span := math.Log(float64(high-low) + 1)
	return min(low+int64(math.Exp(rng.Float64()*span))-1, high)
}

// check is one opened stream whose data is compared with what comes back.
type check struct {
	n    int64
	seed uint64
	typ  *uint32
	mode string // echo: the data itself comes back; hash: its SHA-256
	schedule
}

var errMismatch = errors.New("what came back is not what was sent")

func (p *peer) check(ctx context.Context, c *check) (result fields, err error) {
	str, err := p.open(c.typ, false)
	if err != nil {
		return fields{}, err
	}
	// Close waits for a Write that waits for window, so nobody may wait for Close.
	defer func() { go str.Close() }()
	deadline, _ := ctx.Deadline()
	_ = str.SetReadDeadline(deadline)

	in := &meter{str: str, hash: sha256.New()}
	out := &meter{str: str, hash: sha256.New()}
	written := make(chan error, 1)
	cut := c.schedule
	cut.rng = newRand(c.seed) // a refused attempt's writer may still be using its own
	go func() {
		err := feed(out, newData(c.seed), c.n, &cut)
		if err == nil {
			err = str.CloseWrite()
		}
		written <- err
	}()

	var reply bytes.Buffer
	var sink io.Writer = io.Discard
	if c.mode == "hash" {
		sink = &reply
	}
	_, readErr := io.Copy(sink, in)
	result = fields{"stream": str.Id(), "received": in.n, "received_sha256": hexSum(in.hash)}
	var writeErr error
	select {
	case writeErr = <-written:
		// Only now has the writer left its meter.
		result["sent"], result["sent_sha256"] = out.n, hexSum(out.hash)
	default:
		if readErr == nil {
			// The answer is complete but the question is not: give the writer
			// the time that is left.
			select {
			case writeErr = <-written:
				result["sent"], result["sent_sha256"] = out.n, hexSum(out.hash)
			case <-ctx.Done():
				writeErr = fmt.Errorf("writing: %w", ctx.Err())
			}
		}
	}
	if readErr != nil {
		return result, fmt.Errorf("reading: %w", readErr)
	}
	if writeErr != nil {
		return result, fmt.Errorf("writing: %w", writeErr)
	}
	if c.mode == "hash" {
		if !bytes.Equal(reply.Bytes(), out.hash.Sum(nil)) {
			return result, errMismatch
		}
	} else if in.n != out.n || hexSum(in.hash) != hexSum(out.hash) {
		return result, errMismatch
	}
	return result, nil
}

// retryRefused calls attempt again as long as the other end refuses the stream
// because its accept queue is full. It returns the number of refusals.
func retryRefused(ctx context.Context, rng *rand.Rand, attempt func() error) (refused int64, err error) {
	for {
		err := attempt()
		if code, ok := muxadoCode(err); !ok || code != muxado.AcceptQueueFull {
			return refused, err
		}
		refused++
		pause := time.Duration(1+rng.Int64N(min(10*refused, 100))) * time.Millisecond
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return refused, fmt.Errorf("refused %d times: %w", refused, ctx.Err())
		}
	}
}

// tally adds up the outcomes of tasks that run at the same time.
type tally struct {
	mu       sync.Mutex
	expected int64
	good     int64
	bad      int64
	retries  int64
	bytes    int64
	statuses map[string]int64
	errs     []error // the first few
}

func newTally(expected int64) *tally {
	return &tally{expected: expected, statuses: make(map[string]int64)}
}

func (t *tally) add(retries, bytes int64, status int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.retries += retries
	if status != 0 {
		t.statuses[strconv.Itoa(status)]++
	}
	if err == nil {
		t.good++
		t.bytes += bytes
		return
	}
	t.bad++
	if len(t.errs) < 10 {
		t.errs = append(t.errs, err)
	}
}

func (t *tally) result() (fields, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	texts := []string{}
	for _, err := range t.errs {
		texts = append(texts, err.Error())
	}
	f := fields{
		"count":      t.expected,
		"good":       t.good,
		"bad":        t.bad,
		"unfinished": t.expected - t.good - t.bad,
		"retries":    t.retries,
		"bytes":      t.bytes,
		"errors":     texts,
	}
	if len(t.statuses) > 0 {
		f["statuses"] = maps.Clone(t.statuses)
	}
	switch {
	case t.good == t.expected:
		return f, nil
	case len(t.errs) > 0:
		return f, fmt.Errorf("%d of %d failed, first: %w", t.expected-t.good, t.expected, t.errs[0])
	default:
		return f, fmt.Errorf("%d of %d: %w", t.expected-t.good, t.expected, context.DeadlineExceeded)
	}
}

// inParallel runs task(0) to task(count-1), at most limit at a time, until all
// have ended or the time is up.
func inParallel(ctx context.Context, count, limit int64, task func(i int64)) {
	if limit <= 0 {
		limit = count
	}
	next := make(chan int64)
	go func() {
		defer close(next)
		for i := range count {
			select {
			case next <- i:
			case <-ctx.Done():
				return
			}
		}
	}()
	var workers sync.WaitGroup
	for range min(limit, count) {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for i := range next {
				task(i)
			}
		}()
	}
	finished := make(chan struct{})
	go func() { workers.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-ctx.Done():
		// Readers have the same deadline; let them report their own timeouts.
		select {
		case <-finished:
		case <-time.After(250 * time.Millisecond):
		}
	}
}
