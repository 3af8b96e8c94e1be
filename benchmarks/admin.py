"""What Admin writes, lists and changes cost: beside bare inserts, with few rows and with many, for one client and for 16.

Shared machines disturb times, so everything is measured in turns with what it is compared with, and the medians of the
turns' ratios are shown. Costs of changes are CPU time of the gateway's process; they do not depend on what else runs.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pool
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from kongtwist.config.load import Conf
from kongtwist.core.storage_contract import Change
from kongtwist.entities import registry
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.storage.sqlite.sqlite_storage import SQLiteStorage

from .measures import Pace
from .report import Row
from .servers import Server, Stage
from .usage import Usage

__all__ = ["admin_rows"]

ROWS = ("routes", "services", "consumers", "keyauth_credentials")


class Client:
    """A keep-alive connection to the Admin API or the proxy, with little work of its own.

    Args:
        port: its port.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method: str, path: str, body: Any = None, *, status: int | None = None) -> Any:
        """Ask and return the answer's JSON.

        Raises:
            RuntimeError: another status than the one that is expected.
        """
        text = b"" if body is None else json.dumps(body).encode()
        kind = "Content-Type: application/json\r\n" if body is not None else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: {len(text)}\r\n\r\n"
        self._socket.sendall(head.encode() + text)
        got = b""
        while (end := got.find(b"\r\n\r\n")) < 0:
            got += self._more()
        wanted = status or {"POST": 201, "DELETE": 204}.get(method, 200)
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", got[:end])
        pieces, left = [got[end + 4 :]], int(length[1]) if length else 0
        left -= len(pieces[0])
        while left > 0:
            pieces.append(self._more())
            left -= len(pieces[-1])
        read = b"".join(pieces)
        if int(got[9:12]) != wanted:
            raise RuntimeError(f"{method} {path}: {got[:12]!r} {read[:300]!r}")
        return json.loads(read) if read else None

    def _more(self) -> bytes:
        data = self._socket.recv(262_144)
        if not data:
            raise RuntimeError("the connection ended")
        return data

    def create(self, entity: str, **body: Any) -> Any:
        """Create a row."""
        return self.ask("POST", f"/{entity}", body)


def filled(path: Path, count: int) -> None:
    """A database with ``count`` services, routes, consumers and keys."""
    path.parent.mkdir(mode=0o700, parents=True)
    entities = registry(load_plugins(Conf({}).plugins))
    number = iter(range(1 << 40))

    def new_id() -> str:
        return str(UUID(int=(next(number) << 80) | (4 << 76) | (8 << 60)))

    def made(entity: str, **fields: Any) -> dict[str, Any]:
        return entities[entity].insert(fields, now=1.7e9, new_id=new_id)

    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("services", "routes", "consumers")}
    rows["keyauth_credentials"] = []
    patterns = {
        "services": made("services", name="s", host="127.0.0.1", port=9),
        "routes": made("routes", name="r", paths=["/r"], service={"id": new_id()}),
        "consumers": made("consumers", username="c"),
        "keyauth_credentials": made("keyauth_credentials", key="k", consumer={"id": new_id()}),
    }
    for n in range(count):
        service = patterns["services"] | {"id": new_id(), "name": f"s{n}"}
        used = service if n % 2 or not n else rows["services"][0]
        route = patterns["routes"] | {"id": new_id(), "name": f"r{n}", "paths": [f"/r/{n}/x"]}
        consumer = patterns["consumers"] | {"id": new_id(), "username": f"c{n}"}
        key = patterns["keyauth_credentials"] | {"id": new_id(), "key": f"k{n}", "consumer": {"id": consumer["id"]}}
        for name, row in (("services", service), ("consumers", consumer), ("keyauth_credentials", key)):
            rows[name].append(row)
        rows["routes"].append(route | {"service": {"id": used["id"]}})
    # What the storage does in its thread, done here: no reactor is needed for that.
    storage = SQLiteStorage(str(path), entities, None, time.time)
    storage._open()
    storage._write([Change("create", name, row, None) for name, found in rows.items() for row in found])
    storage._close()


class Node:
    """A gateway on SQLite, with rows in it from the start.

    Args:
        stage: starts it.
        name: of its folder.
        count: services, routes, consumers and keys each.
        workers: processes that serve.
    """

    def __init__(self, stage: Stage, name: str, count: int, workers: int = 1) -> None:
        filled(Path(stage.folder, name, "prefix", "kongtwist.db"), count)
        self.server: Server = stage.on_sqlite(name, workers)
        self.admin = Client(self.server.admin)

    def cpu(self, work: Callable[[int], None], times: int) -> float:
        """CPU seconds of all its processes per call of ``work``, which gets the number of the call."""
        with Usage(self.server.processes()) as usage:
            for number in range(times):
                work(number)
            return usage.cost().seconds / times


def _times(work: Callable[[int], None], count: int) -> float:
    """Seconds per call."""
    begun = time.perf_counter()
    for number in range(count):
        work(number)
    return (time.perf_counter() - begun) / count


def admin_rows(stage: Stage, wanted: Callable[[str], bool], pace: Pace, *, quick: bool) -> Iterator[Row]:
    """The rows, each when it is measured."""
    rounds, many = (1, 500) if quick else (2 * pace.rounds + 1, 10_000)
    if wanted(name := "Admin create beside a bare durable insert"):
        yield _creates(name, stage, rounds, 50 if quick else 300)
    if wanted(name := "Admin creates of 16 clients beside one"):
        yield _clients(name, stage, rounds, 5 if quick else 40)
    listed = 2000 if quick else 100_000
    if wanted(name := f"Admin list, last page of {listed} rows beside first"):
        yield _pages(name, stage, rounds, listed)
    if wanted("Admin change"):
        for workers in (1, 2):
            yield from _changes(stage, workers, many, quick)
        yield _swap(f"Admin change, {many} routes: longest round of a whole /config", stage, many)


def _creates(name: str, stage: Stage, rounds: int, count: int) -> Row:
    """Sequential creates over one connection, in turns with a bare loop on the same disk."""
    node = Node(stage, "creates", 0)
    bare = sqlite3.connect(os.path.join(stage.folder, "bare.db"), isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute("PRAGMA synchronous = FULL")
    bare.execute("CREATE TABLE services (id TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID")
    document = json.dumps(node.admin.create("services", host="h"), separators=(",", ":"))

    def insert(_: int) -> None:
        bare.execute("INSERT INTO services VALUES (?, ?)", (str(uuid4()), document))

    def create(_: int) -> None:
        node.admin.create("services", host="h")

    _times(create, count)
    _times(insert, count)
    turns = [(_times(insert, count) * 1e6, _times(create, count) * 1e6) for _ in range(rounds)]
    bare.close()
    return _compared(name, "us", turns, "at most 1.5x")


def _clients(name: str, stage: Stage, rounds: int, count: int) -> Row:
    """Creates per second of one client and of 16 at once."""
    node = Node(stage, "clients", 0)

    def per_second(clients: int) -> float:
        return count * 16 / _together(node.server.admin, clients, count * 16 // clients)

    per_second(1)
    return _compared(name, "/s", [(per_second(1), per_second(16)) for _ in range(rounds)], "at least 3x")


def _pages(name: str, stage: Stage, rounds: int, count: int) -> Row:
    """CPU time of 100 rows, at the beginning and at the end."""
    node = Node(stage, "pages", count)
    path, before = "/consumers?size=1000", "/consumers"
    while path:
        page = node.admin.ask("GET", path)
        path, before = page["next"], path
    last = before.replace("size=1000", "size=100")
    node.cpu(lambda _: node.admin.ask("GET", last), 5)
    times = 100
    turns = []
    for _ in range(rounds):
        first = node.cpu(lambda _: node.admin.ask("GET", "/consumers?size=100"), times)
        turns.append((first * 1e6, node.cpu(lambda _: node.admin.ask("GET", last), times) * 1e6))
    return _compared(name, "us", turns, "the same")


def _changes(stage: Stage, workers: int, many: int, quick: bool) -> Iterator[Row]:
    """Every kind of change with few routes and with many: what it costs, and how long requests wait beside it."""
    few = Node(stage, f"few-{workers}", 10, workers)
    large = Node(stage, f"many-{workers}", many, workers)
    times = 20 if quick else 100
    kinds: tuple[tuple[str, Callable[[Node], Callable[[int], None]]], ...] = (
        ("route made and deleted", _route), ("service of half the routes patched", _service),
        ("global plugin made and deleted", _plugin), ("consumer with key made and deleted", _consumer),
    )  # fmt: skip
    for kind, made in kinds:
        with_few = few.cpu(made(few), times) * 1e3
        large.server.longest_round()
        cost = large.cpu(made(large), times) * 1e3
        stall = large.server.longest_round() * 1e3
        name = f"Admin change, {many} routes, {workers} worker(s): {kind}"
        yield Row(name, "ms", with_few, f"{stall:.1f} ms", cost, cost / with_few, "no round over 20 ms")
    large.server.longest_round()
    _together(large.server.admin, 16, 4 if quick else 63)
    stall = large.server.longest_round() * 1e3
    name = f"Admin change, {many} routes, {workers} worker(s): longest round of 1,000 creates at once"
    yield Row(name, "ms", 20, "", stall, stall / 20, "no round over 20 ms")


def _swap(name: str, stage: Stage, many: int) -> Row:
    """A whole configuration posted of which one row has changed."""
    services: list[dict[str, Any]] = [
        {"name": f"s{n}", "url": "http://127.0.0.1:9/", "routes": [{"name": f"r{n}", "paths": [f"/r/{n}/x"]}]}
        for n in range(many)
    ]
    declarative = {"_format_version": "3.0", "services": services}
    server = stage.kongtwist("swapped", declarative, rounds=True)
    client = Client(server.admin)
    stalls = []
    for number in range(3):
        services[7]["retries"] = number
        server.longest_round()
        client.ask("POST", "/config", declarative)
        stalls.append(server.longest_round() * 1e3)
    return Row(name, "ms", 20, "", max(stalls), max(stalls) / 20, "no round over 20 ms")


def _route(node: Node) -> Callable[[int], None]:
    proxy = Client(node.server.port)

    def work(number: int) -> None:
        made = node.admin.create("routes", paths=[f"/made/{number}"])
        proxy.ask("GET", f"/made/{number}", status=503)  # found: it has no service
        node.admin.ask("DELETE", f"/routes/{made['id']}")
        proxy.ask("GET", f"/made/{number}", status=404)

    return work


def _service(node: Node) -> Callable[[int], None]:
    return lambda number: node.admin.ask("PATCH", "/services/s0", {"retries": number % 7}) and None


def _plugin(node: Node) -> Callable[[int], None]:
    def work(number: int) -> None:
        made = node.admin.create("plugins", name="correlation-id")
        node.admin.ask("DELETE", f"/plugins/{made['id']}")

    return work


def _consumer(node: Node) -> Callable[[int], None]:
    def work(number: int) -> None:
        made = node.admin.create("consumers", username=f"made-{number}")
        node.admin.ask("POST", f"/consumers/{made['id']}/key-auth", {"key": f"made-{number}"})
        node.admin.ask("DELETE", f"/consumers/{made['id']}")

    return work


def _together(port: int, clients: int, count: int) -> float:
    """Seconds in which clients at once make ``count`` services each. They run in processes of their own."""
    with Pool(clients) as pool:
        pool.map(_connected, [port] * clients, chunksize=1)  # so that starting them is not measured
        begun = time.perf_counter()
        pool.map(_creating, [(port, count)] * clients, chunksize=1)
        return time.perf_counter() - begun


def _connected(port: int) -> None:
    Client(port).create("services", host="h")


def _creating(what: tuple[int, int]) -> None:
    port, count = what
    client = Client(port)
    for _ in range(count):
        client.create("services", host="h")


def _compared(name: str, unit: str, turns: list[tuple[float, float]], aim: str) -> Row:
    theirs, ours = (statistics.median(turn[place] for turn in turns) for place in (0, 1))
    return Row(name, unit, theirs, "", ours, statistics.median(turn[1] / turn[0] for turn in turns), aim)
