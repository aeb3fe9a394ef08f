// Command peer is a Go endpoint of muxado v1 for the tests in the folder above.
//
// It serves any number of sessions, or dials one, and does on each stream what
// the stream's type says.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net"
	"sync"
	"time"

	muxado "github.com/inconshreveable/muxado"
)

// What a stream's type asks for.
const (
	echo     = 0 // all comes back
	slow     = 1 // all is read, slowly, and its hash comes back
	hold     = 2 // nothing is read until the session ends
	open     = 3 // 12 bytes: count, size, type; so many streams are opened, checked against their echo, and "good" comes back
	goAway   = 4 // GoAway(0), and then an echo
	closeNow = 5 // the session is closed
)

func main() {
	listen := flag.String("listen", "", "`address` to serve on")
	dial := flag.String("dial", "", "`address` to make one session to, as a client")
	flag.Parse()
	if *dial != "" {
		conn, err := net.Dial("tcp", *dial)
		if err != nil {
			log.Fatal(err)
		}
		serve(muxado.Client(conn))
		return
	}
	l, err := muxado.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", l.Addr())
	for {
		sess, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(sess)
	}
}

func serve(sess muxado.Session) {
	for {
		str, err := sess.Accept()
		if err != nil {
			code, _, _ := sess.Wait()
			fmt.Println("session ended with code", code)
			return
		}
		go handle(sess, str)
	}
}

func handle(sess muxado.Session, str muxado.Stream) {
	switch str.StreamType() {
	case slow:
		hash := sha256.New()
		buf := make([]byte, 16<<10)
		for {
			n, err := str.Read(buf)
			hash.Write(buf[:n])
			if err != nil {
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
		_, _ = str.HalfClose(hash.Sum(nil))
	case hold:
		_, _, _ = sess.Wait()
	case open:
		order := make([]byte, 12)
		if _, err := io.ReadFull(str, order); err != nil {
			return
		}
		count, size := binary.BigEndian.Uint32(order), binary.BigEndian.Uint32(order[4:])
		if err := check(sess, int(count), int(size), muxado.StreamType(binary.BigEndian.Uint32(order[8:]))); err != nil {
			_, _ = str.HalfClose([]byte(err.Error()))
			return
		}
		_, _ = str.HalfClose([]byte("good"))
	case closeNow:
		_ = sess.Close()
	case goAway:
		_ = sess.GoAway(0, []byte{})
		fallthrough
	default:
		buf := make([]byte, 32<<10)
		for {
			n, err := str.Read(buf)
			if n > 0 {
				if _, err := str.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				break
			}
		}
		_, _ = str.HalfClose(nil)
	}
}

// check opens streams, all at once, and compares what comes back on each.
func check(sess muxado.Session, count, size int, kind muxado.StreamType) error {
	var wait sync.WaitGroup
	errs := make(chan error, count)
	for i := range count {
		wait.Add(1)
		go func() {
			defer wait.Done()
			str, err := sess.OpenStream(muxado.StreamPriority(i%8), kind, false)
			if err != nil {
				errs <- err
				return
			}
			data := make([]byte, size)
			rand.New(rand.NewSource(int64(i))).Read(data)
			go func() {
				for at := 0; at < size; {
					n := min(1+rand.Intn(20_000), size-at)
					if _, err := str.Write(data[at : at+n]); err != nil {
						return
					}
					at += n
				}
				_, _ = str.HalfClose(nil)
			}()
			back, err := io.ReadAll(str)
			if err != nil {
				errs <- err
			} else if !bytes.Equal(back, data) {
				errs <- fmt.Errorf("%d bytes came back of %d", len(back), size)
			}
		}()
	}
	wait.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
