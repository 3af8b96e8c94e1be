"""Sensors that send readings to the service over one bidirectional stream, and print what it says::

    python examples/sensors/sensor_generator.py                    # through a gateway at localhost:8000, until Ctrl-C
    python examples/sensors/sensor_generator.py localhost:50051    # or directly
    python examples/sensors/sensor_generator.py localhost:8000 20  # 20 readings, then the end

The gateway needs a Route whose path begins with ``/sensor.DataService``; examples/README.md shows how to make it.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc

messages: Any
services: Any
messages, services = grpc.protos_and_services("sensor.proto")

PLACES = {"boiler": ("cellar", 29.0, 40.0), "cellar": ("cellar", 14.0, 78.0), "greenhouse": ("garden", 26.0, 79.0)}
"""Sensor -> where it is, its usual temperature and humidity."""
EVERY = 0.5
"""Seconds between two readings."""


def readings(chance: random.Random) -> Iterator[Any]:
    """Readings of the sensors in turns, without end."""
    for name in itertools.cycle(PLACES):
        location, temperature, humidity = PLACES[name]
        yield messages.SensorRequest(
            sensor_id=name,
            temperature=round(chance.gauss(temperature, 1.5), 1),
            humidity=round(min(100.0, chance.gauss(humidity, 2.0)), 1),
            location=location,
            timestamp=int(time.time() * 1000),
        )


def paced(source: Iterator[Any], count: int | None, every: float = EVERY) -> Iterator[Any]:
    """The first ``count`` of them (None: all), with pauses."""
    for number, reading in enumerate(itertools.islice(source, count)):
        if number:
            time.sleep(every)
        yield reading


def main(target: str = "localhost:8000", count: str = "") -> None:
    """Stream readings and print the answers."""
    with grpc.insecure_channel(target) as channel:
        stub = services.DataServiceStub(channel)
        try:
            for said in stub.StreamSensorData(paced(readings(random.Random()), int(count) if count else None)):
                print(f"{said.sensor_id:<12} {said.status:<6} {said.alert_message}".rstrip(), flush=True)
        except grpc.RpcError as error:
            call: Any = error  # grpcio's errors are calls, too
            raise SystemExit(f"sensor_generator.py: {call.code().name}: {call.details()}") from None
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
