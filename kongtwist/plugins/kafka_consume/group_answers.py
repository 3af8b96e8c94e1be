"""Clients of a consumer group: each record goes to one of them, as a message, an event or one of a batch.

With ``commit_strategy`` ``auto`` a record is finished when it has been sent; with ``off`` when a client over WebSocket says so.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from ...core.answers import Answer, StreamedAnswer, WebSocketAnswer, WebSocketPeer
from ...core.chain.host import HostError, Scope
from ...core.chain.host_groups import GroupClient, GroupedRecord, KafkaGroups
from ...core.chain.host_reading import FetchedPartition, TopicRecord
from .dead_letters import DeadLetters
from .socket_feed import LONGEST_MESSAGE, TRY_LATER

__all__ = ["GroupAnswers"]

_COUNT = 100
"""Records that are taken at once for a stream."""
_SILENCE = 15.0
"""Seconds without a record until a stream gives a sign of life."""
_GOING_AWAY, _POLICY = 1001, 1008
_EVENTS = [
    (b"Content-Type", b"text/event-stream"),
    (b"Cache-Control", b"no-cache, no-transform"),
    (b"X-Accel-Buffering", b"no"),
]
_JSON = [(b"Content-Type", b"application/json; charset=utf-8")]

Place = tuple[str, int, int]
"""Topic, partition and offset."""


class GroupAnswers:
    """What clients of one configuration get.

    Args:
        groups: gives records.
        letters: takes those that cannot be given; None: there is no dead-letter topic.
        encode: makes events or messages; None leaves a record out.
        fault: why a record cannot be given, where there are letters.
        batch: makes one answer of records.
        explain: HTTP status and text for a failure.
        commits: a record is finished when it has been sent.
        window: records that a client may have without having acknowledged them.
        most: deliveries of a record at the most, None: no bound.
    """

    def __init__(
        self,
        groups: KafkaGroups,
        letters: DeadLetters | None,
        encode: Callable[[TopicRecord], bytes | None],
        fault: Callable[[TopicRecord], str | None],
        batch: Callable[[list[FetchedPartition]], bytes],
        explain: Callable[[HostError], tuple[int, str]],
        commits: bool,
        window: int,
        most: int | None,
    ) -> None:
        self._groups = groups
        self.letters = letters
        self.encode = encode
        self._fault = fault
        self._batch = batch
        self._explain = explain
        self.commits = commits
        self.window = window
        self._most = most

    async def socket(self, group: str, host: Scope) -> Answer:
        """Messages. Raises HostError."""
        client = await self._groups.join(group)
        client.leave()  # it was only asked for, while a refusal can still be an HTTP answer; the member stays for a while

        async def serve(peer: WebSocketPeer) -> None:
            try:
                socket = _Socket(self, peer, await self._groups.join(group))
            except HostError as error:
                peer.close(TRY_LATER, self._explain(error)[1])
                return
            await socket.serve(host)

        return WebSocketAnswer(serve, limit=LONGEST_MESSAGE)

    async def events(self, group: str) -> Answer:
        """An event stream. Raises HostError."""
        return StreamedAnswer(200, _Events(self, await self._groups.join(group)), _EVENTS)

    async def some(self, group: str, count: int, wait: float) -> Answer:
        """Records at once, or when there are some. Raises HostError."""
        client = await self._groups.join(group)
        try:
            found = [each for each in await client.take(count, wait) if not await self.is_dead(client, each)]
        except BaseException:
            client.leave()
            raise
        body = self._batch(_partitions(each.record for each in found))
        return StreamedAnswer(200, _Batch(body, client, found, self.commits), _JSON, len(body))

    async def is_dead(self, client: GroupClient, each: GroupedRecord) -> bool:
        """Whether a record is not for clients. It is finished then, once it is in the dead-letter topic; where it cannot be put there it
        comes again when the client has had it for long enough."""
        if self.letters is None:
            return False
        why = self._fault(each.record)
        if why is None and self._most is not None and each.delivery > self._most:
            why = f"not acknowledged after {self._most} deliveries"
        return why is not None and await self.bury(client, each.record, why)

    async def bury(self, client: GroupClient, record: TopicRecord, why: str) -> bool:
        """Put a record into the dead-letter topic, and finish it. Always True: nobody else gets it now."""
        assert self.letters is not None
        if await self.letters.put(record, why):
            client.finish(record.topic, record.partition, record.offset)
        return True


def _partitions(records: Iterable[TopicRecord]) -> list[FetchedPartition]:
    found: dict[tuple[str, int], list[TopicRecord]] = {}
    for record in records:
        found.setdefault((record.topic, record.partition), []).append(record)
    return [FetchedPartition(*place, -1, tuple(of)) for place, of in sorted(found.items())]


def _finish(client: GroupClient, record: TopicRecord) -> None:
    client.finish(record.topic, record.partition, record.offset)


def _holds(client: GroupClient, record: TopicRecord) -> bool:
    return client.holds(record.topic, record.partition, record.offset)


class _Batch:
    """The body of one answer: what is in it is finished when the client has it.

    Args:
        body: the whole.
        client: has the records.
        records: that are in it.
        commits: see `GroupAnswers`.
    """

    def __init__(self, body: bytes, client: GroupClient, records: list[GroupedRecord], commits: bool) -> None:
        self._body: bytes | None = body
        self._client, self._records, self._commits = client, records, commits

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        body, self._body = self._body, None
        if body is not None:
            return body
        if self._commits:
            for each in self._records:
                _finish(self._client, each.record)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """What is not finished goes to others."""
        self._client.leave()


class _Events:
    """The chunks of an event stream.

    Args:
        answers: of the configuration.
        client: gives records.
    """

    def __init__(self, answers: GroupAnswers, client: GroupClient) -> None:
        self._answers, self._client = answers, client
        self._taken: deque[GroupedRecord] = deque()
        self._given: TopicRecord | None = None
        self._begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            return b":\n\n"
        given, self._given = self._given, None
        if given is not None:
            _finish(self._client, given)
        while True:
            if not self._taken:
                try:
                    self._taken.extend(await self._client.take(_COUNT, _SILENCE))
                except HostError:  # the configuration has closed
                    raise StopAsyncIteration from None
            if not self._taken:
                return b":\n\n"
            each = self._taken.popleft()
            if not _holds(self._client, each.record):  # a slow client: another has got it meanwhile
                continue
            if await self._answers.is_dead(self._client, each):
                continue
            event = self._answers.encode(each.record)
            if event is not None:
                self._given = each.record
                return event
            _finish(self._client, each.record)

    async def aclose(self) -> None:
        """What it has goes to others."""
        self._client.leave()


class _Socket:
    """A WebSocket.

    Args:
        answers: of the configuration.
        peer: the client.
        client: gives records.
    """

    def __init__(self, answers: GroupAnswers, peer: WebSocketPeer, client: GroupClient) -> None:
        self._answers, self._peer, self._client = answers, peer, client
        self._held: dict[Place, TopicRecord] = {}  # sent, and not acknowledged; the oldest may be others' by now

    async def serve(self, host: Scope) -> None:
        """Until one of both has enough."""
        host.spawn("listening to a client of a consumer group", self._listen())
        try:
            await self._send()
        except HostError:
            self._peer.close(_GOING_AWAY, "the configuration has changed")
        finally:
            self._client.leave()

    async def _send(self) -> None:
        while True:
            found = await self._client.take(_COUNT, _SILENCE)
            if not found and not await self._peer.send('{"event":"alive"}'):
                return
            for each in found:
                if not _holds(self._client, each.record):  # a slow client: another has got it meanwhile
                    continue
                if await self._answers.is_dead(self._client, each):
                    continue
                if not await self._give(each):
                    return

    async def _give(self, each: GroupedRecord) -> bool:
        """Send a record; False: the client is gone."""
        record = each.record
        body = self._answers.encode(record)
        if body is None:
            _finish(self._client, record)
            return True
        if not self._answers.commits:
            self._hold(record)
        text = f'{{"id":"{each.id}","delivery":{each.delivery},{body.decode()}'
        if not await self._peer.send(text):
            return False
        if self._answers.commits:
            _finish(self._client, record)
        return True

    def _hold(self, record: TopicRecord) -> None:
        place = (record.topic, record.partition, record.offset)
        self._held.pop(place, None)
        self._held[place] = record
        if len(self._held) > 2 * self._answers.window:
            del self._held[next(iter(self._held))]

    # -- what the client says ----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        try:
            while (text := await self._peer.receive()) is not None:
                if not self._answers.commits:
                    await self._said(text)
        except ValueError as wrong:
            self._peer.close(_POLICY, str(wrong))
        finally:
            self._client.leave()

    async def _said(self, text: str | bytes) -> None:
        """Acknowledgements. Raises ValueError."""
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("a message has to be JSON") from None
        if not isinstance(said, dict) or not said or not said.keys() <= {"ack", "nack", "reject"}:
            raise ValueError("a message has to be an object with ack, nack or reject")
        for what, ids in said.items():
            for each in ids if isinstance(ids, list) else [ids]:
                if not await self._answered(what, _place(each)):
                    await self._peer.send(json.dumps({"id": each, "event": "unknown"}))

    async def _answered(self, what: str, place: Place) -> bool:
        """Do what the client wants with a record; False: it does not have it."""
        client, record = self._client, self._held.pop(place, None)
        if record is None:
            return False
        if what == "ack":
            return client.finish(*place)
        if what == "nack":
            return client.give_back(*place)
        if self._answers.letters is None:
            return client.finish(*place)
        return await self._answers.bury(client, record, "rejected by a client")


def _place(given: Any) -> Place:
    """The record that an id names. Raises ValueError."""
    if isinstance(given, str):
        topic, _, rest = given.partition(":")
        partition, _, offset = rest.partition(":")
        if partition.isdecimal() and offset.isdecimal() and given.isascii() and len(given) < 300:
            return topic, int(partition), int(offset)
    raise ValueError("an id has to be one that was sent")
