package main

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// connectWebSocket returns a WebSocket's bytes as a connection. The end that
// dials is the WebSocket's client, whatever its role in the session.
func connectWebSocket(o *options, out *output) (net.Conn, error) {
	protocols := []string{o.websocket}
	if o.dial != "" {
		ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
		defer cancel()
		options := &websocket.DialOptions{Subprotocols: protocols}
		c, _, err := websocket.Dial(ctx, "ws://"+o.dial+"/mux", options)
		if err != nil {
			return nil, err
		}
		return wrap(o, c)
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return nil, err
	}
	out.event("listening", fields{"addr": listener.Addr().String()})
	type arrival struct {
		conn net.Conn
		err  error
	}
	arrived := make(chan arrival, 1)
	serve := func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: protocols})
		if err != nil {
			arrived <- arrival{err: err}
			return
		}
		conn, err := wrap(o, c)
		arrived <- arrival{conn, err}
	}
	go func() { _ = http.Serve(listener, http.HandlerFunc(serve)) }()
	first := <-arrived
	return first.conn, first.err
}

func wrap(o *options, c *websocket.Conn) (net.Conn, error) {
	if c.Subprotocol() != o.websocket {
		_ = c.CloseNow()
		return nil, fmt.Errorf("the peer chose the subprotocol %q", c.Subprotocol())
	}
	return websocket.NetConn(context.Background(), c, websocket.MessageBinary), nil
}
