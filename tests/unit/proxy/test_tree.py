"""The tree: one Resource per route for as long as the route stays what it is, and requests that find none."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Answer, Exchange
from kongtwist.core.storage_contract import Change
from kongtwist.proxy.context import request_ids
from kongtwist.proxy.route import AnswerResource, HTTPRoute
from kongtwist.proxy.tree import RouteTree, TellingTree

from ..core.routing.router_rows import exchange
from .relay_kit import Gateway, plugin_row

GET = b"GET /st/x HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = [(b"Host", b"x"), (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]


class Rewriting(Plugin):
    """Decides in the rewrite phase, now or later."""

    name = "rewriting"
    priority = 10

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def rewrite(self, exchange: Exchange, conf: Any) -> Any:
        return self.outcome


class Accessing(Plugin):
    """Decides in the access phase, now or later."""

    name = "accessing"
    priority = 10

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def access(self, exchange: Exchange, conf: Any) -> Any:
        return self.outcome


class Special(HTTPRoute):
    """Stands for the Resource of WebSockets."""


class TreeTests(SynchronousTestCase):
    def test_one_resource_as_long_as_the_route_is_the_same(self) -> None:
        gateway = Gateway(routes={"a": {"paths": ["/a"]}, "b": {"paths": ["/b"]}})
        tree = gateway.tree
        first, other = tree.find(exchange(b"/a")), tree.find(exchange(b"/b"))
        self.assertIsInstance(first, HTTPRoute)
        self.assertIsNot(first, other)
        self.assertIs(tree.find(exchange(b"/a/x")), first)
        snapshot = tree.snapshot
        assert snapshot is not None
        changed = dict(snapshot.rows["routes"]["b"], preserve_host=True)
        tree.publish(snapshot.apply([Change("update", "routes", changed, snapshot.rows["routes"]["b"])]))
        self.assertIs(tree.find(exchange(b"/a")), first)
        self.assertIsNot(tree.find(exchange(b"/b")), other)

    def test_old_resources_go(self) -> None:
        gateway = Gateway()
        tree = gateway.tree
        for number in range(200):
            gateway.routes = {"r": {"paths": ["/st"], "regex_priority": number}}
            gateway.publish()
            tree.find(exchange(b"/st"))
        self.assertLess(len(tree._http), 70)

    def test_plans_of_calls(self) -> None:
        """Connections from one address to one port share them, until there is another configuration; they are bounded in number."""
        gateway = Gateway()
        tree = gateway.tree
        plans = tree.plans_of("10.0.0.9", 8000)
        plans["fields"] = "plan"
        self.assertIs(tree.plans_of("10.0.0.9", 8000), plans)
        self.assertEqual((tree.plans_of("10.0.0.8", 8000), tree.plans_of("10.0.0.9", 8002)), ({}, {}))
        gateway.publish()
        self.assertEqual(plans, {})
        for number in range(3000):
            tree.plans_of("10.0.0.9", number)
        self.assertLessEqual(len(tree._plans), 1024)

    def test_facts_are_set(self) -> None:
        gateway = Gateway()
        made = exchange(b"/st/x")
        gateway.tree.find(made)
        self.assertIs(made.snapshot, gateway.tree.snapshot)
        self.assertEqual((made.route.id, made.match.upstream_path), ("r", b"/x"))
        made = exchange(b"/nowhere")
        self.assertIsInstance(gateway.tree.find(made), AnswerResource)
        self.assertIsNone(made.route)

    def test_websockets_have_resources_of_their_own(self) -> None:
        gateway = Gateway()
        plain = gateway.tree.find(exchange(b"/st", headers=UPGRADE))
        self.assertIs(type(plain), HTTPRoute)  # nobody serves WebSockets: an ordinary request
        tree = RouteTree(gateway.context, Special)
        assert gateway.tree.snapshot is not None
        tree.publish(gateway.tree.snapshot)
        special = tree.find(exchange(b"/st", headers=UPGRADE))
        self.assertIs(type(special), Special)
        self.assertIs(tree.find(exchange(b"/st", headers=UPGRADE)), special)
        self.assertIs(type(tree.find(exchange(b"/st"))), HTTPRoute)

    def test_before_the_first_snapshot(self) -> None:
        gateway = Gateway()
        gateway.tree.snapshot = None
        self.assertIn(b"HTTP/1.1 503 ", gateway.client().send(GET))

    def test_changes_hold_from_the_next_request_on(self) -> None:
        gateway = Gateway()
        client = gateway.client()
        self.assertIn(b'"path": "/x"', client.send(GET))
        gateway.routes = {"r": {"paths": ["/st"], "strip_path": False}}
        gateway.publish()
        self.assertIn(b'"path": "/st/x"', client.send(GET))
        gateway.routes = {}
        gateway.publish()
        self.assertIn(b"HTTP/1.1 200", client.received)
        gateway.routes = {"other": {"paths": ["/other"]}}
        gateway.publish()
        self.assertIn(b"HTTP/1.1 404 Not Found", client.send(GET))


class RewriteTests(SynchronousTestCase):
    def gateway(self, outcome: Any) -> Gateway:
        return Gateway(plugins={"rewriting": Rewriting(outcome)}, plugin_rows=[plugin_row("rewriting")])

    def test_goes_on(self) -> None:
        self.assertIn(b"HTTP/1.1 200 OK", self.gateway(None).client().send(GET))

    def test_answers(self) -> None:
        gateway = self.gateway(Answer(403, b"no"))
        self.assertIn(b"HTTP/1.1 403 Forbidden", gateway.client().send(GET))
        self.assertEqual(gateway.connects(), 0)

    def test_waits(self) -> None:
        waiting: Deferred[Answer | None] = Deferred()
        gateway = self.gateway(waiting)
        client = gateway.client()
        self.assertEqual(client.send(GET), b"")
        waiting.callback(None)
        gateway.work()
        self.assertIn(b"HTTP/1.1 200 OK", client.received)

    def test_client_leaves_meanwhile(self) -> None:
        waiting: Deferred[Answer | None] = Deferred()
        gateway = self.gateway(waiting)
        client = gateway.client()
        client.send(GET)
        client.wire.lose()
        self.assertTrue(waiting.called)  # cancelled
        self.assertEqual((gateway.connects(), gateway.log.lines), (0, [(499, "/st/x")]))


class RouteTests(SynchronousTestCase):
    def test_no_service(self) -> None:
        gateway = Gateway(routes={"r": {"service": None, "paths": ["/st"]}})
        self.assertIn(b"no Service found with those values", gateway.client().send(GET))

    def test_where_a_request_went(self) -> None:
        """Told to clients that ask, where the node is configured to: with every answer that has a route."""

        def told(received: bytes) -> dict[bytes, bytes]:
            fields = (line.split(b": ", 1) for line in received.split(b"\r\n\r\n")[0].split(b"\r\n")[1:])
            return {name: value for name, value in fields if name.startswith((b"Kong-Route", b"Kong-Service"))}

        asking = GET[:-2] + b"Kong-Debug: 1\r\n\r\n"
        silent = Gateway(routes={"r": {"service": "s", "paths": ["/st"], "name": "shop"}})
        self.assertEqual(told(silent.client().send(asking)), {})
        phases: tuple[Deferred[Answer | None] | None, ...] = (None, Deferred())
        for rewriting in phases:
            gateway = Gateway(
                routes={"r": {"service": "s", "paths": ["/st"], "name": "shop"}, "t": {"service": None, "paths": ["/no"], "name": None}},
                plugins={"rewriting": Rewriting(rewriting)}, plugin_rows=[plugin_row("rewriting")], tree=TellingTree,
            )  # fmt: skip
            client = gateway.client()
            client.send(asking)
            if rewriting is not None:
                rewriting.callback(None)
                gateway.work()
            self.assertIn(b"HTTP/1.1 200 OK", client.received)
            all_of_it = {
                b"Kong-Route-Id": b"r",
                b"Kong-Route-Name": b"shop",
                b"Kong-Service-Id": b"s",
                b"Kong-Service-Name": b"s",
            }
            self.assertEqual(told(client.received), all_of_it)
        self.assertEqual(told(gateway.client().send(asking.replace(b"/st", b"/no"))), {b"Kong-Route-Id": b"t"})
        self.assertEqual(told(gateway.client().send(asking.replace(b"/st", b"/zz"))), {})
        self.assertEqual(told(gateway.client().send(GET)), {})

    def test_services_nothing_is_proxied_to(self) -> None:
        """They are refused after plugins had their say, WebSockets too, and no upstream is asked."""

        def service(protocol: str) -> dict[str, dict[str, Any]]:
            return {"s": {"host": "127.0.0.1", "port": 18100, "protocol": protocol}}

        upgrade = GET[:-2] + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        for protocol in ("tcp", "tls", "tls_passthrough", "udp"):
            gateway = Gateway(services=service(protocol))
            for request in (GET, upgrade, GET.replace(b"GET", b"POST")):
                received = gateway.client().send(request)
                self.assertIn(b"HTTP/1.1 503 Service Temporarily Unavailable", received)
                self.assertIn(b"services of protocol %b take no requests" % protocol.encode(), received)
            self.assertEqual(gateway.connects(), 0)

        def behind(outcome: Any) -> Gateway:
            rows = [plugin_row("accessing")]
            return Gateway(services=service("tcp"), plugins={"accessing": Accessing(outcome)}, plugin_rows=rows)

        self.assertIn(b"mine", behind(Answer(200, b"mine")).client().send(GET))
        waiting: Deferred[Answer | None] = Deferred()
        later = behind(waiting)
        client = later.client()
        client.send(GET)
        waiting.callback(None)
        later.work()
        self.assertIn(b"services of protocol tcp", client.received)

    def test_protocols(self) -> None:
        gateway = Gateway(routes={"r": {"paths": ["/st"], "protocols": ["https"]}})
        received = gateway.client().send(GET)
        self.assertIn(b"HTTP/1.1 426 Upgrade Required", received)
        self.assertIn(b"\r\nUpgrade: TLS/1.2, HTTP/1.1\r\n", received)

    def test_host_sent(self) -> None:
        for route, request, host in (
            ({}, GET, b"127.0.0.1:18100"),
            ({"preserve_host": True}, GET, b"x"),
            ({"preserve_host": True}, GET.replace(b"1.1\r\nHost: x\r\n", b"1.0\r\n"), b"127.0.0.1:18100"),
        ):
            gateway = Gateway(routes={"r": {"paths": ["/st"], **route}})
            gateway.client().send(request)
            self.assertEqual(gateway.upstreams[0].requests[0].header(b"host"), host)

    def test_request_ids(self) -> None:
        ids = request_ids(4)
        drawn = [next(ids) for _ in range(100)]
        self.assertEqual(len(set(drawn)), 100)
        self.assertEqual({len(each) for each in drawn}, {32})
