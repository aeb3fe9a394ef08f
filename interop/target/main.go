// A web server as a tunnel's target: it answers with the SHA-256 of what was sent, and streams back
// as many bytes as are asked for.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	http.HandleFunc("POST /hash", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		if _, err := io.Copy(sum, r.Body); err == nil {
			fmt.Fprintf(w, "%x", sum.Sum(nil))
		}
	})
	http.HandleFunc("GET /bytes/{count}", func(w http.ResponseWriter, r *http.Request) {
		count, _ := strconv.Atoi(r.PathValue("count"))
		io.Copy(w, bytes.NewReader(bytes.Repeat([]byte("muxado!\n"), count/8)))
	})
	panic(http.Serve(listener, nil))
}
