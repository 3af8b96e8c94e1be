"""What the error log is told when an upstream does not answer: what happened, where, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from ..core.error_lines import row_name, seconds_text, upstream_name

if TYPE_CHECKING:
    from ..core.balancer import Peer
    from ..core.compiled import CompiledRoute
    from .upstream_pool import Pool

__all__ = ["no_answer", "no_certificate", "no_peer", "not_resolved", "reason_of", "timed_out", "where"]


def reason_of(failure: Failure) -> str:
    """Why there is no connection. Twisted wraps the failure of one that ended while it was made into another."""
    inner = next((each for each in getattr(failure.value, "args", ()) if isinstance(each, Failure)), None)
    return failure.getErrorMessage() if inner is None else reason_of(inner)


def where(route: CompiledRoute, peer: Peer | None, pool: Pool | None) -> str:
    """Where a try went.

    Args:
        route: of the request.
        peer: the target, if a balancer chose one.
        pool: what its connection was taken from; None where it never came to one.
    """
    host, port = (route.host, route.port) if peer is None else (peer.host, peer.port)
    return upstream_name(host, port, "" if pool is None else pool.address)


def no_peer(route: CompiledRoute, tried: int) -> tuple[str, str]:
    """What happened, and what to do: a balancer has nobody to choose.

    Args:
        route: of the request.
        tried: targets that failed for this request.
    """
    what = f"no target of upstream {route.host} can be chosen" + (f", {tried} failed" if tried else "")
    return what, "add targets with a weight above 0, or mark one healthy"


def not_resolved(route: CompiledRoute, peer: Peer | None) -> tuple[str, str]:
    """What happened, and what to do: a host name has no address."""
    host = route.host if peer is None else peer.host
    return (
        f"name resolution failed for {host}",
        f"see whether this machine resolves it, or correct {_entity(route, peer)}",
    )


def no_answer(route: CompiledRoute, peer: Peer | None, why: str, connected: bool) -> tuple[str, str]:
    """What happened, and what to do: there was no connection, it was lost, or what came is no HTTP.

    Args:
        route: of the request.
        peer: the target, if a balancer chose one.
        why: what the system or the parser says.
        connected: there was a connection.
    """
    what = f"no answer from the upstream: {why.rstrip('.')}"
    return what, "" if connected else f"see whether it listens there, or correct {_entity(route, peer)}"


def no_certificate(route: CompiledRoute, pool: Pool, why: object) -> tuple[str, str]:
    """What happened, and what to do: our own certificate for an upstream cannot be used.

    Args:
        route: of the request.
        pool: of the connection that would have been made.
        why: what OpenSSL or the certificate's reader says.
    """
    what = f"the client certificate for {pool.address} is unusable: {why}"
    return what, f"correct the certificate that client_certificate of service {row_name(route.service)} names"


def timed_out(route: CompiledRoute, connected: bool, sent: bool, read_timeout: float) -> tuple[str, str]:
    """What happened, and what to do: an upstream was silent for too long.

    Args:
        route: of the request.
        connected: there was a connection.
        sent: the request was sent whole.
        read_timeout: seconds of silence allowed.
    """
    if not connected:
        doing, name, seconds = "while it was connected to", "connect_timeout", route.connect_timeout
    elif not sent:
        doing, name, seconds = "while it was sent the request", "write_timeout", route.write_timeout
    else:
        doing, name, seconds = "while its answer was waited for", "read_timeout", read_timeout
    what = f"upstream timed out {doing}: nothing for {seconds_text(seconds)}"
    return what, f"if it needs longer, raise {name} of service {row_name(route.service)} (milliseconds)"


def _entity(route: CompiledRoute, peer: Peer | None) -> str:
    """Where the address of an upstream is configured."""
    if peer is not None:
        return f"the targets of upstream {route.host}"
    return f"host and port of service {row_name(route.service)}"
