"""``kong.service`` and what the node tells of itself, over exchanges of the kit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.rerouting import is_rerouted
from kongtwist.core.snapshot.compiled_route import CompiledRoute
from kongtwist.core.views import UpstreamTLS
from kongtwist.lua.lua_error import LuaError
from kongtwist.lua.pdk.pdk_call import LuaCall
from kongtwist.lua.pdk.pdk_functions import PDK_VALUES
from kongtwist.plugins.correlation_id import CorrelationId
from kongtwist.testing.harness import PluginHarness

from .test_pdk_request import ask, made, request_of
from .test_pdk_response import answered

_ROUTE: dict[str, Any] = {
    "id": "r", "protocols": ["http"], "https_redirect_status_code": 426, "preserve_host": False, "strip_path": True,
    "path_handling": "v0", "request_buffering": True, "response_buffering": True,
}  # fmt: skip
_SERVICE: dict[str, Any] = {
    "id": "s", "protocol": "http", "host": "a.test", "port": 80, "path": None, "connect_timeout": 1000, "write_timeout": 1000,
    "read_timeout": 1000, "retries": 5,
}  # fmt: skip


def routed(service: dict[str, Any] | None = None) -> LuaCall:
    """A call for a request with a real route."""
    call = made()
    exchange = request_of(call)
    tls = UpstreamTLS(None, None, None, ()) if service is not None and service["protocol"] == "https" else None
    exchange.route = CompiledRoute(_ROUTE, service or _SERVICE, None, cast(Any, SimpleNamespace(empty=True)), tls)
    exchange.match = exchange.match._replace(route=exchange.route)
    exchange.snapshot = cast(
        Any,
        SimpleNamespace(
            by=lambda entity, field, value: {"id": "u"} if value == "up" else None, balancers={"u": "balancer"}
        ),
    )
    return call


class TargetTests(SynchronousTestCase):
    def test_nothing_asked_nothing_copied(self) -> None:
        call = routed()
        self.assertFalse(is_rerouted(request_of(call)))

    def test_target(self) -> None:
        call = routed()
        before = request_of(call).route
        ask(call, "service.set_target", "b.test", 8080)
        route = request_of(call).route
        self.assertTrue(is_rerouted(request_of(call)))
        self.assertEqual((route.host, route.port, route.host_header), ("b.test", 8080, b"b.test"))
        self.assertEqual((before.host, before.port), ("a.test", 80))
        ask(call, "service.set_retries", 0)
        self.assertIs(request_of(call).route, route)
        self.assertEqual(route.retries, 0)

    def test_an_upstream_as_target(self) -> None:
        call = routed()
        ask(call, "service.set_target", "up", 80)
        exchange = request_of(call)
        self.assertEqual(cast(Any, exchange.route.balancer), "balancer")
        self.assertEqual(exchange.request_changes, {b"host": b"up"})

    def test_upstream(self) -> None:
        call = routed()
        self.assertEqual(ask(call, "service.set_upstream", "none"), (None, "could not find an Upstream named 'none'"))
        self.assertFalse(is_rerouted(request_of(call)))
        self.assertTrue(ask(call, "service.set_upstream", "up"))
        self.assertEqual(cast(Any, request_of(call).route.balancer), "balancer")
        self.assertIsNone(request_of(call).request_changes)

    def test_time_outs_are_milliseconds(self) -> None:
        call = routed()
        ask(call, "service.set_timeouts", 1500, 2500, 3500)
        route = request_of(call).route
        self.assertEqual((route.connect_timeout, route.write_timeout, route.read_timeout), (1.5, 2.5, 3.5))

    def test_scheme(self) -> None:
        call = routed()
        ask(call, "service.request.set_scheme", "https")
        route = request_of(call).route
        self.assertEqual((route.protocol, route.secure, route.host_header), (b"https", True, b"a.test:80"))
        self.assertIsNotNone(route.tls)
        ask(call, "service.set_tls_verify", True)
        ask(call, "service.set_tls_verify_depth", 3)
        self.assertEqual(route.tls, UpstreamTLS(None, True, 3, ()))
        ask(call, "service.request.set_scheme", "http")
        self.assertEqual((route.protocol, route.tls, route.host_header), (b"http", None, b"a.test"))

    def test_no_tls_nothing_to_verify(self) -> None:
        call = routed()
        ask(call, "service.set_tls_verify", True)
        self.assertFalse(is_rerouted(request_of(call)))

    def test_arguments_are_checked(self) -> None:
        call = routed()
        for wrong, why in (
            (("set_upstream", 1), "host must be a string"),
            (("set_target", 1), "host must be a string"),
            (("set_target", "a", "80"), "port must be an integer"),
            (("set_target", "a", 1.5), "port must be an integer"),
            (("set_target", "a", 65536), "port must be an integer between 0 and 65535: given 65536"),
            (("set_retries", None), "retries must be an integer"),
            (("set_retries", -1), "retries must be an integer between 0 and 32767: given -1"),
            (("set_timeouts", 1, 1), "read_timeout must be an integer"),
            (
                ("set_timeouts", 1, 0, 1),
                "write_timeout must be an integer between 1 and 2147483646: given 0",
            ),
            (("set_tls_verify", 1), "argument must be a boolean"),
            (("set_tls_verify_depth", "1"), "argument must be a number"),
            (("set_tls_cert_key", "a", "b"), "chain must be a parsed cdata object"),
            (("set_tls_verify_store", 1), "argument must be a resty.openssl.x509.store object"),
            (("request.set_scheme", 1), "scheme must be a string"),
            (("request.set_scheme", "ftp"), "invalid scheme: ftp"),
        ):
            name, *args = wrong
            self.assertEqual(str(self.assertRaises(LuaError, ask, call, f"service.{name}", *args)), why)


class RequestTests(SynchronousTestCase):
    def test_path_method_query(self) -> None:
        call = made(target="/?a=1&b=2")
        exchange = request_of(call)
        ask(call, "service.request.set_path", "/a b%2F\r\n")
        self.assertEqual(exchange.match.upstream_path, b"/a%20b%2F%0D%0A")
        ask(call, "service.request.set_method", "DELETE")
        self.assertEqual(exchange.upstream_method, b"DELETE")
        ask(call, "service.request.clear_query_arg", "a")
        self.assertEqual(exchange.raw_query, b"b=2")
        ask(call, "service.request.set_raw_query", "x= y\r\n&ä=%20")
        self.assertEqual(exchange.raw_query, b"x=%20y%0D%0A&%C3%A4=%20")
        ask(call, "service.request.set_query", {"z": "a b", b"a": ["1", 2], "t": True, "f": False})
        self.assertEqual(exchange.raw_query, b"a=1&a=2&t&z=a%20b")

    def test_fields(self) -> None:
        call = made(headers=[("X-A", "1"), ("X-B", "1")])
        exchange = request_of(call)
        ask(call, "service.request.add_header", "x-a", "2")
        ask(call, "service.request.set_header", "X-C", "\r\nx: y")
        ask(call, "service.request.clear_header", "X-B")
        ask(call, "service.request.set_headers", {"X-D": ["1", "2"], "Host": "other"})
        self.assertEqual(
            exchange.request_changes,
            {
                b"x-a": b"1\x002", b"x-b": None, b"x-c": b"%0D%0Ax: y", b"x-d": b"1\x002", b"host": b"other",
            },
        )  # fmt: skip

    def test_authority_is_gRPC_s(self) -> None:
        call = routed()
        self.assertEqual(
            ask(call, "service.request.set_header", ":authority", "a"),
            (None, "cannot set :authority pseudo-header on non-grpc requests"),
        )
        call = routed({**_SERVICE, "protocol": "grpc"})
        self.assertIsNone(ask(call, "service.request.set_header", ":authority", "a"))
        self.assertEqual(request_of(call).request_changes, {b"host": b"a"})

    def test_bodies(self) -> None:
        call = made("POST")
        exchange = request_of(call)
        ask(call, "service.request.set_raw_body", "\udcffx")
        self.assertEqual(exchange.upstream_body, b"\xffx")
        self.assertEqual(
            ask(call, "service.request.set_body", {"a": 1})[1],
            "content type was neither explicitly given as an argument or received as a header",
        )
        for mime, body, sent in (
            ("application/json", b'{"a":1}', b"application/json"),
            ("application/x-www-form-urlencoded", b"a=1", b"application/x-www-form-urlencoded"),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n',
                b"multipart/form-data; boundary=x",
            ),
        ):
            self.assertTrue(ask(call, "service.request.set_body", {"a": 1}, mime))
            self.assertEqual(exchange.upstream_body, body)
            self.assertEqual((exchange.request_changes or {})[b"content-type"], sent)

    def test_a_boundary_that_is_not_in_the_form(self) -> None:
        call = made("POST")
        ask(call, "service.request.set_body", {"a": "\n--x"}, "multipart/form-data; boundary=x")
        assert request_of(call).upstream_body is not None
        self.assertNotIn(b"--x--", request_of(call).upstream_body or b"")

    def test_a_body_that_was_not_read_is_not_replaced(self) -> None:
        harness = PluginHarness(CorrelationId)
        call = LuaCall(harness.request("POST", "/", body=b"long"), "access")
        self.assertRaises(LuaError, ask, call, "service.request.set_raw_body", "x")
        call.body = b"long"
        ask(call, "service.request.set_raw_body", "x")
        self.assertEqual(request_of(call).upstream_body, b"x")

    def test_arguments_are_checked(self) -> None:
        call = made()
        for wrong, why in (
            (("set_path", 1), "path must be a string"),
            (("set_path", "a"), "path must start with /"),
            (("set_raw_query", 1), "query must be a string"),
            (("set_method", 1), "method must be a string"),
            (("set_method", "get"), "invalid method: get"),
            (("set_query", "a"), "args must be a table"),
            (("set_query", [1]), "arg keys must be strings"),
            (("set_query", {"a": {"b": {}}}), "attempt to use table as query arg value"),
            (("clear_query_arg", 1), "query argument name must be a string"),
            (("set_header", 1, "a"), 'invalid header name "1": got number, expected string'),
            (("clear_header", 1), "header must be a string"),
            (("set_headers", 1), "headers must be a table"),
            (("set_raw_body", 1), "body must be a string"),
            (("set_body", 1), "args must be a table"),
            (("set_body", {}, 1), "mime must be a string"),
            (("set_body", {}, "a/b"), "unsupported content type a/b"),
        ):
            name, *args = wrong
            self.assertEqual(str(self.assertRaises(LuaError, ask, call, f"service.request.{name}", *args)), why)
        error = self.assertRaises(LuaError, ask, answered([]), "service.request.set_header", "a", "b")
        self.assertEqual(
            str(error), "function cannot be called in header_filter phase (only in: rewrite, access, balancer)"
        )


class ResponseTests(SynchronousTestCase):
    def test_what_the_service_answered(self) -> None:
        call = answered([(b"X-A", b"1")])
        request_of(call).set_response_header(b"X-A", b"2")
        self.assertEqual(ask(call, "service.response.get_status"), 201)
        self.assertEqual(ask(call, "service.response.get_header", "x_a"), b"1")
        self.assertEqual(ask(call, "service.response.get_headers"), {b"x-a": b"1"})
        request_of(call).upstream_status, request_of(call).response_fields = 0, None
        self.assertIsNone(ask(call, "service.response.get_status"))
        self.assertEqual(ask(call, "service.response.get_headers"), {})

    def test_the_body_is_there_if_it_was_asked_for(self) -> None:
        call = answered([(b"Content-Type", b"application/json")])
        error = self.assertRaises(LuaError, ask, call, "service.response.get_raw_body")
        self.assertEqual(
            str(error),
            "service body is only available with buffered proxying (see: kong.service.request.enable_buffering function)",
        )
        request_of(call).own("kong.service")["body"] = b"[1]"
        self.assertEqual(ask(call, "service.response.get_body"), ([1], None, "application/json"))


class NodeTests(SynchronousTestCase):
    def test_the_node(self) -> None:
        call = made()
        call.plugin_id = "p"
        self.assertEqual(
            [ask(call, name) for name in ("node.get_id", "node.get_hostname", "nginx.get_subsystem", "plugin.get_id")],
            ["node-id", "host", "http", "p"],
        )
        self.assertEqual(ask(call, "nginx.get_statistics")["total_requests"], 0)
        self.assertEqual(dict(PDK_VALUES), {"kong.version": "3.9.3", "kong.version_num": 3009003})

    def test_who_is_trusted(self) -> None:
        call = made()
        assert call.gateway is not None
        self.assertFalse(ask(call, "ip.is_trusted", "10.0.0.1"))
        call.gateway.conf = SimpleNamespace(trusted_ips=("10.0.0.0/8", "unix:", "::1"))
        addresses = ("10.0.0.1", "11.0.0.1", "::1", "::2", "x", None)
        self.assertEqual(
            [ask(call, "ip.is_trusted", each) for each in addresses], [True, False, True, False, False, False]
        )

    def test_secrets(self) -> None:
        harness = PluginHarness(CorrelationId)
        harness.rows.secrets["{vault://env/x}"] = "y"
        call = LuaCall(harness.request(), "access")
        self.assertEqual(ask(call, "vault.get", "{vault://env/x}"), "y")
        self.assertEqual(
            ask(call, "vault.get", "{vault://env/z}"), (None, "there is no such secret in this test [{vault://env/z}]")
        )
        self.assertEqual(ask(call, "vault.get", "x"), (None, "not a reference [x]"))
        self.assertEqual(
            ask(call, "vault.parse_reference", "{vault://aws/a/b?prefix=p#2}"),
            {"name": b"aws", "resource": b"a", "key": b"b", "config": {b"prefix": b"p"}, "version": 2},
        )

    def test_values_of_the_log_record(self) -> None:
        call = made()
        ask(call, "log.set_serialize_value", "a.b", {b"x": [1, b"y"]})
        ask(call, "log.set_serialize_value", "a.c", None, {"mode": "add"})
        call.phase = "log"
        self.assertEqual(ask(call, "log.serialize")["a"], {"b": {"x": [1, "y"]}})
        for args, why in (
            ((1,), "key must be a string"),
            (("a", 1, {"mode": "no"}), "mode must be 'set', 'add' or 'replace'"),
            (
                ("a", len),
                "value must be nil, a number, string, boolean or a non-self-referencial table containing numbers, string"
                " and booleans",
            ),
        ):
            self.assertEqual(str(self.assertRaises(LuaError, ask, call, "log.set_serialize_value", *args)), why)
        error = self.assertRaises(LuaError, ask, made(), "log.serialize")
        self.assertEqual(str(error), "function cannot be called in access phase (only in: log)")
