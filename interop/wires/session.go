package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	hashicorp "github.com/hashicorp/yamux"
	libp2p "github.com/libp2p/go-yamux/v5"
	"github.com/xtaci/smux"
	muxado "golang.ngrok.com/muxado/v2"
)

// stream is what the libraries' streams have in common.
type stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	CloseWrite() error
	Reset() error
	Number() uint32
}

// session is the same for sessions.
type session interface {
	Open() (stream, error)
	Accept() (stream, error)
	Close() error
	GoAway() error
	Ping() (time.Duration, error)
	NumStreams() int
	Done() <-chan struct{}
}

var errNotThere = errors.New("this library has no such call")

func newSession(o *options, conn net.Conn) (session, error) {
	switch o.lib {
	case "hashicorp":
		return newHashicorp(o, conn)
	case "libp2p":
		return newLibp2p(o, conn)
	case "smux-v1":
		return newSmux(o, conn, 1)
	case "smux-v2":
		return newSmux(o, conn, 2)
	case "muxado":
		return newMuxado(o, conn)
	}
	return nil, errors.New("-library is hashicorp, libp2p, smux-v1, smux-v2 or muxado")
}

// hashicorp/yamux

type hashicorpSession struct{ *hashicorp.Session }
type hashicorpStream struct{ *hashicorp.Stream }

func newHashicorp(o *options, conn net.Conn) (session, error) {
	config := hashicorp.DefaultConfig()
	config.LogOutput = os.Stderr
	if o.window != 0 {
		config.MaxStreamWindowSize = uint32(o.window)
	}
	if o.backlog != 0 {
		config.AcceptBacklog = int(o.backlog)
	}
	if o.keepalive != 0 {
		config.KeepAliveInterval = o.keepalive
	}
	if o.keepaliveTimeout != 0 {
		config.ConnectionWriteTimeout = o.keepaliveTimeout
	}
	if o.openTimeout != 0 {
		config.StreamOpenTimeout = o.openTimeout
	}
	if o.closeTimeout != 0 {
		config.StreamCloseTimeout = o.closeTimeout
	}
	make := hashicorp.Server
	if o.role == "client" {
		make = hashicorp.Client
	}
	s, err := make(conn, config)
	return hashicorpSession{s}, err
}

func (s hashicorpSession) Open() (stream, error) {
	str, err := s.OpenStream()
	return hashicorpStream{str}, err
}

func (s hashicorpSession) Accept() (stream, error) {
	str, err := s.AcceptStream()
	return hashicorpStream{str}, err
}

func (s hashicorpSession) Done() <-chan struct{} { return s.CloseChan() }

// Close of hashicorp's streams ends one direction, as its Read goes on.
func (s hashicorpStream) CloseWrite() error { return s.Close() }
func (s hashicorpStream) Reset() error      { return errNotThere }
func (s hashicorpStream) Number() uint32    { return s.StreamID() }

// libp2p/go-yamux

type libp2pSession struct{ *libp2p.Session }
type libp2pStream struct{ *libp2p.Stream }

func newLibp2p(o *options, conn net.Conn) (session, error) {
	config := libp2p.DefaultConfig()
	config.LogOutput = os.Stderr
	if o.window != 0 {
		config.MaxStreamWindowSize = uint32(o.window)
	}
	if o.backlog != 0 {
		config.AcceptBacklog = int(o.backlog)
	}
	if o.keepalive != 0 {
		config.KeepAliveInterval = o.keepalive
		config.MeasureRTTInterval = o.keepalive
	}
	if o.keepaliveTimeout != 0 {
		config.ConnectionWriteTimeout = o.keepaliveTimeout
	}
	make := libp2p.Server
	if o.role == "client" {
		make = libp2p.Client
	}
	s, err := make(conn, config, nil)
	return libp2pSession{s}, err
}

func (s libp2pSession) Open() (stream, error) {
	str, err := s.OpenStream(context.Background())
	return libp2pStream{str}, err
}

func (s libp2pSession) Accept() (stream, error) {
	str, err := s.AcceptStream()
	return libp2pStream{str}, err
}

func (s libp2pSession) Done() <-chan struct{} { return s.CloseChan() }
func (s libp2pStream) Number() uint32         { return s.StreamID() }

// xtaci/smux

type smuxSession struct{ *smux.Session }
type smuxStream struct{ *smux.Stream }

func newSmux(o *options, conn net.Conn, version int) (session, error) {
	config := smux.DefaultConfig()
	config.Version = version
	if o.window != 0 {
		config.MaxStreamBuffer = int(o.window)
	}
	if o.keepalive != 0 {
		config.KeepAliveInterval = o.keepalive
	}
	if o.keepaliveTimeout != 0 {
		config.KeepAliveTimeout = o.keepaliveTimeout
	}
	make := smux.Server
	if o.role == "client" {
		make = smux.Client
	}
	s, err := make(conn, config)
	return smuxSession{s}, err
}

func (s smuxSession) Open() (stream, error) {
	str, err := s.OpenStream()
	return smuxStream{str}, err
}

func (s smuxSession) Accept() (stream, error) {
	str, err := s.AcceptStream()
	return smuxStream{str}, err
}

func (s smuxSession) GoAway() error                { return errNotThere }
func (s smuxSession) Ping() (time.Duration, error) { return 0, errNotThere }
func (s smuxSession) Done() <-chan struct{}        { return s.CloseChan() }
func (s smuxStream) Reset() error                  { return errNotThere }
func (s smuxStream) Number() uint32                { return s.ID() }

// muxado

type muxadoSession struct {
	muxado.Session
	done chan struct{}
}
type muxadoStream struct{ muxado.Stream }

func newMuxado(o *options, conn net.Conn) (session, error) {
	create := muxado.Server
	if o.role == "client" {
		create = muxado.Client
	}
	config := &muxado.Config{MaxWindowSize: uint32(o.window), AcceptBacklog: uint32(o.backlog)}
	s := muxadoSession{create(conn, config), make(chan struct{})}
	go func() {
		s.Wait()
		close(s.done)
	}()
	return s, nil
}

func (s muxadoSession) Open() (stream, error) {
	str, err := s.OpenStream()
	return muxadoStream{str}, err
}

func (s muxadoSession) Accept() (stream, error) {
	str, err := s.AcceptStream()
	return muxadoStream{str}, err
}

func (s muxadoSession) GoAway() error                { return errNotThere }
func (s muxadoSession) Ping() (time.Duration, error) { return 0, errNotThere }
func (s muxadoSession) NumStreams() int              { return -1 }
func (s muxadoSession) Done() <-chan struct{}        { return s.done }
func (s muxadoStream) Reset() error                  { return errNotThere }
func (s muxadoStream) Number() uint32                { return s.Id() }
