// Command wires is a real Go endpoint of yamux, smux or muxado for the
// interoperability tests.
//
// It makes exactly one session, over one TCP, TLS or WebSocket connection, and is driven
// by JSON lines like the muxado peer beside it: commands on stdin, replies and
// events on stdout. README.md describes every flag and command.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	exitFailure = 1 // no session came about
	exitUsage   = 2
)

type options struct {
	lib, role, listen, dial     string
	tls                         bool
	cert, key, ca, alpn         string
	websocket                   string
	behaviour                   string
	window, backlog             uint
	keepalive, keepaliveTimeout time.Duration
	openTimeout, closeTimeout   time.Duration
	timeout                     time.Duration
}

func main() {
	o := new(options)
	flag.StringVar(&o.lib, "library", "", "hashicorp, libp2p, smux-v1, smux-v2 or muxado")
	flag.StringVar(&o.role, "role", "", "client or server; does not depend on who dials")
	flag.StringVar(&o.listen, "listen", "", "`address` to take one TCP connection on")
	flag.StringVar(&o.dial, "dial", "", "`address` to make the TCP connection to")
	flag.BoolVar(&o.tls, "tls", false, "use TLS; the listening end is the TLS server")
	flag.StringVar(&o.cert, "cert", "", "PEM `file` with the certificate chain")
	flag.StringVar(&o.key, "key", "", "PEM `file` with the private key")
	flag.StringVar(&o.ca, "ca", "", "PEM `file` with the CAs to verify the server with")
	flag.StringVar(&o.alpn, "alpn", "", "ALPN `protocol` to offer or select")
	flag.StringVar(&o.websocket, "websocket", "", "go over a WebSocket with this `subprotocol`")
	flag.StringVar(&o.behaviour, "behaviour", "none", "what to do with accepted streams: "+behaviourSyntax)
	flag.UintVar(&o.window, "window", 0, "a stream's receive window in `bytes` (0: the library's default)")
	flag.UintVar(&o.backlog, "backlog", 0, "accept backlog in `streams` (0: the library's default)")
	flag.DurationVar(&o.keepalive, "keepalive", 0, "interval of keepalives (0: the library's default)")
	flag.DurationVar(&o.keepaliveTimeout, "keepalive-timeout", 0, "how long an answer, or anything, may take")
	flag.DurationVar(&o.openTimeout, "open-timeout", 0, "hashicorp's StreamOpenTimeout")
	flag.DurationVar(&o.closeTimeout, "stream-close-timeout", 0, "hashicorp's StreamCloseTimeout")
	flag.DurationVar(&o.timeout, "timeout", 60*time.Second, "limit for connecting and for commands")
	flag.Parse()
	if (o.listen == "") == (o.dial == "") || (o.role != "client" && o.role != "server") {
		fmt.Fprintln(os.Stderr, "wires: -role, and one of -listen and -dial, are needed")
		os.Exit(exitUsage)
	}
	out := &output{enc: json.NewEncoder(os.Stdout)}
	conn, err := connect(o, out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "wires:", err)
		os.Exit(exitFailure)
	}
	sess, err := newSession(o, conn)
	if err != nil {
		fmt.Fprintln(os.Stderr, "wires:", err)
		os.Exit(exitUsage)
	}
	p := &peer{opts: o, out: out, sess: sess, handles: map[int]stream{}}
	p.behaviour = o.behaviour
	out.event("session", fields{"library": o.lib, "role": o.role})
	go p.accept()
	go p.watch()
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		go p.execute(line)
	}
	_ = sess.Close()
}

func connect(o *options, out *output) (net.Conn, error) {
	if o.websocket != "" {
		return connectWebSocket(o, out)
	}
	var conn net.Conn
	var err error
	if o.dial != "" {
		conn, err = net.DialTimeout("tcp", o.dial, o.timeout)
	} else {
		var listener net.Listener
		if listener, err = net.Listen("tcp", o.listen); err == nil {
			out.event("listening", fields{"addr": listener.Addr().String()})
			conn, err = listener.Accept()
			_ = listener.Close()
		}
	}
	if err != nil || !o.tls {
		return conn, err
	}
	config := &tls.Config{}
	if o.alpn != "" {
		config.NextProtos = []string{o.alpn}
	}
	var secure *tls.Conn
	if o.dial != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(pem)
		config.ServerName, _, _ = net.SplitHostPort(o.dial)
		secure = tls.Client(conn, config)
	} else {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
		secure = tls.Server(conn, config)
	}
	return secure, secure.Handshake()
}

// fields is one JSON object on its way out.
type fields map[string]any

// output writes one JSON object per line.
type output struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func (o *output) line(f fields) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.enc.Encode(f); err != nil {
		os.Exit(exitFailure) // nobody listens any more
	}
}

func (o *output) event(name string, f fields) {
	f["event"] = name
	o.line(f)
}

func isEOF(err error) bool { return err == nil || errors.Is(err, io.EOF) }
