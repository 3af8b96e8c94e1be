"""A server with few descriptors, for `test_listeners`: an ordinary port, a privileged one, a log on standard output.

Run as ``python -m tests.live.descriptor_server LIMIT``; prints ``PORT PRIVILEGED_PORT``, then each log line.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogBeginner
from twisted.protocols.wire import Echo
from zope.interface import implementer

from kongtwist.config.kinds import parse_listen
from kongtwist.net.listeners import DescriptorRoom, listen_on, open_listeners, raise_descriptor_limit


@implementer(ILogObserver)
def show(event: LogEvent) -> None:
    """Print what an operator would see of the listeners."""
    if event.get("log_namespace") == "kongtwist.listeners":
        print(event["log_level"].name, formatEvent(event), flush=True)


def main(limit: int) -> None:
    """Serve until killed."""
    globalLogBeginner.beginLoggingTo([show], redirectStandardIO=False)
    assert raise_descriptor_limit(limit) == limit
    opened = open_listeners(
        [("proxy_listen", parse_listen("127.0.0.1:0")), ("admin_listen", parse_listen("127.0.0.1:0"))]
    )
    room = DescriptorRoom(limit, pause=0.05)
    factory = Factory.forProtocol(Echo)
    for each in opened:
        listen_on(reactor, each.sockets[0], factory, room, privileged=each.name == "admin_listen")
    print(*(each.port for each in opened), flush=True)
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
