package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// A cell is one piece of work, as the driver names it.
type cell struct {
	Work        string  `json:"work"`
	Concurrency int     `json:"concurrency"`
	Payload     int     `json:"payload"`
	Direction   string  `json:"direction"`
	Seconds     float64 `json:"seconds"`
	Warmup      float64 `json:"warmup"`
	Streams     int     `json:"streams"`
	Handler     bool    `json:"handler"`
}

type result map[string]any

type client struct {
	cell
	mux        string
	sess       session
	start, end time.Time
}

func (c *client) run() (result, error) {
	c.start = time.Now().Add(seconds(c.Warmup))
	c.end = c.start.Add(seconds(c.Seconds))
	switch c.Work {
	case "requests":
		return c.requests()
	case "bulk":
		return c.bulk()
	case "ping":
		return c.ping()
	case "idle":
		return c.idle()
	}
	return nil, fmt.Errorf("this contender does not do %q", c.Work)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// each runs n goroutines and returns their first error.
func each(n int, f func(i int) error) error {
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- f(i) }()
	}
	var first error
	for range n {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// measured does something, and tells how busy both ends were in the measured time.
func (c *client) measured(work func() error) (float64, error) {
	loads := make(chan float64, 1)
	go func() {
		mine, theirs := c.marksAt(c.start)
		mineLater, theirsLater := c.marksAt(c.end)
		loads <- loadBetween(mine, mineLater) + loadBetween(theirs, theirsLater)
	}()
	err := work()
	return <-loads, err
}

// marksAt returns both ends' marks at a time, as near as it can be had.
func (c *client) marksAt(moment time.Time) (mine, theirs mark) {
	time.Sleep(time.Until(moment))
	mine = newMark()
	_ = c.ask(opClock, &theirs)
	return mine, theirs
}

func (c *client) requests() (result, error) {
	var latencies []time.Duration
	load, err := c.measured(func() (err error) {
		latencies, err = c.requestLanes()
		return err
	})
	if err != nil {
		return nil, err
	}
	out := latencyResult(latencies)
	rate := float64(len(latencies)) / c.Seconds
	out["rate"], out["cpu_us"] = rate, 1e6*load/rate
	return out, c.addReport(out)
}

func (c *client) requestLanes() (latencies []time.Duration, err error) {
	var mu sync.Mutex
	err = each(c.Concurrency, func(i int) error {
		data := echoData(c.Payload, i)
		reply := make([]byte, len(data))
		var mine []time.Duration
		for {
			begun := time.Now()
			if begun.After(c.end) {
				break
			}
			if err := c.request(data, reply); err != nil {
				return err
			}
			now := time.Now()
			if now.After(c.start) && now.Before(c.end) {
				mine = append(mine, now.Sub(begun))
			}
		}
		mu.Lock()
		latencies = append(latencies, mine...)
		mu.Unlock()
		return nil
	})
	return latencies, err
}

func echoData(size, number int) []byte {
	data := append([]byte(nil), pattern[:size]...)
	header{op: opEcho, size: uint32(size)}.put(data)
	binary.BigEndian.PutUint64(data[size-8:], uint64(number))
	return data
}

// request is one whole life of a stream.
func (c *client) request(data, reply []byte) error {
	st, err := c.sess.open()
	if err != nil {
		return err
	}
	if _, err := st.Write(data); err != nil {
		return err
	}
	if _, err := io.ReadFull(st, reply); err != nil {
		return err
	}
	if !bytes.Equal(data, reply) {
		return fmt.Errorf("a reply is wrong")
	}
	return st.Close()
}

func (c *client) bulk() (result, error) {
	var total checker
	var sent int64
	load, err := c.measured(func() (err error) {
		total, sent, err = c.transfer()
		return err
	})
	if err != nil {
		return nil, err
	}
	r, err := c.report()
	if err != nil {
		return nil, err
	}
	if c.mux == "smux" && c.Direction == "both" {
		// smux drops what is unread when the second FIN comes; by then nothing is measured.
		total.received = r.Sent
	}
	out, err := bulkResult(c.Seconds, total, sent, r)
	if err == nil {
		out["cpu_gib"] = 1024 * load / out["mib_s"].(float64)
	}
	return out, err
}

// transfer runs the bulk streams to their end.
func (c *client) transfer() (total checker, sent int64, err error) {
	ops := map[string]byte{"up": opUp, "down": opDown, "both": opBoth}
	h := header{op: ops[c.Direction], start: c.start.UnixNano(), end: c.end.UnixNano()}
	var mu sync.Mutex
	err = each(c.Concurrency, func(int) error {
		st, err := c.sess.open()
		if err != nil {
			return err
		}
		first := make([]byte, headerSize)
		h.put(first)
		if _, err := st.Write(first); err != nil {
			return err
		}
		written := make(chan int64, 1)
		go func() {
			var n int64
			if h.op != opDown {
				n = sendUntil(st, h.end)
				st.CloseWrite()
			}
			written <- n
		}()
		received := receiveAll(st, h, nil)
		n := <-written
		st.Close()
		mu.Lock()
		defer mu.Unlock()
		total.received += received.received
		total.window += received.window
		total.wrong += received.wrong
		sent += n
		return nil
	})
	return total, sent, err
}

func bulkResult(seconds float64, total checker, sent int64, r report) (result, error) {
	if total.wrong+r.Wrong > 0 {
		return nil, fmt.Errorf("%d chunks were wrong", total.wrong+r.Wrong)
	}
	if sent != r.Received || r.Sent != total.received {
		return nil, fmt.Errorf("bytes were lost: %d of %d up, %d of %d down",
			r.Received, sent, total.received, r.Sent)
	}
	return result{
		"mib_s":      float64(total.window+r.Window) / seconds / (1 << 20),
		"server_cpu": r.CPU, "client_cpu": cpu(),
	}, nil
}

func (c *client) ping() (result, error) {
	st, err := c.sess.open()
	if err != nil {
		return nil, err
	}
	first := make([]byte, headerSize)
	header{op: opPing}.put(first)
	if _, err := st.Write(first); err != nil {
		return nil, err
	}
	var total checker
	var sent int64
	bulk := make(chan error, 1)
	go func() {
		var err error
		if c.Concurrency > 0 {
			total, sent, err = c.transfer()
		}
		bulk <- err
	}()
	message, reply := append([]byte(nil), pattern[:64]...), make([]byte, 64)
	var latencies []time.Duration
	for number := uint64(0); ; number++ {
		binary.BigEndian.PutUint64(message, number)
		begun := time.Now()
		if begun.After(c.end) {
			break
		}
		if _, err := st.Write(message); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(st, reply); err != nil {
			return nil, err
		}
		now := time.Now()
		if !bytes.Equal(message, reply) {
			return nil, fmt.Errorf("a ping's reply is wrong")
		}
		if now.After(c.start) && now.Before(c.end) {
			latencies = append(latencies, now.Sub(begun))
		}
	}
	if err := <-bulk; err != nil {
		return nil, err
	}
	st.Close()
	r, err := c.report()
	if err != nil {
		return nil, err
	}
	out := latencyResult(latencies)
	moved, err := bulkResult(c.Seconds, total, sent, r)
	for k, v := range moved {
		out[k] = v
	}
	return out, err
}

// idle opens streams that then do nothing, and tells what one costs the other end.
func (c *client) idle() (result, error) {
	var kept []stream
	open := func(n int) error {
		first := make([]byte, headerSize)
		header{op: opPing}.put(first)
		data, reply := echoData(64, 0), make([]byte, 64)
		for i := range n {
			st, err := c.sess.open()
			if err != nil {
				return err
			}
			if _, err := st.Write(first); err != nil {
				return err
			}
			kept = append(kept, st)
			if i%100 == 99 {
				if err := c.request(data, reply); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := open(1000); err != nil {
		return nil, err
	}
	before, err := c.report()
	if err != nil {
		return nil, err
	}
	if err := open(c.Streams); err != nil {
		return nil, err
	}
	after, err := c.report()
	if err != nil {
		return nil, err
	}
	return result{
		"kib_per_stream": float64(after.RSS-before.RSS) / float64(c.Streams) / 1024,
		"streams":        len(kept),
		"server_rss_mib": float64(after.RSS) / (1 << 20),
	}, nil
}

func (c *client) report() (r report, err error) { return r, c.ask(opReport, &r) }

// ask has the server tell something of itself.
func (c *client) ask(op byte, told any) error {
	st, err := c.sess.open()
	if err != nil {
		return err
	}
	defer st.Close()
	first := make([]byte, headerSize)
	header{op: op}.put(first)
	if _, err := st.Write(first); err != nil {
		return err
	}
	return json.NewDecoder(st).Decode(told)
}

func (c *client) addReport(out result) error {
	r, err := c.report()
	out["server_cpu"], out["client_cpu"] = r.CPU, cpu()
	return err
}

func latencyResult(latencies []time.Duration) result {
	slices.Sort(latencies)
	at := func(percent int) float64 {
		if len(latencies) == 0 {
			return 0
		}
		i := min(len(latencies)-1, len(latencies)*percent/100)
		return float64(latencies[i].Nanoseconds()) / 1000
	}
	return result{"count": len(latencies), "p50_us": at(50), "p99_us": at(99)}
}
