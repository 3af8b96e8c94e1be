"""Faults of kafka-python: each is still there, and is mended. Where the first half of a test fails, the repair can go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kafka.errors import KafkaConnectionError
from kafka.net.transport import KafkaTCPTransport
from kafka.producer.transaction_manager import ProducerIdAndEpoch, TransactionManager, TransactionState
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.kafka import repairs


def _ready() -> Any:
    """A producer's memory of its id, which it has."""
    manager = TransactionManager(None, 60000, 100, (4, 0), None)
    manager.init_producer_id()
    manager.set_producer_id_and_epoch(ProducerIdAndEpoch(7, 0))
    manager._transition_to(TransactionState.READY)
    return manager


class ProducerIdTests(SynchronousTestCase):
    """An idempotent producer hangs for ever once a batch has expired that was sent."""

    def test_asked_for_again(self) -> None:
        manager = _ready()
        repairs.original_reset(manager)
        manager.init_producer_id()
        self.assertEqual(
            manager._current_state, TransactionState.READY, "kafka-python no longer needs reset_producer_id"
        )
        self.assertFalse(manager.has_producer_id())

        manager = _ready()
        repairs.reset_producer_id(manager)
        manager.init_producer_id()
        self.assertEqual(manager._current_state, TransactionState.INITIALIZING)


class _Loop:
    """The library's loop, in which nothing has to be waited for."""

    async def wait_read(self, _socket: object) -> None:
        return None

    async def sleep(self, _seconds: float) -> None:
        return None


class _Transport:
    """A connection whose last bytes come together with its end."""

    def __init__(self) -> None:
        self._read, self._closed, self._net, self._sock = True, False, _Loop(), None
        self.last_read = 0.0
        self.received: list[bytes] = []
        self.ended: list[object] = []
        self._protocol = self
        self._sensors = None

    def _sock_recv(self) -> tuple[bytes, object]:
        return b"refused", KafkaConnectionError("socket disconnected")

    def data_received(self, data: bytes) -> None:
        self.received.append(data)

    def abort(self, error: object = None) -> None:
        self.ended.append(error)
        self._closed = True


def _run(coroutine: Any) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


class LastWordsTests(SynchronousTestCase):
    """What a broker says before it closes a connection is thrown away."""

    def test_heard(self) -> None:
        transport: Any = _Transport()
        _run(repairs.original_read(transport))
        self.assertEqual(transport.received, [], "kafka-python no longer needs read_transport")

        transport = _Transport()
        _run(repairs.read_transport(transport))
        self.assertEqual(transport.received, [b"refused"])
        self.assertEqual(len(transport.ended), 1)


class MendTests(SynchronousTestCase):
    def test_put_in(self) -> None:
        repairs.mend()
        repairs.mend()
        self.assertIs(TransactionManager.reset_producer_id, repairs.reset_producer_id)
        self.assertIs(KafkaTCPTransport._read_from_sock, repairs.read_transport)


class RejoiningTests(SynchronousTestCase):
    def test_what_a_poll_has_begun_the_next_goes_on_with(self) -> None:
        for begun, known, asked in ((True, False, 1), (True, True, 0), (False, False, 0)):
            calls: list[None] = []
            coordinator = SimpleNamespace(
                rejoining=begun, rejoin_needed=known, request_rejoin=lambda calls=calls: calls.append(None)
            )
            repairs.finish_rejoining(SimpleNamespace(_coordinator=coordinator))
            self.assertEqual(len(calls), asked)

    def test_has_to_join(self) -> None:
        for joining, needed, known, wanted in (
            (False, False, "broker", False),
            (True, False, "broker", True),
            (False, True, "broker", True),
            (False, False, None, True),
        ):
            coordinator = SimpleNamespace(
                rejoining=joining, need_rejoin=lambda needed=needed: needed, coordinator_id=known
            )
            self.assertEqual(repairs.has_to_join(SimpleNamespace(_coordinator=coordinator)), wanted)
