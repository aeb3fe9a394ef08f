package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	muxado "golang.ngrok.com/muxado/v2"
)

// fields is one JSON object on its way out.
type fields map[string]any

// output writes one JSON object per line.
type output struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func newOutput(w io.Writer) *output {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &output{enc: enc}
}

func (o *output) line(f fields) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.enc.Encode(f); err != nil {
		// Nobody listens any more: the driver has died.
		fmt.Fprintln(os.Stderr, "peer: writing stdout:", err)
		os.Exit(exitFailure)
	}
}

func (o *output) event(name string, f fields) {
	f["event"] = name
	o.line(f)
}

// muxadoCode finds the muxado error code of err, looking through wrappers.
func muxadoCode(err error) (muxado.ErrorCode, bool) {
	for ; err != nil; err = errors.Unwrap(err) {
		code, inner := muxado.GetError(err)
		// For a foreign error GetError gives ErrorUnknown and the error itself;
		// a reset with code 255 gives the same code but the error inside.
		if code != muxado.ErrorUnknown || inner != err {
			return code, true
		}
	}
	return 0, false
}

// setError adds what is known about err, if there is one.
func (f fields) setError(err error) {
	if err == nil {
		return
	}
	f["error"] = err.Error()
	if code, ok := muxadoCode(err); ok {
		f["code"] = code
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		f["timeout"] = true
	}
	var bad badRequest
	if errors.As(err, &bad) {
		f["bad_request"] = true
	}
}
