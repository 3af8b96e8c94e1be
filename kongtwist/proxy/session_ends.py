"""How sessions of stream routes begin and end, whatever carries them: what they are made of, their plugins, their log lines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.python.failure import Failure

from ..core.answers import Answer
from ..core.counters import SESSIONS
from ..core.error_lines import error_line, request_line
from ..core.stream_session import SessionFacts, StreamSession
from ..net.run_steps import run_steps
from .session_upstream import log

if TYPE_CHECKING:
    from ..core.snapshot.snapshot import Snapshot
    from ..streams.stream_errors import StreamFault
    from .context import ProxyContext

__all__ = ["NoSessionLog", "PluginsWait", "SessionDoor", "SessionLogging", "plain_address", "session_facts"]


class SessionLogging(Protocol):
    """The access log of sessions (`observability.session_log.SessionLog`)."""

    enabled: bool

    def log(self, exchange: Any) -> None: ...


class NoSessionLog:
    """``proxy_stream_access_log = off``."""

    enabled = False

    def log(self, exchange: Any) -> None:
        """Nothing."""


def plain_address(text: str) -> str:
    """An address as routes and plugins compare it: an IPv4 client of a dual-stack listener has its IPv4 address, and a zone goes."""
    if ":" not in text:
        return text
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)


def session_facts(protocol: str, peer: Any, here: Any, sni: str | None = None) -> SessionFacts:
    """What a connection's route is chosen by.

    Args:
        protocol: see `SessionFacts`.
        peer, here: of the transport (IAddress); those of unix sockets have no host.
        sni: the server that is asked for in TLS.
    """
    return SessionFacts(protocol, _place(peer), _place(here), sni)


def _place(address: Any) -> tuple[str, int]:
    """Address and port of an end."""
    return plain_address(getattr(address, "host", "") or "unix:"), getattr(address, "port", 0)


class SessionDoor:
    """Begins and ends the sessions of one listener.

    Args:
        context: the gateway's facilities.
        snapshot: gives the configuration of the moment; None: there is none yet.
        kind: of the listener (`compiled_route.SESSION_KINDS`).
        access_log: where sessions that are over are written.
    """

    def __init__(
        self,
        context: ProxyContext,
        snapshot: Callable[[], Snapshot | None],
        kind: str,
        access_log: SessionLogging | None = None,
    ) -> None:
        self.context, self.kind = context, kind
        self._snapshot = snapshot
        self._access_log: SessionLogging = access_log or NoSessionLog()

    def begin(self, facts: SessionFacts) -> StreamSession | None:
        """A session, with its route where there is one; None where there is no configuration yet: close, nothing is to be logged."""
        context = self.context
        snapshot = self._snapshot()
        if snapshot is None:
            remedy = (
                "see the node's own lines in the log: it waits for its database, control plane or declarative_config"
            )
            line = error_line("there is no configuration yet, the connection is closed", remedy, client=facts.source[0])
            log.error("{line}", line=line)
            return None
        session = StreamSession(facts, context.host, context.next_id(), context.monotonic())
        session.snapshot = snapshot
        context.cells[SESSIONS] += 1
        return session

    def find(self, session: StreamSession) -> bool:
        """Set the route of a session; False, and a line in the log: there is none."""
        snapshot: Any = session.snapshot
        route = snapshot.session_routers[self.kind].route_of(session.facts, session.report)
        if route is None:
            facts = session.facts
            where = f"{facts.destination[0]}:{facts.destination[1]}"
            sni = "" if facts.sni is None else f", which asks for {facts.sni}"
            what = f"no Route found with those values: {self.kind} at {where}{sni}"
            remedy = "add a route whose sources, destinations and snis fit, or have clients go elsewhere"
            log.error("{line}", line=request_line(session, what, remedy))
            return False
        session.route = route
        protocols = route.protocols
        if self.kind == "tls":
            session.protocol = "tls" if "tls" in protocols else "tls_passthrough"
        return True

    def finish(self, session: StreamSession, status: int, fault: StreamFault | None = None) -> None:
        """A session is over, whatever became of it: its target is let go, log phase, access log. Called once."""
        session.status = status
        session.lasted = self.context.monotonic() - session.started
        if session.latencies is None:
            session.latencies = (session.lasted, -1.0)
        if fault is not None:
            line = request_line(session, fault.what, fault.remedy, upstream=session.upstream_address)
            if fault.by_client:
                log.info("{line}", line=line, kong_level="notice")
            else:
                log.error("{line}", line=line)
        run_steps(session.let_go, partial(self._log, session), session.release)

    def _log(self, session: StreamSession) -> None:
        snapshot: Any = session.snapshot
        chain = session.route.chain if session.route is not None else snapshot.session_chain
        if chain.logs:
            chain.run_log(session)
        if self._access_log.enabled:
            self._access_log.log(session)


class PluginsWait:
    """Runs the preread phase of a session.

    Args:
        session: its route is known.
        go_on: called with None when plugins let it pass, or with their answer; never behind `cancel`. At once where none waits.
    """

    __slots__ = ("_deferred", "_go_on", "_session")

    def __init__(self, session: StreamSession, go_on: Callable[[Answer | None], None]) -> None:
        self._session, self._go_on = session, go_on
        self._deferred: Deferred[Answer | None] | None = None

    def start(self) -> None:
        """Run them."""
        chain: Any = self._session.route.chain
        outcome = None if chain.empty else chain.run_preread(self._session)
        if outcome is None or isinstance(outcome, Answer):
            self._go_on(outcome)
            return
        self._deferred = ensureDeferred(outcome)
        self._deferred.addCallbacks(self._decided, self._failed)  # type: ignore[unused-awaitable]

    def cancel(self) -> None:
        """The client is gone."""
        self._go_on = _nobody
        if self._deferred is not None:
            self._deferred.cancel()

    def _decided(self, answer: Answer | None) -> None:
        try:
            self._go_on(answer)
        except Exception:  # noqa: BLE001 - nobody else would end the session
            self._fault(Failure())

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._fault(failure)

    def _fault(self, failure: Failure) -> None:
        log.failure("{line}", failure, line=request_line(self._session, "serving failed"))
        self._go_on(Answer.error(500, "An unexpected error occurred"))


def _nobody(answer: Answer | None) -> None:
    """The client is gone."""


def answer_body(session: StreamSession, answer: Answer) -> bytes:
    """What a client is sent of a plugin's answer: its body below 400; else nothing, and the log is told (Kong 3.9)."""
    if answer.status < 400:
        return answer.body or b""
    said = answer.message or ""
    what = f"unable to proxy stream connection, status: {answer.status}" + (f", err: {said}" if said else "")
    log.error("{line}", line=request_line(session, what, "see which of the route's plugins ends it, and why"))
    return b""
