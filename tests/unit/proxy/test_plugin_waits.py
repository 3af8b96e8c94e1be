"""How requests go on whose plugins wait, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Answer, Exchange
from kongtwist.proxy.plugin_waits import waiting_for

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class WaitingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[Any] = []
        self.exchange = Exchange()
        self.exchange.route = cast(Any, SimpleNamespace(row={"id": "r", "name": "r"}, service=None))
        self.exchange.request_id, self.exchange.client_ip = b"1", "192.0.2.1"
        self.exchange.method, self.exchange.target, self.exchange.minor = b"GET", b"/", 1
        self.exchange.block = cast(Any, SimpleNamespace(host=b"a.example"))
        self.broken: Exception | None = None
        self.waited: Deferred[str] = Deferred(lambda _: self.told.append("cancelled"))

    def send_answer(self, exchange: Exchange, answer: Answer) -> None:
        self.told.append(answer)
        if self.broken is not None:
            raise self.broken

    def fault(self, exchange: Exchange, failure: Failure) -> None:
        self.told.append(failure.type)

    def begin(self, outcome: Awaitable[Answer | None]) -> Any:
        """Have it wait; what stands in for the producer of an answer meanwhile."""
        context: Any = SimpleNamespace(send_answer=self.send_answer, fault=self.fault)
        waiting_for(context, self.exchange, outcome, lambda _: self.told.append("on"))
        return self.exchange.answer_sink

    async def wait(self, answer: Answer | None = None) -> Answer | None:
        self.told.append(await self.waited)
        return answer

    def test_goes_on(self) -> None:
        """Behind what it has waited for, with the answer or to the upstream."""
        sink = self.begin(self.wait())
        sink.pause_answer()
        sink.resume_answer()
        self.assertEqual(self.told, [])
        self.waited.callback("found")
        self.assertEqual(self.told, ["found", "on"])
        self.assertIsNone(self.exchange.answer_sink)
        self.told.clear()
        answer = Answer(403, b"")
        self.waited = succeed("at once")
        self.begin(self.wait(answer))
        self.assertEqual(self.told, ["at once", answer])

    def test_several_in_turn(self) -> None:
        """One wait after the other, some of them for nothing."""
        waits: list[Deferred[int]] = [Deferred(), succeed(2), Deferred()]

        async def work() -> None:
            self.told.extend([await each for each in waits])

        self.begin(work())
        waits[0].callback(1)
        waits[2].callback(3)
        self.assertEqual(self.told, [1, 2, 3, "on"])

    def test_other_awaitables(self) -> None:
        """A Deferred itself; what needs another event loop ends the request with a sentence about it."""
        self.begin(cast(Any, self.waited))
        self.waited.callback("unused")
        self.assertEqual(self.told, ["unused"])
        self.told.clear()
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)

        async def work() -> None:
            try:
                await loop.create_future()
            except TypeError as error:
                self.told.append(str(error).partition(",")[0])
                raise

        self.begin(work())
        self.assertEqual(self.told, ["only a Deferred can be waited for here", TypeError])

    def test_what_is_raised(self) -> None:
        """By what it waits for, which it may catch, or by itself; a CancelledError of its own is a fault as others are."""

        async def careful() -> None:
            try:
                await self.waited
            except ValueError:
                self.told.append("caught")

        self.begin(careful())
        self.waited.errback(ValueError("no"))
        self.assertEqual(self.told, ["caught", "on"])
        for error in (ValueError("no"), CancelledError()):
            self.told.clear()
            self.waited = Deferred()
            self.begin(self.wait())
            self.waited.errback(error)
            self.assertEqual(self.told, [type(error)])
            self.assertIsNone(self.exchange.answer_sink)

    def test_client_leaves(self) -> None:
        """What it waits for is cancelled, nothing is sent; what catches that may wait for another thing, and goes on."""
        sink = self.begin(self.wait())
        sink.client_gone("left")
        self.assertEqual(self.told, ["cancelled"])
        self.told.clear()
        self.waited = Deferred()
        last: Deferred[str] = Deferred()

        async def careful() -> None:
            try:
                await self.waited
            finally:
                self.told.append(await last)

        self.begin(careful()).client_gone("left")
        last.callback("cleaned up")
        self.assertEqual(self.told, ["cleaned up"])

    def test_client_leaves_meanwhile(self) -> None:
        """While it runs: the next wait ends at once."""

        async def work() -> None:
            self.exchange.answer_sink.client_gone("left")  # type: ignore[union-attr]
            await self.waited

        self.begin(work())
        self.assertEqual(self.told, ["cancelled"])

    def test_answer_that_fails(self) -> None:
        """It is a fault of ours, and a second one is logged."""
        self.broken = RuntimeError("no")
        answer = Answer(200, b"")
        self.begin(self.wait(answer))
        self.waited.callback("")
        self.assertEqual(self.told, ["", answer, RuntimeError])
        self.patch(self, "fault", self._fails)
        self.waited = Deferred()
        self.begin(self.wait(answer))
        self.waited.callback("")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def _fails(self, exchange: Exchange, failure: Failure) -> None:
        raise ZeroDivisionError

    def test_context_variables(self) -> None:
        """What it sets is seen by itself, also behind a wait, and by nobody else."""

        async def work() -> None:
            WHO.set("it")
            await self.waited
            self.told.append(WHO.get())

        self.begin(work())
        self.assertEqual(WHO.get(), "nobody")
        self.waited.callback("")
        self.assertEqual(self.told, ["it", "on"])
