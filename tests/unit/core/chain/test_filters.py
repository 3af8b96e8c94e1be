"""Bodies on their way through plugins: what passes, what is held, what refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.answers import Answer
from kongtwist.core.chain.failures import PluginFailed
from kongtwist.core.chain.filters import AnswerFilters, RequestFilters
from kongtwist.core.chain.phases import BodyFilter, WholeBody
from kongtwist.core.exchange import Exchange


def upper(chunk: bytes, last: bool) -> bytes:
    return chunk.upper()


def marked(chunk: bytes, last: bool) -> bytes:
    return chunk + (b"!" if last else b"")


def broken(chunk: bytes, last: bool) -> bytes:
    raise RuntimeError("broken")


class FilterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reports: list[str] = []
        self.exchange = Exchange()
        self.exchange.gateway = cast(Any, SimpleNamespace(report=self.reports.append))

    def request(self, *stages: BodyFilter) -> RequestFilters:
        return RequestFilters(self.exchange, [(f"p{at}", stage) for at, stage in enumerate(stages)])

    def answer(self, *stages: BodyFilter | WholeBody) -> AnswerFilters:
        return AnswerFilters(self.exchange, [(f"p{at}", stage) for at, stage in enumerate(stages)])


class RequestFilterTests(FilterTests):
    def test_chunks_pass_all_in_order(self) -> None:
        filters = self.request(BodyFilter(marked), BodyFilter(upper))
        self.assertEqual(
            [filters.feed(b"a", False), filters.feed(b"b", False), filters.feed(b"", True)], [b"A", b"B", b"!"]
        )
        self.assertFalse(filters.keeps_length)

    def test_a_filter_may_refuse(self) -> None:
        """What comes behind is not asked."""
        refusal = Answer(413)
        filters = self.request(BodyFilter(lambda chunk, last: refusal), BodyFilter(broken))
        self.assertIs(filters.feed(b"a", False), refusal)
        self.assertEqual(self.reports, [])

    def test_raising_refuses(self) -> None:
        answer = self.request(BodyFilter(upper), BodyFilter(broken)).feed(b"a", False)
        assert isinstance(answer, Answer)
        self.assertEqual((answer.status, answer.source), (500, "error"))
        self.assertIn("plugin p1 failed in phase request_body_filter", self.reports[0])

    def test_anything_but_bytes_refuses(self) -> None:
        for wrong in (None, "text", 7):
            answer = self.request(BodyFilter(lambda chunk, last, wrong=wrong: wrong)).feed(b"a", True)  # type: ignore[misc]
            assert isinstance(answer, Answer)
            self.assertEqual(answer.status, 500)

    def test_a_kept_length_is_kept(self) -> None:
        """A filter may hold bytes back for a while, but neither lose nor add any."""
        late: list[bytes] = []

        def once(chunk: bytes, last: bool) -> bytes:
            late.append(chunk)
            if not last:
                return b""
            return b"".join(late)

        filters = self.request(BodyFilter(once, keeps_length=True), BodyFilter(upper, keeps_length=True))
        self.assertTrue(filters.keeps_length)
        self.assertEqual([filters.feed(b"ab", False), filters.feed(b"c", True)], [b"", b"ABC"])
        for lying, at in ((marked, True), (lambda chunk, last: b"", True), (lambda chunk, last: chunk * 2, False)):
            answer = self.request(BodyFilter(lying, keeps_length=True)).feed(b"a", at)
            assert isinstance(answer, Answer)
            self.assertEqual(answer.status, 500)


class AnswerFilterTests(FilterTests):
    def test_chunks_pass_all_in_order(self) -> None:
        filters = self.answer(BodyFilter(marked), BodyFilter(upper, keeps_length=True))
        self.assertFalse(filters.holding or filters.keeps_length)
        self.assertEqual([filters.feed(b"a", False), filters.feed(b"b", True)], [b"A", b"B!"])
        self.assertTrue(self.answer(BodyFilter(upper, keeps_length=True)).keeps_length)

    def test_raising_cuts(self) -> None:
        self.assertRaises(PluginFailed, self.answer(BodyFilter(broken)).feed, b"a", False)
        self.assertIn("plugin p0 failed in phase body_filter", self.reports[0])

    def test_anything_but_bytes_cuts(self) -> None:
        """A filter without ``return`` does not empty the body."""
        for wrong in (None, "text", 7):
            filters = self.answer(BodyFilter(lambda chunk, last, wrong=wrong: wrong))  # type: ignore[misc]
            self.assertRaises(PluginFailed, filters.feed, b"a", False)
            held = self.answer(WholeBody(9, lambda body, wrong=wrong: wrong)).feed(b"a", True)  # type: ignore[misc]
            assert isinstance(held, Answer)
            self.assertEqual(held.status, 500)

    def test_an_answer_comes_too_late(self) -> None:
        filters = self.answer(BodyFilter(lambda chunk, last: Answer(500)))
        self.assertRaises(PluginFailed, filters.feed, b"a", False)

    def test_a_body_is_held_until_it_is_whole(self) -> None:
        """Filters before see chunks, those behind the whole."""
        seen: list[tuple[bytes, bool]] = []

        def behind(chunk: bytes, last: bool) -> bytes:
            seen.append((chunk, last))
            return chunk

        filters = self.answer(BodyFilter(upper), WholeBody(10, lambda body: body[::-1]), BodyFilter(behind))
        self.assertTrue(filters.holding)
        self.assertEqual([filters.feed(b"ab", False), filters.holding], [b"", True])
        self.assertEqual([filters.feed(b"c", True), filters.holding], [b"CBA", False])
        self.assertEqual(seen, [(b"CBA", True)])

    def test_an_empty_body_is_whole_too(self) -> None:
        self.assertEqual(self.answer(WholeBody(10, lambda body: b"none")).feed(b"", True), b"none")

    def test_two_may_hold(self) -> None:
        filters = self.answer(WholeBody(4, lambda body: body + b"1"), WholeBody(9, lambda body: body + b"2"))
        self.assertEqual([filters.feed(b"abc", False), filters.holding], [b"", True])
        self.assertEqual([filters.feed(b"de", False), filters.holding], [b"", True])  # too large for the first alone
        self.assertEqual([filters.feed(b"f", True), filters.holding], [b"abcdef2", False])

    def test_a_body_too_large_passes(self) -> None:
        filters = self.answer(WholeBody(3, lambda body: b"never"))
        self.assertEqual([filters.feed(b"abc", False), filters.holding], [b"", True])
        self.assertEqual([filters.feed(b"d", False), filters.holding], [b"abcd", False])
        self.assertEqual(filters.feed(b"e", True), b"e")

    def test_a_body_too_large_may_be_refused(self) -> None:
        refusal = Answer(502)
        self.assertIs(self.answer(WholeBody(1, bytes, lambda: refusal)).feed(b"ab", False), refusal)
        self.assertEqual(self.answer(WholeBody(1, bytes, lambda: None)).feed(b"ab", False), b"ab")

    def test_the_whole_may_be_replaced(self) -> None:
        other = Answer(418)
        self.assertIs(self.answer(WholeBody(9, lambda body: other)).feed(b"ab", True), other)

    def test_raising_while_nothing_is_sent_answers(self) -> None:
        """The head has not gone: the client can be told."""

        def call(body: bytes) -> bytes:
            raise RuntimeError("broken")

        for stages in ((WholeBody(9, call),), (BodyFilter(broken), WholeBody(9, bytes))):
            answer = self.answer(*stages).feed(b"ab", True)
            assert isinstance(answer, Answer)
            self.assertEqual((answer.status, answer.source), (500, "error"))
