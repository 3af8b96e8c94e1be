"""One of two processes that move streams to each other: a data plane without a node, told what to do by lines of JSON on a socket.

| line | does | is answered with |
|---|---|---|
| ``{"do": "move", "to": PATH, "seconds": S}`` | moves all streams to the child that receives on PATH | moved, left, seconds, pause |
| ``{"do": "tell"}`` | nothing | what is open and counted here |
| ``{"do": "publish", "rows": {...}}`` | serves another dataset | ``{}`` |
| ``{"do": "stop"}`` | ends politely | ``{}`` |

    python moving_child.py PROXY_PORT CONTROL_PATH STREAMS_PATH PREFIX   (the first dataset comes as a line on the control socket)
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import Any

from kongtwist.net.reactor import install

install()

from twisted.internet import reactor as installed  # noqa: E402
from twisted.internet.defer import CancelledError, Deferred  # noqa: E402
from twisted.internet.endpoints import UNIXClientEndpoint  # noqa: E402
from twisted.internet.protocol import Factory  # noqa: E402
from twisted.protocols.basic import LineOnlyReceiver  # noqa: E402
from twisted.python.failure import Failure  # noqa: E402
from twisted.python.log import startLoggingWithObserver, textFromEventDict  # noqa: E402

from kongtwist.config.load import Conf  # noqa: E402
from kongtwist.core.snapshot.snapshot import Snapshot  # noqa: E402
from kongtwist.net.descriptor_link import DescriptorLink, Message  # noqa: E402
from kongtwist.net.listeners import open_listeners  # noqa: E402
from kongtwist.node.data_plane import DataPlane  # noqa: E402
from kongtwist.node.plugin_loader import load_plugins  # noqa: E402
from kongtwist.node.plugin_services import PluginServices  # noqa: E402
from kongtwist.node.stream_mover import StreamReceiver, move_streams  # noqa: E402
from kongtwist.observability.plugin_metrics import Metrics  # noqa: E402
from kongtwist.observability.process_figures import ProcessFigures  # noqa: E402
from kongtwist.observability.shared_counters import LocalCounters  # noqa: E402
from kongtwist.storage.tallies import Tallies  # noqa: E402

reactor: Any = installed


class Child:
    """The process.

    Args:
        port: of ``proxy_listen``.
        streams: path on which streams are received.
        prefix: where logs go.
    """

    def __init__(self, port: int, streams: str, prefix: str) -> None:
        self.conf = Conf({
            "proxy_listen": f"127.0.0.1:{port}", "admin_listen": "off", "prefix": prefix, "proxy_access_log": f"{prefix}/access.log",
            "stream_log_interval": "60", "stream_access_log": f"{prefix}/streams.log",
        })  # fmt: skip
        self.plugins = dict(load_plugins(self.conf.plugins))
        self.counters = LocalCounters()
        metrics = Metrics(1000)
        services = PluginServices(
            None,  # type: ignore[arg-type] # nobody asks for rows
            Tallies(reactor, None, 1.0, 10),  # type: ignore[arg-type] # nor counts over nodes
            self.counters.named,
            metrics,
            ProcessFigures(reactor, metrics, 0),
        )
        self.plane = DataPlane(reactor, self.conf, self.counters, "0" * 32, services)
        self.receiver = StreamReceiver(self.plane)
        self.snapshot: Snapshot | None = None
        self.streams = streams
        self.longest = 0.0

    def publish(self, rows: dict[str, Any]) -> None:
        """Serve by ``rows``."""
        first = self.snapshot is None
        lifetimes = self.plane.lifetimes
        self.snapshot = Snapshot.build(rows, self.plugins, self.snapshot, lifetimes)
        lifetimes.built()
        self.plane.publish(self.snapshot)
        lifetimes.served()
        if first:
            self.plane.listen(open_listeners(self.conf.listeners()))
            factory = Factory.forProtocol(self.receiver.connected)
            factory.noisy = False
            reactor.listenUNIX(self.streams, factory)
            gc.freeze()
            self.tick(time.monotonic())

    def tick(self, before: float) -> None:
        """Notice how long the loop was busy."""
        now = time.monotonic()
        self.longest = max(self.longest, now - before)
        reactor.callLater(0.001, self.tick, now)

    async def move(self, to: str, seconds: float) -> dict[str, Any]:
        """Move all streams to another child."""

        def unasked(message: Message, descriptors: tuple[int, ...]) -> None:
            raise AssertionError(message)

        link: DescriptorLink = await UNIXClientEndpoint(reactor, to).connect(
            Factory.forProtocol(lambda: DescriptorLink(unasked, lambda: None))
        )
        self.longest = 0.0
        cpu, began = time.process_time(), time.monotonic()
        moved, left = await move_streams(self.plane, link, seconds)
        took = time.monotonic() - began
        link.close()
        return {
            "moved": moved, "left": left, "took": took, "cpu": time.process_time() - cpu, "longest": self.longest,
        }  # fmt: skip

    def tell(self) -> dict[str, Any]:
        """What is open and counted."""
        figures: dict[str, float] = {}

        class Figures:
            """Takes figures of streams."""

            def count(self, name: str, amount: float = 1, labels: Any = {}) -> None:  # noqa: B006 - not changed
                figures[name] = figures.get(name, 0) + amount

            gauge = count

        for _ in self.plane.streams.counts.tell(Figures()):
            pass
        assert self.snapshot is not None
        return {
            "streams": len(self.plane.streams), "adopted": self.receiver.adopted, "totals": self.counters.totals(),
            "sockets": sum(os.readlink(f"/proc/self/fd/{each}").startswith("socket:") for each in _descriptors()),
            "active": {peer.name: peer.active for each in self.snapshot.balancers.values() for peer in each.peers},
            "users": sum(life.users for life in self.plane.lifetimes._open), "figures": figures,
            "longest": self.longest, "connections": len(self.plane.context.connections),
            "idle": sum(len(pool.idle) for pool in self.plane.context.pools._pools.values()),
        }  # fmt: skip


def _descriptors() -> list[str]:
    found = []
    for each in os.listdir("/proc/self/fd"):
        try:
            os.readlink(f"/proc/self/fd/{each}")
            found.append(each)
        except OSError:
            pass  # the one that listed them
    return found


class Commands(LineOnlyReceiver):
    """Does what the lines say."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 24

    def __init__(self, child: Child) -> None:
        self.child = child
        self.doing: list[Any] = []

    def lineReceived(self, line: bytes) -> None:
        self.doing.append(Deferred.fromCoroutine(self.obey(json.loads(line))))

    async def obey(self, said: dict[str, Any]) -> None:
        """Do one thing."""
        child, answer = self.child, {}
        try:
            if said["do"] == "move":
                answer = await child.move(said["to"], said["seconds"])
            elif said["do"] == "tell":
                answer = child.tell()
            elif said["do"] == "publish":
                child.publish(said["rows"])
            else:
                await child.plane.stop(5.0)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the test is told
            answer = {"error": repr(error)}
            print(Failure().getTraceback(), file=sys.stderr)
        self.sendLine(json.dumps(answer).encode())
        if said["do"] == "stop":
            reactor.callLater(0.1, reactor.stop)


def main() -> None:
    """Run."""
    port, control, streams, prefix = sys.argv[1:]

    def show(event: Any) -> None:
        print(textFromEventDict(event), file=sys.stderr, flush=True)

    startLoggingWithObserver(show, setStdout=False)
    child = Child(int(port), streams, prefix)
    reactor.listenUNIX(control, Factory.forProtocol(lambda: Commands(child)))
    reactor.run()


if __name__ == "__main__":
    main()
