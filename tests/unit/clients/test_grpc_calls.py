"""Calls of gRPC services without gRPC: what is handed over, bounds, ends (kongtwist/clients/grpc_calls.py and what it is made of)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

from google.protobuf import descriptor_pb2
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.clients.grpc_calls import Call, GRPCCalls, GRPCLimits
from kongtwist.clients.grpc_channels import Channels
from kongtwist.clients.grpc_handover import Outgoing, Window
from kongtwist.clients.grpc_reflection import in_order
from kongtwist.clients.waiting import Shared
from kongtwist.core.chain.host import GRPCFailed, GRPCTarget
from kongtwist.net.resolver import NameNotResolved


class FakeReactor(Clock):
    """Time, and calls from threads, which run at once."""

    def callFromThread(self, call: Callable[..., object], *values: Any) -> None:
        call(*values)


class FakeResolver:
    """Names and their addresses."""

    def __init__(self, **known: str) -> None:
        self._known = known

    def known(self, name: str) -> str | None:
        if name not in self._known:
            raise NameNotResolved(name)
        return self._known[name]

    def lookup(self, name: str) -> Deferred[str]:
        return succeed(self._known[name])


class FakeRPC:
    """A call as the library gives it: these messages, then the end."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = messages
        self.cancelled = 0

    def initial_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-first", "1"),)

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-last", "1"),)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._messages)

    def cancel(self) -> None:
        self.cancelled += 1


class FakeChannel:
    """A channel whose calls are all the same."""

    fault = ""

    def __init__(self, rpc: FakeRPC) -> None:
        self.rpc = rpc
        self.made: list[tuple[Any, ...]] = []

    def open(self) -> FakeChannel:
        return self

    def unary_stream(self, method: str) -> Callable[..., FakeRPC]:
        def begin(message: Any, timeout: float | None, metadata: Any) -> FakeRPC:
            self.made.append((method, message, timeout, metadata))
            return self.rpc

        return begin

    stream_stream = unary_stream


class HandoverTests(SynchronousTestCase):
    def test_window(self) -> None:
        """A thread waits when so many messages, or bytes, have not been taken; one message always passes."""
        window = Window()
        self.assertTrue(window.wait(10_000_000))
        passed = threading.Event()

        def wait() -> None:
            if window.wait(1):
                passed.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        self.assertFalse(passed.is_set())
        window.took(10_000_000)
        waiting.join(60)
        self.assertTrue(passed.is_set())
        for _ in range(15):
            self.assertTrue(window.wait(1))
        window.stop()
        self.assertFalse(window.wait(1), "nobody takes more")

    def test_outgoing(self) -> None:
        """Beyond the bound `put` says so, and the first one that is taken after it calls back."""
        taken: list[int] = []
        outgoing = Outgoing(lambda: taken.append(1))
        room = [outgoing.put(b"x") for _ in range(16)]
        self.assertEqual(room, [True] * 15 + [False])
        self.assertEqual((next(outgoing), len(taken)), (b"x", 1))
        self.assertEqual((next(outgoing), len(taken)), (b"x", 1))
        outgoing.end()
        self.assertTrue(outgoing.put(b"late"))
        self.assertEqual(list(outgoing), [b"x"] * 14)
        full = Outgoing(lambda: None)
        self.assertFalse(full.put(b"x" * 65536))
        full.stop()
        self.assertEqual(list(full), [])


class CallTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()

    def run_call(self, rpc: FakeRPC, message: bytes | None = b"question") -> Call:
        call = Call(self.reactor, "/a.B/C", message, (("x", "y"),), 5.0)
        self.channel = FakeChannel(rpc)
        call.run(cast(Any, self.channel))
        return call

    def test_messages(self) -> None:
        """In order, then the end, with the metadata of both."""
        call = self.run_call(FakeRPC(b"1", b"2"))
        self.assertEqual(self.channel.made, [("/a.B/C", b"question", 5.0, (("x", "y"),))])
        self.successResultOf(call.begun())
        self.assertIsNone(call.failed)
        self.assertEqual([self.successResultOf(call.receive()) for _ in range(3)], [b"1", b"2", None])
        self.assertEqual((call.initial, call.trailing), ((("x-first", "1"),), (("x-last", "1"),)))

    def test_metadata_first(self) -> None:
        """Metadata alone begin a call a moment later; a message at once."""
        call = Call(self.reactor, "/a.B/C", b"", (), None)
        begun = call.begun()
        call._began(())
        self.assertNoResult(begun)
        self.reactor.advance(1)
        self.successResultOf(begun)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """Who waits is told; the library is told if it has begun, or when it begins."""
        call = Call(self.reactor, "/a.B/C", None, (), None)
        receiving = call.receive()
        call.cancel()
        self.assertEqual(self.failureResultOf(receiving, GRPCFailed).value.code, 1)
        rpc = FakeRPC(b"late")
        call.run(cast(Any, FakeChannel(rpc)))
        self.assertGreaterEqual(rpc.cancelled, 1)
        self.failureResultOf(call.receive(), GRPCFailed)
        self.failureResultOf(Deferred.fromCoroutine(call.send(b"x")), GRPCFailed)

    def test_what_cannot_be_called(self) -> None:
        """What the library raises is the end of the call."""

        class Refusing(FakeChannel):
            def open(self) -> FakeChannel:
                raise ValueError("metadata was invalid")

        call = Call(self.reactor, "/a.B/C", b"", (), None)
        call.run(cast(Any, Refusing(FakeRPC())))
        self.assertEqual(self.failureResultOf(call.receive(), GRPCFailed).value.code, 3)

    def test_a_sender_that_waits(self) -> None:
        """It goes on when the server takes messages, and when the call ends."""
        call = Call(self.reactor, "/a.B/C", None, (), None)
        sending = [Deferred.fromCoroutine(call.send(b"x" * 65536))]
        self.assertNoResult(sending[0])
        assert call._outgoing is not None
        next(call._outgoing)
        self.successResultOf(sending[0])
        sending.append(Deferred.fromCoroutine(call.send(b"x" * 65536)))
        call.cancel()
        self.successResultOf(sending[1])


class ChannelsTests(SynchronousTestCase):
    def make(self, most: int) -> Channels:
        resolver = FakeResolver(one="10.0.0.1", two="10.0.0.2", six="::1")
        return Channels(FakeReactor(), cast(Any, None), cast(Any, resolver), most, 1000)

    def take(self, channels: Channels, host: str) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(channels.take(GRPCTarget(host, 80))))

    def test_shared_and_dropped(self) -> None:
        """Equal targets share one; those that nobody uses are closed when there are too many, the longest unused first."""
        channels = self.make(1)
        one = self.take(channels, "one")
        self.assertIs(self.take(channels, "one"), one)
        two = self.take(channels, "two")
        self.assertEqual(len(channels), 2, "both are in use")
        channels.give(one)
        channels.give(one)
        six = self.take(channels, "six")
        self.assertEqual(len(channels), 2)
        with self.assertRaises(GRPCFailed):
            one.open()
        self.assertIsNot(two, six)
        channels.close()
        self.failureResultOf(Deferred.fromCoroutine(channels.take(GRPCTarget("one", 80))), GRPCFailed)

    def test_no_address(self) -> None:
        failed = self.failureResultOf(
            Deferred.fromCoroutine(self.make(1).take(GRPCTarget("nobody", 80))), GRPCFailed
        ).value
        self.assertEqual((failed.code, failed.unsent), (14, True))


class BoundTests(SynchronousTestCase):
    def test_no_thread(self) -> None:
        """One more than there are threads is refused at once, and nothing is kept of it."""
        reactor = FakeReactor()
        calls = GRPCCalls(reactor, cast(Any, None), cast(Any, FakeResolver(one="10.0.0.1")), GRPCLimits(threads=1))
        calls._threads._pool = cast(Any, _Idle())
        target = GRPCTarget("one", 80)
        first = calls.begin(target, "/a.B/C", b"")
        second = calls.begin(target, "/a.B/C", b"")
        self.assertNoResult(first.begun())
        failed = second.failed
        assert failed is not None
        self.assertEqual((failed.code, failed.busy), (14, True))
        self.assertIn("plugin_grpc_threads", failed.text)
        self.assertEqual(len(calls._calls), 1)
        self.assertEqual(next(iter(calls.channels._kept.values())).users, 1)


class _Idle:
    """A pool that does nothing."""

    started, joined = True, False

    def callInThreadWithCallback(self, *call: Any) -> None:
        """Some day."""


class SharedTests(SynchronousTestCase):
    def test_once(self) -> None:
        """It is done once for all who ask meanwhile; one who leaves takes nothing from the others."""
        shared: Shared[int] = Shared()
        begun: list[Deferred[int]] = []

        async def work() -> int:
            begun.append(Deferred())
            return await begun[-1]

        asked = [shared.get("key", work) for _ in range(3)]
        other = shared.get("other", work)
        self.assertEqual(len(begun), 2)
        asked[0].cancel()
        self.failureResultOf(asked[0])
        begun[0].callback(7)
        self.assertEqual([self.successResultOf(each) for each in asked[1:]], [7, 7])
        begun[1].errback(ValueError("no"))
        self.failureResultOf(other, ValueError)
        self.assertNoResult(shared.get("key", work))


class OrderTests(SynchronousTestCase):
    def file(self, name: str, *needs: str) -> descriptor_pb2.FileDescriptorProto:
        return descriptor_pb2.FileDescriptorProto(name=name, dependency=needs)

    def test_behind_what_they_import(self) -> None:
        files = {
            "a": self.file("a", "b", "c"),
            "b": self.file("b", "c"),
            "c": self.file("c"),
            "d": self.file("d", "a", "b"),
        }
        self.assertEqual([each.name for each in in_order(files)], ["c", "b", "a", "d"])

    def test_circle(self) -> None:
        with self.assertRaises(GRPCFailed):
            in_order({"a": self.file("a", "b"), "b": self.file("b", "a")})
