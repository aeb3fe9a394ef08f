package main

import (
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"

	muxado "golang.ngrok.com/muxado/v2"
	"golang.ngrok.com/muxado/v2/frame"
)

// countingFramer counts the frames that pass; that is all a Go application can
// see of the wire, and the tests want to.
type countingFramer struct {
	frame.Framer
	counts *frameCounts
	out    *output
	goAway fields // the last frame read, if it was a GOAWAY
}

type frameCounts struct {
	mu      sync.Mutex
	in, out direction
}

type direction struct {
	frames  map[string]int64 // by type name
	rst     map[uint32]int64 // by error code
	syn     int64
	fin     int64
	synFin  int64 // both in one frame
	bytes   int64 // of DATA payload
	largest uint32
}

func (c *countingFramer) ReadFrame() (frame.Frame, error) {
	// muxado itself tells of a GOAWAY only when the session ends. It has acted on
	// one when it asks for the next frame: report it no earlier.
	if c.goAway != nil {
		c.out.event("goaway", c.goAway)
		c.goAway = nil
	}
	f, err := c.Framer.ReadFrame()
	if err == nil {
		c.counts.add(&c.counts.in, f)
		if g, ok := f.(*frame.GoAway); ok {
			c.goAway = fields{"last_id": g.LastStreamId(), "code": g.ErrorCode()}
		}
	}
	return f, err
}

func (c *countingFramer) WriteFrame(f frame.Frame) error {
	c.counts.add(&c.counts.out, f)
	return c.Framer.WriteFrame(f)
}

func (c *frameCounts) add(d *direction, f frame.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.frames == nil {
		d.frames, d.rst = make(map[string]int64), make(map[uint32]int64)
	}
	switch f := f.(type) {
	case *frame.Data:
		d.frames["data"]++
		d.bytes += int64(f.Length())
		d.largest = max(d.largest, f.Length())
		if f.Syn() {
			d.syn++
		}
		if f.Fin() {
			d.fin++
		}
		if f.Syn() && f.Fin() {
			d.synFin++
		}
	case *frame.Rst:
		d.frames["rst"]++
		d.rst[uint32(f.ErrorCode())]++
	case *frame.WndInc:
		d.frames["wndinc"]++
	case *frame.GoAway:
		d.frames["goaway"]++
	default:
		d.frames["unknown"]++
	}
}

func (c *frameCounts) snapshot() (in, out fields) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in.fields(), c.out.fields()
}

func (d *direction) fields() fields {
	f := fields{"syn": d.syn, "fin": d.fin, "syn_fin": d.synFin, "data_bytes": d.bytes, "largest_data": d.largest}
	for _, name := range []string{"data", "rst", "wndinc", "goaway", "unknown"} {
		f[name] = d.frames[name]
	}
	codes := make(map[string]int64, len(d.rst))
	for code, n := range d.rst {
		codes[fmt.Sprint(code)] = n
	}
	f["rst_codes"] = codes
	return f
}

// The two functions below reach into muxado's unexported state. There is no
// other way to see that a refused stream was forgotten, or to come near the end
// of the stream ids. The versions are pinned, so the fields are known.

func sessionField(sess muxado.Session, path ...string) (reflect.Value, error) {
	v := reflect.ValueOf(sess)
	for _, name := range path {
		v = reflect.Indirect(v).FieldByName(name)
		if !v.IsValid() {
			return v, fmt.Errorf("this muxado version has no field %q", name)
		}
	}
	return v, nil
}

// tableSize is the number of streams the session remembers.
func tableSize(sess muxado.Session) (int, error) {
	lock, err := sessionField(sess, "streams", "RWMutex")
	if err != nil {
		return 0, err
	}
	table, err := sessionField(sess, "streams", "table")
	if err != nil {
		return 0, err
	}
	mu := (*sync.RWMutex)(lock.Addr().UnsafePointer())
	mu.RLock()
	defer mu.RUnlock()
	return table.Len(), nil
}

// setNextID makes id the one of the next opened stream.
func setNextID(sess muxado.Session, id uint32) error {
	last, err := sessionField(sess, "local", "lastId")
	if err != nil {
		return err
	}
	// uint32 in one release, atomic.Uint32 in the next: the same four bytes.
	atomic.StoreUint32((*uint32)(last.Addr().UnsafePointer()), id-2)
	return nil
}
