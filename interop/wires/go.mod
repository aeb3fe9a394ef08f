module interop/wires

go 1.23

require (
	github.com/coder/websocket v1.8.13
	github.com/hashicorp/yamux v0.1.2
	github.com/libp2p/go-yamux/v5 v5.1.0
	github.com/xtaci/smux v1.5.58
	golang.ngrok.com/muxado/v2 v2.0.2
)

require github.com/libp2p/go-buffer-pool v0.0.2 // indirect
