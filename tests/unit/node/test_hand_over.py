"""A process that hands over, with a successor that it has started itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.error import ProcessDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.node.hand_over import WORD_FD, HandOver
from kongtwist.node.rows_access import Questions
from kongtwist.node.worker_link import Link, Message, MessageReader


class _Node:
    """Can always hand over."""

    opened = locks = ()
    left = False

    def stream_ends(self) -> list[int]:
        return []

    def why_not(self) -> str | None:
        return None

    async def pause(self) -> bool:
        return True

    def kept(self) -> Iterator[Message]:
        return iter(())

    def unpause(self) -> None:
        pass

    def leave_to(self, pid: int, questions: Questions) -> None:
        self.left = True

    async def serve_again(self) -> None:
        pass


class _Starting:
    words = ("kongtwist",)
    environ: dict[str, str] = {}


class _Reactor(MemoryReactorClock):
    """Notes who listens to processes."""

    def spawnProcess(self, protocol: Any, *arguments: Any, **options: Any) -> None:
        self.child = protocol


class ToldTests(SynchronousTestCase):
    """The command that ordered a restart hears its outcome, though the process that it has asked is through before."""

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
