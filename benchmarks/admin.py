"""What Admin writes, lists and changes cost: beside bare inserts, with few rows and with many, for one client and for 16.

Shared machines disturb times, so everything is measured in turns with what it is compared with, and the medians of the
turns' ratios are shown. Costs of changes are CPU time of the gateway's process; they do not depend on what else runs.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from kongtwist.conf import Conf
from kongtwist.core.storage import Change
from kongtwist.entities import registry
from kongtwist.plugin_loader import load_plugins
from kongtwist.storage.sqlite import SQLiteStorage

from .measures import Pace
from .report import Row
from .servers import Server, Stage, cpu_seconds

__all__ = ["admin_rows"]

ROWS = ("routes", "services", "consumers", "keyauth_credentials")


class Client:
    """A keep-alive connection to the Admin API or the proxy.

    Args:
        port: its port.
    """

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.connect()

    def ask(self, method: str, path: str, body: Any = None, *, status: int | None = None) -> Any:
        """Ask and return the answer's JSON.

        Raises:
            RuntimeError: another status than the one that is expected.
        """
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
        answer = self._connection.getresponse()
        read = answer.read()
        if answer.status != (status or {"POST": 201, "DELETE": 204}.get(method, 200)):
            raise RuntimeError(f"{method} {path}: {answer.status} {read[:300]!r}")
        return json.loads(read) if read else None

    def create(self, entity: str, **body: Any) -> Any:
        """Create a row."""
        return self.ask("POST", f"/{entity}", body)


def filled(path: Path, count: int) -> None:
    """A database with ``count`` services, routes, consumers and keys, and two routes that answer by themselves."""
    path.parent.mkdir(mode=0o700, parents=True)
    entities = registry(load_plugins(Conf({}).plugins))
    number = iter(range(1 << 40))

    def new_id() -> str:
        return str(UUID(int=(next(number) << 80) | (4 << 76) | (8 << 60)))

    def made(entity: str, **fields: Any) -> dict[str, Any]:
        return entities[entity].insert(fields, now=1.7e9, new_id=new_id)

    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("services", "routes", "consumers")}
    rows |= {"plugins": [], "keyauth_credentials": []}
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
    answering = made("routes", name="answering", paths=["/answering"])
    config = {"status_code": 200, "message": "here"}
    rows["routes"].append(answering)
    rows["plugins"].append(made("plugins", name="request-termination", route={"id": answering["id"]}, config=config))
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
        before = self._used()
        for number in range(times):
            work(number)
        return (self._used() - before) / times

    def _used(self) -> float:
        pid = self.server.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return sum(cpu_seconds(each) for each in (pid, *map(int, workers)))


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
        connections = [Client(node.server.admin) for _ in range(clients)]
        start = threading.Barrier(clients + 1)

        def run(client: Client) -> None:
            start.wait()
            for _ in range(count * 16 // clients):
                client.create("services", host="h")

        threads = [threading.Thread(target=run, args=(each,)) for each in connections]
        for each in threads:
            each.start()
        start.wait()
        begun = time.perf_counter()
        for each in threads:
            each.join()
        return count * 16 / (time.perf_counter() - begun)

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
        with Prober(large.server.port) as prober:
            cost = large.cpu(made(large), times) * 1e3
        name = f"Admin change, {many} routes, {workers} worker(s): {kind}"
        yield Row(name, "ms", with_few, f"{prober.waits()} ms", cost, cost / with_few, "no wait over 20 ms")


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


class Prober:
    """Asks the proxy every 2 ms how long it takes to answer.

    Args:
        port: the proxy's.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._found: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        client = Client(self._port)
        while not self._over.is_set():
            begun = time.perf_counter()
            client.ask("GET", "/answering")
            self._found.append(time.perf_counter() - begun)
            time.sleep(0.002)

    def waits(self) -> str:
        """The 99th percentile and the longest, in milliseconds."""
        found = sorted(self._found)
        return f"{found[len(found) * 99 // 100] * 1e3:.1f}/{found[-1] * 1e3:.1f}"


def _compared(name: str, unit: str, turns: list[tuple[float, float]], aim: str) -> Row:
    theirs, ours = (statistics.median(turn[place] for turn in turns) for place in (0, 1))
    return Row(name, unit, theirs, "", ours, statistics.median(turn[1] / turn[0] for turn in turns), aim)
