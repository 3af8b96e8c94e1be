"""One session's tries: which target is connected to, and what happens when that fails.

A try may be repeated, as often as the Service's ``retries`` say, while there is no connection: nothing of the session has gone anywhere
by then. Failures are told to passive health checks (Kong 3.9, stream subsystem).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.error_lines import request_line, row_name, upstream_name
from ..core.health import SUCCESS, TCP_FAILURE, TIMEOUT
from ..core.peer import split_target
from ..net.resolver import NameNotResolved
from ..upstream.client_tls import BadServerName, facts_of
from ..upstream.session_connector import SessionAttempt, SessionTarget
from ..upstream.upstream_errors import (
    Reason,
    connect_reason,
    no_answer,
    no_peer,
    not_resolved,
    own_certificate_reason,
    timed_out,
    where,
)
from .try_notes import note_failure, note_try

if TYPE_CHECKING:
    from ..core.names import Address
    from ..core.peer import Peer
    from ..core.stream_session import StreamSession
    from .context import ProxyContext

__all__ = ["SessionTries", "TriesUser", "log"]

log = Logger(namespace="kongtwist.stream")
"""What sessions tell, which may go to a log of its own (``proxy_stream_error_log``)."""


class TriesUser(Protocol):
    """Whose session it is; one of the two is called, once."""

    def upstream_ready(self, transport: Any) -> None:
        """There is a connection, whose protocol is to be changed at once; for datagrams, None: the address is known."""

    def upstream_refused(self, status: int) -> None:
        """There is none; the log says why."""


class SessionTries:
    """Finds a target and a connection to it.

    Args:
        context: the gateway's facilities.
        session: its route is known.
        user: told what comes of it.

    Attributes:
        target: where the last try went.
    """

    __slots__ = ("_attempt", "_context", "_left", "_lookup", "_started", "_tried", "_user", "session", "target")

    def __init__(self, context: ProxyContext, session: StreamSession, user: TriesUser) -> None:
        self._context, self.session = context, session
        self._user: TriesUser | None = user
        self._left: int = session.route.retries
        self._tried: set[Peer] = set()
        self._attempt: SessionAttempt | None = None
        self._lookup: Deferred[Address] | None = None
        self._started = context.monotonic()
        self.target: SessionTarget | None = None

    def start(self) -> None:
        """Begin."""
        route = self.session.route
        if route.service is None:
            self._refuse(503, "no Service found with those values", "give the route a service")
            return
        self._choose()

    def cancel(self) -> None:
        """The client is gone: nobody wants a connection any more."""
        self._user = None
        attempt, self._attempt = self._attempt, None
        lookup, self._lookup = self._lookup, None
        if attempt is not None:
            attempt.cancel()
        if lookup is not None:
            lookup.cancel()

    # -- a target ------------------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        route, session = self.session.route, self.session
        host = route.host
        if route.balancer is not None:
            peer = route.balancer.pick(session, self._tried)
            if peer is None:
                self._refuse(503, *no_peer(route, len(self._tried)))
                return
            session.hold(peer)
            host = peer.address
        try:
            place = self._context.resolver.place(host)
        except NameNotResolved as why:
            self._unresolved(why)
            return
        if place is not None:
            self._connect(place)
            return
        lookup = self._lookup = self._context.resolver.find(host)
        found = lookup.addCallbacks(self._connect, self._not_found)
        found.addErrback(self._fault)  # type: ignore[unused-awaitable]

    def _not_found(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            failure.trap(NameNotResolved)
            self._unresolved(cast("NameNotResolved", failure.value))

    def _fault(self, failure: Failure) -> None:
        log.failure("{line}", failure, line=request_line(self.session, "serving failed"))
        self._end(500)

    def _unresolved(self, why: NameNotResolved) -> None:
        """A name has no address (503), or nobody can say whether it has one (500)."""
        told = not_resolved(self.session.route, self.session.upstream_peer, why.detail)
        self._refuse(503 if why.absent else 500, *told)

    # -- a connection --------------------------------------------------------------------------------------------------

    def _connect(self, place: Address) -> None:
        self._lookup = None
        address = place.ip
        session, route = self.session, self.session.route
        peer = session.upstream_peer
        tls = None
        if route.tls is not None:
            name = route.host if peer is None else split_target(peer.host_header)[0]
            tls = facts_of(route.tls, name, self._context.tls_defaults, b"")
        target = self.target = SessionTarget(address, place.port or (route.port if peer is None else peer.port), tls)
        session.upstream_address = upstream_name(address, target.port)
        if session.protocol == "udp":
            self._done(None)
            return
        try:
            self._attempt = SessionAttempt(self._context, self, target, route.connect_timeout)
        except SSL.Error:
            self._refuse(502, *no_answer(route, peer, own_certificate_reason(Failure())))
        except BadServerName as why:
            self._refuse(502, str(why), f"correct host of service {row_name(route.service)}")

    def upstream_connected(self, transport: Any) -> None:
        self._attempt = None
        session = self.session
        if session.route.chain.logs and self.target is not None:
            note_try(session, self.target, self._context.wall)
        peer = session.upstream_peer
        if peer is not None and peer.checks is not None:
            self._context.judge(peer, SUCCESS)
        self._done(transport)

    def _done(self, transport: Any) -> None:
        now = self._context.monotonic()
        self.session.latencies = (self._started - self.session.started, now - self._started)
        user, self._user = self._user, None
        if user is not None:
            user.upstream_ready(transport)

    def upstream_failed(self, reason: Failure) -> None:
        self._attempt = None
        timeout = reason.check(error.TimeoutError, error.TCPTimedOutError, TimeoutError) is not None
        self.failed(connect_reason(reason, self.target), timeout)

    def failed(self, reason: Reason, timeout: bool) -> None:
        """A try failed: another one, or the end."""
        session, route, peer = self.session, self.session.route, self.session.upstream_peer
        if route.chain.logs:
            note_failure(session, self.target, timeout, self._context.wall)
        if peer is not None:
            self._tried.add(peer)
            if peer.checks is not None:
                self._context.judge(peer, TIMEOUT if timeout else TCP_FAILURE)
            session.let_go()
        what, remedy = timed_out(route, False, False, 0.0) if timeout else no_answer(route, peer, reason)
        upstream = where(route, peer, self.target)
        if self._left > 0 and self._user is not None:
            self._left -= 1
            if peer is not None:  # with one target only, the last try tells as much
                log.warn("{line}", line=request_line(session, f"{what}, trying again", remedy, upstream=upstream))
            self._choose()
            return
        if route.retries:
            what = f"{what} ({route.retries - self._left + 1} tries)"
        log.error("{line}", line=request_line(session, what, remedy, upstream=upstream))
        self._end(502)

    def _refuse(self, status: int, what: str, remedy: str = "") -> None:
        route = self.session.route
        upstream = "" if route.service is None else where(route, self.session.upstream_peer, self.target)
        log.error("{line}", line=request_line(self.session, what, remedy, upstream=upstream))
        self._end(status)

    def _end(self, status: int) -> None:
        user, self._user = self._user, None
        if user is not None:
            user.upstream_refused(status)
