"""An upstream's targets: their list, what the node knows of their health, and the switches for it (Kong 3.9,
``kong/api/routes/upstreams.lua``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from urllib.parse import quote

from ...core.balancing.balancer import Peer, split_target
from ...core.health import is_checked
from ...entities.schema import Row
from ...entities.targets import target_with_port
from ..admin_api import AdminAPI
from ..entity_rows import EntityRows, Parent
from ..get_only import Get
from ..json_resource import Branch, Call, JSONResource, Methods
from ..paging import numbered, page_size, row_number
from ..replies import Reply, encoded, not_found
from ..row_resources import CollectionResource

__all__ = ["AllTargets", "SetHealth", "UpstreamHealth", "health_of", "health_switches", "newest_first"]

OFF, HEALTHY, UNHEALTHY, DNS_ERROR = "HEALTHCHECKS_OFF", "HEALTHY", "UNHEALTHY", "DNS_ERROR"


def newest_first(api: AdminAPI, upstream: Row) -> list[Row]:
    """An upstream's targets, the newest first."""
    rows = api.storage.children("targets", "upstream", upstream["id"])
    return sorted(rows, key=lambda row: (row["created_at"], row["id"]), reverse=True)


class AllTargets(CollectionResource):
    """``/upstreams/{}/targets/all``: by id, as other lists."""

    @property
    def methods(self) -> Methods:
        return {"GET": self._list}

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {}

    async def _list(self, call: Call) -> Reply:
        above = None if self.parent is None else self.parent.row()
        return not_found() if above is None else await self._page(call, above)

    def _path(self) -> str:
        return f"{super()._path()}/all"


def health_switches(targets: EntityRows, key: str, parent: Parent) -> dict[str, Branch]:
    """Paths below a target that set its health.

    Args:
        targets: the targets.
        key: one of them, as given in the path.
        parent: its upstream.
    """
    return {
        "healthy": lambda _: SetHealth(targets, key, parent, None, True),
        "unhealthy": lambda _: SetHealth(targets, key, parent, None, False),
        "{address}": lambda address: AddressSwitches(targets, key, parent, address),
    }


class AddressSwitches(JSONResource):
    """Below a target: ``healthy`` and ``unhealthy`` for one of its addresses."""

    def __init__(self, targets: EntityRows, key: str, parent: Parent, address: str) -> None:
        super().__init__(targets.api)
        self._target, self._address = (targets, key, parent), address

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {
            "healthy": lambda _: SetHealth(*self._target, self._address, True),
            "unhealthy": lambda _: SetHealth(*self._target, self._address, False),
        }


class SetHealth(JSONResource):
    """``.../healthy`` and ``.../unhealthy``: whether the balancer may choose a target, in all workers of this node.

    Args:
        targets: the targets.
        key: one of them, as given in the path.
        parent: its upstream.
        address: one of its addresses; None: the target itself.
        available: whether it may be chosen.
    """

    def __init__(self, targets: EntityRows, key: str, parent: Parent, address: str | None, available: bool) -> None:
        super().__init__(targets.api)
        self._targets, self._key, self._parent = targets, key, parent
        self.address, self.available = address, available

    @property
    def methods(self) -> Methods:
        return {"PUT": self._put}

    async def _put(self, call: Call) -> Reply:
        row = self._targets.row(self._key, self._parent)
        if row is None or (self.address is not None and not self._is_its(row)):
            return not_found()
        upstream, mark = row["upstream"]["id"], self.api.facts.mark
        if mark is None or not await mark(upstream, row["target"], self.available):
            named = self.api.storage.get("upstreams", upstream)
            return Reply(400, {"message": f"Upstream {named and named['name']} has no balancer"})
        return Reply(204)

    def _is_its(self, row: Row) -> bool:
        """Whether the address is the target's. A name is one peer here, whatever addresses it has."""
        assert self.address is not None
        try:
            return bool(target_with_port(self.address) == row["target"])
        except ValueError:
            return False


# -- health ----------------------------------------------------------------------------------------------------------------


class UpstreamHealth(Get):
    """``/upstreams/{}/health``: what this node knows of the targets; with ``balancer_health=1`` of all together."""

    def __init__(self, upstreams: EntityRows, key: str) -> None:
        super().__init__(upstreams.api)
        self._upstreams, self.key = upstreams, key

    async def get(self, call: Call) -> Reply:
        row = self._upstreams.look_up(self.key)
        if row is None:
            return not_found()
        body: Row = {"node_id": self.api.facts.node_id, "next": None}
        balancer = self.api.facts.balancer(row["id"])
        peers: dict[str, Peer] = {} if balancer is None else {peer.name: peer for peer in balancer.peers}
        if call.query.get("balancer_health") == "1":
            if balancer is None:
                return Reply(200, body)
            lost = await self._unresolved(peer.name for peer in peers.values())
            told = await call.long_work.aside(_of_all, row, list(peers.values()), lost)
            return Reply(200, b'%b,"data":%b}' % (encoded(body)[:-1], told))
        targets, rows = newest_first(self.api, row), self._upstreams.every["targets"]
        checked = is_checked(row)
        begin = row_number(call.query.get("offset"))
        page = targets[begin : begin + page_size(call)]
        lost = await self._unresolved(target["target"] for target in page if target["weight"])

        def shown(target: Row) -> Row:
            return rows.shown(target) | health_of(
                target, peers.get(target["target"]), checked, target["target"] in lost
            )

        path = f"/upstreams/{quote(self.key, safe='')}/health"
        return await numbered(targets, call, path, shown, {"node_id": self.api.facts.node_id})

    async def _unresolved(self, targets: Iterable[str]) -> frozenset[str]:
        """Those of the targets whose names have no address."""
        hosts = {target: split_target(target)[0] for target in targets}
        lost = await self.api.facts.unresolved(frozenset(hosts.values()))
        return frozenset(target for target, host in hosts.items() if host in lost)


def health_of(target: Row, peer: Peer | None, checked: bool, lost: bool) -> Row:
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
    told = {"id": upstream["id"], "health": word if is_checked(upstream) else OFF, "balancer_health": word}
    return b'%b,"details":%b,"hosts":[%b]}}' % (encoded(told)[:-1], encoded(details)[:-1], hosts)


def _lost(host: str, port: int, weight: int) -> Row:
    """A target whose name has no address gets no traffic, whatever its weight."""
    shares = {"total": 0, "available": 0, "unavailable": 0}
    return {"host": host, "port": port, "dns": "name error", "nodeWeight": weight, "weight": shares, "addresses": []}


def _shares(host: str, port: int, weight: int, available: bool) -> Row:
    try:
        kind = "AAAA" if ip_address(host).version == 6 else "A"
    except ValueError:
        kind = "A"
    shares = {"total": weight, "available": weight if available else 0, "unavailable": 0 if available else weight}
    return {"host": host, "port": port, "dns": kind, "nodeWeight": weight, "weight": shares}
