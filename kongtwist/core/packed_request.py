"""A request whose answer lasts, written down in one process of a node and taken up in another.

What is configured goes by its id, and is looked up in the configuration of who takes it up. What was found out goes as it is: the
process that ends the request writes its one log record. `time.monotonic` is the machine's (CLOCK_MONOTONIC), so its seconds mean the
same in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .log_values import LogValue, Try
from .packed_values import Unpackable, packed, unpacked
from .views import Match

if TYPE_CHECKING:
    from .exchange import Exchange
    from .peer import Peer
    from .rows import Row
    from .views import RouteView, SnapshotView

__all__ = ["PackedRow", "pack_request", "restore_request", "row_of"]

_FACTS = (
    "method", "target", "minor", "request_id", "mount", "started", "wall_started", "status", "upstream_status", "answer_source",
    "answer_trailers", "authenticated_groups", "latencies", "own_lines", "sent_head", "request_changes", "response_changes",
    "upstream_method", "upstream_query", "bytes_in", "bytes_out", "_ctx", "_own",
)  # fmt: skip
"""What is the same wherever the request goes on."""

_TRY = ("started", "latency", "ip", "port", "ended", "host", "code")

PackedRow = dict[str, Any]
"""A row by ``entity`` and ``id``; or as it is, where it is no row of the configuration (``row``)."""


def pack_request(exchange: Exchange) -> dict[str, Any]:
    """What is to be known of ``exchange`` elsewhere, its header blocks excepted.

    Raises:
        Unpackable: it runs with another route than the configured one, or plugins have left something that cannot be written down.
    """
    route, match, peer = exchange.route, exchange.match, exchange.upstream_peer
    if route is None or match is None or match.route is not route or route.service is None:
        raise Unpackable("it has a route of its own")
    rows = exchange.snapshot.rows
    return {
        "facts": {name: packed(getattr(exchange, name)) for name in _FACTS},
        "route": {"id": route.id, "name": route.row.get("name"), "service": route.service["id"]},
        "match": packed((match.matched, _captures(match), match.upstream_path, match.prefix)),
        "peer": None if peer is None else peer.name,
        "consumer": _packed_row(rows, exchange.consumer, "consumers"),
        "credential": _packed_row(rows, exchange.credential),
        "log_values": packed([tuple(each) for each in exchange.log_values or ()]),
        "tries": packed([tuple([getattr(each, name) for name in _TRY]) for each in exchange.tries or ()]),
    }


def _captures(match: Match) -> dict[str, Any] | None:
    return None if match.captures is None else dict(match.captures)


def _packed_row(rows: Mapping[str, Mapping[str, Row]], row: Row | None, entity: str | None = None) -> PackedRow | None:
    if row is None:
        return None
    key = row.get("id")
    for name in rows if entity is None else (entity,):
        if rows.get(name, {}).get(key) is not None:  # type: ignore[arg-type]
            return {"entity": name, "id": key}
    return {"row": packed(dict(row))}


def row_of(snapshot: SnapshotView, said: PackedRow | None) -> Row | None:
    """The row that was written down.

    Raises:
        LookupError: it is configured no more; the text says which.
    """
    if said is None:
        return None
    if "row" in said:
        return unpacked(said["row"])  # type: ignore[no-any-return]
    found = snapshot.rows.get(said["entity"], {}).get(said["id"])
    if found is None:
        raise LookupError(f"its row in {said['entity']} is gone")
    return found


def restore_request(exchange: Exchange, said: Mapping[str, Any], snapshot: SnapshotView, route: RouteView) -> str:
    """Make ``exchange`` the request that was written down. It counts on its target again.

    Args:
        exchange: new, with its header block.
        said: what `pack_request` gave.
        snapshot: the configuration of the moment.
        route: of the request, in it.

    Returns:
        what of the request is configured no more; nothing: all of it is.

    Raises:
        KeyError, TypeError, ValueError: ``said`` is malformed.
    """
    for name in _FACTS:
        setattr(exchange, name, unpacked(said["facts"][name]))
    exchange.snapshot, exchange.route = snapshot, route
    exchange.match = Match(route, *unpacked(said["match"]))
    exchange.log_values = [LogValue(*each) for each in unpacked(said["log_values"])] or None
    exchange.tries = [_try(each) for each in unpacked(said["tries"])] or None
    gone = ""
    for name in ("consumer", "credential"):
        try:
            setattr(exchange, name, row_of(snapshot, said[name]))
        except LookupError as error:
            gone = str(error)
    peer = _peer_of(route, said["peer"])
    if peer is not None:
        exchange.hold(peer)
    return gone


def _try(told: tuple[Any, ...]) -> Try:
    facts = dict(zip(_TRY, told, strict=True))
    made = Try(facts["started"], facts["latency"], facts["ip"], facts["port"])
    made.ended, made.host, made.code = facts["ended"], facts["host"], facts["code"]
    return made


def _peer_of(route: RouteView, name: str | None) -> Peer | None:
    """The target of that name; None where there is none any more: the stream goes on without being counted on one."""
    return None if name is None or route.balancer is None else route.balancer.peer(name)
