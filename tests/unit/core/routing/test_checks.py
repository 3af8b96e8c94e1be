"""Protocols a route does not take."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Answer, Exchange
from kongtwist.core.routing.protocol_checks import check_protocol

from .router_rows import compiled, exchange, route_row, service_row

WEBSOCKET = [
    (b"Host", b"a.com"), (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]  # fmt: skip


def trusted(made: Exchange) -> Exchange:
    made.trusted = True
    return made


class HTTPSTests(SynchronousTestCase):
    def check(self, made: Exchange, **fields: Any) -> Answer | None:
        return check_protocol(compiled(route_row(protocols=["https"], **fields), service_row()), made)

    def test_426_names_what_to_change_to(self) -> None:
        answer = self.check(exchange())
        assert answer is not None
        self.assertEqual((answer.status, answer.message, answer.source), (426, "Please use HTTPS protocol", "error"))
        self.assertEqual(answer.headers, [(b"Connection", b"Upgrade"), (b"Upgrade", b"TLS/1.2, HTTP/1.1")])

    def test_redirects_keep_path_and_query_and_drop_the_port(self) -> None:
        for status in (301, 302, 307, 308):
            answer = self.check(
                exchange(b"/x?y=1", headers=[(b"Host", b"A.com:8000")]), https_redirect_status_code=status
            )
            assert answer is not None
            self.assertEqual(answer.status, status)
            self.assertEqual(answer.headers, [(b"Location", b"https://a.com/x?y=1")])

    def test_redirect_from_a_mount_keeps_the_mount(self) -> None:
        made = exchange(b"/x")
        made.mount = b"/api"
        answer = self.check(made, https_redirect_status_code=302)
        self.assertEqual(answer and answer.headers, [(b"Location", b"https://a.com/api/x")])

    def test_the_word_of_a_trusted_peer_counts(self) -> None:
        told = [(b"Host", b"a.com"), (b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Host", b"f.com")]
        self.assertIsNone(self.check(trusted(exchange(headers=told))))
        self.assertIsNotNone(self.check(exchange(headers=told)))
        told[1] = (b"X-Forwarded-Proto", b"http")
        answer = self.check(trusted(exchange(headers=told)), https_redirect_status_code=301)
        self.assertEqual(answer and answer.headers, [(b"Location", b"https://f.com/")])

    def test_https_passes(self) -> None:
        self.assertIsNone(self.check(exchange(scheme=b"https")))


class GRPCTests(SynchronousTestCase):
    def check(self, kind: bytes, http2: bool, protocols: list[str], scheme: bytes = b"http") -> Answer | None:
        made = exchange(headers=[(b"Host", b"a"), (b"Content-Type", kind)], scheme=scheme, http2=http2)
        return check_protocol(compiled(route_row(protocols=protocols, strip_path=False), service_row()), made)

    def test_other_content_is_415(self) -> None:
        answer = self.check(b"text/plain", True, ["grpc"])
        self.assertEqual(answer and (answer.status, answer.message), (415, "Non-gRPC request matched gRPC route"))

    def test_http1_is_426(self) -> None:
        answer = self.check(b"application/grpc+proto", False, ["grpc"])
        assert answer is not None
        self.assertEqual((answer.status, answer.message), (426, "Please use HTTP2 protocol"))
        self.assertIn((b"Upgrade", b"HTTP/2"), answer.headers)

    def test_plain_text_on_a_grpcs_route_is_told_in_grpc(self) -> None:
        answer = self.check(b"application/grpc", True, ["grpcs"])
        assert answer is not None
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertIn((b"grpc-status", b"1"), answer.headers)

    def test_fitting_requests_pass(self) -> None:
        self.assertIsNone(self.check(b"application/grpc", True, ["grpc"]))
        self.assertIsNone(self.check(b"application/grpc", True, ["grpcs"], b"https"))


class WebSocketTests(SynchronousTestCase):
    def test_plain_requests_to_a_websocket_service_are_426(self) -> None:
        for protocol in ("ws", "wss"):
            route = compiled(route_row(), service_row(protocol=protocol))
            answer = check_protocol(route, exchange())
            assert answer is not None
            self.assertEqual(answer.status, 426)
            self.assertIn((b"Upgrade", b"websocket"), answer.headers)
            self.assertIsNone(check_protocol(route, exchange(headers=WEBSOCKET)))

    def test_http_services_take_both(self) -> None:
        route = compiled(route_row(), service_row())
        self.assertIsNone(check_protocol(route, exchange()))
        self.assertIsNone(check_protocol(route, exchange(headers=WEBSOCKET)))
