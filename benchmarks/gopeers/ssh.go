package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"net"

	"golang.org/x/crypto/ssh"
)

// sshStream names what SSH calls a channel.
type sshStream struct{ ssh.Channel }

// newSSH makes an SSH connection whose channels are the streams. Who the other end is, TLS has
// shown already.
func newSSH(conn net.Conn, client bool) (session, error) {
	var c ssh.Conn
	var channels <-chan ssh.NewChannel
	var requests <-chan *ssh.Request
	var err error
	if client {
		config := &ssh.ClientConfig{HostKeyCallback: ssh.InsecureIgnoreHostKey()}
		c, channels, requests, err = ssh.NewClientConn(conn, "", config)
	} else {
		config := &ssh.ServerConfig{NoClientAuth: true}
		_, key, keyErr := ed25519.GenerateKey(rand.Reader)
		if keyErr != nil {
			return session{}, keyErr
		}
		signer, keyErr := ssh.NewSignerFromKey(key)
		if keyErr != nil {
			return session{}, keyErr
		}
		config.AddHostKey(signer)
		var server *ssh.ServerConn
		server, channels, requests, err = ssh.NewServerConn(conn, config)
		c = server
	}
	if err != nil {
		return session{}, err
	}
	go ssh.DiscardRequests(requests)
	return session{
		open: func() (stream, error) {
			channel, requests, err := c.OpenChannel("stream", nil)
			if err != nil {
				return nil, err
			}
			go ssh.DiscardRequests(requests)
			return sshStream{channel}, nil
		},
		accept: func() (stream, error) {
			offered, there := <-channels
			if !there {
				return nil, net.ErrClosed
			}
			channel, requests, err := offered.Accept()
			if err != nil {
				return nil, err
			}
			go ssh.DiscardRequests(requests)
			return sshStream{channel}, nil
		},
	}, nil
}
