package main

import (
	"encoding/json"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var blocks = sync.Pool{New: func() any { b := make([]byte, blockSize); return &b }}

// server answers the streams of one session.
type server struct {
	keep                          bool // accepted idle streams are kept without a goroutine
	kept                          []stream
	received, window, wrong, sent atomic.Int64
}

type report struct {
	Received int64   `json:"received"`
	Window   int64   `json:"window"`
	Wrong    int64   `json:"wrong"`
	Sent     int64   `json:"sent"`
	RSS      int64   `json:"rss"`
	CPU      float64 `json:"cpu"`
}

func (s *server) serve(sess session) error {
	for {
		st, err := sess.accept()
		if err != nil {
			return err
		}
		if s.keep {
			s.handle(st)
		} else {
			go s.handle(st)
		}
	}
}

func (s *server) handle(st stream) {
	first := make([]byte, 64)
	n, err := io.ReadAtLeast(st, first, headerSize)
	if err != nil {
		st.Close()
		return
	}
	h := getHeader(first)
	switch h.op {
	case opEcho:
		s.echo(st, first[:n], int(h.size))
	case opPing:
		if s.keep {
			s.kept = append(s.kept, st)
			return
		}
		s.ping(st, first, first[headerSize:n])
	case opUp:
		s.receive(st, h, first[headerSize:n])
	case opDown:
		s.send(st, h)
	case opBoth:
		done := make(chan struct{})
		go func() { s.send(st, h); close(done) }()
		s.receive(st, h, first[headerSize:n])
		<-done
	case opReport:
		_ = json.NewEncoder(st).Encode(s.report())
	case opClock:
		_ = json.NewEncoder(st).Encode(newMark())
	}
	st.Close()
}

func (s *server) echo(st stream, first []byte, size int) {
	if len(first) < size {
		pooled := blocks.Get().(*[]byte)
		defer blocks.Put(pooled)
		whole := (*pooled)[:size]
		n := copy(whole, first)
		if _, err := io.ReadFull(st, whole[n:]); err != nil {
			return
		}
		first = whole
	}
	_, _ = st.Write(first)
}

func (s *server) ping(st stream, buffer, early []byte) {
	for {
		if len(early) > 0 {
			if _, err := st.Write(early); err != nil {
				return
			}
		}
		n, err := st.Read(buffer)
		if err != nil {
			return
		}
		early = buffer[:n]
	}
}

func (s *server) receive(st stream, h header, early []byte) {
	c := receiveAll(st, h, early)
	s.received.Add(c.received)
	s.window.Add(c.window)
	s.wrong.Add(c.wrong)
}

func (s *server) send(st stream, h header) {
	s.sent.Add(sendUntil(st, h.end))
}

func (s *server) report() report {
	runtime.GC()
	debug.FreeOSMemory()
	return report{
		Received: s.received.Load(),
		Window:   s.window.Load(),
		Wrong:    s.wrong.Load(),
		Sent:     s.sent.Load(),
		RSS:      rss(),
		CPU:      cpu(),
	}
}

// receiveAll reads to the end of the stream.
func receiveAll(st stream, h header, early []byte) checker {
	c := checker{start: h.start, end: h.end}
	if len(early) > 0 {
		c.add(early)
	}
	pooled := blocks.Get().(*[]byte)
	defer blocks.Put(pooled)
	for {
		n, err := st.Read(*pooled)
		if n > 0 {
			c.add((*pooled)[:n])
		}
		if err != nil {
			return c
		}
	}
}

// sendUntil writes blocks until the given time, and returns how many bytes that were.
func sendUntil(st stream, end int64) (sent int64) {
	for time.Now().UnixNano() < end {
		n, err := st.Write(pattern[:blockSize])
		sent += int64(n)
		if err != nil {
			break
		}
	}
	return sent
}

// rss returns the resident memory in bytes, 0 where it can't be had.
func rss() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// cpu returns the seconds of processor time used so far.
func cpu() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// mark is a process's processor time at a moment, both in seconds.
type mark struct {
	CPU float64 `json:"cpu"`
	Now float64 `json:"now"`
}

func newMark() mark { return mark{cpu(), float64(time.Now().UnixNano()) / 1e9} }

// loadBetween returns how much of one core a process used between two marks.
func loadBetween(before, after mark) float64 {
	return (after.CPU - before.CPU) / (after.Now - before.Now)
}
