"""``python -m benchmarks.declarative [ROWS]``: loading a declarative file of so many services and as many routes (10,000).

A gateway without a database loads the file as ``POST /config`` does; beside it a timer of the same reactor looks at the
time every millisecond. Shown are seconds until it serves, memory of the gateway's process, and the longest that the reactor's
thread worked without a turn for others (in processor time, so that other programs on the machine do not count).
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from typing import Any

from twisted.internet.defer import Deferred

__all__ = ["document", "main"]

AIMS = "aims: 5 s, 300 MB, 20 ms"


def document(rows: int) -> bytes:
    """A file of ``rows`` services with a route each."""
    lines = ['_format_version: "3.0"', "services:"]
    for at in range(rows):
        lines += [
            f"- name: service-{at}",
            f"  url: http://10.0.{at // 250 % 250}.{at % 250}:8080/base",
            f"  tags: [a, b{at % 10}]",
            "  routes:",
            f"  - name: route-{at}",
            f"    paths: [/path/{at}]",
            "    methods: [GET, POST]",
        ]
    return "\n".join(lines).encode()


class _Watch:
    """Looks how long the reactor's thread works without a turn."""

    def __init__(self, reactor: Any) -> None:
        self._reactor, self.longest = reactor, 0.0
        self._before = time.thread_time()
        self._look()

    def _look(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._before)
        self._before = now
        self._reactor.callLater(0.001, self._look)


async def _measure(reactor: Any, gateway: Any, rows: int) -> None:
    await gateway.ready
    text = document(rows)
    changed = text.replace(b"/path/7]", b"/path/x7]")
    watch = _Watch(reactor)
    for name, given in (("new", text), ("the same again", text), ("one route differs", changed)):
        watch.longest, began = 0.0, time.monotonic()
        await gateway.declarative_loader.load(given, "text/yaml")
        await gateway.publisher.published()
        seconds, memory = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        await _later(reactor, 0.2)
        print(f"{name:18} {seconds:6.2f} s  {memory:4d} MB  {watch.longest * 1000:5.1f} ms", flush=True)
        await _later(reactor, 3)
    print(AIMS)


def _later(reactor: Any, seconds: float) -> Deferred[None]:
    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)
    return done


def main() -> None:
    """Measure and print."""
    from twisted.internet.main import installReactor

    from kongtwist.net.reactor import LeanEPollReactor

    reactor = LeanEPollReactor()
    installReactor(reactor)
    from kongtwist.config.load import load
    from kongtwist.node.gateway import Gateway

    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KONG_PREFIX"] = folder
        gateway = Gateway(reactor, load(None, overrides={"database": "off", "prefix": folder}))
        reactor.callWhenRunning(gateway.startService)
        ended: list[Any] = []

        async def whole() -> None:
            try:
                await _measure(reactor, gateway, rows)
            finally:
                await gateway.stopService()
                reactor.stop()

        reactor.callWhenRunning(lambda: ended.append(Deferred.fromCoroutine(whole()).addErrback(print)))
        reactor.run()


if __name__ == "__main__":
    main()
