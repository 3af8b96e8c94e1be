"""A program of somebody else's with the gateway in it: ``python grpc_host.py FOLDER SITE_PORT OWNER_PORT CERT KEY``.

A Site behind TLS, which speaks HTTP/2 as Twisted does where ``h2`` is installed, with the gateway at ``/api`` and its Admin API at
``/admin``; and a port that belongs to the gateway.
"""

from __future__ import annotations

import sys
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.ssl import PrivateCertificate
from twisted.web.http import H2_ENABLED
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from kongtwist.api import Conf, Gateway, GatewayFactory, GatewayResource


def main(folder: str, site_port: str, owner_port: str, certificate: str, key: str) -> None:
    """Serve until killed."""
    reactor = cast(Any, global_reactor)
    gateway = Gateway(reactor, Conf({"prefix": f"{folder}/prefix", "proxy_access_log": "off"}))
    gateway.startService()
    root = Resource()
    root.putChild(b"", Data(b"own page", "text/plain"))
    root.putChild(b"api", GatewayResource(gateway))
    root.putChild(b"admin", gateway.admin_resource())
    site: Any = Site(root)
    with open(certificate) as first, open(key) as second:
        pem = first.read() + second.read()
    reactor.listenSSL(int(site_port), site, PrivateCertificate.loadPEM(pem).options(), interface="127.0.0.1")
    reactor.listenTCP(int(owner_port), GatewayFactory(gateway, otherwise=site), interface="127.0.0.1")
    _ = gateway.ready.addCallback(lambda _: print(f"ready, HTTP/2: {H2_ENABLED}", flush=True))
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
