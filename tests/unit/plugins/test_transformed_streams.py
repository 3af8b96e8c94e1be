"""The transformers on streams, and on bodies that are made to harm them. Nothing but the public kit is used."""

from __future__ import annotations

import gzip
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.plugins.request_transformer import RequestTransformer
from kongtwist.plugins.response_transformer import ResponseTransformer
from kongtwist.testing import Outcome, PluginHarness

BOMBS = (
    b'{"secret": 1, "a":' + b"[" * 50_000 + b"]" * 50_000 + b"}", b'{"secret": 1, "a":[' + b"[]," * 300_000 + b"0]}",
    b'{"secret": 1, "a":' + b"9" * 5000 + b"}", b'{"secret": 1, "a": 1e999}',
)  # fmt: skip


class AnswerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.harness = PluginHarness(
            ResponseTransformer, remove={"json": ["secret"], "headers": ["x-inner"]}, add={"headers": ["x-a:1"]}
        )

    def answer(self, status: int, kind: str, *chunks: bytes, **more: str) -> Outcome:
        fields = [
            ("Content-Type", kind),
            ("X-Inner", "1"),
            *[(name.replace("_", "-"), each) for name, each in more.items()],
        ]
        return self.harness.respond(self.harness.send(), status, fields, chunks)

    def test_streams(self) -> None:
        """Headers are changed, bodies pass piece by piece, and the log says so once for each kind."""
        pieces = (b'data: {"secret": 1}\n\n', b"data: 2\n\n")
        for kind, status, told in (
            ("text/event-stream", 200, "event streams"), ("application/grpc", 200, "gRPC"), ("text/event-stream; x=y", 200, ""),
            ("application/grpc+proto", 200, ""), ("", 101, "WebSockets"),
        ):  # fmt: skip
            before = len(self.harness.reports)
            for _ in range(3):
                outcome = self.answer(status, kind, *pieces)
                self.assertEqual(outcome.sent, b"".join(pieces), kind)
                fields = outcome.exchange.answer_fields()
                self.assertEqual((fields[b"x-a"], fields.get(b"x-inner")), ((b"1",), None))
                self.assertEqual(outcome.returned, {}, "nothing is held")
            said = self.harness.reports[before:]
            self.assertEqual(len(said), bool(told))
            self.assertTrue(all(told in line for line in said))

    def test_compressed(self) -> None:
        """It is never unpacked: what is small on the wire stays so, and the log says once that no rule touches it."""
        bomb = gzip.compress(b'{"secret": "' + b"a" * 10_000_000 + b'"}')
        self.assertLess(len(bomb), 20_000)
        for _ in range(2):
            self.assertEqual(self.answer(200, "application/json", bomb, Content_Encoding="gzip").sent, bomb)
        (said,) = self.harness.reports
        self.assertIn("compressed answers", said)

    def test_bombs(self) -> None:
        """A body that is JSON to others and cannot be read here is not let pass with what was to be removed."""
        for bomb in BOMBS:
            outcome = self.answer(200, "application/json", bomb)
            self.assertEqual(outcome.exchange.status, 502)
            self.assertNotIn(b"secret", outcome.sent)
        self.assertEqual(len(self.harness.reports), len(BOMBS))


class RequestTests(SynchronousTestCase):
    def send(self, harness: PluginHarness, body: bytes = b"", method: str = "POST", **headers: str) -> Outcome:
        pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return harness.send(method, "/?q=1", pairs, body)

    def harness(self, **config: Any) -> PluginHarness:
        return PluginHarness(RequestTransformer, remove={"body": ["secret"], "querystring": ["q"]}, **config)

    def test_bombs(self) -> None:
        """They are refused; what no rule could read, being compressed, goes up as it came."""
        harness = self.harness()
        harness.gateway.body_limit = 2_000_000
        for bomb in BOMBS:
            outcome = self.send(harness, bomb, content_type="application/json")
            assert outcome.answer is not None
            self.assertEqual((outcome.answer.status, outcome.answer.message), (400, "Bad request"))
        self.assertEqual(len(harness.reports), len(BOMBS))
        packed = gzip.compress(b'{"secret": "' + b"a" * 10_000_000 + b'"}')
        outcome = self.send(harness, packed, content_type="application/json", content_encoding="gzip")
        self.assertEqual((outcome.answer, outcome.upstream_body), (None, None))

    def test_calls(self) -> None:
        """A call keeps method and body, the rest is changed; the log says so once."""
        harness = self.harness(http_method="PUT", add={"headers": ["x-a:1"]})
        for service, method in (({"id": "s", "protocol": "grpc"}, None), ({"id": "s", "protocol": "http"}, b"PUT")):
            for _ in range(2):
                exchange = harness.request("POST", "/p.S/M?q=1", {"content-type": "application/grpc"}, b"\0\0\0\0\0")
                exchange.route.service = service  # type: ignore[misc]
                outcome = harness.run(exchange)
                self.assertEqual((exchange.upstream_method, outcome.upstream_query), (method, ""))
                self.assertEqual((outcome.upstream_headers, outcome.upstream_body), ({"x-a": "1"}, None))
        self.assertEqual(len(harness.reports), 2)
        self.assertTrue(all("gRPC calls" in line for line in harness.reports))

    def test_handshakes(self) -> None:
        """Asking for a WebSocket evades no rule; the log says once what becomes of it."""
        harness = self.harness(http_method="PUT", add={"headers": ["x-a:1"]})
        for _ in range(2):
            outcome = self.send(harness, method="GET", upgrade="websocket", connection="Upgrade")
            self.assertEqual((outcome.exchange.upstream_method, outcome.upstream_query), (b"PUT", ""))
            outcome = self.send(
                harness,
                b'{"secret": 1, "a": 2}',
                upgrade="websocket",
                connection="Upgrade",
                content_type="application/json",
            )
            self.assertEqual(outcome.upstream_body, b'{"a":2}')
        self.assertEqual(len(harness.reports), 2)
        self.assertTrue(all("WebSockets" in line for line in harness.reports))
