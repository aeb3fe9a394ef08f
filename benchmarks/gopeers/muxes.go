package main

import (
	"fmt"
	"io"
	"net"

	"github.com/hashicorp/yamux"
	"github.com/xtaci/smux"
	"golang.ngrok.com/muxado/v2"
)

// Backlogs are raised for every contender, so that none refuses or waits for its accept queue.
const backlog = 65536

// A stream is what the muxes have in common.
type stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

type session struct {
	open   func() (stream, error)
	accept func() (stream, error)
}

// yamuxStream names what yamux calls Close, which ends the writing side only.
type yamuxStream struct{ *yamux.Stream }

func (s yamuxStream) CloseWrite() error { return s.Close() }

// newSession makes a session of the named mux, with its default windows.
func newSession(mux string, conn net.Conn, client bool) (session, error) {
	switch mux {
	case "muxado":
		config := &muxado.Config{AcceptBacklog: backlog}
		make := muxado.Server
		if client {
			make = muxado.Client
		}
		s := make(conn, config)
		return session{
			open:   func() (stream, error) { return s.OpenStream() },
			accept: func() (stream, error) { return s.AcceptStream() },
		}, nil
	case "yamux":
		config := yamux.DefaultConfig()
		config.AcceptBacklog = backlog
		config.LogOutput = io.Discard
		make := yamux.Server
		if client {
			make = yamux.Client
		}
		s, err := make(conn, config)
		if err != nil {
			return session{}, err
		}
		return session{
			open: func() (stream, error) {
				st, err := s.OpenStream()
				return yamuxStream{st}, err
			},
			accept: func() (stream, error) {
				st, err := s.AcceptStream()
				return yamuxStream{st}, err
			},
		}, nil
	case "smux", "smux-v1":
		config := smux.DefaultConfig()
		config.Version = 2
		if mux == "smux-v1" {
			config.Version = 1
		}
		make := smux.Server
		if client {
			make = smux.Client
		}
		s, err := make(conn, config)
		if err != nil {
			return session{}, err
		}
		return session{
			open:   func() (stream, error) { return s.OpenStream() },
			accept: func() (stream, error) { return s.AcceptStream() },
		}, nil
	case "ssh":
		return newSSH(conn, client)
	}
	return session{}, fmt.Errorf("unknown mux %q: muxado, yamux, smux, smux-v1 or ssh", mux)
}
