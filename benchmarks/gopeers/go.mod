module gopeers

go 1.23

require (
	github.com/hashicorp/yamux v0.1.2
	github.com/xtaci/smux v1.5.56
	golang.ngrok.com/muxado/v2 v2.0.2
	golang.org/x/crypto v0.31.0
)

require golang.org/x/sys v0.28.0 // indirect
