"""What a gateway does when another process takes its place, and what that one does: each step, without the socket between them.

`take_over` has the messages, `hand_over` says when which step is taken.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..core.health import UNHEALTHY
from ..net.listeners import Opened
from ..storage.base import BaseStorage, StorageError
from .departure import depart
from .renewal import RELOAD_WAIT
from .stream_pairs import mover, receive
from .worker_link import Message, dataset_messages

if TYPE_CHECKING:
    from ..config.load import Conf
    from ..core.snapshot.snapshot import Snapshot
    from .admin_plane import AdminPlane
    from .data_plane import DataPlane
    from .publisher import Publisher
    from .rows_access import Answers, Questions
    from .state import NodeState
    from .take_over import Successor
    from .worker_supervisor import Workers

__all__ = ["Changeover"]

ADMIN_GRACE = 0.25
"""Seconds in which the request of a connection to the Admin API that was just made arrives."""

ADMIN_PATIENCE = 20.0
"""Seconds that a restart waits for requests to the Admin API which have begun."""

_log = Logger(namespace="kongtwist.gateway")


class Parts(Protocol):
    """What a changeover rests on; a `gateway.Gateway` has it."""

    conf: Conf
    opened: list[Opened]
    storage: BaseStorage
    declarative_loader: Any
    publisher: Publisher
    answers: Answers
    counters: Any
    state: NodeState
    admin_plane: AdminPlane
    plane: DataPlane | None
    workers: Workers | None

    @property
    def planes(self) -> list[DataPlane]: ...

    @property
    def snapshot(self) -> Snapshot: ...

    def listen_status(self) -> None: ...

    def listen_admin(self) -> None: ...

    def expire_later(self) -> None: ...

    def expire_no_more(self) -> None: ...


class Changeover:
    """Steps of a changeover.

    Args:
        gateway: the gateway.
        reactor: its reactor.
    """

    def __init__(self, gateway: Parts, reactor: Any) -> None:
        self._gateway = gateway
        self._reactor = reactor
        self._end: socket.socket | None = None
        self._theirs: socket.socket | None = None

    async def take_over(self, successor: Successor) -> None:
        """Serve in place of the process that hands over, with all that it has acknowledged. Everything is loaded already.

        Raises:
            ConfError: it goes on, and this one may not.
            StorageError: what it wrote last cannot be read.
        """
        gateway = self._gateway
        conf, workers = gateway.conf, gateway.workers
        await successor.pause()
        if gateway.declarative_loader is None:
            await gateway.storage.reread()
        elif successor.rows and not (conf.declarative_config or conf.declarative_config_string):
            await gateway.storage.replace(successor.rows)
        await gateway.publisher.published(RELOAD_WAIT)
        for upstream, target in successor.marks:
            await gateway.state.mark(upstream, target, False)
        for piece in successor.windows:
            gateway.counters.windows.carry(piece, time.time())
        if gateway.plane is not None:
            receive(self._reactor, gateway.plane, successor.streams)
        await successor.take_over()
        if workers is not None:
            await workers.listen()
        elif gateway.plane is not None:
            gateway.plane.listen(gateway.opened)
        gateway.listen_status()

    def stream_ends(self) -> list[int]:
        """Ends on which the streams of this process, or of its workers, will come to another one."""
        gateway = self._gateway
        if gateway.workers is not None:
            return gateway.workers.stream_ends()
        self._close_ends()
        self._end, self._theirs = socket.socketpair()
        return [self._theirs.fileno()]

    def _close_ends(self) -> None:
        ends, self._end, self._theirs = (self._end, self._theirs), None, None
        for each in ends:
            if each is not None:
                each.close()

    async def pause(self) -> bool:
        """Take no more requests of the Admin API, which wait to be accepted, and write nothing more.

        Returns:
            whether the requests that had begun ended within `ADMIN_PATIENCE`; `unpause` in any case takes it back.
        """
        gateway = self._gateway
        gateway.expire_no_more()
        rests = await gateway.admin_plane.rest("admin_listen", ADMIN_PATIENCE, ADMIN_GRACE)
        gateway.answers.hold()
        await gateway.storage.quiet()
        return rests

    def unpause(self) -> None:
        """Go on as before `pause`."""
        gateway = self._gateway
        self._close_ends()
        gateway.answers.go_on()
        gateway.listen_admin()
        gateway.expire_later()

    def kept(self) -> Iterator[Message]:
        """What this process knows and no storage does, for the one that takes over."""
        gateway = self._gateway
        marks = [
            [upstream, peer.name]
            for upstream, balancer in gateway.snapshot.balancers.items()
            for peer in balancer.peers
            if peer.state == UNHEALTHY
        ]
        yield {"type": "health", "marks": marks}
        for piece in gateway.counters.windows.carried(time.time()):
            yield {"type": "windows", "counts": piece}
        if gateway.declarative_loader is not None:
            yield from dataset_messages(0, gateway.storage.load())

    async def leave_to(self, questions: Questions, seconds: float) -> None:
        """Accept nothing more, as another process serves. Returns when all requests and streams have ended, ``seconds`` later at the
        most; what is open then is cut. Cancel it, and call `serve_again`, to take it back.

        Args:
            questions: has done what plugins still write or count.
            seconds: for goodbyes.
        """
        gateway = self._gateway
        gateway.answers.go_on(questions)
        stopping = Deferred.fromCoroutine(gateway.admin_plane.stop("status_listen", 0.0))
        if gateway.workers is not None:
            gateway.workers.shared = True
            await gateway.workers.retire(seconds)
        elif gateway.plane is not None:
            end, self._end = self._end, None
            self._close_ends()
            planes = gateway.planes
            await depart(self._reactor, planes, seconds, mover(self._reactor, planes, end))
        await stopping

    async def serve_again(self) -> None:
        """Go on as before `pause`: the other process is dead."""
        gateway = self._gateway
        gateway.answers.go_on()
        if gateway.workers is not None:
            await gateway.workers.resume()
        elif gateway.plane is not None:
            for plane in gateway.planes:
                plane.resume()
            gateway.plane.listen(gateway.opened)
        gateway.listen_status()
        try:
            await gateway.storage.reread()
        except StorageError as error:
            _log.error("{error}; the configuration is as it was before the restart", error=error)
        await gateway.publisher.published(RELOAD_WAIT)
        gateway.listen_admin()
        gateway.expire_later()
