"""The pair of sockets between the node's parent and one worker: messages, their framing, their pace.

A message is a JSON object behind its length (4 bytes, big-endian). JSON and not pickle: who can write to a socket
must not be able to run code.

| parent to worker | says | worker to parent | says |
|---|---|---|---|
| ``begin`` | configuration and listeners | ``loaded`` | the first dataset serves |
| ``rows`` | a batch of a dataset | ``listening`` | accepts connections |
| ``dataset`` | that was all of it (version) | ``served`` | this version serves |
| ``changes`` | what became of it (version, changes, whether there are more) | ``ask`` | a plugin writes or counts (id, what, arguments) |
| ``answer`` | what came of that (id, result or error) | ``metrics`` | plugins' figures that have changed |
| ``metrics`` | tell plugins' figures | | |
| ``listen`` | you have what all others have: accept | | |
| ``mark`` | a target's health (version, state) | ``health`` | what traffic says of targets (reports) |
| ``level`` | least severe messages that the error log shows | ``told`` | what a plugin answers (id, told) |
| ``question`` | an Admin endpoint asks a plugin (id, plugin, question) | | |
| ``reload``, ``reopen`` | configuration read again; log files anew | ``reloaded`` | it is in effect, or made ready; or why not (error) |
| ``renew`` | make all anew for this configuration, aside; a dataset follows | | |
| ``switch``, ``keep`` | serve by that; or it is not wanted | ``switched`` | it serves by that |
| ``room`` | rows of the counters' memory that are in use | | |
| ``retire`` | another process serves: say goodbye (seconds), then exit | | |
| ``resume`` | it does not: serve on | | |
| ``stop`` | finish what you do and exit | | |

End of file means that the other side is gone: the parent starts another worker, a worker finishes its work and exits.
"""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..core.storage_contract import Change
from ..entities.size import is_heavy

__all__ = [
    "BATCH", "MAX_MESSAGE", "Link", "Message", "MessageReader", "MessageTooLarge", "Packet", "Packets", "changes_packets",
    "dataset_messages", "encode",
]  # fmt: skip

Message = dict[str, Any]
T = TypeVar("T")

BATCH = 200
"""Rows in one message of a dataset: small enough that encoding one stalls neither side."""

MAX_MESSAGE = 256 * 1024 * 1024
"""Bytes of the longest message; more means that the two sides are out of step."""

_LENGTH = struct.Struct(">I")


class MessageTooLarge(ValueError):
    """A length that no message has: the stream is out of step and cannot be used any more."""


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as it goes over the pair."""
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return _LENGTH.pack(len(text)) + text


class MessageReader:
    """Cuts what arrives into messages."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete with ``data``.

        Raises:
            MessageTooLarge: the length cannot be true.
        """
        self._data += data
        while len(self._data) >= 4:
            (length,) = _LENGTH.unpack_from(self._data)
            if length > MAX_MESSAGE:
                raise MessageTooLarge(f"a message of {length} bytes")
            if len(self._data) < 4 + length:
                return
            text = self._data[4 : 4 + length].decode("utf-8", "surrogatepass")
            del self._data[: 4 + length]
            yield json.loads(text)


def dataset_messages(version: int, dataset: Mapping[str, Mapping[str, Any]]) -> Iterator[Message]:
    """A whole dataset as messages of bounded size, made as they are sent."""
    for entity, rows in dataset.items():
        for batch in _batches(rows.values(), lambda row: row):
            yield {"type": "rows", "entity": entity, "rows": batch}
    yield {"type": "dataset", "version": version}


def _batches(items: Iterable[T], row_of: Callable[[T], Any]) -> Iterator[list[T]]:
    """Items in order, at most `BATCH` together, and none behind a heavy row: encoding one message stalls neither side. The
    last batch may be empty."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH or is_heavy(row_of(item)):
            yield batch
            batch = []
    yield batch


class Packet:
    """A message for several workers: encoded once, when the first of them has room for it."""

    __slots__ = ("_data", "_message")

    def __init__(self, message: Message) -> None:
        self._message = message
        self._data: bytes | None = None

    @property
    def data(self) -> bytes:
        """As it goes over the pair."""
        if self._data is None:
            self._data = encode(self._message)
        return self._data


class Packets:
    """Packets in order for several workers, each made when the first of them comes to it."""

    def __init__(self, packets: Iterator[Packet]) -> None:
        self._rest = packets
        self._made: list[Packet] = []

    def __iter__(self) -> Iterator[Packet]:
        at = 0
        while at < len(self._made) or self._more():
            yield self._made[at]
            at += 1

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _more(self) -> bool:
        packet = next(self._rest, None)
        if packet is not None:
            self._made.append(packet)
        return packet is not None


def changes_packets(version: int, changes: Sequence[Change]) -> Packets:
    """Changes of one publication. The rows of before stay here: workers have them."""
    return Packets(_packets(version, changes))


def _packets(version: int, changes: Sequence[Change]) -> Iterator[Packet]:
    before: list[Any] | None = None
    for batch in _batches(changes, lambda change: change.new):
        if before is not None and not batch:
            break
        if before is not None:
            yield Packet({"type": "changes", "version": version, "changes": before, "more": True})
        before = [
            (op, entity, new, None if new is not None or old is None else {"id": old["id"]})
            for op, entity, new, old in batch
        ]
    yield Packet({"type": "changes", "version": version, "changes": before})


@implementer(IPushProducer)
class Link(Protocol):
    """One end of the pair. Sends in order, no faster than the other side reads.

    Args:
        received: takes each message.
        gone: called once when the pair is closed or out of step.
    """

    transport: Any

    def __init__(self, received: Callable[[Message], None], gone: Callable[[], None]) -> None:
        self._received = received
        self._gone = gone
        self._reader = MessageReader()
        self._queue: deque[Iterator[Message | Packet]] = deque()
        self._paused = False
        self._open = False
        self._closing = self._gone_already = False

    def send(self, message: Message | Packet) -> None:
        """Send a message behind all others."""
        self.send_all((message,))

    def send_all(self, messages: Iterable[Message | Packet]) -> None:
        """Send messages behind all others; an iterator is asked for each only when there is room for it."""
        if not self._gone_already:
            self._queue.append(iter(messages))
            self._pump()

    def close(self) -> None:
        """Close the pair when all is sent."""
        self._closing = True
        self._pump()

    def connectionMade(self) -> None:
        self._open = True
        self.transport.registerProducer(self, True)
        self._pump()

    def dataReceived(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                self._received(message)
        except MessageTooLarge:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._open, self._gone_already = False, True
        self._queue.clear()
        self._gone()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._pump()

    def stopProducing(self) -> None:
        self._queue.clear()

    def _pump(self) -> None:
        while self._queue and self._open and not self._paused:
            message = next(self._queue[0], None)
            if message is None:
                self._queue.popleft()
            else:
                self.transport.write(message.data if isinstance(message, Packet) else encode(message))
        if self._closing and self._open and not self._queue:
            self._open = False
            self.transport.unregisterProducer()
            self.transport.loseConnection()
