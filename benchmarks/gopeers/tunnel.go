package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
)

// A small reverse tunnel: the server has a public port, and the agent dials it and connects each
// connection that comes there to the service.

// halfCloser is what both sides of a relay have in common.
type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// relay passes on both ways, end for end.
func relay(a, b halfCloser) {
	var both sync.WaitGroup
	both.Add(2)
	pass := func(to, from halfCloser) {
		defer both.Done()
		_, _ = io.Copy(to, from)
		_ = to.CloseWrite()
	}
	go pass(a, b)
	pass(b, a)
	both.Wait()
	a.Close()
	b.Close()
}

// runTunnelServer serves one agent, and passes what comes to the public port on to it.
func runTunnelServer(mux, tlsDir string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("{\"port\": %d, \"public\": %d}\n",
		listener.Addr().(*net.TCPAddr).Port, public.Addr().(*net.TCPAddr).Port)
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	config, err := serverConfig(tlsDir)
	if err != nil {
		return err
	}
	sess, err := newSession(mux, tls.Server(conn, config), false)
	if err != nil {
		return err
	}
	fmt.Println("{}")
	for {
		conn, err := public.Accept()
		if err != nil {
			return err
		}
		go func() {
			st, err := sess.open()
			if err != nil {
				conn.Close()
				return
			}
			relay(st, conn.(*net.TCPConn))
		}()
	}
}

// runTunnelAgent dials the server, and the service for each stream. It reads both ports.
func runTunnelAgent(mux, tlsDir string) error {
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	ports := strings.Fields(line)
	config, err := clientConfig(tlsDir)
	if err != nil {
		return err
	}
	conn, err := tls.Dial("tcp", "127.0.0.1:"+ports[0], config)
	if err != nil {
		return err
	}
	sess, err := newSession(mux, conn, true)
	if err != nil {
		return err
	}
	fmt.Println("{}")
	for {
		st, err := sess.accept()
		if err != nil {
			return err
		}
		go func() {
			conn, err := net.Dial("tcp", "127.0.0.1:"+ports[1])
			if err != nil {
				st.Close()
				return
			}
			relay(st, conn.(*net.TCPConn))
		}()
	}
}
