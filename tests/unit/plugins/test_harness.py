"""The kit for authors of plugins treats what header_filter gives as the gateway does."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.api import Answer, BodyFilter, Exchange, Plugin, PluginHarness, WholeBody


class _Returns(Plugin):
    name = "returns"
    priority = 1
    made: Any = None

    def header_filter(self, exchange: Exchange, conf: Any) -> Answer | BodyFilter | WholeBody | None:
        return self.made  # type: ignore[no-any-return]


class HeaderFilterTests(SynchronousTestCase):
    """A plugin under test sees its filters called."""

    def outcome(self, made: Any, method: str = "GET", chunks: tuple[bytes, ...] = (b"ab", b"cd")) -> Any:
        harness = PluginHarness(_Returns)
        harness.plugin.made = made
        return harness.respond(harness.send(method, "/"), 200, chunks=chunks)

    def test_body_filter(self) -> None:
        seen: list[tuple[bytes, bool]] = []

        def look(chunk: bytes, last: bool) -> bytes:
            seen.append((chunk, last))
            return chunk.upper()

        self.assertEqual(self.outcome(BodyFilter(look)).sent, b"ABCD")
        self.assertEqual(seen, [(b"ab", False), (b"cd", True)])

    def test_whole_body(self) -> None:
        self.assertEqual(self.outcome(WholeBody(4, lambda body: body[::-1])).sent, b"dcba")
        self.assertEqual(self.outcome(WholeBody(3, lambda body: b"no")).sent, b"abcd")
        refused = self.outcome(WholeBody(3, lambda body: b"no", lambda: Answer.error(502, "too long")))
        self.assertEqual((refused.answer.status, refused.exchange.status), (502, 502))
        self.assertEqual(self.outcome(WholeBody(3, lambda body: b"no"), "HEAD", ()).sent, b"")

    def test_answer(self) -> None:
        replaced = self.outcome(Answer.error(503, "later"))
        self.assertEqual((replaced.answer.status, replaced.exchange.status), (503, 503))
        self.assertNotIn(b"abcd", replaced.sent)

    def test_anything_else(self) -> None:
        self.assertRaises(TypeError, self.outcome, b"bytes")
