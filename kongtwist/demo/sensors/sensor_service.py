"""A gRPC service on the readings of sensors: the kind of server one puts behind a gateway. It knows nothing of the gateway.

Run it and talk to it, directly or through a gateway whose service points at it::

    python examples/sensors/sensor_service.py                   # listens on 127.0.0.1:50051
    python examples/sensors/sensor_service.py 50052             # or on another port
    python examples/sensors/sensor_service.py 50052 CERT KEY    # with TLS, certificate and key in PEM

It has a method of each kind (sensor.proto), tells what it has by reflection, and how it is by the health service.
Messages and stubs are made from sensor.proto when it starts; there is no generated code to keep.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

messages: Any
services: Any
messages, services = grpc.protos_and_services("sensor.proto")

KNOWN = 1000
"""Sensors whose last readings are kept; the one that was silent for longest is forgotten first."""
WAITING = 100
"""Answers that may wait for a client who watches and reads slowly; of more the oldest are dropped."""
HOT, HUMID = 30.0, 80.0
"""Degrees Celsius and per cent above which there is an alert."""
BOUND = "--bound"
GRACE = 0.5
"""Seconds that calls have to end when the service stops."""


def judged(reading: Any) -> Any:
    """What the service says of a reading."""
    alerts = []
    if reading.temperature > HOT:
        alerts.append(f"{reading.temperature:.1f} \N{DEGREE SIGN}C is too hot")
    if reading.humidity > HUMID:
        alerts.append(f"{reading.humidity:.0f} % is too humid")
    return messages.SensorResponse(
        sensor_id=reading.sensor_id,
        status="alert" if alerts else "ok",
        alert_message=", ".join(alerts),
        timestamp=reading.timestamp,
    )


class Sensors(services.DataServiceServicer):  # type: ignore[misc]
    """The service. One object serves all calls."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, Any] = OrderedDict()
        self._watchers: dict[str, set[asyncio.Queue[Any]]] = {}

    def _take(self, reading: Any) -> Any:
        """Note a reading, tell those who watch its sensor, and return what is said of it."""
        said = self._last[reading.sensor_id] = judged(reading)
        self._last.move_to_end(reading.sensor_id)
        if len(self._last) > KNOWN:
            self._last.popitem(last=False)
        for queue in self._watchers.get(reading.sensor_id, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(said)
        return said

    async def GetReading(self, request: Any, context: Any) -> Any:
        if request.temperature or request.humidity or request.timestamp:
            return self._take(request)
        if request.sensor_id not in self._last:
            context.set_trailing_metadata((("known-sensors", str(len(self._last))), ("detail-bin", b"\x00\xff")))
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no sensor \u201c{request.sensor_id}\u201d")
        return self._last[request.sensor_id]

    async def WatchSensor(self, request: Any, context: Any) -> AsyncIterator[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue(WAITING)
        watchers = self._watchers.setdefault(request.sensor_id, set())
        watchers.add(queue)
        try:
            if request.sensor_id in self._last:
                yield self._last[request.sensor_id]
            while True:
                yield await queue.get()
        finally:
            watchers.discard(queue)
            if not watchers:
                self._watchers.pop(request.sensor_id, None)

    async def UploadReadings(self, requests: AsyncIterator[Any], context: Any) -> Any:
        count, alerts, last = 0, 0, messages.SensorRequest()
        async for last in requests:
            count += 1
            alerts += self._take(last).status == "alert"
        return messages.SensorResponse(
            sensor_id=last.sensor_id,
            status=f"{count} readings",
            alert_message=f"{alerts} alerts" if alerts else "",
            timestamp=last.timestamp,
        )

    async def StreamSensorData(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for reading in requests:
            yield self._take(reading)


async def _input_ended() -> None:
    """Wait for the end of standard input, which is a pipe from whoever started us."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(1024):
        pass


async def serve(port: int, certificate: str = "", key: str = "", *, bound: bool = False) -> None:
    """Serve until interrupted; ``bound``: until standard input ends, too.

    Raises:
        SystemExit: the port is taken, or the certificate cannot be used.
    """
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    services.add_DataServiceServicer_to_server(Sensors(), server)
    name = messages.DESCRIPTOR.services_by_name["DataService"].full_name
    reflection.enable_server_reflection((name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    state = health.aio.HealthServicer()  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    for each in ("", name):
        await state.set(each, health_pb2.HealthCheckResponse.SERVING)
    address = f"127.0.0.1:{port}"
    try:
        if certificate:
            with open(certificate, "rb") as chain, open(key, "rb") as secret:
                credentials = grpc.ssl_server_credentials([(secret.read(), chain.read())])
            server.add_secure_port(address, credentials)
        else:
            server.add_insecure_port(address)
    except RuntimeError as error:
        raise SystemExit(
            f"sensor_service.py: {error} Name another port: python examples/sensors/sensor_service.py PORT"
        ) from None
    await server.start()
    print(f"sensor service at grpc{'s' * bool(certificate)}://{address}", flush=True)
    try:
        await (_input_ended() if bound else server.wait_for_termination())
    finally:
        await server.stop(GRACE)


def main(*words: str) -> None:
    """Serve until interrupted. ``--bound``: also end when standard input does, which is how a parent's end shows."""
    if BOUND in words:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C goes to all of a terminal; our parent decides what it means
    port, *pair = [word for word in words if word != BOUND] or ["50051"]
    try:
        asyncio.run(serve(int(port), *pair, bound=BOUND in words))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
