"""Ends of connections: all their steps run, whatever fails on the way, and nothing is held without bound before them."""

from __future__ import annotations

from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.counters import ACTIVE, READING, WAITING, WRITING
from kongtwist.core.exchange import Exchange
from kongtwist.core.limits import Limits
from kongtwist.http1.channel import HTTP1Channel
from kongtwist.net.run_steps import run_steps

from ..proxy.relay_kit import Gateway

GET = b"GET /st HTTP/1.1\r\nHost: x\r\n\r\n"
MISSING = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"


def counted(gateway: Gateway) -> list[int]:
    """What is counted of connections."""
    return [gateway.context.cells[cell] for cell in (ACTIVE, READING, WAITING, WRITING)]


class StepsTests(SynchronousTestCase):
    """`run_steps`."""

    def test_all_run(self) -> None:
        """One that raises is logged, in its place; the others run in order."""
        seen: list[int] = []

        def fail() -> None:
            raise OSError(9, "Bad file descriptor")

        run_steps(lambda: seen.append(1), fail, lambda: seen.append(2), fail, lambda: seen.append(3))
        self.assertEqual(seen, [1, 2, 3])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)


class LostConnectionTests(SynchronousTestCase):
    """A client's connection is lost while one of the steps of its end fails."""

    def lost(self, break_it: str) -> Gateway:
        """A gateway whose client went away in the middle of an answer, with something broken."""
        gateway = Gateway()
        gateway.automatic = False
        client = gateway.client()
        client.send(GET)
        upstream = gateway.accept()
        gateway.work()
        upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")

        def fail(*_: object) -> None:
            raise RuntimeError("a fault")

        owner: object = gateway.context
        *path, name = break_it.split(".")
        for each in path:
            owner = getattr(owner, each)
        self.patch(type(owner), name, fail)
        client.wire.lose()
        self.assertNotEqual(self.flushLoggedErrors(RuntimeError), [], break_it)
        gateway.work()
        self.flushLoggedErrors(RuntimeError)
        self.assertEqual(upstream.wire.end, "abort", break_it)
        self.assertEqual(counted(gateway), [0, 0, 0, 0], break_it)
        self.assertEqual(len(gateway.context.connections), 0, break_it)
        return gateway

    def test_watch(self) -> None:
        """The upstream is told, the counters go back, the connection is forgotten, the request is logged."""
        self.assertEqual(self.lost("hangups.unwatch").log.lines, [(200, "/st")])

    def test_deadline(self) -> None:
        """The same where another step fails."""
        self.assertEqual(self.lost("deadlines.drop").log.lines, [(200, "/st")])

    def test_log(self) -> None:
        """A log that fails keeps neither an end nor the next request from coming."""
        gateway = Gateway()

        def fail(exchange: Exchange) -> None:
            raise RuntimeError("a fault")

        self.patch(gateway.log, "log", fail)
        client = gateway.client()
        for number in range(1, 4):
            self.assertEqual(client.send(GET).count(b"HTTP/1.1 200 OK"), number)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)
        client.wire.lose()
        self.assertEqual(counted(gateway), [0, 0, 0, 0])

    def test_closed_and_not_closed(self) -> None:
        """A connection that was told to close and does not (TLS without an answer to close_notify, a peer that takes
        nothing) is cut by the next time-out."""
        limits = Limits(keepalive_timeout=10.0, head_timeout=10.0, lingering_timeout=5.0)
        for sent in (b"", b"GET /st HT", GET):
            gateway = Gateway(limits=limits)
            client = gateway.client()
            closes: list[float] = []
            self.patch(client.wire, "loseConnection", partial(closes.append, 1.0))
            client.send(sent)
            for _ in range(40):
                gateway.work(0.5)
            self.assertEqual((len(closes), client.wire.end), (1, "abort"), sent)
            self.assertEqual(counted(gateway), [0, 0, 0, 0], sent)

    def test_upstream_closed_and_not_closed(self) -> None:
        """The same of an idle upstream connection whose time is over, and of one that is not kept."""
        for answer in (b"", b"Connection: close\r\n"):
            gateway = Gateway(limits=Limits(upstream_keepalive_idle_timeout=10.0, lingering_timeout=5.0))
            gateway.answers[b"/"] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%b\r\n" % answer
            client = gateway.client()
            gateway.automatic = False
            client.send(GET)
            upstream = gateway.accept()
            self.patch(upstream.wire, "loseConnection", lambda: None)
            gateway.automatic = True
            gateway.work()
            self.assertIn(b"200 OK", client.received)
            for _ in range(40):
                gateway.work(0.5)
            self.assertEqual(upstream.wire.end, "abort", answer)
            self.assertEqual([len(pool.all) for pool in gateway.context.pools._pools.values()], [0], answer)


class PipelineTests(SynchronousTestCase):
    """Requests behind one another on one connection."""

    LIMITS = Limits(pipeline_buffer=1000)

    def held(self, channel: HTTP1Channel) -> int:
        """Bytes of requests that wait."""
        return len(channel._partial) - channel._at

    def test_bounded_over_many_answers(self) -> None:
        """Reading goes on when half of what may be held is used up, not at every answer: what waits never grows beyond
        the limit and one read, however long it goes on."""
        gateway = Gateway(limits=self.LIMITS)
        gateway.automatic = False
        client = gateway.client()
        client.send(GET)
        upstream = gateway.accept()
        most = answered = sent = 0
        for _ in range(300):
            while client.wire.reading:
                client.channel.dataReceived(GET * 20)
                sent += 20
                most = max(most, self.held(client.channel))
            upstream.parse()
            upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            answered += 1
        self.assertLessEqual(most, 1000 + 20 * len(GET))
        self.assertLessEqual(sent - answered, most // len(GET) + 1)
        self.assertGreater(sent, 250)
        for _ in range(sent):  # none was lost
            upstream.parse()
            if not upstream.unanswered:
                break
            upstream.unanswered.clear()
            upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertTrue(client.wire.reading)
        self.assertEqual(len(upstream.requests), sent + 1)

    def test_client_that_reads_nothing(self) -> None:
        """Answers made here wait as well: no further request is served while the client does not read, nor read."""
        gateway = Gateway(limits=self.LIMITS)
        client = gateway.client()
        client.wire.bufferSize = 5000
        client.wire.stuck = True
        sent = 0
        for _ in range(200):
            if client.wire.reading:
                client.send(MISSING * 10)
                sent += 10
        self.assertLess(len(client.wire.dataBuffer), 10_000)
        self.assertLess(self.held(client.channel), 2000)
        self.assertLess(sent, 200)
        for _ in range(200):
            client.wire.unstick()
            gateway.work()
        self.assertEqual(client.received.count(b"HTTP/1.1 404"), sent)
        self.assertTrue(client.wire.reading)

    def test_client_that_reads_nothing_is_cut(self) -> None:
        """It has `send_timeout`, and holds no timer afterwards."""
        gateway = Gateway(limits=Limits(pipeline_buffer=1000, send_timeout=5.0))
        client = gateway.client()
        client.wire.bufferSize = 1000
        client.wire.stuck = True
        client.send(MISSING * 200)
        gateway.work(4.0)
        self.assertIsNone(client.wire.end)
        for _ in range(20):
            gateway.work(0.5)
        self.assertEqual(client.wire.end, "abort")
        self.assertEqual(counted(gateway), [0, 0, 0, 0])

    def test_a_body_behind_much(self) -> None:
        """The rest of it is read: more was held than may be while the answer before was made, or many were answered at once."""
        post = b"POST /st HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 2000
        for before in (1, 40):
            gateway = Gateway(limits=self.LIMITS)
            gateway.automatic = False
            client = gateway.client()
            if before == 1:
                client.send(GET)
                upstream = gateway.accept()
                client.channel.dataReceived(post)
                self.assertFalse(client.wire.reading)
                upstream.parse()
                upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            else:
                client.channel.dataReceived(MISSING * before + post)
                self.assertFalse(client.wire.reading)
                gateway.work()
                upstream = gateway.accept()
                gateway.work()
            self.assertTrue(client.wire.reading, before)
            client.send(b"x" * 3000)
            upstream.parse()
            upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            self.assertTrue(client.received.endswith(b"\r\n\r\nok"), before)

    def test_turns(self) -> None:
        """Of many requests answered at once, the reactor serves the other connections in between; all are answered, in
        order, and a client that goes in between leaves no call behind."""
        gateway = Gateway()
        client = gateway.client()
        client.channel.dataReceived(MISSING * 100)
        first = client.received.count(b"HTTP/1.1 404")
        self.assertLess(first, 100)
        self.assertFalse(client.wire.reading)
        client.channel.dataReceived(MISSING * 2)  # what TLS had read already
        gateway.work()
        self.assertEqual(client.received.count(b"HTTP/1.1 404"), 102)
        self.assertTrue(client.wire.reading)
        client.channel.dataReceived(MISSING * 100)
        client.wire.lose()
        self.assertNotIn("_take_turn", str(gateway.reactor.getDelayedCalls()))


class BodyTimeoutTests(SynchronousTestCase):
    """``client_body_timeout`` runs while something can come."""

    def test_pieces_behind_a_pause(self) -> None:
        """A piece that comes after reading was stopped (TLS hands out what it has) does not start the clock: the client may
        be kept waiting by its upstream for longer than that."""
        gateway = Gateway(limits=Limits(client_body_timeout=20.0))
        gateway.automatic = False
        client = gateway.client()
        client.send(b"POST /st HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n")
        upstream = gateway.accept()
        gateway.work()
        upstream.wire.stuck = True
        client.channel.dataReceived(b"x" * 100_000)
        self.assertFalse(client.wire.reading)
        client.channel.dataReceived(b"x" * 100_000)
        gateway.work(25.0)
        self.assertEqual(client.received, b"")
        upstream.wire.unstick()
        self.assertTrue(client.wire.reading)
        gateway.work(19.0)
        self.assertEqual(client.received, b"")
        gateway.work(2.0)
        self.assertIn(b"HTTP/1.1 408 ", client.received)
