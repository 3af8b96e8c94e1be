"""Connections for gRPC calls: channels of gRPC's own library (grpcio), a bounded number of them, one for equal targets.

The library takes 20 MB and a tenth of a second, so it is loaded with the first call, in the call's thread.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import Any

from ..core.chain.host import GRPCFailed, GRPCTarget
from ..core.grpc.grpc_status import UNAVAILABLE
from ..net.resolver import NameNotResolved
from .connections import Connector, Resolver
from .grpc_tls import TLSBridge

__all__ = ["Channel", "Channels", "library"]

_FIRST_PAUSE, _LONGEST_PAUSE = 100, 1000
"""Milliseconds between two attempts to connect; meanwhile calls fail as the last attempt did."""


def library() -> Any:
    """gRPC's library. It would write to our standard error: what it has to say comes with the calls that fail."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc

    return grpc


class Channel:
    """One channel.

    Args:
        target: where it leads to.
        address: how the library gets there.
        bridge: speaks TLS for it; None: none is spoken.
        limit: bytes of the largest message.

    Attributes:
        users: calls that are under way.
    """

    def __init__(self, target: GRPCTarget, address: str, bridge: TLSBridge | None, limit: int) -> None:
        self.target = target
        self._address = address
        self._bridge = bridge
        self._limit = limit
        self._lock = Lock()
        self._made: Any = None
        self._closed = False
        self.users = 0

    def open(self) -> Any:
        """The library's channel. Called in the threads of calls."""
        with self._lock:
            if self._closed:
                raise GRPCFailed(UNAVAILABLE, "the connection was closed", unsent=True)
            if self._made is None:
                self._made = library().insecure_channel(self._address, self._options())
            return self._made

    @property
    def fault(self) -> str:
        """Why there is no connection, where that is known here; else ""."""
        return "" if self._bridge is None else self._bridge.fault

    def close(self) -> None:
        """End it; calls that are under way are cancelled."""
        with self._lock:
            self._closed = True
            made, self._made = self._made, None
        if made is not None:
            made.close()
        if self._bridge is not None:
            self._bridge.close()

    def _options(self) -> list[tuple[str, Any]]:
        target = self.target
        host = f"[{target.host}]" if ":" in target.host else target.host
        return [
            ("grpc.default_authority", target.authority or f"{host}:{target.port}"),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", self._limit),
            ("grpc.max_send_message_length", self._limit),
            ("grpc.min_reconnect_backoff_ms", max(int(target.connect_timeout * 1000), 1)),
            ("grpc.initial_reconnect_backoff_ms", _FIRST_PAUSE),
            ("grpc.max_reconnect_backoff_ms", _LONGEST_PAUSE),
        ]


class Channels:
    """All channels of a process.

    Args:
        reactor: listens for `TLSBridge`.
        connector: connects for it.
        resolver: looks names up.
        most: channels that are kept; those that are in use are kept beyond it.
        message_limit: bytes of the largest message.
    """

    def __init__(self, reactor: Any, connector: Connector, resolver: Resolver, most: int, message_limit: int) -> None:
        self._reactor = reactor
        self._connector = connector
        self._resolver = resolver
        self._most = most
        self._limit = message_limit
        self._kept: dict[tuple[GRPCTarget, str], Channel] = {}  # the one used last is the last
        self._closed = False

    def __len__(self) -> int:
        return len(self._kept)

    async def take(self, target: GRPCTarget) -> Channel:
        """The channel to ``target``, to be given back. Raises GRPCFailed where its name has no address."""
        address = ""
        if target.tls is None:
            try:
                address = self._resolver.known(target.host) or await self._resolver.lookup(target.host)
            except NameNotResolved as error:
                why = f"the name {target.host} cannot be resolved"
                raise GRPCFailed(UNAVAILABLE, why, unsent=True) from error
        if self._closed:
            raise GRPCFailed(UNAVAILABLE, "the gateway is stopping", unsent=True)
        key = (target, address)
        channel = self._kept.pop(key, None) or self._make(target, address)
        self._kept[key] = channel
        channel.users += 1
        self._drop(self._most)
        return channel

    def give(self, channel: Channel) -> None:
        """A call is over."""
        channel.users -= 1

    def close(self) -> None:
        """End all; no further ones are made."""
        self._closed = True
        kept, self._kept = self._kept, {}
        for channel in kept.values():
            channel.close()

    def _make(self, target: GRPCTarget, address: str) -> Channel:
        if target.tls is not None:
            bridge = TLSBridge(self._reactor, self._connector, target)
            return Channel(target, bridge.address, bridge, self._limit)
        kind = "ipv6" if ":" in address else "ipv4"
        where = f"[{address}]" if kind == "ipv6" else address
        return Channel(target, f"{kind}:{where}:{target.port}", None, self._limit)

    def _drop(self, most: int) -> None:
        """Close channels that nobody uses, those longest unused first, while there are more than ``most``."""
        surplus = len(self._kept) - most
        for key in [key for key, channel in self._kept.items() if not channel.users][: max(surplus, 0)]:
            self._kept.pop(key).close()
