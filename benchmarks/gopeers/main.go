// Command gopeers is the Go side of the benchmarks: a server and a client of the little
// request protocol of benchmarks/README.md, over muxado v2, yamux or smux.
//
// A server prints {"port": N} and serves one session; it ends with its stdin. A client reads
// the port from its stdin, runs one cell and prints one JSON line.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

func main() {
	mux := flag.String("mux", "muxado", "muxado, yamux, smux, smux-v1 or ssh")
	role := flag.String("role", "server", "server, client or load")
	text := flag.String("cell", "{}", "the work, as JSON")
	tlsDir := flag.String("tls-dir", "", "`directory` with server.pem and authority.pem: use TLS")
	limit := flag.Int("limit", 60, "end after so many `seconds`, whatever happens")
	about := flag.Bool("about", false, "print the versions, as JSON")
	flag.Parse()
	time.AfterFunc(time.Duration(*limit)*time.Second, func() { os.Exit(3) })
	err := run(*mux, *role, *text, *tlsDir, *about)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gopeers:", err)
		os.Exit(1)
	}
}

func run(mux, role, text, tlsDir string, about bool) error {
	if about {
		return json.NewEncoder(os.Stdout).Encode(versions())
	}
	var c cell
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return fmt.Errorf("-cell: %w", err)
	}
	tunnel := strings.HasPrefix(c.Work, "tunnel-")
	switch {
	case role == "load":
		return runLoad(c)
	case tunnel && role == "server":
		return runTunnelServer(mux, tlsDir)
	case tunnel:
		return runTunnelAgent(mux, tlsDir)
	case role == "server":
		return runServer(mux, c, tlsDir)
	}
	return runClient(mux, c, tlsDir)
}

func versions() map[string]string {
	out := map[string]string{"go": strings.TrimPrefix(runtime.Version(), "go")}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			out[dep.Path] = dep.Version
		}
	}
	return out
}

func serverConfig(tlsDir string) (*tls.Config, error) {
	file := filepath.Join(tlsDir, "server.pem")
	pair, err := tls.LoadX509KeyPair(file, file)
	return &tls.Config{Certificates: []tls.Certificate{pair}}, err
}

func clientConfig(tlsDir string) (*tls.Config, error) {
	pem, err := os.ReadFile(filepath.Join(tlsDir, "authority.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: pool}, nil
}

func runServer(mux string, c cell, tlsDir string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("{\"port\": %d}\n", listener.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	if tlsDir != "" {
		config, err := serverConfig(tlsDir)
		if err != nil {
			return err
		}
		conn = tls.Server(conn, config)
	}
	sess, err := newSession(mux, conn, false)
	if err != nil {
		return err
	}
	s := &server{keep: c.Work == "idle" && !c.Handler}
	_ = s.serve(sess) // ends with the client's session
	return nil
}

func runClient(mux string, c cell, tlsDir string) error {
	port, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	address := "127.0.0.1:" + strings.TrimSpace(port)
	var conn net.Conn
	if tlsDir != "" {
		config, err := clientConfig(tlsDir)
		if err != nil {
			return err
		}
		conn, err = tls.Dial("tcp", address, config)
		if err != nil {
			return err
		}
	} else if conn, err = net.Dial("tcp", address); err != nil {
		return err
	}
	sess, err := newSession(mux, conn, true)
	if err != nil {
		return err
	}
	out, err := (&client{cell: c, mux: mux, sess: sess}).run()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}
