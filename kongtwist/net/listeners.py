"""Sockets to listen on: opened before anything else happens, and served without dropping connections.

Sockets are opened plain, before the process goes to the background and before there is a log, so that a port in use is
one sentence on the terminal. `listen_on` then lets a reactor serve one. When descriptors run out, accepting pauses with
one line in the log (Twisted's own ports would accept and drop connections), while a few descriptors held back keep the
Admin and Status listeners answering.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
import stat
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..config.kinds import ConfError, Listen
from .port_holders import refusal
from .proxied_connections import ProxiedFactory, ProxyRules
from .server_tls import ServerContexts

__all__ = [
    "IP_PKTINFO",
    "SERVED_BY_WORKERS",
    "DescriptorRoom",
    "Opened",
    "check_listeners",
    "listen_on",
    "open_listeners",
    "raise_descriptor_limit",
]

BACKLOG = 16384
"""Connections that may wait where a listener does not say; the system cuts it down to net.core.somaxconn."""

KEEPALIVE = (600, 60, 5)
"""Seconds idle, seconds between probes, and probes, until a vanished client is given up, unless a listener says so."""

FULL_PAUSE = 0.05
"""Seconds until a port looks again whether one of the connections that it may have has ended."""

RESERVED = 16
"""Descriptors held back for the Admin and Status listeners."""

IP_PKTINFO: int = getattr(socket, "IP_PKTINFO", 8)
"""Tells, and sets, the local address of a datagram (ip(7)); Python names it from 3.14 on."""

_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_GONE = frozenset((errno.ECONNABORTED, errno.EPROTO, errno.EINTR))
_AT_ONCE = 32
"""Connections that a port accepts in one round at the most: the first request of each may be served at once, and all others wait."""
_TIME_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}

_log = Logger(namespace="kongtwist.listeners")


# -- opening ---------------------------------------------------------------------------------------------------------


class Opened:
    """A listener whose sockets are open.

    Args:
        name: the property it stands in (``proxy_listen``...).
        listen: its declaration.
        sockets: one for each process that accepts (``reuseport``), or one that all of them share.

    Attributes:
        shared: another process has these sockets, too: a unix socket's file stays when they are closed here.
    """

    def __init__(self, name: str, listen: Listen, sockets: list[socket.socket]) -> None:
        self.name = name
        self.listen = listen
        self.sockets = sockets
        self.shared = False

    @property
    def address(self) -> str:
        """Where it really listens, with the port the system chose for port 0."""
        if self.listen.path:
            return self.listen.address
        host, port = self.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def port(self) -> int:
        """The TCP port it really listens on; 0 for a unix socket."""
        return 0 if self.listen.path else int(self.sockets[0].getsockname()[1])

    def sockets_for(self, worker: int, workers: int = 1) -> list[socket.socket]:
        """The sockets that process number ``worker`` (from 0) of ``workers`` accepts on: all that are there are served, and
        nobody waits on one that a process of before had."""
        return self.sockets[worker::workers] or [self.sockets[worker % len(self.sockets)]]

    def widen(self, count: int) -> list[socket.socket]:
        """Make one socket for each of ``count`` processes, if the listener is shared that way (``reuseport``).

        Returns:
            those that are new; they do not listen before `tune`.

        Raises:
            OSError: the system refuses.
        """
        first = self.sockets[0]
        if self.listen.path or not _shares(self.listen) or not first.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            return []
        new: list[socket.socket] = []
        for _ in range(count - len(self.sockets)):
            new.append(_bound(self.listen, first.family, first.getsockname(), True, serve=False))
        self.sockets += new
        return new

    def tune(self) -> None:
        """Have sockets that are open follow the flags of the declaration."""
        listen = self.listen
        for each in () if listen.udp else self.sockets:
            if not listen.path:
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, listen.deferred)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
                _set_keepalive(each, listen.so_keepalive)
            each.listen(listen.backlog or BACKLOG)

    def close(self) -> None:
        """Close the sockets; connections that wait in their backlog are reset. A unix socket's file goes too."""
        for each in self.sockets:
            each.close()
        if self.listen.path and not self.shared:
            try:
                os.unlink(self.listen.path)
            except FileNotFoundError:
                pass


def open_listeners(listeners: Iterable[tuple[str, Listen]], workers: int = 1) -> list[Opened]:
    """Open the sockets of all listeners, or none.

    Args:
        listeners: property name and declaration of each (`Conf.listeners`).
        workers: processes that will accept on those of ``proxy_listen`` and ``stream_listen``.

    Raises:
        ConfError: one cannot be opened; the sentence says which and why.
    """
    opened: list[Opened] = []
    try:
        for name, listen in listeners:
            count = workers if name in SERVED_BY_WORKERS and _shares(listen) and not listen.path else 1
            try:
                opened.append(Opened(name, listen, _open(listen, count, 0o600 if name == "admin_listen" else 0o666)))
            except OSError as error:
                raise ConfError(refusal(name, listen, error)) from error
    except ConfError:
        for each in opened:
            each.close()
        raise
    return opened


SERVED_BY_WORKERS = ("proxy_listen", "stream_listen")
"""Properties whose sockets worker processes accept on; those of the others are the parent's."""


def _shares(listen: Listen) -> bool:
    """Whether each process has a socket of its own. For datagrams always: the kernel then gives a client's to one process."""
    return listen.reuseport or listen.udp


def check_listeners(listeners: Iterable[tuple[str, Listen]]) -> list[str]:
    """What `open_listeners` would refuse whoever listens now: addresses this machine has not, or may not listen on.

    Args:
        listeners: as for `open_listeners`.

    Returns:
        a sentence for each.
    """
    found = []
    for name, listen in listeners:
        try:
            if listen.path:
                _try_unix(listen.path)
            else:
                family, address = _resolved(listen)
                _bound(listen, family, address, _shares(listen), serve=False).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                found.append(refusal(name, listen, error))
    return found


def _resolved(listen: Listen) -> tuple[Any, Any]:
    """Family and address to bind to. Raises OSError."""
    kind = socket.SOCK_DGRAM if listen.udp else socket.SOCK_STREAM
    family, _, _, _, address = socket.getaddrinfo(listen.host, listen.port, type=kind)[0]
    return family, address


def _open(listen: Listen, count: int, mode: int) -> list[socket.socket]:
    """Sockets that listen; ``mode`` is that of a unix socket's file."""
    if listen.path:
        return [_open_unix(listen, mode)]
    family, address = _resolved(listen)
    if _shares(listen) and listen.port:
        # Two nodes with reuseport would share the port without a word: see first that nobody else listens there.
        _bound(listen, family, address, reuseport=False).close()
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(_bound(listen, family, address, _shares(listen)))
            if not listen.port:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def _bound(listen: Listen, family: int, address: Any, reuseport: bool, serve: bool = True) -> socket.socket:
    if listen.udp:
        return _bound_for_datagrams(listen, family, address, reuseport)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuseport:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, listen.ipv6only)
        if listen.deferred:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        # Accepted sockets inherit these (tcp(7)), which spares a system call for each connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _set_keepalive(sock, listen.so_keepalive)
        sock.bind(address)
        if serve:
            sock.listen(listen.backlog or BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _bound_for_datagrams(listen: Listen, family: int, address: Any, reuseport: bool) -> socket.socket:
    """A UDP socket that tells to which address a datagram came (ip(7), ipv6(7)): answers have to come from there."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if reuseport:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, listen.ipv6only)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _set_keepalive(sock: socket.socket, text: str) -> None:
    if text == "off":
        return
    values: list[int | None] = list(KEEPALIVE)
    if text == "on":
        values = [None, None, None]
    elif text:
        values = [_seconds(part) for part in text.split(":")]
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in zip((socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT), values, strict=True):
        if value is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _seconds(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]+)([smh]?)", text)
    return int(match[1]) * _TIME_UNITS[match[2]] if match else None


def _open_unix(listen: Listen, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            sock.bind(listen.path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if not stat.S_ISSOCK(os.stat(listen.path).st_mode):
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            if not _is_stale(listen.path):
                raise
            os.unlink(listen.path)
            sock.bind(listen.path)
        # 0666 as nginx does, so that the folder decides who may connect; before listen(2), so that nobody slips in.
        os.chmod(listen.path, mode)
        sock.listen(listen.backlog or BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _try_unix(path: str) -> None:
    """See whether a unix socket may be made there. Raises OSError."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        return
    except FileNotFoundError:
        pass
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(path)
        os.unlink(path)


def _is_stale(path: str) -> bool:
    """Whether nobody listens on the socket at ``path`` any more (its owner was killed)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False


def raise_descriptor_limit(wanted: int = 0) -> int:
    """Let this process, and those it starts, have more descriptors.

    Args:
        wanted: how many (``nginx_main_worker_rlimit_nofile``); 0: as many as the system allows.

    Returns:
        how many it may have now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted or (hard if hard != resource.RLIM_INFINITY else 1048576)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, max(hard, target) if hard >= 0 else hard))
    except (ValueError, OSError):
        _log.warn("the descriptor limit stays at {soft}: {wanted} is more than allowed", soft=soft, wanted=target)
        return soft
    return target


# -- serving ---------------------------------------------------------------------------------------------------------


class DescriptorRoom:
    """What the ports of one process share about running out of descriptors.

    Args:
        limit: descriptors the process may have (RLIMIT_NOFILE); at the last few of them the proxy's ports pause, so
            that accepted clients can be served. The kernel always hands out the lowest free number, so the number of
            an accepted socket tells how many are in use.
        pause: seconds that accepting pauses.
        may_accept: asked before the proxy's ports accept (``nginx_http_max_connections``); None: always.
    """

    def __init__(self, limit: int, pause: float = 0.5, may_accept: Callable[[], bool] | None = None) -> None:
        self.limit = limit
        self.pause = pause
        self.may_accept = may_accept
        self.highest = limit - max(2 * RESERVED, limit // 50)
        self._held: list[int] = []
        self.refill()

    def refill(self) -> None:
        """Hold `RESERVED` descriptors back, as far as there are any."""
        try:
            while len(self._held) < RESERVED:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise

    def give(self) -> bool:
        """Free one of them; False when none is left."""
        if not self._held:
            return False
        os.close(self._held.pop())
        return True

    def close(self) -> None:
        """Hold nothing back any more."""
        while self.give():
            pass


class _Accepting:
    """How our ports accept: in bursts, pausing when descriptors run out. Mixed into Twisted's ports."""

    factory: Any
    reactor: Any
    socket: Any
    transport: Any
    sessionno: int
    connected: Any
    disconnecting: Any
    startReading: Callable[[], None]
    stopReading: Callable[[], None]
    _buildAddr: Callable[[Any], Any]
    numberAccepts: int

    room: DescriptorRoom
    privileged = False
    _paused: Any = None
    _said = float("-inf")

    def doRead(self) -> None:
        """Accept what waits, up to the number seen lately."""
        accepted = 0
        while accepted < self.numberAccepts:
            if not self.privileged and self.room.may_accept is not None and not self.room.may_accept():
                self._pause("as many connections as nginx_http_max_connections allows", FULL_PAUSE)
                return
            try:
                sock, address = self.socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _GONE:
                    continue
                if error.errno not in _EXHAUSTED:
                    _log.failure("accepting on {port} failed", port=self)
                    return
                if self.privileged and self.room.give():
                    continue
                self._pause(f"{os.strerror(error.errno or 0)} (limit {self.room.limit})")
                return
            accepted += 1
            number = sock.fileno()
            self._begin(sock, address)
            if number >= self.room.highest and not self.privileged:
                self._pause(f"nearly all descriptors are in use (limit {self.room.limit})")
                return
        # Trying again only as often as there was something to accept saves a failing accept for each connection.
        more = accepted + 20 if accepted == self.numberAccepts else max(1, accepted)
        self.numberAccepts = min(more, _AT_ONCE)

    def _begin(self, sock: socket.socket, address: Any) -> None:
        """Start serving an accepted connection."""
        transport: Any = None
        try:
            protocol = self.factory.buildProtocol(self._buildAddr(address))
            if protocol is None:
                sock.close()
                return
            number = self.sessionno
            self.sessionno = number + 1
            transport = self.transport(sock, protocol, address, self, number, self.reactor)
            protocol.makeConnection(transport)
        except Exception:  # noqa: BLE001 - whatever it was, the other connections go on
            _log.failure("a connection accepted on {port} could not be served", port=self)
            if transport is None:
                sock.close()
            else:
                transport.abortConnection()

    def _pause(self, why: str, seconds: float | None = None) -> None:
        """Stop accepting for a moment; connections wait in the backlog. Says so once a minute at most."""
        now = self.reactor.seconds()
        if now - self._said >= 60:
            self._said = now
            _log.error("accepting pauses on {port}: {why}", port=self, why=why)
        self.stopReading()
        self._paused = self.reactor.callLater(self.room.pause if seconds is None else seconds, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self.room.refill()
        if self.connected and not self.disconnecting:
            self.startReading()

    def accept_waiting(self) -> None:
        """Accept all that waits: the port is about to close."""
        waiting = True
        while waiting and self._paused is None:
            before = self.sessionno
            self.doRead()
            waiting = self.sessionno > before

    def _end_pause(self) -> None:
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None


class _TCPPort(_Accepting, tcp.Port):
    """A TCP port that pauses rather than drops."""

    def __str__(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"{host}:{port}"

    def loseConnection(self, *args: Any) -> Any:
        """Stop listening."""
        self._end_pause()
        return tcp.Port.loseConnection(self, *args)

    stopListening = loseConnection


class _UnixPort(_Accepting, unix.Port):
    """A unix socket's port that pauses rather than drops. Others may listen on the same socket: it is not shut, and its file stays
    until `Opened.close`."""

    _shouldShutdown = False

    def connectionLost(self, reason: Any) -> None:
        """Stop listening, here."""
        tcp.Port.connectionLost(self, reason)

    def __str__(self) -> str:
        return f"unix:{self.socket.getsockname()}"

    def loseConnection(self, *args: Any) -> Any:
        """Stop listening."""
        self._end_pause()
        return unix.Port.loseConnection(self, *args)

    stopListening = loseConnection


def listen_on(
    reactor: Any,
    sock: socket.socket,
    factory: Any,
    room: DescriptorRoom,
    *,
    contexts: ServerContexts | None = None,
    privileged: bool = False,
    proxied: ProxyRules | None = None,
) -> IListeningPort:
    """Serve a listening socket.

    Args:
        reactor: the reactor (IReactorSocket, IReactorTime).
        sock: a listening, non-blocking socket; a duplicate is served, the caller closes its own.
        factory: makes the protocols (IProtocolFactory).
        room: what the ports of this process share.
        contexts: TLS for this listener, or None for plain connections.
        privileged: whether it goes on accepting with the descriptors held back (Admin and Status).
        proxied: each connection begins with a PROXY header, before TLS; None: none does.

    Returns:
        the port; its ``stopListening`` closes the duplicate.
    """
    tells = getattr(factory, "takes_proxied_peers", False)
    if contexts is not None:
        protocol = getattr(factory, "tls_protocol", TLSMemoryBIOFactory.protocol)
        factory = TLSMemoryBIOFactory(contexts, False, factory)
        factory.protocol = protocol
    if proxied is not None:
        factory = ProxiedFactory(reactor, factory, proxied, tells)
    # The same private constructors that IReactorSocket.adoptStreamPort uses; it has no way to name another class.
    port: Any
    if sock.family == socket.AF_UNIX:
        adopt_unix: Any = _UnixPort._fromListeningDescriptor
        port = adopt_unix(reactor, sock.fileno(), factory)
        port.mode = stat.S_IMODE(os.stat(sock.getsockname()).st_mode)  # startListening sets it anew
    else:
        adopt: Any = _TCPPort._fromListeningDescriptor
        port = adopt(reactor, sock.fileno(), sock.family, factory)
    port.room = room
    port.backlog = BACKLOG  # Twisted's unix port sets it anew
    port.privileged = privileged
    port.startListening()
    result: IListeningPort = port
    return result
