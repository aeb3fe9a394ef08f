// Command peer is a real Go muxado v2 endpoint for the interoperability tests.
//
// It makes exactly one session, over one TCP or TLS connection, and is driven
// by JSON lines: commands on stdin, replies and events on stdout. README.md
// describes every flag and command.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

const (
	exitFailure = 1 // no session came about
	exitUsage   = 2
)

// How long the commands still running at the end of stdin may take to print
// their replies.
const lingerAtEOF = time.Second

type options struct {
	role, listen, dial        string
	tls                       bool
	cert, key, ca, serverName string
	alpn                      string
	window, backlog, nextID   uint
	typed, heartbeat          bool
	acceptStream              bool
	interval, tolerance       time.Duration
	behaviour                 behaviour
	report                    string
	seed                      uint64
	timeout                   time.Duration
	trace                     bool
	behaviourText             string
}

func main() {
	opts, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(exitUsage)
	}
	if err := run(opts); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(exitFailure)
	}
}

func parseOptions(args []string) (*options, error) {
	o := new(options)
	fs := flag.NewFlagSet("peer", flag.ContinueOnError)
	fs.StringVar(&o.role, "role", "", "muxado role: client or server; does not depend on who dials")
	fs.StringVar(&o.listen, "listen", "", "`address` to take one TCP connection on, e.g. 127.0.0.1:0")
	fs.StringVar(&o.dial, "dial", "", "`address` to make the TCP connection to")
	fs.BoolVar(&o.tls, "tls", false, "use TLS; the listening end is the TLS server")
	fs.StringVar(&o.cert, "cert", "", "PEM `file` with the certificate chain (needed by -listen -tls)")
	fs.StringVar(&o.key, "key", "", "PEM `file` with the private key (needed by -listen -tls)")
	fs.StringVar(&o.ca, "ca", "", "PEM `file` with the CAs to verify the server with (needed by -dial -tls)")
	fs.StringVar(&o.serverName, "server-name", "", "`name` to verify instead of the host of -dial")
	fs.StringVar(&o.alpn, "alpn", "", "ALPN `protocol` to offer or select, e.g. muxado/2 (default none)")
	fs.UintVar(&o.window, "window", 0, "MaxWindowSize in `bytes` (0: muxado's default, 262144)")
	fs.UintVar(&o.backlog, "backlog", 0, "AcceptBacklog in `streams` (0: muxado's default, 128)")
	fs.UintVar(&o.nextID, "next-id", 0, "`id` of the first stream opened here, to get near the end of the ids (0: muxado's default)")
	fs.BoolVar(&o.typed, "typed", false, "wrap the session in NewTypedStreamSession")
	fs.BoolVar(&o.heartbeat, "heartbeat", false, "wrap the session in NewHeartbeat and start it; implies -typed")
	fs.BoolVar(&o.acceptStream, "accept-stream", false, "accept by the wrapper's AcceptStream, which hands out heartbeat streams; needs -heartbeat")
	fs.DurationVar(&o.interval, "heartbeat-interval", 10*time.Second, "heartbeat interval")
	fs.DurationVar(&o.tolerance, "heartbeat-tolerance", 15*time.Second, "heartbeat tolerance")
	fs.StringVar(&o.behaviourText, "behaviour", "none", "what to do with accepted streams: "+behaviourSyntax)
	fs.StringVar(&o.report, "report", "some", "which accepted streams give a stream-done event: all, some (all but echo, type-echo, hash), none")
	fs.Uint64Var(&o.seed, "seed", 0, "added to the stream id it seeds the data of source:N")
	fs.DurationVar(&o.timeout, "timeout", 60*time.Second, "limit for connecting, for an idle accepted stream and, unless it says otherwise, for a command")
	fs.BoolVar(&o.trace, "trace", false, "print every frame to stderr")
	fs.SetOutput(io.Discard) // the error is enough, without all the flags behind it
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Println("usage: peer -role client|server {-listen|-dial} address [flags]")
		fs.SetOutput(os.Stdout)
		fs.PrintDefaults()
	}
	if err != nil {
		return nil, err
	}

	if o.behaviour, err = parseBehaviour(o.behaviourText); err != nil {
		return nil, fmt.Errorf("-behaviour: %w", err)
	}
	o.typed = o.typed || o.heartbeat
	const maxUint31 = 1<<31 - 1
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.role != "client" && o.role != "server":
		return nil, fmt.Errorf("-role must be client or server, not %q", o.role)
	case o.acceptStream && !o.heartbeat:
		return nil, errors.New("-accept-stream needs -heartbeat")
	case (o.listen == "") == (o.dial == ""):
		return nil, errors.New("give either -listen or -dial")
	case o.tls && o.listen != "" && (o.cert == "" || o.key == ""):
		return nil, errors.New("-listen with -tls needs -cert and -key")
	case o.tls && o.dial != "" && o.ca == "":
		return nil, errors.New("-dial with -tls needs -ca")
	case !o.tls && (o.cert != "" || o.key != "" || o.ca != "" || o.alpn != "" || o.serverName != ""):
		return nil, errors.New("-cert, -key, -ca, -alpn and -server-name need -tls")
	case o.window > maxUint31 || o.backlog > 1<<20:
		return nil, errors.New("-window or -backlog is too large")
	case o.nextID > maxUint31, o.nextID != 0 && (o.nextID < 2 || (o.nextID%2 == 1) != (o.role == "client")):
		return nil, errors.New("-next-id must be odd for a client, even for a server, from 2 to 0x7fffffff")
	case o.behaviour.name == "type-echo" && !o.typed:
		return nil, errors.New("-behaviour type-echo needs -typed")
	case o.report != "all" && o.report != "some" && o.report != "none":
		return nil, fmt.Errorf("-report must be all, some or none, not %q", o.report)
	case o.interval <= 0 || o.tolerance <= 0 || o.timeout <= 0:
		return nil, errors.New("durations must be positive")
	}
	return o, nil
}

// run makes the session and carries out commands until stdin ends.
func run(o *options) error {
	out := newOutput(os.Stdout)

	// Stdin is read from the start, so that its end also stops a peer that is
	// still waiting for its connection.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lines := make(chan []byte, 64)
	go func() {
		defer cancel()
		defer close(lines)
		in := bufio.NewScanner(os.Stdin)
		in.Buffer(nil, 64<<20)
		for in.Scan() {
			lines <- append([]byte(nil), in.Bytes()...)
		}
		if err := in.Err(); err != nil {
			fmt.Fprintln(os.Stderr, "peer: reading stdin:", err)
		}
	}()

	conn, err := connect(ctx, o, out)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := newPeer(o, conn, out)
	if err != nil {
		return err
	}
	started := fields{"role": o.role, "local": conn.LocalAddr().String(), "remote": conn.RemoteAddr().String(), "muxado": muxadoVersion()}
	if c, ok := conn.(*tls.Conn); ok {
		state := c.ConnectionState()
		started["tls"] = tls.VersionName(state.Version)
		started["alpn"] = state.NegotiatedProtocol
	}
	out.event("session", started)
	p.start()

	var commands sync.WaitGroup
	for line := range lines {
		commands.Add(1)
		go func() {
			defer commands.Done()
			p.execute(line)
		}()
	}

	// Closing the session fails every stream, and with them whatever still runs.
	_ = p.sess.Close()
	finished := make(chan struct{})
	go func() { commands.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-time.After(lingerAtEOF):
	}
	return nil
}

// connect returns the transport, with the TLS handshake done.
func connect(ctx context.Context, o *options, out *output) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	config, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	if o.dial != "" {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", o.dial)
	} else {
		conn, err = acceptOne(ctx, o.listen, out)
	}
	if err != nil || !o.tls {
		return conn, err
	}
	var secured *tls.Conn
	if o.dial != "" {
		secured = tls.Client(conn, config)
	} else {
		secured = tls.Server(conn, config)
	}
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secured, nil
}

func acceptOne(ctx context.Context, address string, out *output) (net.Conn, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	out.event("listening", fields{"addr": listener.Addr().String()})
	conn, err := listener.Accept()
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("nobody connected: %w", ctx.Err())
	}
	return conn, err
}

func tlsConfig(o *options) (*tls.Config, error) {
	if !o.tls {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.alpn != "" {
		config.NextProtos = []string{o.alpn}
	}
	if o.listen != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
		return config, nil
	}
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", o.ca)
	}
	config.ServerName = o.serverName
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(o.dial)
		if err != nil {
			return nil, err
		}
		config.ServerName = host
	}
	return config, nil
}

// muxadoVersion tells which release this binary was built with; a test may
// need to know because releases differ in their quirks.
func muxadoVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "golang.ngrok.com/muxado/v2" {
				return dep.Version
			}
		}
	}
	return "unknown"
}
