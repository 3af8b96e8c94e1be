"""An upstream's targets: their list, what the node knows of their health, and the switches for it (Kong 3.9,
``kong/api/routes/upstreams.lua``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from ...core.balancing.balancer import Balancer, Peer, split_target
from ...core.health import is_checked
from ...entities.addresses import parse_address
from ...entities.schema import Row
from ..admin_api import AdminAPI
from ..entity_rows import EntityRows, Parent
from ..facts import NodeFacts
from ..get_only import Get
from ..json_resource import Branch, Call, JSONResource, Methods
from ..paging import numbered, page_size, row_number
from ..replies import Reply, encoded, not_found
from ..row_resources import CollectionResource

__all__ = [
    "AllTargets",
    "SetHealth",
    "UpstreamHealth",
    "health_of",
    "health_switches",
    "newest_first",
    "peers_by_target",
    "without_address",
]

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
        if row is None:
            return not_found()
        upstream, mark = row["upstream"]["id"], self.api.facts.mark
        which = row["target"] if self.address is None else self._address_of(row)
        if which is None:
            return not_found()
        if mark is None or not await mark(upstream, which, self.available):
            named = self.api.storage.get("upstreams", upstream)
            return Reply(400, {"message": f"Upstream {named and named['name']} has no balancer"})
        return Reply(204)

    def _address_of(self, row: Row) -> str | None:
        """The key of the peer at this address, an address without a port having the target's; None: the target has none there."""
        assert self.address is not None
        try:
            address = parse_address(self.address)
        except ValueError:
            return None
        for peer in peers_by_target(self.api.facts.balancer(row["upstream"]["id"])).get(row["target"], ()):
            port = split_target(row["target"])[1] if address.port is None else address.port
            if (address.host, port) == (parse_address(peer.address).host, peer.port):
                return peer.key
        return None


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
        peers = peers_by_target(balancer)
        if call.query.get("balancer_health") == "1":
            if balancer is None:
                return Reply(200, body)
            weights = {each["target"]: each["weight"] for each in balancer.targets}
            lost = await without_address(self.api.facts, balancer, weights)
            told = await call.long_work.aside(_of_all, row, weights, peers, lost)
            return Reply(200, b'%b,"data":%b}' % (encoded(body)[:-1], told))
        targets, rows = newest_first(self.api, row), self._upstreams.every["targets"]
        checked = is_checked(row)
        begin = row_number(call.query.get("offset"))
        page = targets[begin : begin + page_size(call)]
        lost = await without_address(
            self.api.facts, balancer, [target["target"] for target in page if target["weight"]]
        )

        def shown(target: Row) -> Row:
            name = target["target"]
            return rows.shown(target) | health_of(target, peers.get(name, ()), checked, name in lost)

        path = f"/upstreams/{quote(self.key, safe='')}/health"
        return await numbered(targets, call, path, shown, {"node_id": self.api.facts.node_id})


def peers_by_target(balancer: Balancer | None) -> dict[str, tuple[Peer, ...]]:
    """The peers of each target: one for each address of a name."""
    found: dict[str, list[Peer]] = {}
    for peer in () if balancer is None else balancer.peers:
        found.setdefault(peer.name, []).append(peer)
    return {target: tuple(peers) for target, peers in found.items()}


async def without_address(facts: NodeFacts, balancer: Balancer | None, targets: Iterable[str]) -> frozenset[str]:
    """Those of the targets whose names have no address. A name that the balancer was told nothing of is looked up."""
    hosts = {target: split_target(target)[0] for target in targets}
    known = {host: None if balancer is None else balancer.found(host) for host in hosts.values()}
    lost = await facts.unresolved(frozenset(host for host, found in known.items() if found is None))
    return frozenset(target for target, host in hosts.items() if host in lost or known[host] == ())


def health_of(target: Row, peers: Sequence[Peer], checked: bool, lost: bool) -> Row:
    """What is known of a target. One that an operator marked is shown as marked, checked or not; one whose name has no
    address has nothing that could be healthy.

    Args:
        target: its row.
        peers: its addresses; none: the balancer does not know it yet.
        checked: whether targets of its upstream are looked after.
        lost: its name has no address.
    """
    host, port = split_target(target["target"])
    if lost:
        return {"health": DNS_ERROR, "data": _lost(host, port, target["weight"])}
    told = [
        (peer.address, peer.port, peer.weight, peer.available) for peer in peers
    ] or [(host, port, target["weight"], True)]  # fmt: skip

    def word(available: bool) -> str:
        return OFF if not target["weight"] or (not checked and available) else HEALTHY if available else UNHEALTHY

    addresses = [{"ip": ip, "port": at, "weight": weight, "health": word(well)} for ip, at, weight, well in told]
    health = word(any(well for _, _, _, well in told))
    return {"health": health, "data": _shares(host, port, target["weight"], peers) | {"addresses": addresses}}


def _of_all(
    upstream: Row, targets: Mapping[str, int], peers: Mapping[str, tuple[Peer, ...]], lost: frozenset[str]
) -> bytes:
    """What is known of all targets together, as JSON."""
    there = [peer for target, each in peers.items() if target not in lost for peer in each]
    total = sum(peer.weight for peer in there)
    usable = sum(peer.weight for peer in there if peer.available)
    healthy = bool(usable) and usable * 100 / total > upstream["healthchecks"]["threshold"]
    word = HEALTHY if healthy else UNHEALTHY
    hosts = b",".join(
        encoded(_host(target, weight, () if target in lost else peers.get(target, ())))
        for target, weight in targets.items()
    )
    details = {"healthy": healthy, "weight": {"total": total, "available": usable, "unavailable": total - usable}}
    told = {"id": upstream["id"], "health": word if is_checked(upstream) else OFF, "balancer_health": word}
    return b'%b,"details":%b,"hosts":[%b]}}' % (encoded(told)[:-1], encoded(details)[:-1], hosts)


def _host(target: str, weight: int, peers: Sequence[Peer]) -> Row:
    host, port = split_target(target)
    if not peers:
        return _lost(host, port, weight)
    addresses = [
        {"ip": peer.address, "port": peer.port, "weight": peer.weight, "healthy": peer.available} for peer in peers
    ]
    return _shares(host, port, weight, peers) | {"addresses": addresses}


def _lost(host: str, port: int, weight: int) -> Row:
    """A target whose name has no address gets no traffic, whatever its weight."""
    shares = {"total": 0, "available": 0, "unavailable": 0}
    return {"host": host, "port": port, "dns": "name error", "nodeWeight": weight, "weight": shares, "addresses": []}


def _shares(host: str, port: int, weight: int, peers: Sequence[Peer]) -> Row:
    """A target's own facts, and the weights of its addresses together."""
    first = peers[0] if peers else None
    if first is not None and first.record is not None and first.record.port is not None:
        kind = "SRV"
    else:
        kind = "AAAA" if ":" in (host if first is None else first.address) else "A"
    total = sum(peer.weight for peer in peers) if peers else weight
    usable = sum(peer.weight for peer in peers if peer.available) if peers else weight
    shares = {"total": total, "available": usable, "unavailable": total - usable}
    return {"host": host, "port": port, "dns": kind, "nodeWeight": weight, "weight": shares}
