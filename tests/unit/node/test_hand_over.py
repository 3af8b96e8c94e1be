"""A process that hands over, with a successor that it has started itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.node.hand_over import LOADING, PAUSE, WORD_FD, HandOver
from kongtwist.node.rows_access import Questions
from kongtwist.node.worker_link import Link, Message, MessageReader


class _Node:
    """Can always hand over."""

    opened = locks = ()
    left = ended = False
    paused: Deferred[bool] | None = None
    again = unpaused = 0

    def stream_ends(self) -> list[int]:
        return []

    def why_not(self) -> str | None:
        return None

    async def pause(self) -> bool:
        return True if self.paused is None else await self.paused

    def kept(self) -> Iterator[Message]:
        return iter(())

    def unpause(self) -> None:
        self.unpaused += 1

    def leave_to(self, pid: int, questions: Questions) -> None:
        self.left = True

    async def serve_again(self) -> None:
        self.again += 1

    def end_too(self) -> None:
        self.ended = True


class _Starting:
    words = ("kongtwist",)
    environ: dict[str, str] = {}


class _Reactor(MemoryReactorClock):
    """Notes who listens to processes."""

    def spawnProcess(self, protocol: Any, *arguments: Any, **options: Any) -> None:
        self.child = protocol


class _Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.node = _Node()
        self.hand_over = HandOver(self.reactor, "/nowhere", self.node, _Starting())  # type: ignore[arg-type]

    def link(self) -> tuple[Link, StringTransport]:
        """A connection of a command or a process."""
        link: Link
        link = Link(
            lambda message: self.hand_over._received(link, message),
            lambda: self.hand_over._gone(link),
        )
        transport = StringTransport()
        link.makeConnection(transport)
        return link, transport

    def heir(self, *kinds: str) -> tuple[Link, StringTransport]:
        """A process that says hello, and more."""
        link, transport = self.link()
        for kind in ("hello", *kinds):
            self.hand_over._received(link, {"type": kind, "pid": 7, "version": "1"})
        return link, transport

    def said(self, transport: StringTransport) -> list[Message]:
        """What it was told since the last time."""
        told = list(MessageReader().feed(transport.value()))
        transport.clear()
        return told


class ToldTests(_Case):
    """The command that ordered a restart hears its outcome, though the process that it has asked is through before."""

    def test_nobody_waits(self) -> None:
        self.successResultOf(self.hand_over.told())

    def test_ready(self) -> None:
        """Whoever has handed over waits for the word, and for its way to the command."""
        link, transport = self.link()
        self.hand_over._received(link, {"type": "order"})
        heir, _ = self.link()
        self.hand_over._received(heir, {"type": "hello", "pid": 7, "version": "1"})
        self.hand_over._received(heir, {"type": "pause"})
        self.hand_over._received(heir, {"type": "serving", "pid": 7})
        self.assertTrue(self.node.left)
        told = self.hand_over.told()
        self.assertNoResult(told)
        self.reactor.child.childDataReceived(WORD_FD, b"rea")
        self.assertNoResult(told)
        self.reactor.child.childDataReceived(WORD_FD, b"dy")
        self.assertEqual(list(MessageReader().feed(transport.value())), [{"type": "outcome", "word": "ready"}])
        self.assertTrue(transport.disconnecting)
        self.assertNoResult(told)
        link.connectionLost()
        self.assertNoResult(told)
        self.hand_over._received(heir, {"type": "over"})
        self.successResultOf(told)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_another_version(self) -> None:
        """One that does not say that it serves is not waited for all the time."""
        self.heir("pause", "serving")
        told = self.hand_over.told()
        self.reactor.advance(PAUSE - 1)
        self.assertNoResult(told)
        self.reactor.advance(1)
        self.successResultOf(told)

    def test_a_successor_that_dies(self) -> None:
        link, transport = self.link()
        self.hand_over._received(link, {"type": "order"})
        told = self.hand_over.told()
        self.reactor.child.processEnded(Failure(ProcessDone(0)))
        (said,) = MessageReader().feed(transport.value())
        self.assertIn("ended while it started", str(said["word"]))
        link.connectionLost()
        self.successResultOf(told)

    def test_a_command_that_is_interrupted(self) -> None:
        link, _ = self.link()
        self.hand_over._received(link, {"type": "order"})
        told = self.hand_over.told()
        link.connectionLost()
        self.successResultOf(told)
        self.reactor.child.childDataReceived(WORD_FD, b"ready")


class EndsTests(_Case):
    """What comes of it when one of the processes ends, hangs, or comes too early."""

    def setUp(self) -> None:
        super().setUp()
        self.prefix = self.mktemp()
        os.mkdir(self.prefix)
        self.way = Path(self.prefix, "restart.sock")
        self.hand_over = HandOver(self.reactor, self.prefix, self.node, _Starting())  # type: ignore[arg-type]

    def test_a_later_one_serves(self) -> None:
        """The process that has taken over ends behind a restart of its own: this one does not serve again."""
        heir, transport = self.heir("pause", "serving", "over")
        self.hand_over._received(heir, {"type": "ending", "all": False})
        self.assertTrue(transport.disconnecting)
        heir.connectionLost()
        self.assertEqual((self.node.again, self.node.ended, self.hand_over.left), (0, False, True))

    def test_all_end(self) -> None:
        """It is being stopped: so is this one, which keeps the link until it has ended."""
        heir, transport = self.heir("pause", "serving", "over")
        self.hand_over._received(heir, {"type": "ending", "all": True})
        self.assertTrue(self.node.ended)
        self.assertFalse(transport.disconnecting)
        heir.connectionLost()
        self.assertEqual(self.node.again, 0)

    def test_dies(self) -> None:
        heir, _ = self.heir("pause", "serving", "over")
        heir.connectionLost()
        self.assertEqual((self.node.again, self.node.ended, self.hand_over.left), (1, False, False))
        self.hand_over.stop()

    def test_way_of_another(self) -> None:
        """A new process that fails before it serves leaves the socket of the old one in the prefix."""
        self.way.touch()
        self.hand_over.stop()
        self.assertTrue(self.way.exists())

    def test_hangs(self) -> None:
        """One that says hello and no more is given up, so that reloads and restarts come to their right again."""
        _, transport = self.heir()
        self.assertTrue(self.hand_over.busy)
        self.said(transport)
        self.reactor.advance(LOADING - 1)
        self.assertTrue(self.hand_over.busy)
        self.reactor.advance(1)
        self.assertFalse(self.hand_over.busy)
        (told,) = self.said(transport)
        self.assertEqual(told["type"], "refused")
        self.assertIn(f"has not taken over within {LOADING:g} s", told["why"])

    def test_pause_fails(self) -> None:
        """What was paused goes on, whether the new process is still there or not; then the next one may come."""
        for dies in (False, True):
            before = self.node.unpaused
            paused = self.node.paused = Deferred()
            heir, transport = self.heir("pause")
            if dies:
                heir.connectionLost()
            self.said(transport)
            paused.errback(OSError("no such table"))
            self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
            self.assertEqual(self.node.unpaused, before + 1)
            self.assertEqual("no such table" in str(self.said(transport)), not dies)
            self.assertFalse(self.hand_over.busy)

    def test_refused(self) -> None:
        """Another order ends a restart that is under way, and only that."""
        self.hand_over.refuse("the node is being drained")
        heir, transport = self.heir("pause")
        self.said(transport)
        self.hand_over.refuse("the node is being drained")
        self.assertEqual(self.said(transport), [{"type": "refused", "why": "the node is being drained"}])
        self.assertTrue(transport.disconnecting)
        self.hand_over._received(heir, {"type": "serving", "pid": 7})
        self.assertFalse(self.node.left)
        _, transport = self.heir("pause", "serving")
        self.hand_over.refuse("too late")
        self.assertEqual(self.said(transport)[-1]["type"], "left")
        self.hand_over.stop()

    def test_dies_in_the_pause(self) -> None:
        """Nobody comes before what was paused for one that has died goes on: the next one's pause would be missed."""
        self.node.paused = Deferred()
        heir, _ = self.heir("pause")
        heir.connectionLost()
        _, transport = self.heir()
        (told,) = self.said(transport)
        self.assertIn("another restart", told["why"])
        self.node.paused.callback(True)
        self.node.paused = None
        _, transport = self.heir("pause")
        self.assertEqual(self.said(transport)[-1]["type"], "paused")
