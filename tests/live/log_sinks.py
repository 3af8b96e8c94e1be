"""Where log plugins send to in tests: sockets and files of the test itself, and what each has got as `Logged`."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.live.collector_process import Collector
from tests.live.kafka_kit import topic_records
from tests.live.kafka_server import KafkaCluster
from tests.live.support import LiveTestCase

__all__ = [
    "Datagrams",
    "Lines",
    "Logged",
    "Sink",
    "counted",
    "of_collector",
    "of_file",
    "of_spans",
    "of_topic",
    "recorded",
]

_LARGEST = 65536


class Logged(NamedTuple):
    """What a plugin told of one request."""

    service: str
    status: int
    record: dict[str, Any]  #: Kong's, of plugins that send it; else empty


class Sink(NamedTuple):
    """One plugin.

    Attributes:
        name, config: of the plugin.
        read: all that has come so far.
    """

    name: str
    config: dict[str, Any]
    read: Callable[[], list[Logged]]


def recorded(texts: Iterable[str | bytes]) -> list[Logged]:
    """Records, each behind whatever stands before its first brace."""
    found = []
    for text in texts:
        start = text.index("{") if isinstance(text, str) else text.index(b"{")
        record = json.loads(text[start:])
        found.append(Logged(record["service"]["name"], record["response"]["status"], record))
    return found


_STATSD = re.compile(r"kong\.service\.([\w-]+)\.status\.(\d+):1\|c\Z")
_DATADOG = re.compile(r"kong\.request\.count:1\|c\|#name:([\w-]+),status:(\d+),app:kong\Z")


def counted(texts: Iterable[bytes]) -> list[Logged]:
    """Requests that lines of StatsD or DogStatsD count."""
    lines = [line for text in texts for line in text.decode().split("\n")]
    matches = [_STATSD.match(line) or _DATADOG.match(line) for line in lines]
    return [Logged(match[1], int(match[2]), {}) for match in matches if match]


def of_spans(spans: Iterable[dict[str, Any]]) -> list[Logged]:
    """Requests that spans of OTLP or of Zipkin tell, by their paths; the spans of parts of a request left out."""
    found = []
    for span in spans:
        told = span.get("attributes") or span.get("tags") or {}
        if span["kind"] not in (2, "SERVER") or "http.status_code" not in told:
            continue
        path = told.get("http.path") or urlsplit(told["http.url"]).path
        service = path.split("/")[1]
        found.append(Logged("grpc" if service == "echo.Echo" else service, int(told["http.status_code"]), {}))
    return found


class Datagrams:
    """A socket for datagrams, read in a thread: one of Unix holds ten of them, and more are refused.

    Args:
        case: closes it.
        path: of a Unix socket; None: UDP.
    """

    def __init__(self, case: LiveTestCase, path: str | None = None) -> None:
        family = socket.AF_INET if path is None else socket.AF_UNIX
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind(path or ("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self.port: int = self._socket.getsockname()[1] if path is None else 0
        self._got: list[bytes] = []
        self._over = False
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()
        case.addCleanup(self._close)

    def read(self) -> list[bytes]:
        """All that have come."""
        return list(self._got)

    def _receive(self) -> None:
        while not self._over:
            try:
                self._got.append(self._socket.recv(_LARGEST))
            except TimeoutError:
                continue

    def _close(self) -> None:
        self._over = True
        self._thread.join()
        self._socket.close()


class Lines:
    """A TCP server for lines, read when it is looked at.

    Args:
        case: closes it.
    """

    def __init__(self, case: LiveTestCase) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        case.addCleanup(self._listener.close)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._clients: list[tuple[socket.socket, bytearray]] = []
        self._case = case

    def read(self) -> list[bytes]:
        """Whole lines of all connections."""
        try:
            while True:
                client, _ = self._listener.accept()
                self._case.addCleanup(client.close)
                client.setblocking(False)
                self._clients.append((client, bytearray()))
        except BlockingIOError:
            pass
        for client, got in self._clients:
            try:
                while data := client.recv(_LARGEST):
                    got += data
            except (BlockingIOError, ConnectionError):
                continue
        return [line for _, got in self._clients for line in bytes(got).split(b"\n")[:-1]]


def of_collector(collector: Collector) -> list[Logged]:
    """What an HTTP server has got."""
    return [Logged(each["service"]["name"], each["response"]["status"], each) for each in collector.records()]


def of_file(path: str) -> list[Logged]:
    """Whole lines of a file."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return recorded(file.read().split("\n")[:-1])


def of_topic(cluster: KafkaCluster, topic: str) -> list[Logged]:
    """Records of a topic."""
    return recorded(each.value for each in topic_records(cluster, topic))
