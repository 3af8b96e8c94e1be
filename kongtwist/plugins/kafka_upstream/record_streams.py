"""Many records of one client: a WebSocket's messages, or the lines of a body of NDJSON, each answered when brokers have it.

Answers come in the order of the records. At most so many have none at a time; then nothing more is read from the client. When
brokers do not answer in time, what is under way is answered, nothing further is taken, and the client is told to come again.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from ...core.answers import AnswerWriter, WebSocketPeer
from ...core.chain.host import Promise, Scope
from ...core.exchange import Exchange

__all__ = ["LineRecords", "Told", "serve_messages"]

TRY_LATER = 1013
"""WebSocket close code (RFC 6455 7.4, and its registry)."""
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _line(said: dict[str, Any]) -> bytes:
    """What a client is told. Names of its own may stand in it, half a surrogate pair too, which UTF-8 cannot say."""
    return _encode(said).encode("utf-8", "replace")


class Told(NamedTuple):
    """What became of a record."""

    said: dict[str, Any]  #: for the client
    lost: bool = False  #: brokers do not answer


_T = TypeVar("_T")
Produce = Callable[[_T], Awaitable[Told]]
"""Sends a record, at once, and gives what becomes of it to who waits for that. Raises nothing."""


class _Window:
    """Records that have no answer yet, in order.

    Args:
        host: has its coroutines wait.
        most: how many there may be.

    Attributes:
        lost: brokers do not answer.
    """

    def __init__(self, host: Scope, most: int) -> None:
        self._host, self._most = host, most
        self._records: deque[Awaitable[Told]] = deque()
        self._come: Promise | None = None
        self._room: Promise | None = None
        self._ended = False
        self.lost = False

    def __len__(self) -> int:
        return len(self._records)

    @property
    def full(self) -> bool:
        """No more may be put in."""
        return len(self._records) >= self._most or self.lost

    def put(self, record: Awaitable[Told]) -> None:
        """One more."""
        self._records.append(record)
        _wake(self._come)

    def end(self) -> None:
        """No more are put in."""
        self._ended = True
        _wake(self._come)

    async def room(self) -> None:
        """Wait until there is room for one more, or never will be."""
        while len(self._records) >= self._most and not self.lost:
            self._room = self._host.promise()
            await self._room.wait()

    async def next(self) -> Told | None:
        """What became of the oldest; None when all are answered and no more are put in."""
        while not self._records:
            if self._ended or self.lost:
                return None
            self._come = self._host.promise()
            await self._come.wait()
        told = await self._records[0]
        del self._records[0]
        self.lost = self.lost or told.lost
        _wake(self._room)
        return told


def _wake(promise: Promise | None) -> None:
    if promise is not None:
        promise.give()


async def serve_messages(
    peer: WebSocketPeer, host: Scope, name: str, most: int, produce: Produce[bytes | str], over: Callable[[], None]
) -> None:
    """Serve a WebSocket: each message is a record.

    Args:
        peer: the client.
        host: runs what answers beside what receives.
        name: of that, for the log.
        most: messages that may have no answer at a time.
        produce: sends one.
        over: called when nothing is under way any more, which may be behind the end of the WebSocket.
    """
    window = _Window(host, most)
    host.spawn(name, _answer_messages(peer, window, over))
    try:
        while (message := await peer.receive()) is not None:
            if not window.lost:  # else it is about to be closed
                window.put(produce(message))
                await window.room()
    finally:
        window.end()


async def _answer_messages(peer: WebSocketPeer, window: _Window, over: Callable[[], None]) -> None:
    try:
        while (told := await window.next()) is not None:
            await peer.send(_line(told.said).decode())
        if window.lost:
            peer.close(TRY_LATER, "Kafka does not answer; try again later")
    finally:
        over()


class LineRecords:
    """Feeds the answer to a body of NDJSON (`AnswerFeeder`), whose lines it takes (`BodySink`).

    Args:
        exchange: the request.
        host: runs what answers.
        name: of that, for the log.
        most: lines that may have no answer at a time.
        longest: bytes of a line.
        produce: sends one.
        over: called when nothing is under way any more, which may be behind the end of the answer.
    """

    def __init__(
        self,
        exchange: Exchange,
        host: Scope,
        name: str,
        most: int,
        longest: int,
        produce: Produce[bytes],
        over: Callable[[], None],
    ) -> None:
        self._exchange, self._host, self._name = exchange, host, name
        self._longest, self._produce, self._over = longest, produce, over
        self._window = _Window(host, most)
        self._writer: AnswerWriter | None = None
        self._body = bytearray()
        self._looked = 0  # bytes at the beginning of it that have no end of a line
        self._skipping = False  # the rest of a line that is too long
        self._ended = self._paused = self._gone = self._working = self._begun = False
        self._out: list[bytes] = []
        self._seconds: float = exchange.route.read_timeout
        self._moved = host.now()
        self._timer = host.later(self._seconds, self._look)

    # -- the answer (AnswerFeeder) --------------------------------------------------------------------------------------

    def begin(self, writer: AnswerWriter) -> None:
        """The head has been sent: take the body."""
        self._writer, self._begun = writer, True
        self._host.spawn(self._name, self._answer())
        if self._exchange.block.has_body:
            self._exchange.receive_body(self)
        else:
            self.body_end([])

    def pause(self) -> None:
        """The client does not read its answers: take no further lines."""
        self._paused = True
        self._exchange.pause_request()

    def resume(self) -> None:
        """It does again."""
        self._paused = False
        self._work()

    def gone(self, why: str) -> None:
        """The answer has ended. What was sent goes on to the brokers."""
        self._gone = True
        if not self._begun:
            self._over()
        self._writer = None
        self._body.clear()
        self._timer.cancel()
        self._window.end()

    async def _answer(self) -> None:
        try:
            while (told := await self._window.next()) is not None:
                self._say(told)
                self._work()
            self._timer.cancel()
            self._flush()
            if self._writer is not None:
                self._writer.finish()
        finally:
            self._over()

    def _say(self, told: Told) -> None:
        """Give the client a line; those of one turn together."""
        if self._gone:
            return
        if not self._out:
            self._host.later(0, self._flush)
        self._out.append(_line(told.said) + b"\n")

    def _flush(self) -> None:
        lines, self._out = self._out, []
        if lines and self._writer is not None:
            self._writer.write(b"".join(lines))

    # -- the body (BodySink) --------------------------------------------------------------------------------------------

    def body_chunk(self, data: bytes) -> None:
        """A piece of the body."""
        if not self._gone:
            self._moved = self._host.now()
            self._body += data
            self._work()

    def body_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The last line is complete, whatever it ends with."""
        self._ended = True
        self._work()

    def _work(self) -> None:
        """Take lines as long as there is room for them."""
        if self._working or self._gone:
            return
        self._working = True
        try:
            while not self._paused and not self._window.full and self._take():
                pass
        finally:
            self._working = False
        if self._ended and not self._body:
            self._timer.cancel()
            self._window.end()
        elif self._window.full or self._paused:
            self._exchange.pause_request()
        else:
            self._exchange.resume_request()

    def _take(self) -> bool:
        """Take a line; whether there was one."""
        body = self._body
        end = body.find(b"\n", self._looked)
        if end < 0:
            if self._skipping:
                body.clear()
            elif len(body) > self._longest:
                self._skipping = True
                self._too_long()
                body.clear()
            self._looked = len(body)
            if not (self._ended and body):
                return False
            end = len(body)
        line = bytes(body[:end]).strip(b" \t\r")
        del body[: end + 1]
        self._looked = 0
        if self._skipping:
            self._skipping = False
        elif len(line) > self._longest:
            self._too_long()
        elif line:  # an empty line is none
            self._window.put(self._produce(line))
        return True

    def _too_long(self) -> None:
        said = {"message": "Bad Request", "error": f"a line is longer than {self._longest} bytes"}
        self._window.put(_already(Told(said)))

    def _look(self) -> None:
        """Has the client sent nothing for too long, though something was waited for?"""
        idle = not len(self._window) and not self._paused and not self._ended
        left = self._moved + self._seconds - self._host.now() if idle else self._seconds
        if left > 0:
            self._timer = self._host.later(left, self._look)
            return
        self._body.clear()
        self._window.put(
            _already(Told({"message": "Request Timeout", "error": f"no line for {self._seconds:g} seconds"}))
        )
        self._ended = True
        self._work()


async def _already(told: Told) -> Told:
    return told
