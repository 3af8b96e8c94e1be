"""A program that embeds the gateway, for the soak: in a Site, and as the owner of ports, plain and with TLS.

    python -m tests.live.soak.host PREFIX CONF CERTIFICATE KEY SITE SITE_TLS OWNER OWNER_TLS

CONF: JSON of properties. The gateway is below ``/api`` of the Site, its Admin API below ``/admin``; on the owner's ports
what no route matches is the Site's.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.logger import globalLogBeginner
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from kongtwist.api import Conf, Gateway, GatewayFactory, GatewayResource
from kongtwist.observability.error_log import ErrorLog

reactor: Any = installed


def main(prefix: str, conf: str, certificate: str, key: str, *ports: str) -> None:
    """Serve until told to stop."""
    globalLogBeginner.beginLoggingTo([ErrorLog(f"{prefix}/error.log", "notice")], redirectStandardIO=False)
    gateway = Gateway(reactor, Conf({"prefix": prefix, **json.loads(conf)}))
    gateway.startService()
    reactor.addSystemEventTrigger("before", "shutdown", gateway.stopService)
    root = Resource()
    root.putChild(b"", Data(b"own page", "text/plain"))
    root.putChild(b"api", GatewayResource(gateway))
    root.putChild(b"admin", gateway.admin_resource())
    site: Any = Site(root, timeout=10)
    site.displayTracebacks = False
    owner = GatewayFactory(gateway, otherwise=site)
    secure_owner = GatewayFactory(gateway, otherwise=site, secure=True)
    tls = DefaultOpenSSLContextFactory(key, certificate)
    site_port, site_tls, owner_port, owner_tls = (int(port) for port in ports)
    reactor.listenTCP(site_port, site, interface="127.0.0.1")
    reactor.listenSSL(site_tls, site, tls, interface="127.0.0.1")
    reactor.listenTCP(owner_port, owner, interface="127.0.0.1")
    reactor.listenSSL(owner_tls, secure_owner, tls, interface="127.0.0.1")
    ready = gateway.ready.addCallback(lambda _: print("ready", flush=True))
    reactor.run()
    assert ready.called


if __name__ == "__main__":
    main(*sys.argv[1:])
