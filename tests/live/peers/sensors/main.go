// grpc-go's client of the sensor service: sensors TARGET [CA]; what it saw goes out as a line of JSON. Messages are written with
// protowire, so that no code has to be generated.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

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

func reading(id string, temperature float64) *[]byte {
	message := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), id)
	if temperature != 0 {
		message = protowire.AppendTag(message, 2, protowire.Fixed64Type)
		message = protowire.AppendFixed64(message, math.Float64bits(temperature))
		message = protowire.AppendString(protowire.AppendTag(message, 4, protowire.BytesType), "café")
		message = protowire.AppendVarint(protowire.AppendTag(message, 5, protowire.VarintType), 1<<40)
	}
	return &message
}

// answer returns a SensorResponse's status, alert and time.
func answer(message []byte) (string, string, uint64) {
	text := map[protowire.Number]string{}
	var at uint64
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		message = message[n:]
		if kind == protowire.BytesType {
			value, n := protowire.ConsumeString(message)
			text[number], message = value, message[n:]
		} else {
			value, n := protowire.ConsumeVarint(message)
			at, message = value, message[n:]
		}
	}
	return text[2], text[3], at
}

func main() {
	encoding.RegisterCodec(raw{})
	secure := insecure.NewCredentials()
	if len(os.Args) > 2 {
		var err error
		secure, err = credentials.NewClientTLSFromFile(os.Args[2], "")
		check(err)
	}
	connection, err := grpc.NewClient("passthrough:///"+os.Args[1], grpc.WithTransportCredentials(secure))
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	method := func(name string) string { return "/sensor.DataService/" + name }
	temperatures := []float64{20, 31.5, 25}
	seen := map[string]any{}
	var got []byte
	next := func(stream grpc.ClientStream) string {
		check(stream.RecvMsg(&got))
		said, _, _ := answer(got)
		return said
	}
	open := func(name string, client, server bool) grpc.ClientStream {
		stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ClientStreams: client, ServerStreams: server}, method(name))
		check(err)
		return stream
	}

	check(connection.Invoke(ctx, method("GetReading"), reading("s", 31.5), &got))
	said, alert, at := answer(got)
	seen["unary"] = []any{said, alert, at}

	var trailer metadata.MD
	err = connection.Invoke(ctx, method("GetReading"), reading("unknown", 0), &got, grpc.Trailer(&trailer))
	seen["error"] = []any{status.Code(err), status.Convert(err).Message(), hex.EncodeToString([]byte(trailer.Get("detail-bin")[0]))}

	upload := open("UploadReadings", true, false)
	for _, each := range temperatures {
		check(upload.SendMsg(reading("s", each)))
	}
	check(upload.CloseSend())
	seen["upload"] = next(upload)

	watching, stop := context.WithCancel(ctx)
	watch, err := connection.NewStream(watching, &grpc.StreamDesc{ServerStreams: true}, method("WatchSensor"))
	check(err)
	check(watch.SendMsg(reading("s", 0)))
	check(watch.CloseSend())
	seen["watch"] = next(watch)
	stop()

	stream := open("StreamSensorData", true, true)
	told := []string{}
	for _, each := range temperatures {
		check(stream.SendMsg(reading("s", each)))
		told = append(told, next(stream))
	}
	check(stream.CloseSend())
	seen["stream"], seen["more"] = told, 0
	if err := stream.RecvMsg(&got); err == io.EOF {
		seen["ended"] = 0
	} else {
		seen["ended"] = status.Code(err)
	}
	check(json.NewEncoder(os.Stdout).Encode(seen))
}
