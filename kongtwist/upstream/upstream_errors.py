"""What the error log is told when an upstream does not answer: what happened, where, and what to do about it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet import error
from twisted.python.failure import Failure

from ..core.error_lines import row_name, seconds_text, upstream_name

if TYPE_CHECKING:
    from ..core.balancing.balancer import Peer
    from ..core.views import RouteView
    from .client_tls import TLSFacts

__all__ = [
    "ENDED",
    "LARGE",
    "MALFORMED",
    "NAME",
    "OURS",
    "TLS",
    "UNREACHABLE",
    "UNTRUSTED",
    "Destination",
    "NoHTTP2",
    "Reason",
    "broken_off",
    "connect_reason",
    "end_text",
    "no_answer",
    "no_peer",
    "not_resolved",
    "own_certificate_reason",
    "timed_out",
    "where",
]  # fmt: skip

UNREACHABLE = "unreachable"
"""There was no connection."""
TLS = "tls"
"""The TLS handshake failed."""
UNTRUSTED = "untrusted"
"""Nobody we trust has signed the upstream's certificate."""
NAME = "name"
"""The upstream's certificate is one for another name."""
OURS = "ours"
"""The certificate that we are to show cannot be used."""
ENDED = "ended"
"""The connection was there, and ended."""
MALFORMED = "malformed"
"""What came is no HTTP."""
LARGE = "large"
"""The head of the answer is larger than it may be."""


class NoHTTP2(ValueError):
    """The upstream does not speak HTTP/2."""


class Destination(Protocol):
    """Where a connection was to go (`pool.Pool`)."""

    @property
    def address(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def tls(self) -> TLSFacts | None: ...


class Reason(NamedTuple):
    """Why an upstream did not answer.

    Attributes:
        text: what the system, OpenSSL or the parser says.
        fault: which kind of fault it is, for the remedy: one of the constants of this module.
    """

    text: str
    fault: str


def connect_reason(failure: Failure, pool: Destination | None) -> Reason:
    """Why there is no connection. Twisted wraps the failure of one that ended while it was made into another.

    Args:
        failure: what came of the try.
        pool: whose connection it was to be; None where it never came to one.
    """
    inner = next((each for each in getattr(failure.value, "args", ()) if isinstance(each, Failure)), None)
    if inner is not None:
        return connect_reason(inner, pool)
    tls = None if pool is None else pool.tls
    if tls is not None and failure.check(VerificationError):
        return Reason(f"its certificate is not one for {tls.name}", NAME)
    if tls is not None and failure.check(CertificateError):
        return Reason(f"its certificate is of no use: {failure.getErrorMessage()}", NAME)
    text = end_text(failure)
    if failure.check(NoHTTP2):
        return Reason(text, MALFORMED)
    if failure.check(SSL.Error) or (tls is not None and failure.check(error.ConnectionDone, error.ConnectionLost)):
        fault = UNTRUSTED if "certificate verify failed" in text else TLS
        return Reason(f"the TLS handshake failed: {text}", fault)
    return Reason(text, UNREACHABLE)


def own_certificate_reason(failure: Failure) -> Reason:
    """Why no connection was tried: the Service's own certificate cannot be used."""
    return Reason(f"the client certificate cannot be used: {end_text(failure)}", OURS)


def end_text(failure: Failure) -> str:
    """Why a connection ended or was not made, in the words of the system where it has some."""
    value: Any = failure.value
    if failure.check(error.ConnectionDone):
        return "it closed the connection"
    if failure.check(error.ConnectionLost):
        return "the connection was reset or lost"
    number = getattr(value, "osError", None)
    if failure.check(error.ConnectError) and isinstance(number, int):
        return os.strerror(number)
    if failure.check(SSL.Error):
        return _openssl_text(value)
    return failure.getErrorMessage().rstrip(".")


def _openssl_text(fault: SSL.Error) -> str:
    """What OpenSSL says, without the places in its source."""
    found: Any = fault.args[0] if len(fault.args) == 1 else fault.args[-1:]
    entries = found if isinstance(found, (list, tuple)) else [found]
    texts = [str(each[-1] if isinstance(each, tuple) and each else each) for each in entries]
    return ", ".join(text for text in texts if text) or "it closed the connection"


def where(route: RouteView, peer: Peer | None, pool: Destination | None) -> str:
    """Where a try went.

    Args:
        route: of the request.
        peer: the target, if a balancer chose one.
        pool: what its connection was taken from; None where it never came to one.
    """
    host, port = (route.host, route.port) if peer is None else (peer.host, peer.port)
    return upstream_name(host, port, "" if pool is None else pool.address)


def no_peer(route: RouteView, tried: int) -> tuple[str, str]:
    """What happened, and what to do: a balancer has nobody to choose.

    Args:
        route: of the request.
        tried: targets that failed for this request.
    """
    what = f"no target of upstream {route.host} can be chosen" + (f", {tried} failed" if tried else "")
    balancer = route.balancer
    if balancer is not None and balancer.held_back:
        return f"{what}: too little of the weight is healthy", "lower healthchecks.threshold, or mark targets healthy"
    if balancer is not None and (lost := balancer.lost):
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        return f"{what}: no address for {lost[0]}{more}", "see whether this machine resolves it, or correct the target"
    return what, "add targets with a weight above 0, or mark one healthy"


def not_resolved(route: RouteView, peer: Peer | None, detail: str) -> tuple[str, str]:
    """What happened, and what to do: a host name has no address.

    Args:
        route: of the request.
        peer: the target, if a balancer chose one.
        detail: what is known about it, or "".
    """
    host = route.host if peer is None else peer.host
    return (
        f"name resolution failed for {host}" + (f": {detail}" if detail else ""),
        f"see whether this machine resolves it, or correct {_entity(route, peer)}",
    )


def no_answer(route: RouteView, peer: Peer | None, reason: Reason) -> tuple[str, str]:
    """What happened, and what to do: there was no connection, it was lost, or what came is no HTTP.

    Args:
        route: of the request.
        peer: the target, if a balancer chose one.
        reason: what is known about it.
    """
    usable = "usable " if reason.fault in (MALFORMED, LARGE) else ""
    what = f"no {usable}answer from the upstream: {reason.text.removesuffix(' from the upstream')}"
    service = row_name(route.service)
    remedies = {
        UNREACHABLE: f"see whether it listens there, or correct {_entity(route, peer)}",
        TLS: f"see whether it speaks TLS there, or correct protocol and port of service {service}",
        UNTRUSTED: f"have its certificate signed by an authority that service {service} trusts (ca_certificates)",
        NAME: f"give it a certificate for that name, or correct host of service {service}",
        OURS: f"replace certificate and key of client_certificate of service {service}",
        ENDED: f"see its own log; if it speaks TLS there, correct protocol of service {service}",
        MALFORMED: f"see whether it speaks HTTP there, or correct protocol and port of service {service}",
        LARGE: "raise nginx_proxy_proxy_buffer_size",
    }
    return what, remedies[reason.fault]


def broken_off(reason: Reason) -> tuple[str, str]:
    """What happened, and what to do: an answer that had begun did not come to its end."""
    if reason.fault == MALFORMED:
        what = f"the rest of the upstream's answer is no HTTP: {reason.text}"
        return what, "correct the upstream, or what stands before it and changes its answers"
    what = f"the upstream broke off its answer: {reason.text}"
    return what, "see its own log; it may have failed, been restarted, or bound how long an answer takes"


def timed_out(route: RouteView, connected: bool, sent: bool, read_timeout: float) -> tuple[str, str]:
    """What happened, and what to do: an upstream was silent for too long.

    Args:
        route: of the request.
        connected: there was a connection.
        sent: the request was sent whole.
        read_timeout: seconds of silence allowed.
    """
    if not connected:
        doing, name, seconds = "while connecting", "connect_timeout", route.connect_timeout
    elif not sent:
        doing, name, seconds = "while sending the request", "write_timeout", route.write_timeout
    else:
        doing, name, seconds = "while waiting for its answer", "read_timeout", read_timeout
    what = f"upstream timed out {doing}: nothing for {seconds_text(seconds)}"
    return what, f"if it needs longer, raise {name} of service {row_name(route.service)} (milliseconds)"


def _entity(route: RouteView, peer: Peer | None) -> str:
    """Where the address of an upstream is configured."""
    if peer is not None:
        return f"the targets of upstream {route.host}"
    return f"host and port of service {row_name(route.service)}"
