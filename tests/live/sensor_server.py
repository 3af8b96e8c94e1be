"""A gRPC service of sensors.proto in a process of its own: ``python -m tests.live.sensor_server PORT [CERTIFICATE KEY [AUTHORITY]]``.

A port with a minus before it: without reflection. With an authority clients have to show a certificate of its.

What becomes of calls is written to standard output, a line each: ``begun METHOD``, ``over METHOD``. The file is compiled here, so
there is no generated code. ``sensor_id`` says what is to happen: ``unknown`` fails, ``stuck`` never answers, ``endless`` never ends.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from importlib.resources import files
from pathlib import Path
from typing import Any

import google.api
import google.rpc.error_details_pb2 as details
import google.rpc.status_pb2 as status
import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection
from grpc_tools import protoc

PROTO = Path(__file__).with_name("sensors.proto")
SERVICE = "sensors.test.DataService"


def descriptors(proto: Path = PROTO) -> bytes:
    """The FileDescriptorSet of a file."""
    common = Path(next(iter(google.api.__path__))).parents[1]
    with tempfile.NamedTemporaryFile() as out:
        words = [f"-I{proto.parent}", f"-I{files('grpc_tools') / '_proto'}", f"-I{common}", "--include_imports"]
        if protoc.main(["protoc", *words, f"--descriptor_set_out={out.name}", proto.name]):
            raise ValueError(f"{proto} does not compile")
        return Path(out.name).read_bytes()


def pool_of(described: bytes) -> Any:
    """A pool with what these descriptors describe."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(described).file:
        pool.Add(file)
    return pool


class Sensors:
    """The methods."""

    def __init__(self, pool: Any) -> None:
        self.request = message_factory.GetMessageClass(pool.FindMessageTypeByName("sensors.test.SensorRequest"))
        self.response = message_factory.GetMessageClass(pool.FindMessageTypeByName("sensors.test.SensorResponse"))

    def answer(self, asked: Any) -> Any:
        hot = asked.temperature > 30
        return self.response(
            sensor_id=asked.sensor_id,
            status="alert" if hot else "ok",
            alert_message="too hot" if hot else asked.location,
            timestamp=asked.timestamp or asked.at.seconds,
        )

    def get(self, asked: Any, context: Any) -> Any:
        ended = _watched("GetReading", context)
        sent = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-seen", str(sent.get("x-asked", ""))), ("x-seen-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-behind", "1"),))
        if asked.sensor_id == "unknown":
            detail = any_pb2.Any()
            detail.Pack(details.ErrorInfo(reason="NO_SENSOR", domain="sensors"))
            told = status.Status(code=5, message="no sensor “unknown”", details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", told.SerializeToString()), ("x-behind", "1")))
            context.abort(grpc.StatusCode.NOT_FOUND, "no sensor “unknown”")
        if asked.sensor_id == "stuck":
            ended.wait()
        if asked.sensor_id == "metadata":
            return self.response(sensor_id=" ".join(f"{name}={value}" for name, value in sorted(sent.items())))
        if asked.sensor_id.isdigit():
            context.abort(tuple(grpc.StatusCode)[int(asked.sensor_id)], "as you like")
        return self.answer(asked)

    def watch(self, asked: Any, context: Any) -> Iterator[Any]:
        ended = _watched("WatchSensor", context)
        if asked.sensor_id == "unknown":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such sensor")
        if asked.sensor_id == "stuck":
            ended.wait()
        number = 0
        while number < (asked.count or 3) or asked.sensor_id in ("endless", "flood"):
            number += 1
            made = self.answer(asked)
            made.timestamp = number
            if asked.sensor_id == "flood":
                made.alert_message = "x" * 10_000
                _tell(f"sent {number}")
            yield made
            if asked.sensor_id == "endless" and ended.wait(0.05):
                return
        if asked.sensor_id == "broken":
            context.abort(grpc.StatusCode.DATA_LOSS, "it fell down")

    def upload(self, messages: Iterator[Any], context: Any) -> Any:
        _watched("UploadReadings", context)
        found = list(messages)
        made = self.answer(found[-1]) if found else self.response()
        made.status = f"{len(found)} readings"
        return made

    def stream(self, messages: Iterator[Any], context: Any) -> Iterator[Any]:
        _watched("StreamSensorData", context)
        for asked in messages:
            if asked.sensor_id == "unknown":
                context.abort(grpc.StatusCode.NOT_FOUND, "no such sensor")
            yield self.answer(asked)

    def handlers(self) -> Any:
        kinds = {
            "GetReading": (grpc.unary_unary_rpc_method_handler, self.get),
            "WatchSensor": (grpc.unary_stream_rpc_method_handler, self.watch),
            "UploadReadings": (grpc.stream_unary_rpc_method_handler, self.upload),
            "StreamSensorData": (grpc.stream_stream_rpc_method_handler, self.stream),
        }
        made = {
            name: make(call, self.request.FromString, self.response.SerializeToString)
            for name, (make, call) in kinds.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, made)


def _tell(line: str) -> None:
    """Print a line in one piece: calls end in other threads, and a print would let their words come in between."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def _watched(method: str, context: Any) -> threading.Event:
    """Tell of a call's beginning, and of its end if it does not end by itself."""
    _tell(f"begun {method}")
    ended = threading.Event()

    def over() -> None:
        ended.set()
        _tell(f"over {method}")

    context.add_callback(over)
    return ended


def main() -> None:
    """Serve until killed."""
    port, *certificate = sys.argv[1:]
    described = descriptors()
    pool = pool_of(described)
    server = grpc.server(futures.ThreadPoolExecutor(50))
    server.add_generic_rpc_handlers((Sensors(pool).handlers(),))
    if port.startswith("-"):
        port = port[1:]
    else:
        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server, pool=pool)
    if certificate:
        pair = (Path(certificate[1]).read_bytes(), Path(certificate[0]).read_bytes())
        authority = Path(certificate[2]).read_bytes() if len(certificate) > 2 else None
        credentials = grpc.ssl_server_credentials([pair], authority, authority is not None)
        bound = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    else:
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
    assert bound == int(port), "the port is taken"
    server.start()
    _tell("serving")
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
