"""grpcio's two clients of the sensor service: ``python sensor_clients.py sync|aio TARGET [CA]``; what they saw goes out as a line of JSON.

Clients in other languages do the same: `sensor_client.mjs` (grpc-js), `peers/sensors/main.go` (grpc-go) and
`peers/SensorCalls.java` (grpc-java). `test_grpc_clients.SEEN` is what each must see.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "kongtwist" / "demo" / "sensors"))
messages: Any
services: Any
messages, services = grpc.protos_and_services("sensor.proto")

PATIENCE = 30.0
"""Seconds that a call may take."""
TEMPERATURES = (20.0, 31.5, 25.0)


def reading(temperature: float) -> Any:
    """A reading of the sensor that all clients have."""
    return messages.SensorRequest(sensor_id="s", temperature=temperature, location="caf\u00e9", timestamp=2**40)


def said(answer: Any) -> list[Any]:
    """What is looked at in an answer."""
    return [answer.status, answer.alert_message, answer.timestamp]


def failed(error: Any) -> list[Any]:
    """What is looked at in an error: status, message, a binary trailer."""
    trailers = dict(error.trailing_metadata() or ())
    return [error.code().value[0], error.details(), trailers["detail-bin"].hex()]


def with_sync(channel: Any) -> dict[str, Any]:
    """All calls, one after the other, with the blocking client."""
    stub = services.DataServiceStub(channel)
    seen: dict[str, Any] = {"unary": said(stub.GetReading(reading(31.5), timeout=PATIENCE))}
    try:
        stub.GetReading(messages.SensorRequest(sensor_id="unknown"), timeout=PATIENCE)
    except grpc.RpcError as error:
        seen["error"] = failed(error)
    seen["upload"] = stub.UploadReadings(map(reading, TEMPERATURES), timeout=PATIENCE).status
    watching = stub.WatchSensor(messages.SensorRequest(sensor_id="s"), timeout=PATIENCE)
    seen["watch"] = next(watching).status
    watching.cancel()
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def requests() -> Iterator[Any]:
        while (each := asked.get()) is not None:
            yield each

    stream = stub.StreamSensorData(requests(), timeout=PATIENCE)
    seen["stream"] = []
    for temperature in TEMPERATURES:  # each is asked when the answer before has come
        asked.put(reading(temperature))
        seen["stream"].append(next(stream).status)
    asked.put(None)
    seen["more"] = len(list(stream))
    seen["ended"] = stream.code().value[0]
    return seen


async def with_aio(channel: Any) -> dict[str, Any]:
    """The same with grpc.aio."""
    stub = services.DataServiceStub(channel)
    seen: dict[str, Any] = {"unary": said(await stub.GetReading(reading(31.5), timeout=PATIENCE))}
    try:
        await stub.GetReading(messages.SensorRequest(sensor_id="unknown"), timeout=PATIENCE)
    except grpc.aio.AioRpcError as error:
        seen["error"] = failed(error)
    seen["upload"] = (await stub.UploadReadings(map(reading, TEMPERATURES), timeout=PATIENCE)).status
    watching = stub.WatchSensor(messages.SensorRequest(sensor_id="s"), timeout=PATIENCE)
    seen["watch"] = (await watching.read()).status
    watching.cancel()
    stream = stub.StreamSensorData(timeout=PATIENCE)
    seen["stream"] = []
    for temperature in TEMPERATURES:
        await stream.write(reading(temperature))
        seen["stream"].append((await stream.read()).status)
    await stream.done_writing()
    seen["more"] = 0
    while (await stream.read()) is not grpc.aio.EOF:
        seen["more"] += 1
    seen["ended"] = (await stream.code()).value[0]
    return seen


async def _aio(make: Any) -> dict[str, Any]:
    async with make() as channel:
        return await with_aio(channel)


def main(kind: str, target: str, authority: str = "") -> None:
    """Call, and print what was seen."""
    library: Any = grpc.aio if kind == "aio" else grpc

    def make() -> Any:
        if not authority:
            return library.insecure_channel(target)
        return library.secure_channel(target, grpc.ssl_channel_credentials(Path(authority).read_bytes()))

    if kind == "aio":
        seen = asyncio.run(_aio(make))
    else:
        with make() as channel:
            seen = with_sync(channel)
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
