// Load and echo server for the rows on HTTP/2 and gRPC.
//
//	load echo PORT                                           answer each message of any method with itself
//	load unary|metadata PORT CONNS STREAMS SIZE WARM SECONDS calls, one after the other on each stream
//	load bidi PORT CONNS STREAMS SIZE WARM SECONDS           ping-pong on streams that stay open
//	load web PORT CONNS STREAMS SIZE WARM SECONDS            unary calls in gRPC-Web, over HTTP/2 without TLS
//	load get PORT PATH CONNS STREAMS WARM SECONDS            GETs over HTTP/2 with TLS
//	load handshake PORT full|resumed CONNS WARM SECONDS      connections over TLS 1.3 that ask for nothing
//	load idle PORT CONNS STREAMS                             open so many bidirectional streams and leave them alone
//
// What measures prints "begin" after WARM seconds, and "end N" with the number of operations SECONDS later. "idle" prints
// "open N", and ends when its standard input does. With "metadata" one field differs from call to call.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
)

const (
	unaryMethod = "/bench.Echo/Unary"
	bidiMethod  = "/bench.Echo/Bidi"
	token       = "Bearer abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789"
)

// raw passes messages on as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *(v.(*[]byte)), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*(v.(*[]byte)) = append([]byte(nil), data...)
	return nil
}
func (raw) Name() string { return "proto" }

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func number(word string) int {
	value, err := strconv.Atoi(word)
	check(err)
	return value
}

func seconds(word string) time.Duration {
	value, err := strconv.ParseFloat(word, 64)
	check(err)
	return time.Duration(value * float64(time.Second))
}

func echo(port string) {
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	check(err)
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(64<<20),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			for {
				var message []byte
				if err := stream.RecvMsg(&message); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				if err := stream.SendMsg(&message); err != nil {
					return err
				}
			}
		}))
	check(server.Serve(listener))
}

func connect(port string) *grpc.ClientConn {
	connection, err := grpc.NewClient("passthrough:///127.0.0.1:"+port,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.CallContentSubtype("proto"), grpc.MaxCallRecvMsgSize(64<<20)))
	check(err)
	return connection
}

// operation does one thing and returns; made once for each stream.
type operation func() error

func unary(connection *grpc.ClientConn, size int, differs bool) operation {
	message := make([]byte, size)
	var count int
	return func() error {
		ctx := context.Background()
		if differs {
			count++
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", token, "x-request-id",
				fmt.Sprintf("%016x-%d", time.Now().UnixNano(), count))
		}
		var answer []byte
		if err := connection.Invoke(ctx, unaryMethod, &message, &answer); err != nil {
			return err
		}
		if len(answer) != size {
			return fmt.Errorf("%d bytes came back of %d", len(answer), size)
		}
		return nil
	}
}

func bidi(connection *grpc.ClientConn, size int) operation {
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := connection.NewStream(context.Background(), both, bidiMethod)
	check(err)
	message := make([]byte, size)
	return func() error {
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
		var answer []byte
		if err := stream.RecvMsg(&answer); err != nil {
			return err
		}
		if len(answer) != size {
			return fmt.Errorf("%d bytes came back of %d", len(answer), size)
		}
		return nil
	}
}

func web(client *http.Client, port string, size int) operation {
	framed := make([]byte, 5+size)
	binary.BigEndian.PutUint32(framed[1:], uint32(size))
	return func() error {
		asked, err := http.NewRequest("POST", "http://127.0.0.1:"+port+"/web"+unaryMethod, bytes.NewReader(framed))
		if err != nil {
			return err
		}
		asked.Header.Set("content-type", "application/grpc-web+proto")
		asked.Header.Set("x-grpc-web", "1")
		answer, err := client.Do(asked)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			return err
		}
		if len(body) < 5+size || !bytes.Contains(body[5+size:], []byte("grpc-status:0")) {
			return fmt.Errorf("status %d, a body of %d bytes: %q", answer.StatusCode, len(body), body[:min(len(body), 200)])
		}
		return nil
	}
}

func get(client *http.Client, url string) operation {
	return func() error {
		answer, err := client.Get(url)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return err
		}
		if answer.StatusCode != 200 || answer.ProtoMajor != 2 {
			return fmt.Errorf("status %d over %s", answer.StatusCode, answer.Proto)
		}
		return nil
	}
}

// kept is the first session that a server gave, for every connection: what Go itself keeps is good for one.
type kept struct {
	lock    sync.Mutex
	session *tls.ClientSessionState
}

func (each *kept) Get(string) (*tls.ClientSessionState, bool) {
	each.lock.Lock()
	defer each.lock.Unlock()
	return each.session, each.session != nil
}

func (each *kept) Put(_ string, session *tls.ClientSessionState) {
	each.lock.Lock()
	defer each.lock.Unlock()
	if each.session == nil {
		each.session = session
	}
}

// handshake makes a connection, and has the server end it; the first one of a stream makes the session that is resumed.
func handshake(port string, resumed bool) operation {
	// One group that any OpenSSL has: newer ones would agree on X25519MLKEM768 with Go, and make more keys than the others.
	config := &tls.Config{
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS13,
		CurvePreferences:   []tls.CurveID{tls.X25519},
	}
	if resumed {
		config.ClientSessionCache = &kept{}
	}
	first := true
	return func() error {
		connection, err := tls.Dial("tcp", "127.0.0.1:"+port, config)
		if err != nil {
			return err
		}
		defer connection.Close()
		if did := connection.ConnectionState().DidResume; did != (resumed && !first) {
			return fmt.Errorf("resumed: %t", did)
		}
		first = false
		if err := connection.CloseWrite(); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, connection) // tickets are read, so that the end is no reset
		return err
	}
}

// client speaks HTTP/2 over one connection.
func client(plain bool) *http.Client {
	transport := &http2.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, StrictMaxConcurrentStreams: true}
	if plain {
		transport.AllowHTTP = true
		transport.DialTLSContext = func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
	}
	return &http.Client{Transport: transport}
}

// measure has all streams repeat their operations; it tells when measuring begins and what was done until it ended.
func measure(connections, streams int, made func(connection int) func() operation, warm, measured time.Duration) {
	var done atomic.Int64
	var over atomic.Bool
	var wait sync.WaitGroup
	for number := 0; number < connections; number++ {
		next := made(number)
		for each := 0; each < streams; each++ {
			operate := next()
			wait.Add(1)
			go func() {
				defer wait.Done()
				for !over.Load() {
					check(operate())
					done.Add(1)
				}
			}()
		}
	}
	time.Sleep(warm)
	before := done.Load()
	fmt.Println("begin")
	time.Sleep(measured)
	fmt.Println("end", done.Load()-before)
	over.Store(true)
	wait.Wait()
}

func idle(port string, connections, streams int) {
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	open := 0
	for number := 0; number < connections; number++ {
		connection := connect(port)
		for each := 0; each < streams; each++ {
			stream, err := connection.NewStream(context.Background(), both, bidiMethod)
			check(err)
			message, answer := []byte("hello"), []byte(nil)
			check(stream.SendMsg(&message))
			check(stream.RecvMsg(&answer))
			open++
		}
	}
	fmt.Println("open", open)
	_, err := io.Copy(io.Discard, os.Stdin)
	check(err)
}

func main() {
	encoding.RegisterCodec(raw{})
	words := os.Args[1:]
	if len(words) < 2 {
		check(errors.New("usage: see main.go"))
	}
	mode, port := words[0], words[1]
	switch mode {
	case "echo":
		echo(port)
	case "idle":
		idle(port, number(words[2]), number(words[3]))
	case "get":
		url := "https://127.0.0.1:" + port + words[2]
		measure(number(words[3]), number(words[4]), func(int) func() operation {
			one := client(false)
			return func() operation { return get(one, url) }
		}, seconds(words[5]), seconds(words[6]))
	case "handshake":
		measure(number(words[3]), 1, func(int) func() operation {
			return func() operation { return handshake(port, words[2] == "resumed") }
		}, seconds(words[4]), seconds(words[5]))
	case "unary", "metadata", "bidi", "web":
		size := number(words[4])
		measure(number(words[2]), number(words[3]), func(int) func() operation {
			if mode == "web" {
				one := client(true)
				return func() operation { return web(one, port, size) }
			}
			connection := connect(port)
			if mode == "bidi" {
				return func() operation { return bidi(connection, size) }
			}
			return func() operation { return unary(connection, size, mode == "metadata") }
		}, seconds(words[5]), seconds(words[6]))
	default:
		check(fmt.Errorf("unknown: %s", mode))
	}
}
