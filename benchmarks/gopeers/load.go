package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// The load on a tunnel: the service behind it, and those who use it. What the tunnel itself takes,
// the driver looks up; this program tells it when the measured time begins and ends.

const (
	modeEcho = 'e'
	modeSink = 's'
)

// taken is how many bytes the service has taken in and thrown away.
var taken atomic.Int64

// serveLoad answers the connections of the service: the first byte says how.
func serveLoad(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			mode := make([]byte, 1)
			if _, err := io.ReadFull(conn, mode); err != nil {
				return
			}
			if mode[0] == modeEcho {
				_, _ = io.Copy(conn, conn)
				return
			}
			pooled := blocks.Get().(*[]byte)
			defer blocks.Put(pooled)
			for {
				n, err := conn.Read(*pooled)
				taken.Add(int64(n))
				if err != nil {
					return
				}
			}
		}()
	}
}

type load struct {
	cell
	port       string
	start, end time.Time
}

func runLoad(c cell) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go serveLoad(listener)
	fmt.Printf("{\"port\": %d}\n", listener.Addr().(*net.TCPAddr).Port)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	l := &load{cell: c, port: strings.TrimSpace(line)}
	l.start = time.Now().Add(seconds(c.Warmup))
	l.end = l.start.Add(seconds(c.Seconds))
	var out result
	switch c.Work {
	case "tunnel-connections":
		out, err = l.connections()
	case "tunnel-bulk":
		out, err = l.bulk()
	case "tunnel-idle":
		out, err = l.idle()
	default:
		err = fmt.Errorf("no such load: %q", c.Work)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// dial connects from an address of its own, since one has too few ports.
func (l *load) dial(number int, mode byte) (*net.TCPConn, error) {
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(2+number%200))}
	conn, err := (&net.Dialer{LocalAddr: from}).Dial("tcp", "127.0.0.1:"+l.port)
	if err != nil {
		return nil, err
	}
	_, err = conn.Write([]byte{mode})
	return conn.(*net.TCPConn), err
}

// watch tells the driver when the measured time begins; the result tells when it has ended.
func (l *load) watch() {
	time.Sleep(time.Until(l.start))
	fmt.Println("{}")
}

func exchange(conn io.ReadWriter, message, reply []byte) error {
	if _, err := conn.Write(message); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, reply); err != nil {
		return err
	}
	if !bytes.Equal(message, reply) {
		return errors.New("a reply is wrong")
	}
	return nil
}

// connections opens one after the other in lanes: 64 bytes each way, and both ends.
func (l *load) connections() (result, error) {
	var count atomic.Int64
	go l.watch()
	err := each(l.Concurrency, func(i int) error {
		data := echoData(64, i)
		reply := make([]byte, 64)
		for time.Now().Before(l.end) {
			conn, err := l.dial(i, modeEcho)
			if err != nil {
				return err
			}
			if err := exchange(conn, data, reply); err != nil {
				return err
			}
			if err := conn.CloseWrite(); err != nil {
				return err
			}
			if n, err := conn.Read(reply); n != 0 || err != io.EOF {
				return fmt.Errorf("no end, but %d bytes and %v", n, err)
			}
			conn.Close()
			if now := time.Now(); now.After(l.start) && now.Before(l.end) {
				count.Add(1)
			}
		}
		return nil
	})
	return result{"count": count.Load(), "rate": float64(count.Load()) / l.Seconds}, err
}

// bulk sends on several connections, and small messages on one more.
func (l *load) bulk() (result, error) {
	var conns []*net.TCPConn
	for i := range l.Concurrency {
		conn, err := l.dial(i, modeSink)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		conns = append(conns, conn)
		go sendUntil(conn, l.end.UnixNano())
	}
	latencies := make(chan []time.Duration, 1)
	go func() { latencies <- l.ping() }()
	time.Sleep(time.Until(l.start))
	fmt.Println("{}")
	begun, before := time.Now(), taken.Load()
	time.Sleep(time.Until(l.end))
	count, passed := taken.Load()-before, time.Since(begun)
	out := latencyResult(<-latencies)
	if out["count"].(int) == 0 {
		return nil, errors.New("no small message was answered")
	}
	out["bytes"] = count
	out["mib_s"] = float64(count) / passed.Seconds() / (1 << 20)
	return out, nil
}

func (l *load) ping() (latencies []time.Duration) {
	conn, err := l.dial(l.Concurrency, modeEcho)
	if err != nil {
		return nil
	}
	defer conn.Close()
	message, reply := append([]byte(nil), pattern[:64]...), make([]byte, 64)
	for {
		begun := time.Now()
		if begun.After(l.end) || exchange(conn, message, reply) != nil {
			return latencies
		}
		now := time.Now()
		if now.After(l.start) && now.Before(l.end) {
			latencies = append(latencies, now.Sub(begun))
		}
		time.Sleep(time.Millisecond) // beside the bulk, not instead of it
	}
}

// idle opens connections that then do nothing: 200, and then as many as it was told.
func (l *load) idle() (result, error) {
	message, reply := append([]byte(nil), pattern[:64]...), make([]byte, 64)
	var kept []*net.TCPConn
	open := func(count int) error {
		for range count {
			conn, err := l.dial(len(kept), modeEcho)
			if err != nil {
				return err
			}
			if err := exchange(conn, message, reply); err != nil {
				return err
			}
			kept = append(kept, conn)
		}
		return nil
	}
	if err := open(200); err != nil {
		return nil, err
	}
	fmt.Println("{}")
	err := open(l.Streams)
	return result{"connections": len(kept)}, err
}
