package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// The request protocol, the same for every contender; benchmarks/README.md describes it.
// A stream starts with a header of 24 bytes:
//
//	1 byte    what to do
//	3 bytes   zero
//	4 bytes   payload size, the header included (echo only)
//	8 bytes   start of the measured time, in Unix nanoseconds (bulk only)
//	8 bytes   its end
const (
	opEcho   = 1
	opPing   = 2
	opUp     = 3
	opDown   = 4
	opBoth   = 5
	opReport = 6
	opClock  = 7

	headerSize  = 24
	blockSize   = 64 << 10
	checkedSize = 256 << 10 // so much of each stream is compared byte for byte
	sampleSize  = 16        // and so much of each chunk after that
)

type header struct {
	op         byte
	size       uint32
	start, end int64
}

func (h header) put(b []byte) {
	clear(b[:headerSize])
	b[0] = h.op
	binary.BigEndian.PutUint32(b[4:], h.size)
	binary.BigEndian.PutUint64(b[8:], uint64(h.start))
	binary.BigEndian.PutUint64(b[16:], uint64(h.end))
}

func getHeader(b []byte) header {
	return header{
		op:    b[0],
		size:  binary.BigEndian.Uint32(b[4:]),
		start: int64(binary.BigEndian.Uint64(b[8:])),
		end:   int64(binary.BigEndian.Uint64(b[16:])),
	}
}

// pattern is the 64 KiB block that bulk streams repeat, twice.
var pattern = makePattern()

func makePattern() []byte {
	var out []byte
	for i := range uint32(blockSize / sha256.Size) {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32(nil, i))
		out = append(out, sum[:]...)
	}
	return append(out, out...)
}

// checker looks at what a bulk stream brings.
type checker struct {
	start, end              int64
	received, window, wrong int64
}

// add counts a chunk, and checks that it is what belongs at its place.
func (c *checker) add(chunk []byte) {
	now := time.Now().UnixNano()
	n := len(chunk)
	if c.start <= now && now < c.end {
		c.window += int64(n)
	}
	looked := n
	if c.received >= checkedSize {
		looked = min(n, sampleSize)
	}
	at := int(c.received % blockSize)
	if !bytes.Equal(chunk[:looked], pattern[at:at+looked]) {
		c.wrong++
	}
	c.received += int64(n)
}
