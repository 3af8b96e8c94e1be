"""Thousands of clients of an event stream in one process of little cost, which check what they get.

    python -m tests.live.kafka_readers REPORT '{"ports": [...], "path": "/events", "clients": 5000, ...}'

Each record's value is ``partition number time``: its number in the partition, which is its offset, and when it was sent (microseconds
of ``time.monotonic``). Each client must get the numbers of each partition one after the other, from the position that it was told first.
Prints ``ready`` when all clients have been told where they stand, ``done`` when all have got everything, and ``left`` when it has gone
at SIGTERM; where clients stay for a while only, ``event`` and ``leaves`` at the first event and the first that leaves. Writes ``REPORT``
at ``done`` and at SIGTERM. The words are members of `Wanted`.
"""

from __future__ import annotations

import json
import random
import re
import resource
import select
import signal
import socket
import sys
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

_EVENT = re.compile(rb"data: (\d+) (\d+) (\d+) *\n")
_CONNECTING = 200
"""Connections that are opened at a time."""
_KEPT = 2_000_000
"""Latencies that are kept."""


@dataclass
class Wanted:
    """What is to be done.

    Attributes:
        ports: of the nodes; clients begin at the first, but every hundredth at the next.
        path: of the stream.
        clients: how many.
        ends: numbers of records that each partition gets.
        leaves: how often one leaves and comes back with its last id, spread over all that comes.
        elsewhere: share of these that come back to another node.
        away: seconds that a client is away at the most.
        slow: clients beside these that read one byte in a second.
        stays: seconds after which each leaves, at the most, and comes back, every second time as one that was never there; 0: it stays.
            Answers other than 200 are asked for again then.
        seed: of what is left to chance.
    """

    ports: list[int]
    path: str
    clients: int
    ends: list[int]
    leaves: int = 0
    elsewhere: float = 0.3
    away: float = 0.5
    slow: int = 0
    stays: float = 0.0
    seed: int = 1


@dataclass(eq=False)
class Client:
    """One client. ``next``: the number that comes next in each partition, once the client knows."""

    port: int
    sock: socket.socket | None = None
    buffer: bytes = b""
    last: bytes = b""
    next: list[int] | None = None
    is_open: bool = False
    is_slow: bool = False
    leaves: float = 0.0


@dataclass
class Found:
    """What has happened."""

    events: int = 0
    left: int = 0
    elsewhere: int = 0
    ended: int = 0
    errors: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    slow_bytes: int = 0


class Readers:
    """All clients."""

    def __init__(self, wanted: Wanted, report: Path) -> None:
        self._wanted, self._report = wanted, report
        self._chance = random.Random(wanted.seed)
        self._poll = select.epoll()
        self._by_fd: dict[int, Client] = {}
        self._to_open: list[Client] = []
        self._opening = 0
        self._away: list[tuple[float, Client]] = []
        self._late = array("d")
        self._ready: set[int] = set()
        self._complete: set[int] = set()
        self._goal = sum(wanted.ends)
        self.found = Found()
        ports = wanted.ports
        self._clients = [Client(ports[(n % 100 == 99) % len(ports)]) for n in range(wanted.clients)]
        self._slow = [Client(ports[0], is_slow=True) for _ in range(wanted.slow)]
        self._stopped = False

    def run(self) -> None:
        """Until SIGTERM."""
        self._to_open = [*self._clients, *self._slow]
        self._to_open.reverse()
        tick = time.monotonic() + 1
        said = set()
        while not self._stopped:
            self._open_some()
            for fd, _ in self._poll.poll(0.05):
                client = self._by_fd.get(fd)
                if client is not None and not client.is_slow:
                    self._read(client)
            now = time.monotonic()
            if now >= tick:
                tick = now + 1
                self._read_slowly()
            if "ready" not in said and len(self._ready) == len(self._clients) and not self._to_open:
                said.add("ready")
                print("ready", flush=True)
            self._leave_and_come(now)
            for word, count in (("event", self.found.events), ("leaves", self.found.left)):
                if self._wanted.stays and count and word not in said:
                    said.add(word)
                    print(word, flush=True)
            if "done" not in said and self._is_done():
                said.add("done")
                self.tell()
                print("done", flush=True)
        self.tell()
        for client in [*self._clients, *self._slow]:
            self._close(client)
        print("left", flush=True)

    def _is_done(self) -> bool:
        return (
            len(self._complete) == len(self._clients)
            and self.found.left == self._wanted.leaves
            and not (self._away or self._to_open or self._opening)
        )

    def stop(self, *_: object) -> None:
        """Leave."""
        self._stopped = True

    def tell(self) -> None:
        """Write the report."""
        found, late = self.found, sorted(self._late)
        told = {
            "events": found.events, "left": found.left, "elsewhere": found.elsewhere, "ended": found.ended,
            "errors": found.errors[:20], "statuses": dict(found.statuses), "slow_bytes": found.slow_bytes,
            "complete": len(self._complete), "p50": late[len(late) // 2] if late else 0,
            "p99": late[len(late) * 99 // 100] if late else 0,
            "behind": [each.next for each in self._clients if each.next != self._wanted.ends][:5],
        }  # fmt: skip
        self._report.write_text(json.dumps(told), encoding="ascii")

    def _open_some(self) -> None:
        while self._to_open and self._opening < _CONNECTING:
            client = self._to_open.pop()
            client.sock = sock = socket.socket()
            if client.is_slow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", client.port))
            last = b"Last-Event-ID: %b\r\n" % client.last if client.last else b""
            sock.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (self._wanted.path.encode(), last))
            sock.setblocking(False)
            client.is_open, client.buffer = False, b""
            client.leaves = time.monotonic() + self._chance.random() * self._wanted.stays
            self._by_fd[sock.fileno()] = client
            self._poll.register(sock.fileno(), select.EPOLLIN)
            if client.is_slow:
                self._poll.modify(sock.fileno(), 0)
            else:
                self._opening += 1

    def _close(self, client: Client) -> None:
        sock, client.sock = client.sock, None
        if sock is not None:
            self._opening -= not client.is_open and not client.is_slow
            self._poll.unregister(sock.fileno())
            del self._by_fd[sock.fileno()]
            sock.close()

    def _read(self, client: Client) -> None:
        assert client.sock is not None
        try:
            data = client.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.found.ended += 1
            self._close(client)
            self._away.append((time.monotonic() + 1, client))
            self._away.sort(key=lambda each: each[0])
            return
        data = client.buffer + data
        if not client.is_open:
            head, mark, data = data.partition(b"\r\n\r\n")
            if not mark:
                client.buffer = head
                return
            client.is_open = True
            self._opening -= 1
            status = head[9:12].decode()
            self.found.statuses[status] += 1
            if status != "200":
                self._close(client)
                self._away.append((time.monotonic() + 0.5, client))
                return
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            client.buffer = data
            return
        whole, client.buffer = data[:end], data[end:]
        if b"event: resync" in whole:
            self.found.errors.append(f"resync: {whole[:300]!r}")
        if client.next is None:
            first = whole[whole.index(b"id: ") + 4 :].split(b"\n", 1)[0]
            client.next = [int(each) for each in first.rpartition(b":")[2].split(b".")]
            self._ready.add(id(client))
        at = whole.rfind(b"id: ")
        client.last = whole[at + 4 : whole.index(b"\n", at)]
        self._check(client, _EVENT.findall(whole))

    def _check(self, client: Client, events: list[tuple[bytes, bytes, bytes]]) -> None:
        following = client.next
        assert following is not None
        for partition, number, _ in events:
            at = int(partition)
            if int(number) != following[at]:
                self.found.errors.append(f"{number!r} for {following[at]} of {at}; last {client.last!r}")
            following[at] = int(number) + 1
        self.found.events += len(events)
        if events and len(self._late) < _KEPT:
            self._late.append(time.monotonic() - int(events[-1][2]) / 1e6)
        if following == self._wanted.ends:
            self._complete.add(id(client))

    def _read_slowly(self) -> None:
        for client in self._slow:
            try:
                self.found.slow_bytes += len(client.sock.recv(1)) if client.sock is not None else 0
            except OSError:
                pass

    def _leave_and_come(self, now: float) -> None:
        wanted, found = self._wanted, self.found
        while self._away and self._away[0][0] <= now:
            self._to_open.append(self._away.pop(0)[1])
        due = (
            wanted.leaves * found.events * 5 // (max(len(self._clients) * self._goal, 1) * 4)
        )  # the last before the end
        for _ in range(min(due, wanted.leaves) - found.left):
            client = self._chance.choice(self._clients)
            if client.sock is None or not client.is_open or client.next is None:
                continue  # it is away
            found.left += 1
            self._leave(client, now)
            if self._chance.random() < wanted.elsewhere:
                found.elsewhere += 1
                client.port = self._chance.choice([port for port in wanted.ports if port != client.port])
        if wanted.stays:
            for client in self._clients:
                if client.sock is not None and client.leaves <= now:
                    found.left += 1
                    self._leave(client, now)
                    if found.left % 2:
                        client.next, client.last = None, b""

    def _leave(self, client: Client, now: float) -> None:
        self._close(client)
        self._away.append((now + self._chance.random() * self._wanted.away, client))
        self._away.sort(key=lambda each: each[0])


def main() -> None:
    """Begin."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    readers = Readers(Wanted(**json.loads(sys.argv[2])), Path(sys.argv[1]))
    signal.signal(signal.SIGTERM, readers.stop)
    readers.run()


if __name__ == "__main__":
    main()
