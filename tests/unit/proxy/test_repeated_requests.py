"""Requests that come again on a connection: what is kept of the one before is never another's."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Exchange

from .relay_kit import Client, Gateway, Request, plugin_row

GET = b"GET /st/x?a=1 HTTP/1.1\r\nHost: x\r\n\r\n"


class Turning(Plugin):
    """Asks the upstream for something else in the second request, the fourth and the sixth."""

    name = "turning"
    priority = 10

    def __init__(self) -> None:
        self.count = 0

    def access(self, exchange: Exchange, conf: Any) -> None:
        self.count += 1
        if self.count == 2:
            exchange.set_upstream_query(b"b=2")
        elif self.count == 4:
            exchange.set_upstream_method(b"PUT")
        elif self.count == 6:
            exchange.set_upstream_path(b"/other")


def asked(gateway: Gateway, client: Client, data: bytes) -> Request:
    """What the upstream was asked for."""
    before = [len(upstream.requests) for upstream in gateway.upstreams] + [0]
    client.send(data)
    (found,) = [
        request
        for upstream, seen in zip(gateway.upstreams, [*before, 0], strict=False)
        for request in upstream.requests[seen:]
    ]
    return found


class RepeatedTests(SynchronousTestCase):
    """One connection, one request after the other."""

    def test_the_same_again(self) -> None:
        """The upstream gets the same head, but for the id."""
        gateway = Gateway()
        client = gateway.client()
        first, second, third = (asked(gateway, client, GET) for _ in range(3))
        heads = [[pair for pair in each.headers if pair[0] != b"X-Kong-Request-Id"] for each in (first, second, third)]
        self.assertEqual(heads, [heads[0]] * 3)
        self.assertEqual([each.path for each in (first, second, third)], [b"/x?a=1"] * 3)
        self.assertEqual(len({each.header(b"x-kong-request-id") for each in (first, second, third)}), 3)

    def test_another_line(self) -> None:
        """Method, target and version are the request's own where its fields are those of the one before."""
        gateway = Gateway()
        client = gateway.client()
        found = []
        for line in (b"GET /st/x", b"DELETE /st/x", b"GET /st/y", b"GET /st/x?q", b"GET /st/x"):
            each = asked(gateway, client, line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            found.append((each.method, each.path, each.header(b"x-forwarded-path")))
        self.assertEqual(
            found,
            [
                (b"GET", b"/x", b"/st/x"), (b"DELETE", b"/x", b"/st/x"), (b"GET", b"/y", b"/st/y"), (b"GET", b"/x?q", b"/st/x"),
                (b"GET", b"/x", b"/st/x"),
            ],
        )  # fmt: skip
        old = asked(gateway, client, b"GET /st/x HTTP/1.0\r\nHost: x\r\n\r\n")
        self.assertEqual(old.header(b"via"), b"1 kong/3.9.3")

    def test_another_method_of_the_root(self) -> None:
        """So it is where the interpreter has one object for all targets of one byte."""
        gateway = Gateway(routes={"r": {"service": "s", "paths": ["/"]}})
        client = gateway.client()
        lines = (b"GET / HTTP/1.1", b"DELETE / HTTP/1.1", b"DELETE / HTTP/1.0")
        found = [asked(gateway, client, line + b"\r\nHost: x\r\nConnection: keep-alive\r\n\r\n") for line in lines]
        self.assertEqual([each.method for each in found], [b"GET", b"DELETE", b"DELETE"])
        self.assertEqual([(each.header(b"via") or b"")[:3] for each in found], [b"1.1", b"1.1", b"1 k"])

    def test_another_configuration(self) -> None:
        """A service that is elsewhere, and a route that takes nothing off, hold for the next request."""
        gateway = Gateway()
        client = gateway.client()
        asked(gateway, client, GET)
        asked(gateway, client, GET)
        gateway.services = {"s": {"host": "127.0.0.2", "port": 18100, "retries": 0, "path": "/base"}}
        gateway.publish()
        moved = asked(gateway, client, GET)
        self.assertEqual((moved.path, moved.header(b"host")), (b"/base/x?a=1", b"127.0.0.2:18100"))
        self.assertEqual(moved.header(b"x-forwarded-prefix"), b"/st")
        gateway.routes = {"r": {"service": "s", "paths": ["/st"], "strip_path": False}}
        gateway.publish()
        whole = asked(gateway, client, GET)
        self.assertEqual((whole.path, whole.header(b"x-forwarded-prefix")), (b"/base/st/x?a=1", None))

    def test_what_plugins_change(self) -> None:
        """What a plugin asks the upstream for holds for that request alone."""
        plugin = Turning()
        gateway = Gateway(plugins={"turning": plugin}, plugin_rows=[plugin_row("turning")])
        client = gateway.client()
        found = []
        for _ in range(7):
            each = asked(gateway, client, GET)
            found.append((each.method, each.path))
        usual = (b"GET", b"/x?a=1")
        self.assertEqual(
            found, [usual, (b"GET", b"/x?b=2"), usual, (b"PUT", b"/x?a=1"), usual, (b"GET", b"/other?a=1"), usual]
        )
