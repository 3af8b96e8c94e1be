"""Probes of upstreams' targets: one connection each, over as soon as it is known what to report (`core.health`).

http(s) and tcp run in the reactor. grpc(s) asks gRPC's health service (``grpc.health.v1.Health/Check``, gRPC's health checking
protocol) by gRPC's own library, whose calls block: in a bounded pool of threads.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from ..core.chain.host import ConnectFailed, GRPCFailed, GRPCTarget, TLSSettings
from ..core.grpc.grpc_status import DEADLINE_EXCEEDED, UNAVAILABLE
from ..core.health import BAD_STATUS, SUCCESS, TCP_FAILURE, TIMEOUT, ActiveChecks
from ..core.peer import Peer, split_target
from ..net.resolver import NameNotResolved, Resolver
from ..net.run_steps import run_steps
from ..net.work_thread import DaemonThreads
from .connections import Connector, Link
from .grpc_channels import Channel, library
from .grpc_tls import TLSBridge
from .threads import Threads, ThreadsBusy
from .tls import Trust
from .waiting import within

__all__ = ["Finding", "ProbeLimits", "Prober"]

_STATUS_LINE = re.compile(rb"HTTP/\d+\.\d+ +(\d{3})(?: |\r|$)")
_LONGEST_LINE = 8192
"""Bytes of a status line; a longer one is a bad one."""
_SERVING = 1
"""``HealthCheckResponse.ServingStatus.SERVING``."""
_MESSAGE_SIZE = 65536
"""Bytes of the largest answer of a health service."""


class ProbeLimits(NamedTuple):
    """Bounds of all probes of a node."""

    at_once: int = 256  #: probes under way
    threads: int = 10  #: of these, calls of gRPC's health service


class Finding(NamedTuple):
    """What a probe found out."""

    kind: int | None  #: `core.health.SUCCESS` and so on; None: nothing that counts
    why: str  #: in a few words


class _Late(Exception):
    """The time of a probe is over."""


class _StatusLine(Link):
    """Sends a request and takes the first line of what comes."""

    def __init__(self, request: bytes) -> None:
        super().__init__()
        self._request = request
        self._came = b""
        self.line: Deferred[bytes] = Deferred()

    def opened(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if self.line.called:
            return
        self._came += data
        if b"\n" in self._came or len(self._came) > _LONGEST_LINE:
            self.line.callback(self._came.partition(b"\n")[0])
            self.abort()

    def lost(self, reason: Failure) -> None:
        if not self.line.called:
            self.line.errback(Failure(ConnectionClosed("the connection was closed before an answer")))


class Prober:
    """Probes targets.

    Args:
        reactor: connects and keeps time.
        resolver: looks names up, for these probes alone.
        trust: whom probes over TLS trust.
        limits: bounds of all probes.
    """

    def __init__(self, reactor: Any, resolver: Resolver, trust: Trust, limits: ProbeLimits) -> None:
        self._reactor, self._resolver = reactor, resolver
        self._connector = Connector(reactor, resolver, trust)
        self._threads = Threads(
            reactor, limits.threads, limits.at_once, DaemonThreads(0, limits.threads, "kongtwist-probes")
        )
        self._room = DeferredSemaphore(limits.at_once)

    async def probe(self, peer: Peer, checks: ActiveChecks, certificate: tuple[str, str] = ("", "")) -> Finding:
        """Probe a target once. Cancelling ends the probe's connection.

        Args:
            peer: the target.
            checks: how.
            certificate: PEM of the certificate that is shown in TLS, and of its key.
        """
        await self._room.acquire()
        try:
            return await self._probe(peer, checks, certificate)
        except _Late:
            return Finding(TIMEOUT, f"no answer within {checks.timeout:g} s")
        finally:
            self._room.release()

    async def close(self, seconds: float) -> None:
        """End all connections; threads have ``seconds``."""
        run_steps(self._connector.close, self._resolver.close)
        await self._threads.close(seconds)

    async def _probe(self, peer: Peer, checks: ActiveChecks, certificate: tuple[str, str]) -> Finding:
        try:
            address = self._resolver.known(peer.address) or await self._resolver.lookup(peer.address)
        except NameNotResolved:
            return Finding(None, "its name has no address")
        tls = _tls(peer, checks, certificate) if checks.type in ("https", "grpcs") else None
        timeout = checks.timeout or _AT_ONCE
        if checks.type in ("grpc", "grpcs"):
            return await within(self._reactor, timeout, self._call(peer, address, checks, tls), _Late)
        return await within(self._reactor, timeout, self._ask(peer, address, checks, tls), _Late)

    # -- http, https, tcp ----------------------------------------------------------------------------------------------

    async def _ask(self, peer: Peer, address: str, checks: ActiveChecks, tls: TLSSettings | None) -> Finding:
        link = Link() if checks.type == "tcp" else _StatusLine(_request(peer, checks))
        try:
            await self._connector.open(address, peer.port, link, tls=tls, timeout=checks.timeout + 1.0)
            if not isinstance(link, _StatusLine):
                return Finding(SUCCESS, "connected")
            line = await link.line
        except (ConnectFailed, ConnectionClosed) as error:
            return Finding(TCP_FAILURE, str(error))
        finally:
            link.abort()
        found = _STATUS_LINE.match(line)
        status = int(found[1]) if found else 0
        return Finding(checks.kinds.get(status), f"status {status}" if status else "no good status line")

    # -- grpc, grpcs ---------------------------------------------------------------------------------------------------

    async def _call(self, peer: Peer, address: str, checks: ActiveChecks, tls: TLSSettings | None) -> Finding:
        authority = peer.host_field(tls is not None).decode()
        target = GRPCTarget(address, peer.port, authority, tls, checks.timeout or _AT_ONCE)
        if tls is not None:
            bridge = TLSBridge(self._reactor, self._connector, target)
            channel = Channel(target, bridge.address, bridge, _MESSAGE_SIZE)
        else:
            where = f"ipv6:[{address}]" if ":" in address else f"ipv4:{address}"
            channel = Channel(target, f"{where}:{peer.port}", None, _MESSAGE_SIZE)
        try:
            return await self._threads.run(_check, channel, checks)
        except ThreadsBusy as busy:
            return Finding(None, str(busy))
        finally:
            channel.close()


_AT_ONCE = 0.001
"""Seconds of a time-out of 0."""


def _check(channel: Channel, checks: ActiveChecks) -> Finding:
    """Ask the health service; in a thread."""
    grpc = library()
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    metadata = tuple((name.lower(), value) for name, value in checks.headers)
    request = health_pb2.HealthCheckRequest(service=checks.path.strip("/"))
    try:
        stub = health_pb2_grpc.HealthStub(channel.open())
        answer = stub.Check(request, timeout=checks.timeout or _AT_ONCE, metadata=metadata)
    except GRPCFailed as error:
        return Finding(None, str(error))
    except grpc.RpcError as error:
        code, text = error.code(), channel.fault or error.details()
        if code.value[0] == DEADLINE_EXCEEDED:
            return Finding(TIMEOUT, f"no answer within {checks.timeout:g} s")
        return Finding(TCP_FAILURE if code.value[0] == UNAVAILABLE else BAD_STATUS, f"{code.name}: {text}")
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return Finding(SUCCESS if answer.status == _SERVING else BAD_STATUS, name)


def _request(peer: Peer, checks: ActiveChecks) -> bytes:
    """A GET that asks for the end of the connection behind its answer."""
    lines = [f"GET {checks.path} HTTP/1.1", *(f"{name}: {value}" for name, value in checks.headers)]
    return "\r\n".join([*lines, f"Host: {peer.host_header}", "Connection: close", "", ""]).encode()


def _tls(peer: Peer, checks: ActiveChecks, certificate: tuple[str, str]) -> TLSSettings:
    name = checks.sni or split_target(peer.host_header)[0]
    protocols = ("h2",) if checks.type == "grpcs" else ()
    return TLSSettings(
        verify=checks.verify, server_name=name, certificate=certificate[0], key=certificate[1], protocols=protocols
    )
