"""Moving the streams of one data plane to another process of the node, over a `DescriptorLink`.

| sender says | means | receiver says | means |
|---|---|---|---|
| ``stream`` (id, state; 2 descriptors) | a packed stream | ``stream-have`` (id) | it is here, and untouched |
| ``stream-go`` (id) | it is yours | ``stream-on`` (id) | it goes on here |
| ``stream-drop`` (id) | it is not: close it | ``stream-refused`` (id, why) | it cannot be taken |

Exactly one process touches a stream's sockets at any moment: the receiver does nothing with them before ``stream-go``, which the sender
says only when it has given the stream up. Whatever fails before that (the other side dies, hangs or refuses), the sender takes the
stream up again. If the receiver dies behind it, its peers see the end of their connections; no byte is ever relayed twice or left out.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..core.packed_values import Unpackable
from ..net.descriptor_link import DescriptorLink, Message
from ..proxy.adopted_streams import adopt
from ..streams.moving import Parcel, check, pack

if TYPE_CHECKING:
    from ..core.stream_registry import StreamRecord
    from .data_plane import DataPlane

__all__ = ["ANSWER_TIME", "KINDS", "Moved", "StreamReceiver", "move_streams"]

SLICE = 0.004
"""Seconds of packing before others have a turn."""

WINDOW = 3
"""Streams between two processes at a time: each waits for those before it, so this bounds the pause of one, and the work that the
receiver does in one turn. Streams that stay or have come wait for that work, too: with 16, and 6,000 streams of a message a second, the
longest wait in one process was about 1 s, with 2 or 4 it was 0.1 to 0.3 s."""

_HELD = 32
"""Streams that a receiver holds untouched, whatever the sender's window is."""

ANSWER_TIME = 5.0
"""Seconds after which a receiver that does not answer is given up. The streams on the way to it, `WINDOW` at most, wait so long."""

LAST_ANSWERS = 5.0
"""Seconds to wait at the end for word of streams that have been given up."""

KINDS = ("stream", "stream-go", "stream-drop", "stream-have", "stream-on", "stream-refused")
"""The types of messages that are about streams; others that a link carries are not for here."""

_log = Logger(namespace="kongtwist.node")


class Moved(NamedTuple):
    """What became of the streams.

    Attributes:
        moved: streams that the other process has.
        left: streams that stay here: those that cannot move, those that there was no time for, and those that the other side did not
            take.
    """

    moved: int
    left: int


async def move_streams(plane: DataPlane, link: DescriptorLink, seconds: float) -> Moved:
    """Send all streams that can move and are open now. What the other side does not take goes on here. A stream that was in its handshake
    can be moved later: call again.

    Args:
        plane: whose streams.
        link: connected to a `StreamReceiver`. While this runs, what comes on it is taken here; messages that are not about streams, and
            news of its end, are handed on to who took them before.
        seconds: for all; streams that there is no time for stay. The last answers may take `LAST_ANSWERS` more.
    """
    return await _Mover(plane, link).run(seconds)


class _Mover:
    """One move.

    Args:
        plane: whose streams.
        link: to the receiver.
    """

    def __init__(self, plane: DataPlane, link: DescriptorLink) -> None:
        self._plane, self._link = plane, link
        self._reactor = plane.context.reactor
        self._monotonic = plane.context.monotonic
        self._flying: dict[int, tuple[Parcel, float]] = {}
        self._given: set[int] = set()
        self._moved = 0
        self._number = 0
        self._stalled = False
        self._wake: Deferred[None] | None = None
        self._answers: dict[str, Callable[[int, Message], None]] = {
            "stream-have": self._have,
            "stream-on": self._on,
            "stream-refused": self._refused,
        }

    async def run(self, seconds: float) -> Moved:
        """Move."""
        link = self._link
        before = link.received, link.gone
        link.received = partial(self._received, before[0])
        link.gone = partial(self._gone, before[1])
        try:
            await self._send_all(self._monotonic() + seconds)
        finally:
            link.received, link.gone = before
            self._take_back()
        if self._given:
            _log.error(
                "{count} streams were given to a process that has not said that they go on", count=len(self._given)
            )
        return Moved(self._moved, len(self._plane.streams))

    async def _send_all(self, until: float) -> None:
        waiting = deque(self._plane.streams)
        while (waiting or self._flying) and self._link.open and not self._stalled:
            now = self._monotonic()
            if now >= until:
                waiting.clear()
            end = now + SLICE
            while waiting and len(self._flying) < WINDOW and self._monotonic() < end:
                self._send(waiting.popleft())
            full = not waiting or len(self._flying) >= WINDOW
            await self._turn(0.05 if full and self._flying else 0.0)
            self._look()
        late = self._monotonic() + LAST_ANSWERS
        while self._given and self._link.open and self._monotonic() < late:
            await self._turn(0.05)

    async def _turn(self, seconds: float) -> None:
        """Let others have their turn, and wait for an answer, ``seconds`` at most."""
        wake = self._wake = Deferred()
        timer = self._reactor.callLater(seconds, self._awake)
        try:
            await wake
        finally:
            self._wake = None
            if timer.active():
                timer.cancel()

    def _awake(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    def _send(self, record: StreamRecord) -> None:
        """Pack one, if it can be, and send it."""
        if not record.movable:
            return
        try:
            parcel = pack(record)
        except Unpackable:
            return
        duplicates: list[int] = []
        try:
            duplicates.extend(
                os.dup(each) for each in parcel.sockets
            )  # the link closes what it sends; ours are for a retreat
            self._number += 1
            self._link.send({"type": "stream", "id": self._number, "state": parcel.state}, tuple(duplicates))
        except (OSError, ValueError) as error:
            for each in duplicates:
                os.close(each)
            _log.error("a stream cannot be sent to another process, and stays: {error}", error=error)
            self._again(parcel)
            return
        self._flying[self._number] = parcel, self._monotonic()

    def _look(self) -> None:
        """See whether the receiver still answers."""
        if self._flying:
            _, sent = next(iter(self._flying.values()))
            if self._monotonic() - sent > ANSWER_TIME:
                self._stalled = True
                _log.error(
                    "the process that streams move to does not answer: {count} go on here", count=len(self._flying)
                )

    # -- what the receiver says ----------------------------------------------------------------------------------------

    def _received(
        self, before: Callable[[Message, tuple[int, ...]], None], message: Message, fds: tuple[int, ...]
    ) -> None:
        answer = self._answers.get(message.get("type", ""))
        if answer is None:
            before(message, fds)
            return
        answer(message["id"], message)
        self._awake()

    def _gone(self, before: Callable[[], None]) -> None:
        self._awake()
        before()

    def _have(self, number: int, message: Message) -> None:
        """It has a stream: from now on it is the receiver's."""
        found = self._flying.pop(number, None)
        if found is None:
            return  # taken back: it was told so
        self._given.add(number)
        self._link.send({"type": "stream-go", "id": number})
        found[0].close()

    def _on(self, number: int, message: Message) -> None:
        if number in self._given:
            self._given.discard(number)
            self._moved += 1

    def _refused(self, number: int, message: Message) -> None:
        found = self._flying.pop(number, None)
        if found is not None:
            _log.error(
                "a stream was refused by the process it should move to, and stays: {why}", why=message.get("why")
            )
            self._again(found[0])
        elif number in self._given:
            self._given.discard(number)
            _log.error("a stream has ended in the process that it moved to: {why}", why=message.get("why"))

    # -- back ----------------------------------------------------------------------------------------------------------

    def _take_back(self) -> None:
        """Go on here with what the receiver has not acknowledged."""
        flying, self._flying = self._flying, {}
        for number, (parcel, _) in flying.items():
            if self._link.open:
                self._link.send({"type": "stream-drop", "id": number})
            self._again(parcel)

    def _again(self, parcel: Parcel) -> None:
        try:
            adopt(self._plane.tree, parcel)
        except (ValueError, OSError) as error:
            _log.error("a stream that could not move has ended: {error}", error=error)


class StreamReceiver:
    """The receiving half.

    Args:
        plane: takes the streams up, or the one that a reload has put in its place; it has a snapshot.

    Attributes:
        adopted: streams that were taken up.
    """

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._held: dict[DescriptorLink, dict[int, Parcel]] = {}
        self.adopted = 0

    def connected(self) -> DescriptorLink:
        """The protocol for one link to receive from (for a factory's ``buildProtocol``)."""
        link = DescriptorLink(lambda message, fds: self.received(link, message, fds), lambda: self.gone(link))
        return link

    def received(self, link: DescriptorLink, message: Message, descriptors: tuple[int, ...]) -> None:
        """Take a message of the other side; one that is not about streams is refused, and ends the link."""
        kind, number = message.get("type"), message.get("id")
        if not isinstance(number, int) or kind not in ("stream", "stream-go", "stream-drop"):
            _log.error("a link that moves streams brought a message of type {kind}, and is closed", kind=kind)
            _close(descriptors)
            link.abort()
        elif kind == "stream":
            self._take(link, number, Parcel(message.get("state", {}), descriptors))
        else:
            parcel = self._held.get(link, {}).pop(number, None)
            if parcel is None:
                return
            if kind == "stream-go":
                self._go_on(link, number, parcel)
            else:
                parcel.close()

    def gone(self, link: DescriptorLink) -> None:
        """The other side is gone: what it has not given up is its own."""
        for parcel in self._held.pop(link, {}).values():
            parcel.close()

    @property
    def _place(self) -> tuple[Any, Any]:
        """Tree and context of what serves now."""
        return self._plane.context.successor or (self._plane.tree, self._plane.context)

    def _take(self, link: DescriptorLink, number: int, parcel: Parcel) -> None:
        """A stream has come. It is not ours yet."""
        held = self._held.setdefault(link, {})
        why = self._refusal(held, number, parcel)
        if why:
            parcel.close()
            link.send({"type": "stream-refused", "id": number, "why": why})
            return
        held[number] = parcel
        link.send({"type": "stream-have", "id": number})

    def _refusal(self, held: dict[int, Parcel], number: int, parcel: Parcel) -> str:
        """Why a stream cannot be taken; nothing: it can."""
        tree, context = self._place
        if tree.snapshot is None:
            return "this process has no configuration yet"
        if context.stopping:
            return "this process stops"
        if number in held or len(held) >= _HELD:
            return "there are too many streams between the processes"
        try:
            check(parcel)
        except ValueError as error:
            return str(error)
        return ""

    def _go_on(self, link: DescriptorLink, number: int, parcel: Parcel) -> None:
        answer: dict[str, Any] = {"type": "stream-on", "id": number}
        try:
            adopt(self._place[0], parcel)
            self.adopted += 1
        except Exception as error:  # noqa: BLE001 - the others go on; its peers see the end of their connections
            _log.failure("a stream that came from another process has ended")
            answer = {"type": "stream-refused", "id": number, "why": str(error)}
        link.send(answer)


def _close(descriptors: tuple[int, ...]) -> None:
    for each in descriptors:
        os.close(each)
