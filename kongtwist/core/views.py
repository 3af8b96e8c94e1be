"""Routes, plugin chains, balancers and snapshots as an exchange sees them.

Protocols, so that the exchange needs none of the rooms that are built on it (``core/routing``, ``core/chain``,
``core/balancing``, ``core/snapshot``). Where they take an exchange, it is a `kongtwist.core.exchange.Exchange`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, Protocol

from .answers import Answer
from .peer import Peer
from .rows import Row

__all__ = [
    "AnswerFiltersView", "BalancerView", "ChainView", "FiltersView", "Match", "RouteView", "RouterView", "SnapshotView", "UpstreamTLS",
    "WatchesView",
]  # fmt: skip


class UpstreamTLS(NamedTuple):
    """How a TLS connection to the upstream is made."""

    client_certificate: Row | None  #: the certificate row we show, or None
    verify: bool | None  #: check the upstream's certificate; None for the node's default
    verify_depth: int | None  #: longest chain accepted, in certificates; None for the node's default
    ca_certificates: tuple[Row, ...]  #: authorities to trust; none for the node's own store


class FiltersView(Protocol):
    """What a request's body passes through: `kongtwist.core.chain.filters.RequestFilters`."""

    @property
    def keeps_length(self) -> bool: ...

    def feed(self, chunk: bytes, last: bool) -> bytes | Answer: ...


class AnswerFiltersView(FiltersView, Protocol):
    """What an answer's body passes through: `kongtwist.core.chain.filters.AnswerFilters`."""

    @property
    def holding(self) -> bool: ...


class WatchesView(Protocol):
    """What watches a stream: `kongtwist.core.chain.chain.StreamWatches`."""

    def on_close(self, why: str) -> None: ...

    def on_move(self) -> None: ...


class ChainView(Protocol):
    """The plugins of a route: `kongtwist.core.chain.chain.Chain` says what these do."""

    @property
    def empty(self) -> bool: ...

    @property
    def logs(self) -> bool: ...

    @property
    def logs_in_batches(self) -> bool: ...

    @property
    def answers(self) -> bool: ...

    @property
    def direct(self) -> bool: ...

    @property
    def idle(self) -> bool: ...

    @property
    def calls(self) -> bool: ...

    @property
    def rewrites(self) -> bool: ...

    @property
    def traced(self) -> bool: ...

    def direct_form(self, exchange: Any) -> Any: ...

    def direct_answer(self, exchange: Any) -> Sequence[tuple[str, Any, bytes]] | None: ...

    def run_rewrite(self, exchange: Any) -> Answer | Awaitable[Answer | None] | None: ...

    def run_handshake(self, exchange: Any) -> Any: ...

    def run_access(self, exchange: Any) -> Answer | Awaitable[Answer | None] | None: ...

    def has_endpoint(self, exchange: Any) -> bool: ...

    def request_filters(self, exchange: Any) -> FiltersView | Answer | None: ...

    def run_header_filter(self, exchange: Any) -> Answer | None: ...

    def answer_filters(self, exchange: Any) -> AnswerFiltersView | None: ...

    def run_open(self, exchange: Any, stream: Any) -> WatchesView | None: ...

    def run_call(self, exchange: Any, call: Any) -> WatchesView | None: ...

    def take_up(self, exchange: Any) -> None: ...

    def filters_body(self, exchange: Any) -> bool: ...

    def run_log(self, exchange: Any) -> None: ...


class BalancerView(Protocol):
    """The targets of an upstream: `kongtwist.core.balancing.balancer.Balancer`."""

    def pick(self, exchange: Any, tried: AbstractSet[Peer] = ...) -> Peer | None:
        """A target for a request, none of ``tried`` if there is another; None when there is none at all."""
        ...

    def peer(self, key: str) -> Peer | None:
        """The peer with this key, or None."""
        ...

    def peers_of(self, target: str) -> tuple[Peer, ...]:
        """A target's peers."""
        ...

    @property
    def lost(self) -> list[str]:
        """Names of targets that have no address."""
        ...

    @property
    def held_back(self) -> bool:
        """Whether targets could be chosen, were more of the weight healthy."""
        ...


class RouteView(Protocol):
    """A route, ready to serve: `kongtwist.core.snapshot.compiled_route.CompiledRoute` says what these are."""

    @property
    def id(self) -> str: ...
    @property
    def row(self) -> Row: ...
    @property
    def service(self) -> Row | None: ...
    @property
    def chain(self) -> ChainView: ...
    @property
    def balancer(self) -> BalancerView | None: ...
    @property
    def tls(self) -> UpstreamTLS | None: ...
    @property
    def protocol(self) -> bytes: ...
    @property
    def protocols(self) -> frozenset[str]: ...
    @property
    def secure(self) -> bool: ...
    @property
    def grpc(self) -> bool: ...
    @property
    def websocket_only(self) -> bool: ...
    @property
    def https_redirect_status_code(self) -> int: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def host_header(self) -> bytes: ...
    @property
    def base_path(self) -> bytes: ...
    @property
    def preserve_host(self) -> bool: ...
    @property
    def strip_path(self) -> bool: ...
    @property
    def path_handling(self) -> str: ...
    @property
    def v1(self) -> bool: ...
    @property
    def request_buffering(self) -> bool: ...
    @property
    def response_buffering(self) -> bool: ...
    @property
    def connect_timeout(self) -> float: ...
    @property
    def write_timeout(self) -> float: ...
    @property
    def read_timeout(self) -> float: ...
    @property
    def retries(self) -> int: ...


class Match(NamedTuple):
    """A request's route. Immutable: requests with the same method, host and path share one."""

    route: RouteView
    matched: bytes | None  #: the route's path that matched, a regex without its ``~``; None for a route without paths
    captures: Mapping[str, bytes | None] | None  #: groups of a regex path
    upstream_path: bytes  #: escaped, without query
    prefix: bytes | None
    """What ``strip_path`` took off the path, as a header may carry it: control characters, which a client can write as
    ``%0D%0A``, are ``%HH`` again. None when the path is kept or no path matched."""


class RouterView(Protocol):
    """`kongtwist.core.routing.router.Router`."""

    @property
    def remembers(self) -> bool:
        """Whether the route depends on method, host and path alone."""
        ...

    def find(self, exchange: Any) -> Match | None:
        """The route of a request, or None."""
        ...


class SnapshotView(Protocol):
    """A node's configuration at one moment: `kongtwist.core.snapshot.snapshot.Snapshot`."""

    @property
    def version(self) -> int: ...
    @property
    def rows(self) -> Mapping[str, Mapping[str, Row]]: ...
    @property
    def router(self) -> RouterView: ...
    @property
    def global_chain(self) -> ChainView: ...
    @property
    def balancers(self) -> Mapping[str, BalancerView]: ...

    def by(self, entity: str, field: str, value: Any) -> Row | None:
        """The row of ``entity`` whose unique ``field`` is ``value``, or None."""
        ...

    def all_by(self, entity: str, field: str, value: Any) -> tuple[Row, ...]:
        """The rows of ``entity`` whose ``field`` is ``value``; for a foreign key ``value`` is its id."""
        ...

    def secret(self, reference: str) -> str:
        """What a reference to a vault stands for. Raises SecretMissing."""
        ...
