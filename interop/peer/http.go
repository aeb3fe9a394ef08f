package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync/atomic"
	"time"
)

// serveHTTP gives the session itself to net/http as its listener.
func (p *peer) serveHTTP() {
	server := &http.Server{
		Handler:           newHandler(),
		ReadHeaderTimeout: p.opts.timeout,
		IdleTimeout:       p.opts.timeout,
		// No WriteTimeout: after a muxado write deadline a stream is broken.
	}
	err := server.Serve(p.sess)
	f := fields{}
	f.setError(err)
	p.out.event("http-ended", f)
}

func newHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		// The whole body first: many clients do not read before they have written.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	})
	mux.HandleFunc("/size/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
		if err != nil || n < 0 {
			http.Error(w, "bad size", http.StatusBadRequest)
			return
		}
		seed, err := strconv.ParseUint("0"+r.FormValue("seed"), 10, 64)
		if err != nil {
			http.Error(w, "bad seed", http.StatusBadRequest)
			return
		}
		sum := sha256.New()
		_, _ = io.CopyN(sum, newData(seed), n)
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		w.Header().Set("X-Sha256", hexSum(sum))
		_, _ = io.CopyN(w, newData(seed), n)
	})
	mux.HandleFunc("/hash", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		if _, err := io.Copy(sum, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, hexSum(sum))
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		// ?parts= lines, ?ms= apart, each flushed on its own.
		parts, ms := 5, 100
		for name, value := range map[string]*int{"parts": &parts, "ms": &ms} {
			text := r.FormValue(name)
			if text == "" {
				continue
			}
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 {
				http.Error(w, "bad "+name, http.StatusBadRequest)
				return
			}
			*value = n
		}
		for i := range parts {
			select {
			case <-time.After(time.Duration(ms) * time.Millisecond):
			case <-r.Context().Done():
				return
			}
			fmt.Fprintf(w, "part %d\n", i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
		}
	})
	return mux
}

func (p *peer) cmdHTTPServe(context.Context, *request) (fields, error) {
	p.mu.Lock()
	accepting := p.accepting
	p.mu.Unlock()
	if accepting {
		// Our own accept loop would take streams away from net/http.
		return nil, badRequest("http-serve needs a peer that has never accepted: start it with -behaviour none, or with http at once")
	}
	p.setBehaviour(behaviour{name: "http"}, "")
	return nil, nil
}

// cmdHTTPClient makes requests of the other end over streams that we dial, and
// compares what comes back.
func (p *peer) cmdHTTPClient(ctx context.Context, r *request) (fields, error) {
	sizes := r.Sizes
	if len(sizes) == 0 {
		if r.Count < 1 || r.Min < 0 || r.Max < r.Min {
			return nil, badRequest("http-client needs sizes, or count and 0 <= min <= max")
		}
		rng := newRand(r.Seed)
		for range r.Count {
			sizes = append(sizes, logUniform(rng, r.Min, r.Max))
		}
	}
	path := r.Path
	if path == "" {
		path = "/echo"
	}
	transport := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			str, err := p.open(r.Type, false)
			if err != nil {
				return nil, err
			}
			return &dialled{Conn: str}, nil
		},
		DisableKeepAlives:   !r.KeepAlive,
		DisableCompression:  true,
		MaxIdleConnsPerHost: len(sizes),
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	t := newTally(int64(len(sizes)))
	inParallel(ctx, int64(len(sizes)), r.Concurrency, func(i int64) {
		seed := r.Seed + uint64(i)
		body := make([]byte, sizes[i])
		_, _ = newData(seed).Read(body)
		var status int
		retries, err := retryRefused(ctx, newRand(seed), func() (err error) {
			if r.Get {
				status, err = get(ctx, client, fmt.Sprintf("http://peer/size/%d?seed=%d", sizes[i], seed), sizes[i])
			} else {
				status, err = post(ctx, client, "http://peer"+path, body, r.Chunked)
			}
			return err
		})
		t.add(retries, sizes[i], status, err)
	})
	return t.result()
}

// dialled remembers its first failure. When reading fails net/http closes the
// connection, and may report what that does to the writing instead: a refused
// stream would look like one that we closed.
type dialled struct {
	net.Conn
	failure atomic.Pointer[error]
}

func (d *dialled) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	return n, d.note(err)
}

func (d *dialled) Write(b []byte) (int, error) {
	n, err := d.Conn.Write(b)
	return n, d.note(err)
}

func (d *dialled) note(err error) error {
	if err != nil && err != io.EOF {
		d.failure.CompareAndSwap(nil, &err)
	}
	return err
}

// post expects the body, or its SHA-256 in hexadecimal, back.
func post(ctx context.Context, client *http.Client, url string, body []byte, chunked bool) (int, error) {
	var reader io.Reader = bytes.NewReader(body)
	if chunked {
		reader = struct{ io.Reader }{reader} // hides the length from net/http
	}
	status, _, got, err := ask(ctx, client, http.MethodPost, url, reader)
	if err == nil && !bytes.Equal(got, body) && string(got) != fmt.Sprintf("%x", sha256.Sum256(body)) {
		err = errMismatch
	}
	return status, err
}

// get expects so many bytes, with their SHA-256 in a header.
func get(ctx context.Context, client *http.Client, url string, size int64) (int, error) {
	status, header, got, err := ask(ctx, client, http.MethodGet, url, nil)
	if err == nil && (int64(len(got)) != size || header.Get("X-Sha256") != fmt.Sprintf("%x", sha256.Sum256(got))) {
		err = errMismatch
	}
	return status, err
}

// ask makes a request and reads all of the answer; any status but 200 is an error.
func ask(ctx context.Context, client *http.Client, method, url string, body io.Reader) (status int, header http.Header, got []byte, err error) {
	var conn *dialled
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { conn, _ = info.Conn.(*dialled) },
	})
	defer func() {
		if err != nil && conn != nil {
			if failure := conn.failure.Load(); failure != nil {
				err = fmt.Errorf("%v, because: %w", err, *failure)
			}
		}
	}()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, nil, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	got, err = io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return resp.StatusCode, resp.Header, got, err
}
