"""UDP on a listener of ``stream_listen``: the datagrams of a client are a session, which goes to one target, and the answers go back.

A session begins with the first datagram of an address and port, and ends when nothing has come or gone for the Service's
``read_timeout``. Datagrams may be lost anywhere, so nothing is kept for one that a socket does not take; but for those that come while
plugins and names are waited for.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.python.failure import Failure

from ..core.answers import Answer
from ..core.error_lines import request_line
from ..core.health import TCP_FAILURE
from ..core.stream_registry import GOING_AWAY, StreamRecord
from ..core.stream_session import SessionFacts, StreamSession
from ..net.run_steps import run_steps
from ..net.udp_port import DatagramPort, receive
from ..streams.stream_errors import SESSION_BROKEN, StreamFault
from .session_ends import PluginsWait, SessionDoor, answer_body, plain_address
from .session_upstream import SessionTries, log

if TYPE_CHECKING:
    from .context import ProxyContext

__all__ = ["DatagramSession", "SessionPort"]

_COMPLAIN = 60.0
"""Seconds between two lines about datagrams that are dropped."""
_LAST_ANSWERS = 0.5
"""Seconds that further answers have behind the first one, while the gateway stops."""
_AT_ONCE = 32
"""Answers of one upstream that are passed on in one round."""


class _Key(NamedTuple):
    """Whose datagrams belong together."""

    client: tuple[Any, ...]
    here: str


class SessionPort:
    """The sessions of one UDP listener.

    Args:
        door: begins and ends them.
        sock: bound; a duplicate is used.
        highest: number from which on sessions take no descriptors: connections need the last ones.
    """

    def __init__(self, door: SessionDoor, sock: socket.socket, highest: float = inf) -> None:
        self._door, self.highest = door, highest
        context = self._context = door.context
        self._port = DatagramPort(context.reactor, sock, self._heard)
        self._sessions: dict[_Key, DatagramSession] = {}
        self._complained = -inf
        self._stopping = False
        self._port.start()

    def __len__(self) -> int:
        return len(self._sessions)

    def accept_waiting(self) -> None:
        """What waits to be read is another's: datagrams are read by who listens next."""

    def stopListening(self) -> Any:
        """Begin no more sessions; the socket is given back behind the last one."""
        self._stopping = True
        stopped = self._port.stopListening()
        self._close_when_over()
        return stopped

    def _close_when_over(self) -> None:
        if self._stopping and not self._sessions:
            self._port.close()

    def _heard(self, data: bytes, client: Any, here: str) -> None:
        key = _Key(client, here)
        session = self._sessions.get(key)
        if session is None:
            session = self._begin(key)
            if session is None:
                return
        session.heard(data)

    def _begin(self, key: _Key) -> DatagramSession | None:
        context = self._context
        if len(context.datagram_sessions) >= context.limits.udp_sessions:
            self.complain(f"{context.limits.udp_sessions} sessions are open (stream_udp_sessions)")
            return None
        source = plain_address(key.client[0]), key.client[1]
        facts = SessionFacts("udp", source, (plain_address(key.here or self._port.host), self._port.port), None)
        session = self._door.begin(facts)
        if session is None:
            return None
        made = self._sessions[key] = DatagramSession(self, self._door, session, key)
        context.datagram_sessions.add(made)
        made.start()
        return made if self._sessions.get(key) is made else None

    def complain(self, why: str) -> None:
        """Say that new clients are not served, once a minute."""
        now = self._context.monotonic()
        if now - self._complained >= _COMPLAIN:
            self._complained = now
            log.error("datagrams of new clients are dropped on {port}: {why}", port=self._port, why=why)

    def answer(self, key: _Key, data: bytes) -> bool:
        """Send a client an answer."""
        return self._port.send(data, key.client, key.here)

    def over(self, key: _Key, session: DatagramSession) -> None:
        """A session has ended."""
        if self._sessions.get(key) is session:
            del self._sessions[key]
        self._context.datagram_sessions.discard(session)
        self._close_when_over()


class DatagramSession(StreamRecord):
    """One client's datagrams.

    Args:
        port: where they come.
        door: ends it.
        session: what plugins and logs see.
        key: whose they are.
    """

    __slots__ = (
        "_backlog", "_context", "_door", "_fd", "_in", "_key", "_last", "_leaving", "_out", "_over", "_plugins", "_port", "_session",
        "_socket", "_timeout", "_tries", "_unanswered", "_why", "deadline", "wake",
    )  # fmt: skip

    def __init__(self, port: SessionPort, door: SessionDoor, session: StreamSession, key: _Key) -> None:
        super().__init__("udp", session)
        self._port, self._door, self._session, self._key = port, door, session, key
        self._context: ProxyContext = door.context
        self._backlog: list[bytes] | None = []
        self._plugins: PluginsWait | None = None
        self._tries: SessionTries | None = None
        self._socket: socket.socket | None = None
        self._fd = -1
        self._in = [0, 0]
        self._out = [0, 0]
        self._unanswered = 0
        self._over = self._leaving = False
        self._why = ""
        self._last = self._context.monotonic()
        self._timeout = inf
        self.deadline = self.wake = inf

    # -- the record ----------------------------------------------------------------------------------------------------

    @property
    def bytes_in(self) -> int:
        return self._in[0]

    @property
    def bytes_out(self) -> int:
        return self._out[0]

    @property
    def messages_in(self) -> int:
        return self._in[1]

    @property
    def messages_out(self) -> int:
        return self._out[1]

    @property
    def end(self) -> tuple[str, int]:
        return self._why or "closed", 0

    def keep_alive(self, seconds: float, client: bool = True, upstream: bool = True) -> None:
        """There are no pings."""

    def close(self, code: int, reason: str, retry: int | None = None) -> None:
        """End it. At a stop one that waits for an answer may still have it, for as long as the stop may take."""
        if code == GOING_AWAY and self._unanswered:
            self._leaving = True
        else:
            self._finish(200, "gateway")

    def cut(self) -> None:
        self._finish(200, "cut")

    # -- beginning -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Find its route, ask plugins, find its target."""
        session = self._session
        if not self._door.find(session):
            self._finish(500, "gateway")
            return
        route = self.route = session.route
        self.route_id = route.id
        self.service_id = None if route.service is None else route.service["id"]
        self._timeout = self._context.limits.read_timeout(route.read_timeout)
        self._plugins = PluginsWait(session, self._decided)
        self._plugins.start()

    def _decided(self, answer: Answer | None) -> None:
        self._plugins = None
        if self._over:
            return
        if answer is not None:
            body = answer_body(self._session, answer)
            self._session.answer_source = answer.source
            if body:
                self._port.answer(self._key, body)
                self._out = [len(body), 1]
            self._finish(answer.status, "gateway")
            return
        self._tries = SessionTries(self._context, self._session, self)
        self._tries.start()

    def upstream_refused(self, status: int) -> None:
        self._tries = None
        self._finish(status, "gateway")

    def upstream_ready(self, transport: Any) -> None:
        """The address is known."""
        try:
            self._open()
        except Exception:  # noqa: BLE001 - nobody else would end the session
            log.failure("{line}", line=request_line(self._session, "relaying failed"))
            self._finish(500, "gateway")

    def _open(self) -> None:
        """Make a socket towards the target, and send what has come meanwhile."""
        tries, self._tries = self._tries, None
        assert tries is not None and tries.target is not None
        target = tries.target
        family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        context = self._context
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            self._without_socket(error.strerror or str(error))
            return
        if sock.fileno() >= self._port.highest:
            sock.close()
            self._without_socket("nearly all descriptors are in use")
            return
        try:
            sock.setblocking(False)
            sock.connect((target.address, target.port))
        except OSError as error:
            sock.close()
            self._broken(error)
            return
        self._socket, self._fd = sock, sock.fileno()
        self.peer = self._session.upstream_peer
        context.reactor.addReader(self)
        context.streams.add(self)
        context.deadlines.set(self, context.monotonic() + self._timeout)
        waiting, self._backlog = self._backlog or [], None
        for each in waiting:
            self._send(each)

    def _without_socket(self, why: str) -> None:
        """There is no socket to be had for it."""
        self._port.complain(f"{why}; lower stream_udp_sessions, or raise nginx_main_worker_rlimit_nofile")
        self._finish(500, "gateway")

    # -- datagrams -----------------------------------------------------------------------------------------------------

    def heard(self, data: bytes) -> None:
        """The client has sent one."""
        if self._backlog is None:
            self._last = self._context.monotonic()
            self._send(data)
        elif len(self._backlog) < self._context.limits.udp_backlog:
            self._backlog.append(data)

    def _send(self, data: bytes) -> None:
        sock = self._socket
        if sock is None:
            return
        self._in[0] += len(data)
        self._in[1] += 1
        self._unanswered += 1
        try:
            sock.send(data)
        except BlockingIOError:
            return  # lost, as datagrams may be
        except OSError as error:
            self._broken(error)
            return
        self._session.upstream_sent += len(data)

    def fileno(self) -> int:
        """The descriptor towards the upstream; -1 when closed."""
        return self._fd

    def logPrefix(self) -> str:
        """For the reactor's log context."""
        return "datagrams"

    def doRead(self) -> None:
        """Pass answers on."""
        for _ in range(_AT_ONCE):
            sock = self._socket
            if sock is None:
                return
            try:
                data = receive(sock)
            except OSError as error:
                self._broken(error)
                return
            if data is None:
                return
            self._last = self._context.monotonic()
            self._unanswered = 0
            self._session.upstream_received += len(data)
            if self._port.answer(self._key, data):
                self._out[0] += len(data)
                self._out[1] += 1
            if self._leaving:
                self._timeout = _LAST_ANSWERS
                self._context.deadlines.set(self, self._last + _LAST_ANSWERS)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor lets everything go, or the socket has an error and nothing to read."""
        sock = self._socket
        number = 0 if sock is None else sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._broken(OSError(number, os.strerror(number)))
        else:
            self.cut()

    # -- ends ----------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Look whether it was silent for too long."""
        late = self._last + self._timeout
        if now < late:
            self._context.deadlines.set(self, late)
        else:
            self._finish(200, "timed_out")

    def _broken(self, error: OSError) -> None:
        """The upstream cannot be reached: an ICMP message says that nobody listens there."""
        session = self._session
        peer = session.upstream_peer
        if peer is not None and peer.checks is not None:
            self._context.judge(peer, TCP_FAILURE)
        what = f"{SESSION_BROKEN}: the upstream cannot be reached: {error.strerror or error}"
        fault = StreamFault(False, what, "see whether it listens there, for UDP")
        self._finish(200 if self._out[1] else 502, "upstream_lost", fault)

    def _finish(self, status: int, why: str, fault: StreamFault | None = None) -> None:
        """Give everything back, once."""
        if self._over:
            return
        self._over = True
        self._why = why
        session, plugins, tries, sock = self._session, self._plugins, self._tries, self._socket
        self._plugins = self._tries = self._socket = None
        session.bytes_in, session.bytes_out = self._in[0], self._out[0]
        context = self._context
        steps: list[Any] = []
        if sock is not None:
            steps += [partial(context.reactor.removeReader, self), sock.close]
        run_steps(
            *steps,
            partial(context.deadlines.drop, self),
            *((plugins.cancel,) if plugins is not None else ()),
            *((tries.cancel,) if tries is not None else ()),
            partial(context.streams.remove, self),
            self._forget,
            partial(self._port.over, self._key, self),
            partial(self._tell, status, fault),
        )

    def _forget(self) -> None:
        self._fd = -1
        self._backlog = None

    def _tell(self, status: int, fault: StreamFault | None) -> None:
        self.tell_record(self._session)
        self._door.finish(self._session, status, fault)
