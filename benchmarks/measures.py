"""Measuring one thing once: CPU per operation under load, memory per idle stream, waiting time beside many of them."""

from __future__ import annotations

import re
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .servers import Server, Stage, resident
from .usage import Cost, Usage

__all__ = ["Pace", "Waits", "http_cost", "idle_memory", "idle_streams", "load_cost", "stream_cost"]

Load = subprocess.Popen[bytes]
"""A load generator that runs."""
VALUES = """\
local requests, at = {}, 0
function init()
  for line in io.lines("FILE") do
    wrk.headers["NAME"] = line
    requests[#requests + 1] = wrk.format()
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"""
"""wrk's script for a header with one value after the other. The requests are made before the first is sent: a load generator that is
slower than the proxy has it wake up for each request alone."""

POST = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[BODY]]
"""
"""wrk's script for a POST."""

VARYING = """
local count = 0
function request()
  count = count + 1
  wrk.headers["X-Trace"] = "0af7651916cd43dd8448eb211c80319c-" .. count
  wrk.headers["Cookie"] = "visit=" .. count
  return wrk.format("GET")
end
"""
"""wrk script: heads that differ from request to request, as those of many clients behind one proxy do."""


@dataclass(frozen=True)
class Pace:
    """How long and how often."""

    warm: float = 2.0  #: seconds of load before measuring
    seconds: float = 6.0  #: seconds measured
    rounds: int = 3  #: times each server has its turn


def http_cost(
    stage: Stage, server: Server, path: str, pace: Pace, *, header: str = "", varying: bool = False,
    values: tuple[str, Sequence[str]] | None = None, body: str | None = None, clients: int = 32,
) -> Cost:  # fmt: skip
    """What a GET over keep-alive connections costs, or a POST.

    Args:
        stage: where scripts go.
        server: the proxy.
        path: what is asked for.
        pace: how long.
        header: a further header line.
        varying: let two header fields differ from request to request.
        values: a header's name, and its values in turn.
        body: JSON that is posted.
        clients: how many ask at a time.

    Raises:
        RuntimeError: some requests failed; the figure would mean nothing.
    """
    words = ["wrk", "-t1", f"-c{clients}", *(["-H", header] if header else [])]
    if varying:
        script = Path(stage.folder, "varying.lua")
        script.write_text(VARYING, encoding="ascii")
        words += ["-s", str(script)]
    if values is not None:
        script, lines = Path(stage.folder, "values.lua"), Path(stage.folder, "values")
        lines.write_text("\n".join(values[1]), encoding="ascii")
        script.write_text(VALUES.replace("FILE", str(lines)).replace("NAME", values[0]), encoding="ascii")
        words += ["-s", str(script)]
    if body is not None:
        script = Path(stage.folder, "post.lua")
        script.write_text(POST.replace("BODY", body), encoding="ascii")
        words += ["-s", str(script)]
    url = f"http://127.0.0.1:{server.port}{path}"
    subprocess.run([*words, f"-d{max(1, round(pace.warm))}s", url], check=True, capture_output=True)
    measured = [*words, f"-d{round(pace.seconds)}s", url]
    with Usage([server.pid]) as usage:
        told = subprocess.run(measured, check=True, capture_output=True, text=True).stdout
        used = usage.cost()
    done = re.search(r"(\d+) requests in", told)
    if done is None or "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(f"{server.name} {path}: requests failed\n{told}")
    return used.per(int(done[1]))


def stream_cost(stage: Stage, server: Server, words: Sequence[object], pace: Pace) -> Cost:
    """What a message or an event costs.

    Args:
        stage: where the load generator is.
        server: the proxy.
        words: the generator's arguments, without the two times (see load.c).
        pace: how long.
    """
    return _cost(stage.load(*words, pace.warm, pace.seconds, stdout=subprocess.PIPE), server)


def load_cost(stage: Stage, server: Server, words: Sequence[object], pace: Pace) -> Cost:
    """What a call, a message with its answer, or a request over HTTP/2 costs.

    Args:
        stage: where the load generator is.
        server: the proxy.
        words: the generator's arguments, without the two times (see grpc/main.go).
        pace: how long.
    """
    return _cost(stage.grpc_load(*words, pace.warm, pace.seconds, stdout=subprocess.PIPE), server)


def _cost(load: subprocess.Popen[bytes], server: Server) -> Cost:
    """What each operation costs ``server`` while a load generator says that it measures."""
    assert load.stdout is not None
    begun = load.stdout.readline()
    with Usage([server.pid]) as usage:
        ended = load.stdout.readline()
        used = usage.cost()
    if begun != b"begin\n" or not ended.startswith(b"end ") or load.wait():
        raise RuntimeError(f"{server.name}: the load generator failed")
    return used.per(max(1, int(ended.split()[1])))


@dataclass(frozen=True)
class Waits:
    """How long requests waited for their answers, one after the other, in seconds."""

    median: float
    longest: float


def idle_memory(
    stage: Stage, server: Server, path: str, pairs: int, ask: str | None = None
) -> tuple[float, Waits | None]:
    """Bytes of the proxy's memory per idle WebSocket through it, both sides together.

    Args:
        stage: where the load generator is.
        server: the proxy, freshly started.
        path: a path that leads to the echo upstream.
        pairs: how many.
        ask: a path to ask 300 times for while they are open; the waiting times come back too.
    """

    def load(count: int) -> Load:
        return stage.load("idle", server.port, path, count, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    with _idle(server, load(50), lambda: load(pairs), pairs) as each:
        waits = _waits(server.port, ask) if ask else None
    return each, waits


def idle_streams(stage: Stage, server: Server, connections: int, streams: int) -> float:
    """Bytes of the proxy's memory per idle bidirectional gRPC stream through it, both sides together.

    Args:
        stage: where the load generator is.
        server: the proxy, freshly started.
        connections: how many from the client.
        streams: how many on each.
    """

    def load(*counts: int) -> Load:
        return stage.grpc_load("idle", server.port, *counts, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    with _idle(server, load(5, 10), lambda: load(connections, streams), connections * streams) as each:
        return each


@contextmanager
def _idle(server: Server, warm: Load, begin: Callable[[], Load], count: int) -> Iterator[float]:
    """Keep streams open; bytes of the proxy's memory for each.

    Args:
        server: the proxy.
        warm: opens a few before: what the first ones load once is no cost of a stream.
        begin: opens those that are measured.
        count: how many those are.
    """
    warm.communicate(timeout=60)
    time.sleep(0.5)
    before = resident(server.pid)
    load = begin()
    assert load.stdout is not None and load.stdin is not None
    if load.stdout.readline() != f"open {count}\n".encode():
        raise RuntimeError(f"{server.name}: {count} streams could not be opened")
    time.sleep(1.0)
    yield (resident(server.pid) - before) / count
    load.stdin.close()
    load.wait()


def _waits(port: int, path: str) -> Waits:
    question = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    times = []
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(300):
            begun = time.perf_counter()
            client.sendall(question)
            if not client.recv(65536).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("a request was not answered")
            times.append(time.perf_counter() - begun)
            time.sleep(0.01)
    return Waits(statistics.median(times), max(times))
