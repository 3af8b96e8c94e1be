"""A gateway inside your own Twisted site: ``python examples/embed.py [PORT [DIRECTORY]]``.

The site has pages of its own; everything below ``/api`` goes through the gateway, whose Admin API hangs under
``/admin``. Try it:

    curl http://localhost:8080/
    curl -X POST http://localhost:8080/admin/services --data name=s --data url=http://127.0.0.1:9200
    curl -X POST http://localhost:8080/admin/services/s/routes --data name=r --data paths=/ticker
    curl -N http://localhost:8080/api/ticker
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.task import react
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from kongtwist.api import Conf, ConfError, Gateway, GatewayFailed, GatewayResource


def make_site(gateway: Gateway) -> Site:
    """Your site, with the gateway in it."""
    root = Resource()
    root.putChild(b"", Data(b"my own page\n", "text/plain"))
    root.putChild(b"api", GatewayResource(gateway))
    root.putChild(b"admin", gateway.admin_resource())  # protect it as you protect the rest of your site
    return Site(root)


def show_warnings() -> None:
    """Show what goes wrong, the gateway's error lines among it: like all of Twisted it logs with twisted.logger, and
    nobody sees that before a program begins logging somewhere (twistd does it by itself)."""
    shown = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.warn)])
    globalLogBeginner.beginLoggingTo([shown], redirectStandardIO=False)


async def main(reactor: Any, port: str = "8080", directory: str = "embed-data") -> None:
    """Start the gateway, then the site; stop the gateway with the program."""
    show_warnings()
    try:
        gateway = Gateway(reactor, Conf({"prefix": directory, "proxy_access_log": "off"}), fatal=lambda _: None)
        gateway.startService()
        reactor.addSystemEventTrigger("before", "shutdown", gateway.stopService)
        await gateway.ready
        await serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1").listen(make_site(gateway))
    except (ConfError, GatewayFailed, CannotListenError) as error:
        raise SystemExit(f"embed.py: {error}") from None
    print(f"http://localhost:{port}/", flush=True)
    await gateway.stopped


if __name__ == "__main__":
    react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), sys.argv[1:])
