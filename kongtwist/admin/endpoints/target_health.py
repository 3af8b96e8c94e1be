"""An upstream's targets: their list, what the node knows of their health, and the switches for it (Kong 3.9,
``kong/api/routes/upstreams.lua``)."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

from ...core.balancing.balancer import Peer, split_target
from ...entities import EntityError
from ...entities.schema import Row
from ...entities.upstreams_targets import target_with_port
from ..get_only import Get
from ..json_resource import Branch, Call, JSONResource, Reply, encoded, not_found, page_of
from ..row_resources import CollectionResource, RowResource, page_size

__all__ = ["AllTargets", "Targets", "UpstreamHealth", "is_checked", "numbered"]

OFF, HEALTHY, UNHEALTHY, DNS_ERROR = "HEALTHCHECKS_OFF", "HEALTHY", "UNHEALTHY", "DNS_ERROR"


def row_number(offset: str | None) -> int:
    """Where a page of a list begins that is paged by row numbers.

    Raises:
        EntityError: not an offset that a page gave.
    """
    if offset is None:
        return 0
    try:
        number = int(urlsafe_b64decode(offset + "=" * (-len(offset) % 4)))
    except ValueError:
        raise EntityError.invalid_offset(offset, "bad json encoding") from None
    if number < 0:
        raise EntityError.invalid_offset(offset, "bad json encoding")
    return number


async def numbered(
    rows: Sequence[Row],
    call: Call,
    path: str,
    shown: Callable[[Row], Row],
    beside: Mapping[str, Any] | None = None,
    first: int = 0,
) -> Reply:
    """A page of a list in an order of its own.

    Args:
        rows: all of them, or some in the middle: those of the page and at least one more, if there is one.
        call: the request, which says from where on and how many.
        path: the list's.
        shown: a row as the answer shows it.
        beside: further members of the answer.
        first: number of the first of ``rows``.
    """
    size, begin = page_size(call), row_number(call.query.get("offset"))

    def rest(count: int) -> Row:
        body: Row = {**(beside or {}), "next": None}
        if begin + count < first + len(rows):
            body["offset"] = urlsafe_b64encode(str(begin + count).encode()).decode().rstrip("=")
            body["next"] = f"{path}?offset={body['offset']}" + (f"&size={size}" if "size" in call.query else "")
        return body

    return Reply(200, await page_of(rows[begin - first :][:size], shown, rest, call.turns.slices()))


class Targets(CollectionResource):
    """``/upstreams/{}/targets``: the newest first; ``all`` beside the rows."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {
            "all": lambda _: AllTargets(self.site, self.entity, self.parent),
            "{targets}": lambda key: Target(self.site, self.entity, key, self.parent),
        }

    async def _list(self, call: Call) -> Reply:
        upstream = self._parent_row()
        if upstream is None:
            return not_found()
        rows = self.site.storage.children("targets", "upstream", upstream["id"])
        rows.sort(key=lambda row: (row["created_at"], row["id"]), reverse=True)
        assert self.parent is not None
        path = f"/upstreams/{quote(self.parent[1], safe='')}/targets"
        return await numbered(rows, call, path, self.shown)


class AllTargets(CollectionResource):
    """``/upstreams/{}/targets/all``: by id, as other lists."""

    @property
    def methods(self) -> Mapping[str, Any]:
        return {"GET": self._list}

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {}

    def _path(self) -> str:
        return f"{super()._path()}/all"


class Target(RowResource):
    """``/upstreams/{}/targets/{}``, with the switches for its health."""

    @property
    def branches(self) -> Mapping[str, Branch]:
        return TargetSwitches(self.site, self).branches


class TargetSwitches(JSONResource):
    """Below a target: ``healthy`` and ``unhealthy``, for it or for one of its addresses."""

    def __init__(self, site: Any, target: RowResource, address: str | None = None) -> None:
        super().__init__(site)
        self.target, self.address = target, address

    @property
    def branches(self) -> Mapping[str, Branch]:
        found: dict[str, Branch] = {
            "healthy": lambda _: SetHealth(self.site, self.target, self.address, True),
            "unhealthy": lambda _: SetHealth(self.site, self.target, self.address, False),
        }
        if self.address is None:
            found["{address}"] = lambda address: TargetSwitches(self.site, self.target, address)
        return found


class SetHealth(JSONResource):
    """``.../healthy`` and ``.../unhealthy``: whether the balancer may choose a target, in all workers of this node."""

    def __init__(self, site: Any, target: RowResource, address: str | None, available: bool) -> None:
        super().__init__(site)
        self.target, self.address, self.available = target, address, available

    @property
    def methods(self) -> Mapping[str, Any]:
        return {"PUT": self._put}

    async def _put(self, call: Call) -> Reply:
        row = self.target.row()
        if row is None or (self.address is not None and not self._is_its(row)):
            return not_found()
        mark = self.site.facts.mark
        if mark is None or not await mark(row["upstream"]["id"], row["target"], self.available):
            name = self.site.storage.get("upstreams", row["upstream"]["id"])["name"]
            return Reply(400, {"message": f"Upstream {name} has no balancer"})
        return Reply(204)

    def _is_its(self, row: Row) -> bool:
        """Whether the address is the target's. A name is one peer here, whatever addresses it has."""
        assert self.address is not None
        try:
            return bool(target_with_port(self.address) == row["target"])
        except ValueError:
            return False


# -- health ----------------------------------------------------------------------------------------------------------------


def is_checked(upstream: Row) -> bool:
    """Whether an upstream's targets are looked after by health checks."""
    checks = upstream["healthchecks"]
    failures = checks["passive"]["unhealthy"]
    return bool(
        checks["active"]["healthy"]["interval"]
        or checks["active"]["unhealthy"]["interval"]
        or failures["tcp_failures"]
        or failures["timeouts"]
        or failures["http_failures"]
    )


class UpstreamHealth(Get):
    """``/upstreams/{}/health``: what this node knows of the targets; with ``balancer_health=1`` of all together."""

    def __init__(self, site: Any, key: str) -> None:
        super().__init__(site)
        self.key = key

    async def get(self, call: Call) -> Reply:
        upstreams = CollectionResource(self.site, self.site.registry["upstreams"])
        row = upstreams.look_up(upstreams.entity, self.key)
        if row is None:
            return not_found()
        body: Row = {"node_id": self.site.facts.node_id, "next": None}
        balancer = self.site.facts.balancer(row["id"])
        peers: dict[str, Peer] = {} if balancer is None else {peer.name: peer for peer in balancer.peers}
        if call.query.get("balancer_health") == "1":
            if not is_checked(row):
                return Reply(200, body)
            lost = await self._unresolved(peer.name for peer in peers.values())
            told: bytes = await call.turns.aside(_of_all, row, list(peers.values()), lost)
            return Reply(200, b'%b,"data":%b}' % (encoded(body)[:-1], told))
        targets = self.site.storage.children("targets", "upstream", row["id"])
        targets.sort(key=lambda target: (target["created_at"], target["id"]), reverse=True)
        checked, entity = is_checked(row), self.site.registry["targets"]
        begin = row_number(call.query.get("offset"))
        page = targets[begin : begin + page_size(call)]
        lost = await self._unresolved(target["target"] for target in page if target["weight"])

        def shown(target: Row) -> Row:
            found: Row = self.site.special.shown(entity, target)
            return found | _of_one(target, peers.get(target["target"]), checked, target["target"] in lost)

        path = f"/upstreams/{quote(self.key, safe='')}/health"
        return await numbered(targets, call, path, shown, {"node_id": self.site.facts.node_id})

    async def _unresolved(self, targets: Iterable[str]) -> frozenset[str]:
        """Those of the targets whose names have no address."""
        hosts = {target: split_target(target)[0] for target in targets}
        lost = await self.site.facts.unresolved(frozenset(hosts.values()))
        return frozenset(target for target, host in hosts.items() if host in lost)


def _of_one(target: Row, peer: Peer | None, checked: bool, lost: bool) -> Row:
    """What is known of a target. One that an operator marked is shown as marked, checked or not; one whose name has no
    address has nothing that could be healthy."""
    host, port = split_target(target["target"])
    if lost:
        return {"health": DNS_ERROR, "data": _lost(host, port, target["weight"])}
    available = peer is None or peer.available
    health = OFF if not target["weight"] or (not checked and available) else HEALTHY if available else UNHEALTHY
    address = {"ip": host, "port": port, "weight": target["weight"], "health": health}
    return {"health": health, "data": _shares(host, port, target["weight"], available) | {"addresses": [address]}}


def _of_all(upstream: Row, peers: list[Peer], lost: frozenset[str]) -> bytes:
    """What is known of all targets together, as JSON."""
    there = [peer for peer in peers if peer.name not in lost]
    total = sum(peer.weight for peer in there)
    usable = sum(peer.weight for peer in there if peer.available)
    healthy = bool(usable) and usable * 100 / total > upstream["healthchecks"]["threshold"]
    word = HEALTHY if healthy else UNHEALTHY
    hosts = b",".join(
        encoded(
            _lost(peer.host, peer.port, peer.weight)
            if peer.name in lost
            else _shares(peer.host, peer.port, peer.weight, peer.available)
            | {"addresses": [{"ip": peer.host, "port": peer.port, "weight": peer.weight, "healthy": peer.available}]}
        )
        for peer in peers
    )
    details = {"healthy": healthy, "weight": {"total": total, "available": usable, "unavailable": total - usable}}
    told = {"id": upstream["id"], "health": word, "balancer_health": word}
    return b'%b,"details":%b,"hosts":[%b]}}' % (encoded(told)[:-1], encoded(details)[:-1], hosts)


def _lost(host: str, port: int, weight: int) -> Row:
    """A target whose name has no address: it takes no part, whatever its weight."""
    shares = {"total": 0, "available": 0, "unavailable": 0}
    return {"host": host, "port": port, "dns": "name error", "nodeWeight": weight, "weight": shares, "addresses": []}


def _shares(host: str, port: int, weight: int, available: bool) -> Row:
    try:
        kind = "AAAA" if ip_address(host).version == 6 else "A"
    except ValueError:
        kind = "A"
    shares = {"total": weight, "available": weight if available else 0, "unavailable": 0 if available else weight}
    return {"host": host, "port": port, "dns": kind, "nodeWeight": weight, "weight": shares}
