"""The parent of a node with workers, without Admin API and storage: rows come as lines of JSON on a control port.

A line is ``[[op, entity, row], ...]``; when all workers serve that, the answer is ``"published"``. ``pids`` and
``counters`` are answered with what they say, ``stop`` stops the node.

    python worker_parent.py CONTROL_PORT PROXY_PORT WORKERS PREFIX
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

from kongtwist.config.load import Conf
from kongtwist.core.storage_contract import Change
from kongtwist.net.listeners import open_listeners
from kongtwist.node import publisher as publishing
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.node.publisher import Publisher
from kongtwist.node.worker_supervisor import Workers, begin_message, sockets_of
from kongtwist.observability.shared_counters import SharedCounters

reactor: Any = installed


class Commands(LineOnlyReceiver):
    """Does what the lines say."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 24

    def __init__(self, publisher: Publisher, workers: Workers, counters: SharedCounters) -> None:
        self.publisher, self.workers, self.counters = publisher, workers, counters
        self.rows: dict[str, Any] = {}
        self.waiting: list[Any] = []

    def answer(self, value: object) -> None:
        self.sendLine(json.dumps(value).encode())

    def lineReceived(self, line: bytes) -> None:
        if line == b"pids":
            self.answer(self.workers.pids)
        elif line == b"counters":
            self.answer(self.counters.totals())
        elif line == b"stop":
            self.waiting.append(Deferred.fromCoroutine(self.stop()))
        else:
            changes = []
            for op, entity, row in json.loads(line):
                old = self.rows.get(row["id"])
                changes.append(Change(op, entity, None if op == "delete" else row, old))
                self.rows[row["id"]] = row
            self.publisher.changed(changes)
            self.waiting.append(Deferred.fromCoroutine(self.publish()))

    async def publish(self) -> None:
        self.answer("published" if await self.publisher.published() else "late")

    async def stop(self) -> None:
        await self.workers.stop()
        self.answer("stopped")
        reactor.callLater(0.1, reactor.stop)


publishing.PUBLISH_WAIT = 60.0  # a test must not depend on how busy the machine is


def main(control: int, port: str, count: int, prefix: str) -> None:
    conf = Conf({
        "proxy_listen": f"127.0.0.1:{port} reuseport", "admin_listen": "off", "prefix": prefix,
        "nginx_worker_processes": str(count),
        "proxy_error_log": "/dev/stderr", "nginx_main_worker_shutdown_timeout": "5s",
    })  # fmt: skip
    opened = open_listeners(conf.listeners(), count)
    counters = SharedCounters.create(count)
    publisher = Publisher(reactor, load_plugins(conf.plugins), lambda snapshot: None)
    publisher.begin({})

    def gave_up(sentence: str) -> None:
        print("gave up:", sentence, flush=True)
        reactor.stop()

    def served() -> Any:
        return publisher.snapshot

    workers = Workers(reactor, counters, sockets_of(opened, count), lambda: begin_message(conf, ""), served, gave_up)
    publisher.followers.append(workers)
    factory = Factory.forProtocol(lambda: Commands(publisher, workers, counters))
    waiting: list[Any] = []

    def begin() -> None:
        started = workers.start()
        waiting.append(started.addCallback(lambda _: reactor.listenTCP(control, factory, interface="127.0.0.1")))

    reactor.callWhenRunning(begin)
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
