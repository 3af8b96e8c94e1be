"""What the resources of an Admin or Status API share: the configuration, the node's facts, and ways to do long work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol, runtime_checkable

from twisted.web.http import Request

from ..core.chain.host import Host
from ..core.long_work import AtOnce, LongWork
from ..core.storage_contract import Storage
from ..entities import Entity
from .access.gate import Gate
from .access.path_mask import PathMask
from .declarations import Declarations
from .facts import NodeFacts
from .replies import Verdict

__all__ = ["DEFAULT_HEADERS", "AdminAPI"]

DEFAULT_HEADERS = ("server_tokens", "latency_tokens")
"""The property ``headers`` where nobody set it."""


@runtime_checkable
class _Declared(Protocol):
    """Storage of a declarative configuration, which has a hash."""

    def configuration_hash(self) -> str:
        """Changes with the configuration."""
        ...


async def _at_once() -> None:
    """There is no traffic that could wait for a write."""


class AdminAPI:
    """One API of one node.

    Args:
        storage: keeps the rows.
        registry: the entities by name.
        facts: what is known of the node.
        gate: decides who may use the API.
        added_headers: the property ``headers``: which fields answers have.
        now: epoch seconds.
        published: waits until what was written serves traffic.
        declarations: loads and shows the declarative configuration; None with a database.
        long_work: does long work beside the traffic; None: at once.
        host: what endpoints of plugins are given of the gateway; None: there are none.
    """

    def __init__(
        self,
        storage: Storage,
        registry: Mapping[str, Entity],
        facts: NodeFacts,
        gate: Gate,
        *,
        now: Callable[[], float],
        added_headers: Collection[str] = DEFAULT_HEADERS,
        published: Callable[[], Awaitable[object]] = _at_once,
        declarations: Declarations | None = None,
        long_work: LongWork | None = None,
        host: Host | None = None,
    ) -> None:
        self.storage, self.registry, self.facts, self.gate = storage, registry, facts, gate
        self.now, self.published, self.declarations = now, published, declarations
        self.long_work: LongWork = long_work or AtOnce()
        self.host = host
        self.masked_path = PathMask(registry)
        names = {name.lower() for name in added_headers}
        self.shows_server = not names.isdisjoint(("server_tokens", "server"))
        self.shows_latency = not names.isdisjoint(("latency_tokens", "x-kong-admin-latency"))

    def configuration_hash(self) -> str | None:
        """The hash of a declarative configuration; None with a database."""
        return self.storage.configuration_hash() if isinstance(self.storage, _Declared) else None

    def verdict(self, request: Request) -> Verdict:
        """What the gate says of a request. Our own listeners have asked it already."""
        verdict: Verdict | None = getattr(request, "verdict", None)
        if verdict is None:
            verdict = self.gate.verdict(request, request.method.decode("latin-1"))
            request.verdict = verdict  # type: ignore[attr-defined]
        return verdict
