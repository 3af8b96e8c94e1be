"""``kong.request``, ``kong.client`` and ``kong.router`` over exchanges of the kit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.phases import ClientHello
from kongtwist.core.exchange import Exchange
from kongtwist.lua.lua_error import LuaError
from kongtwist.lua.pdk.pdk_call import LuaCall
from kongtwist.lua.pdk.pdk_functions import PDK_FUNCTIONS
from kongtwist.plugins.correlation_id import CorrelationId
from kongtwist.testing.harness import PluginHarness

Fields = Mapping[str, str] | Sequence[tuple[str, str]]


def made(method: str = "GET", target: str = "/", headers: Fields = (), phase: str = "access") -> LuaCall:
    """A call for a request of the kit."""
    return LuaCall(PluginHarness(CorrelationId).request(method, target, headers), phase)


def request_of(call: LuaCall) -> Exchange:
    exchange = call.exchange
    assert exchange is not None
    return exchange


def ask(call: LuaCall, name: str, *args: Any) -> Any:
    return PDK_FUNCTIONS[f"kong.{name}"](call, *args)


class RequestTests(SynchronousTestCase):
    def test_parts_of_the_request(self) -> None:
        call = made("PUT", "/a//b/../%63?x=1&y&x=2", {"Host": "Example.COM:8000", "X-Thing": "one"})
        found = {
            name: ask(call, f"request.{name}")
            for name in (
                "get_scheme", "get_host", "get_port", "get_method", "get_path", "get_raw_path", "get_path_with_query",
                "get_raw_query", "get_http_version", "get_start_time", "get_forwarded_prefix",
            )
        }  # fmt: skip
        self.assertEqual(
            found,
            {
                "get_scheme": b"http", "get_host": b"example.com", "get_port": 8000, "get_method": b"PUT", "get_path": b"/a/c",
                "get_raw_path": b"/a//b/../%63", "get_path_with_query": b"/a//b/../%63?x=1&y&x=2", "get_raw_query": b"x=1&y&x=2",
                "get_http_version": 1.1, "get_start_time": 1700000000000, "get_forwarded_prefix": None,
            },
        )  # fmt: skip

    def test_arguments(self) -> None:
        call = made(target="/?x=1&y&x=2&z=&a%20b=c+d&=lost&&")
        self.assertEqual(ask(call, "request.get_query"), {b"x": [b"1", b"2"], b"y": True, b"z": b"", b"a b": b"c d"})
        self.assertEqual(
            [ask(call, "request.get_query_arg", name) for name in ("x", b"y", "z", "no")], [b"1", True, b"", None]
        )

    def test_arguments_are_cut(self) -> None:
        call = made(target="/?" + "&".join(f"a{n}={n}" for n in range(101)))
        table, error = ask(call, "request.get_query")
        self.assertEqual((len(table), error), (100, b"truncated"))
        self.assertEqual(len(ask(call, "request.get_query", 101)), 101)
        self.assertEqual(ask(call, "request.get_query", 1), ({b"a0": b"0"}, b"truncated"))

    def test_numbers_and_names_are_checked(self) -> None:
        call = made()
        for wrong, why in (
            (("get_query", "1"), "max_args must be a number"),
            (("get_query", True), "max_args must be a number"),
            (("get_query", 0), "max_args must be >= 1"),
            (("get_query", 1001), "max_args must be <= 1000"),
            (("get_headers", "1"), "max_headers must be a number"),
            (("get_headers", 0.5), "max_headers must be >= 1"),
            (("get_headers", 1001), "max_headers must be <= 1000"),
            (("get_header",), "header name must be a string"),
            (("get_header", 7), "header name must be a string"),
            (("get_query_arg", {}), "query argument name must be a string"),
        ):
            name, *args = wrong
            error = self.assertRaises(LuaError, ask, call, f"request.{name}", *args)
            self.assertEqual(str(error), why)

    def test_fields(self) -> None:
        call = made(headers=[("X-Two", "a"), ("x-two", "b"), ("Empty", ""), ("X_Under", "u")])
        self.assertEqual(ask(call, "request.get_header", "X-TWO"), b"a")
        self.assertEqual(ask(call, "request.get_header", "x-under"), b"u")
        self.assertIsNone(ask(call, "request.get_header", "x-none"))
        self.assertEqual(
            ask(call, "request.get_headers"),
            {b"host": b"example.com", b"x-two": [b"a", b"b"], b"empty": b"", b"x_under": b"u"},
        )
        self.assertEqual(ask(call, "request.get_headers", 2)[1], b"truncated")

    def test_fields_that_plugins_have_changed(self) -> None:
        call = made(headers={"X-Old": "1", "X-Gone": "1"})
        request_of(call).set_upstream_header(b"x-old", b"2", b"3")
        request_of(call).clear_upstream_header(b"x-gone")
        self.assertEqual(ask(call, "request.get_header", "X_Old"), b"2")
        self.assertIsNone(ask(call, "request.get_header", "X-Gone"))
        self.assertEqual(ask(call, "request.get_headers"), {b"host": b"example.com", b"x-old": [b"2", b"3"]})

    def test_what_plugins_have_made_of_method_and_query(self) -> None:
        call = made(target="/?a=1")
        request_of(call).set_upstream_method(b"POST")
        request_of(call).set_upstream_query(b"b=2")
        self.assertEqual(ask(call, "request.get_method"), b"POST")
        self.assertEqual(ask(call, "request.get_query"), {b"b": b"2"})

    def test_forwarded_is_believed_of_trusted_peers_only(self) -> None:
        sent = {
            "X-Forwarded-Proto": "HTTPS", "X-Forwarded-Host": "me@Other.test:99", "X-Forwarded-Path": "/p", "X-Forwarded-Prefix": "/q",
        }  # fmt: skip
        names = [f"request.get_forwarded_{each}" for each in ("scheme", "host", "port", "path", "prefix")]
        call = made(target="/x", headers=sent)
        self.assertEqual([ask(call, name) for name in names], [b"http", b"example.com", 8000, b"/x", None])
        request_of(call).trusted = True
        self.assertEqual([ask(call, name) for name in names], [b"https", b"other.test", 99, b"/p", b"/q"])
        for sent_port, port in (("77", 77), ("0", 99), ("99999", 99), ("no", 99)):
            call = made(headers={**sent, "X-Forwarded-Port": sent_port})
            request_of(call).trusted = True
            self.assertEqual(ask(call, "request.get_forwarded_port"), port)

    def test_captures(self) -> None:
        call = made()
        exchange = request_of(call)
        self.assertEqual(ask(call, "request.get_uri_captures"), {"named": {}, "unnamed": {}})
        exchange.match = exchange.match._replace(captures={"0": b"/a/b", "1": b"b", "user": b"b", "2": None})
        self.assertEqual(
            ask(call, "request.get_uri_captures"), {"named": {"user": b"b"}, "unnamed": {0: b"/a/b", 1: b"b"}}
        )

    def test_phases(self) -> None:
        call = made(phase="certificate")
        error = self.assertRaises(LuaError, ask, call, "request.get_path")
        self.assertEqual(
            str(error),
            "function cannot be called in certificate phase (only in: rewrite, access, balancer, response, cluster_listener,"
            " header_filter, body_filter, log, error, admin_api)",
        )
        error = self.assertRaises(LuaError, ask, made(phase="log"), "request.get_raw_body")
        self.assertEqual(
            str(error),
            "function cannot be called in log phase (only in: rewrite, access, response, error, admin_api)",
        )
        error = self.assertRaises(LuaError, ask, made(phase="init_worker"), "request.get_port")
        self.assertEqual(
            str(error),
            "function cannot be called in init_worker phase (can be called in any phases except: init_worker)",
        )


class BodyTests(SynchronousTestCase):
    def call(self, kind: str | None, body: bytes) -> LuaCall:
        harness = PluginHarness(CorrelationId)
        call = LuaCall(harness.request("POST", "/", {} if kind is None else {"content-type": kind}, body), "access")
        call.body = body
        return call

    def test_raw(self) -> None:
        call = self.call("text/plain", b"\xffhello")
        self.assertEqual(ask(call, "request.get_raw_body"), b"\xffhello")
        request_of(call).set_upstream_body(b"other")
        self.assertEqual(ask(call, "request.get_raw_body"), b"other")
        self.assertEqual(ask(made(), "request.get_raw_body"), b"")

    def test_not_there(self) -> None:
        call = self.call("application/json", b"{}")
        call.body = None
        self.assertIn("has not been read", ask(call, "request.get_raw_body")[1])
        call.body_error = "too large"
        self.assertEqual(ask(call, "request.get_raw_body"), (None, "too large"))
        self.assertEqual(ask(call, "request.get_body"), (None, "too large", "application/json"))

    def test_by_content_type(self) -> None:
        form = "application/x-www-form-urlencoded"
        self.assertEqual(
            ask(self.call(form, b"a=1&b&a=2"), "request.get_body"), ({b"a": [b"1", b"2"], b"b": True}, None, form)
        )
        self.assertEqual(ask(self.call(form, b"a=1&b=2"), "request.get_body", None, 1), ({b"a": b"1"}, None, form))
        self.assertEqual(
            ask(self.call("Application/JSON; charset=utf-8", b'{"a":[1,null]}'), "request.get_body"),
            ({"a": [1, None]}, None, "application/json"),
        )
        for bad in (b"7", b"", b"{", b"[" * 100_000):
            self.assertEqual(
                ask(self.call("application/json", bad), "request.get_body"),
                (None, "invalid json body", "application/json"),
            )
        parts = (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n2\r\n'
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="g"\r\n\r\ntext\r\n--x--\r\n'
        )
        self.assertEqual(
            ask(self.call("multipart/form-data; boundary=x", parts), "request.get_body"),
            ({b"a": [b"1", b"2"], b"f": b"text"}, None, "multipart/form-data"),
        )
        self.assertEqual(
            ask(self.call("multipart/form-data", parts), "request.get_body"),
            (None, "unable to decode multipart body", "multipart/form-data"),
        )

    def test_other_types(self) -> None:
        self.assertEqual(ask(self.call(None, b"x"), "request.get_body"), (None, "missing content type"))
        self.assertEqual(
            ask(self.call("Text/Plain; a=b", b"x"), "request.get_body"),
            (None, "unsupported content type 'Text/Plain; a=b'", "text/plain"),
        )
        self.assertEqual(
            ask(self.call("text/plain", b"{}"), "request.get_body", "application/json"), ({}, None, "application/json")
        )


class ClientTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        call = made()
        names = ["client.get_ip", "client.get_forwarded_ip", "client.get_port", "client.get_forwarded_port"]
        self.assertEqual([ask(call, name) for name in names], ["10.0.0.1", "10.0.0.1", 40000, 40000])
        request_of(call).client_ip = "9.9.9.9"
        self.assertEqual([ask(call, name) for name in names], ["10.0.0.1", "9.9.9.9", 40000, None])

    def test_addresses_where_tls_begins(self) -> None:
        call = LuaCall(None, "certificate")
        call.hello = ClientHello("a.test", "10.0.0.2", 8443)
        self.assertEqual(ask(call, "client.get_forwarded_ip"), "10.0.0.2")
        self.assertEqual(ask(call, "request.get_port"), 8443)

    def test_who_it_is(self) -> None:
        harness = PluginHarness(CorrelationId)
        ann = harness.store("consumers", id="c0ffee00-0000-4000-8000-000000000001", username="ann", custom_id=None)
        call = LuaCall(harness.request(), "access")
        self.assertIsNone(ask(call, "client.get_consumer"))
        ask(call, "client.authenticate", {b"id": ann["id"].encode()}, {b"id": b"k", b"consumer": {b"id": b"c"}})
        self.assertIs(request_of(call).consumer, ann)
        self.assertEqual(ask(call, "client.get_consumer"), {"id": ann["id"], "username": "ann"})
        self.assertEqual(ask(call, "client.get_credential"), {"id": "k", "consumer": {"id": "c"}, "consumer_id": "c"})
        self.assertEqual(ask(call, "client.load_consumer", ann["id"])["username"], "ann")
        self.assertEqual(ask(call, "client.load_consumer", "ann", True)["id"], ann["id"])
        self.assertIsNone(ask(call, "client.load_consumer", "bob", True))

    def test_arguments_are_checked(self) -> None:
        call = made()
        for wrong, why in (
            (("load_consumer", 7), "consumer_id must be a string"),
            (("load_consumer", "ann"), "cannot load a consumer with an id that is not a uuid"),
            (("authenticate", "ann"), "consumer must be a table or nil"),
            (("authenticate", None, 7), "credential must be a table or nil"),
            (("authenticate",), "either credential or consumer must be provided"),
        ):
            name, *args = wrong
            self.assertEqual(str(self.assertRaises(LuaError, ask, call, f"client.{name}", *args)), why)
        error = self.assertRaises(LuaError, ask, made(phase="log"), "client.authenticate", {}, {})
        self.assertEqual(str(error), "function cannot be called in log phase (only in: access)")

    def test_protocol(self) -> None:
        def protocol(protocols: list[str], sent: Fields = (), allow: Any = None, scheme: bytes = b"http") -> Any:
            call = made(headers=sent)
            exchange = request_of(call)
            exchange.route = cast(Any, SimpleNamespace(row={"protocols": protocols}, service=None))
            exchange.trusted, exchange.scheme = True, scheme
            return ask(call, "client.get_protocol", allow)

        both = ["http", "https"]
        self.assertEqual(protocol(["grpc"]), "grpc")
        self.assertEqual(protocol(both), "http")
        self.assertEqual(protocol(both, scheme=b"https"), "https")
        self.assertEqual(protocol(both, {"X-Forwarded-Proto": "HTTPS"}), "http")
        self.assertEqual(protocol(both, {"X-Forwarded-Proto": "HTTPS"}, True), "https")
        self.assertEqual(
            protocol(both, {"X-Forwarded-Proto": "https, http"}, True),
            (None, "Only one X-Forwarded-Proto header allowed"),
        )


class RouterTests(SynchronousTestCase):
    def test_rows(self) -> None:
        call = made()
        self.assertEqual(ask(call, "router.get_route"), {"id": "route-1", "name": "r"})
        self.assertEqual(ask(call, "router.get_service"), {"id": "service-1", "name": "s"})
        request_of(call).route = cast(Any, None)
        self.assertIsNone(ask(call, "router.get_route"))
        error = self.assertRaises(LuaError, ask, made(phase="rewrite"), "router.get_route")
        self.assertEqual(
            str(error),
            "function cannot be called in rewrite phase (only in: access, response, header_filter, body_filter, log)",
        )
