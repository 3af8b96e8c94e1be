"""One request's tries: which target is asked, how its connection comes about, and what happens when a try fails.

When a try may be repeated (Kong 3.9: nginx ``proxy_next_upstream error timeout``): not one byte of an answer has come,
good or bad; the body, if any, is kept whole; and the method is idempotent or nothing was sent. A pooled connection that
turns out dead before its first byte does not count as a try. docs/upstreams.md is the whole list.

The target a request counts on is the exchange's (`Exchange.hold`): the end of the exchange lets it go, so no way out of
here can forget it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.error_lines import request_line
from ..core.exchange import Answer
from ..core.grpc.grpc_text import is_grpc
from ..core.health import TCP_FAILURE, TIMEOUT
from ..core.http.headers import host_name
from ..core.peer import host_field
from ..net.resolver import NameNotResolved
from ..upstream.client_tls import BadServerName, facts_of
from ..upstream.upstream_errors import (
    Destination,
    Reason,
    connect_reason,
    no_answer,
    no_peer,
    not_resolved,
    own_certificate_reason,
    timed_out,
    where,
)  # fmt: skip
from .finish import ends_request
from .forwarding_states import AT_ONCE, HELD, OVER, PASSING, SENT, Answering, Sending
from .try_notes import note_choice, note_failure, note_lookup

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from ..core.names import Address
    from ..core.peer import Peer
    from ..core.views import RouteView
    from ..upstream.client_tls import TLSFacts
    from ..upstream.connection import UpstreamConnection, UpstreamUser
    from ..upstream.pool import Attempt, Pool
    from .context import ProxyContext
    from .filtered_answer import FilteredAnswer

__all__ = ["Tries"]

_log = Logger(namespace="kongtwist.proxy")

_NOT_REPEATED = frozenset((b"POST", b"PATCH", b"LOCK"))
"""Methods nginx does not send twice (``proxy_next_upstream`` without ``non_idempotent``)."""

_NOBODY: frozenset[Peer] = frozenset()


class Tries:
    """Finds a target and a connection to it for `forwarding.UpstreamExchange`, again and again while that is of use.

    The subclass is the connection's user (`upstream.connection.UpstreamUser`). It sets all attributes at once: an exchange is made
    for every request.

    Attributes:
        context: what the gateway's data path is made of.
        exchange: the client's half.
        route: its route.
        method: its method.
        read_timeout: seconds between two pieces of an answer.
    """

    __slots__ = (
        "_answer", "_attempt", "_connection", "_filtered", "_kept", "_lookup", "_port", "_request", "_started", "_tried", "_tries",
        "context", "exchange", "method", "read_timeout", "route",
    )  # fmt: skip

    context: ProxyContext
    exchange: Exchange
    route: RouteView
    method: bytes
    read_timeout: float
    _answer: Answering
    _request: Sending
    _attempt: Attempt | None  #: a connection being made
    _connection: UpstreamConnection | None
    _lookup: Deferred[Address] | None
    _port: int  #: of an SRV record, in place of the one that is configured; 0: none
    _filtered: FilteredAnswer | None  #: passes an answer through plugins
    _kept: list[bytes] | None  #: what went up of the body, for another try; None: too much, or there is none
    _started: float  #: monotonic seconds
    _tried: set[Peer] | None  #: targets that failed
    _tries: int  #: left

    # -- what the subclass does ------------------------------------------------------------------------------------

    def connected(self, connection: UpstreamConnection) -> None:
        """There is a connection: send the request."""
        raise NotImplementedError

    def _drop(self, why: str = "cut") -> None:
        """Stop whatever is going on."""
        raise NotImplementedError

    # -- a target and a connection ---------------------------------------------------------------------------------

    @property
    def _whole(self) -> bool:
        """Whether nothing of the client's request is still to come."""
        return self._request in (AT_ONCE, SENT)

    @property
    def _peer(self) -> Peer | None:
        """The target of this try, if a balancer chose it."""
        return self.exchange.upstream_peer

    def _choose(self) -> None:
        """Pick a target and find its address."""
        route = self.route
        if route.chain.traced:
            note_choice(self.exchange, self.context.wall)
        host = route.host
        balancer = route.balancer
        if balancer is not None:
            peer = balancer.pick(self.exchange, self._tried or _NOBODY)
            if peer is None:
                self._log_error(*no_peer(route, len(self._tried or ())))
                self._refuse(503, "failure to get a peer from the ring-balancer")
                return
            self.exchange.hold(peer)
            host = peer.address
        try:
            place = self.context.resolver.place(host, self._tries == route.retries - 1)
        except NameNotResolved as why:
            self._not_resolved(why)
            return
        if place is None:
            lookup = self._lookup = self.context.resolver.find(host)
            if route.chain.traced:
                peer = self._peer
                note_lookup(self.exchange, host, route.port if peer is None else peer.port, lookup, self.context.wall)
            answered = lookup.addCallbacks(self._resolved, self._unresolved)
            answered.addErrback(lambda why: self.context.fault(self.exchange, why))  # type: ignore[unused-awaitable]
        else:
            self._port = place.port or 0
            self._connect(place.ip)

    def _resolved(self, place: Address) -> None:
        self._lookup = None
        self._port = place.port or 0
        self._connect(place.ip)

    def _unresolved(self, failure: Failure) -> None:
        self._lookup = None
        if not failure.check(CancelledError):  # cancelled: the client went, nobody is left to tell
            failure.trap(NameNotResolved)
            self._not_resolved(cast("NameNotResolved", failure.value))

    def _not_resolved(self, why: NameNotResolved) -> None:
        """A name has no address (503), or nobody can say whether it has one (500)."""
        self._log_error(*not_resolved(self.route, self._peer, why.detail))
        if why.absent:
            self._refuse(503, "name resolution failed")
        else:
            self._refuse(500, f"failed the initial dns/balancer resolve for '{why.name}' with: {why.why}")

    def _connect(self, address: str, fresh: bool = False) -> None:
        route, peer = self.route, self._peer
        tls = None
        if route.tls is not None:
            name = host_name(self._host_field()).decode("latin-1").strip("[]")
            tls = facts_of(route.tls, name, self.context.tls_defaults, self._protocols)
        pool = self._pool(address, self._port or (route.port if peer is None else peer.port), tls)
        connection = None if fresh else pool.take()
        if connection is not None:
            self.connected(connection)
            return
        try:
            self._attempt = pool.connect(cast("UpstreamUser", self), route.connect_timeout)
        except SSL.Error:
            # Trying again would not make it any better.
            self._log_error(*no_answer(route, self._peer, own_certificate_reason(Failure())), pool)
            self._bad_answer()
        except BadServerName as why:
            self._log_error(str(why), "", pool)
            self._bad_answer()

    @property
    def _protocols(self) -> bytes:
        """What is asked for in TLS (ALPN)."""
        return b"http/1.1"

    def _pool(self, address: str, port: int, tls: TLSFacts | None) -> Pool:
        """The pool for one address."""
        return self.context.pools.get(address, port, tls)

    def _host_field(self) -> bytes:
        """The Host header of this try."""
        route, changes = self.route, self.exchange.request_changes
        if changes is not None and (changed := changes.get(b"host")):
            return changed
        if route.preserve_host and self.exchange.block.host is not None:
            return self.exchange.block.host
        if self._peer is not None:
            return self._peer.host_field(route.secure)
        if self._port and route.host_header == host_field(
            route.host, route.port, route.secure
        ):  # no plugin gave another
            return host_field(route.host, self._port, route.secure)
        return route.host_header

    # -- tries that fail -----------------------------------------------------------------------------------------------

    @ends_request
    def connect_failed(self, reason: Failure) -> None:
        attempt, self._attempt = self._attempt, None
        self._connection = None
        if self._answer is not OVER:
            timeout = reason.check(error.TimeoutError, error.TCPTimedOutError, TimeoutError) is not None
            pool = None if attempt is None else attempt.pool
            self._failed(connect_reason(reason, pool), timeout=timeout, sent=False, pool=pool)

    def _failed(
        self,
        reason: Reason,
        *,
        timeout: bool = False,
        sent: bool = True,
        heard: bool = False,
        pool: Destination | None = None,
    ) -> None:
        """A try failed: another one, or the end.

        Args:
            reason: what is known about it.
            timeout: the upstream was silent for too long.
            sent: something may have been sent on it.
            heard: something came back, good or bad.
            pool: of its connection; None where it never came to one.
        """
        now = self.context.monotonic()
        self.exchange.latencies = (self._started - self.exchange.started, now - self._started)
        self._connection = None
        route, peer = self.route, self._peer
        if route.chain.logs or self.context.notes:
            note_failure(self.exchange, pool, timeout, self.context.wall)
        if peer is not None:
            if self._tried is None:
                self._tried = set()
            self._tried.add(peer)
            if peer.checks is not None:
                self.context.judge(peer, TIMEOUT if timeout else TCP_FAILURE)
            self.exchange.let_go()
        if timeout:
            what, remedy = timed_out(route, sent, self._whole, self.read_timeout)
        else:
            what, remedy = no_answer(route, peer, reason)
        upstream = where(route, peer, pool)
        if self._tries > 0 and not heard and self._may_repeat(sent):
            self._tries -= 1
            if peer is not None:  # with one target only, the last try tells as much
                _log.warn(
                    "{line}",
                    line=request_line(
                        self.exchange, f"{what}, trying again", remedy, upstream=upstream, stream=self._stream_kind()
                    ),
                )
            self._hold_request()
            self._choose()
            return
        if route.retries > self._tries:
            what = f"{what} ({route.retries - self._tries + 1} tries)"
        self._tell(what, remedy, upstream)
        if timeout:
            self._refuse(504, "The upstream server is timing out", upstream=True)
        else:
            self._bad_answer()

    def _may_repeat(self, sent: bool) -> bool:
        """Whether the request may be sent once more, nothing having been heard of the one before."""
        if sent and self.method in _NOT_REPEATED:
            return False
        return self._request is AT_ONCE or self._kept is not None

    def _hold_request(self) -> None:
        """Until there is a connection again, the client need not send more."""
        if self._request is PASSING:
            self._request = HELD
            self.exchange.pause_request()

    def _bad_answer(self) -> None:
        self._refuse(502, "An invalid response was received from the upstream server", upstream=True)

    def _refuse(self, status: int, message: str, upstream: bool = False) -> None:
        """Answer with an error of our own."""
        self._drop()
        held = self._filtered is not None  # an answer has been before, which plugins looked at
        answer = Answer.error(status, message)
        self.context.send_answer(self.exchange, answer, upstream=upstream, filtered=held, as_is=held)

    def _log_error(self, what: str, remedy: str, pool: Destination | None = None) -> None:
        upstream = where(self.route, self._peer, pool)
        self._tell(what, remedy, upstream)

    def _tell(self, what: str, remedy: str, upstream: str) -> None:
        """Write the one line about what became of the request."""
        line = request_line(self.exchange, what, remedy, upstream=upstream, stream=self._stream_kind())
        _log.error("{line}", line=line)

    def _stream_kind(self) -> str:
        """What kind of stream it is, for who looks for those in the log; nothing for other requests."""
        return "grpc" if is_grpc(self.exchange.block.first(b"content-type")) else ""
