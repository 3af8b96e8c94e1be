"""Streams that another process of the node has packed (streams/moving.py) go on here: request, plugins and connections are put together
again around their sockets."""

from __future__ import annotations

import socket
from binascii import a2b_base64
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Factory
from twisted.logger import Logger

from ..core.error_lines import request_line
from ..core.http.head import parse_request_block, parse_response_block
from ..core.packed_request import restore_request
from ..core.packed_values import unpacked
from ..core.snapshot.compiled_route import CompiledRoute
from ..core.stream_registry import SERVICE_RESTART
from ..http1.adopted_channel import AdoptedChannel
from ..http1.http1_exchange import HTTP1Exchange
from ..net.run_steps import run_steps
from ..streams.moving import Parcel, check
from ..streams.splice import RelayedStream
from ..upstream.adopted_connection import AdoptedConnection
from .forwarding import UpstreamExchange
from .websocket_route import WebSocketEnding

if TYPE_CHECKING:
    from ..core.snapshot.snapshot import Snapshot
    from ..core.stream_registry import StreamRecord
    from ..core.views import RouteView
    from ..upstream.pool import Pool
    from .context import ProxyContext
    from .tree import RouteTree

__all__ = ["adopt"]

_log = Logger(namespace="kongtwist.proxy")

_GONE_ROW = {
    "https_redirect_status_code": 426, "path_handling": "v0", "preserve_host": False, "protocols": [], "request_buffering": True,
    "response_buffering": True, "strip_path": True,
}  # fmt: skip
"""What a route that is gone is made of, for the end of its streams."""


class Restored:
    """A request that goes on here.

    Args:
        tree: has the configuration of the moment.
        said: the ``request`` of a parcel.

    Attributes:
        context: what the data path is made of.
        exchange: the request.
        channel: its connection.
        gone: what of it is configured no more; nothing: all of it is.
        pool: connections to where its upstream is.
        read_timeout: seconds between two pieces of an answer.
    """

    def __init__(self, tree: RouteTree, said: Mapping[str, Any]) -> None:
        context: ProxyContext = tree.context
        snapshot = tree.snapshot
        if snapshot is None:
            raise ValueError("there is no configuration here")
        self.context = context
        route, self.gone = _route_of(snapshot, said["route"])
        channel = self.channel = AdoptedChannel(tree, context, said["connection"])
        request, response = unpacked(said["fields"])
        exchange = self.exchange = HTTP1Exchange(channel, b"", b"", 1, parse_request_block(request))
        self.gone = restore_request(exchange, said, snapshot, route) or self.gone
        exchange.response_fields = parse_response_block(response)
        route.chain.take_up(exchange)
        address, port = said["upstream"] or ("", 0)
        self.pool: Pool = context.pools.get(address, port, None)
        self.read_timeout = context.limits.read_timeout(route.read_timeout)

    def give_back(self) -> None:
        """It will not go on here."""
        run_steps(self.exchange.let_go, self.exchange.release)


def _route_of(snapshot: Snapshot, said: Mapping[str, Any]) -> tuple[RouteView, str]:
    """A stream's route, and what of it is gone: the stand-in for one that is gone has its name, and the global plugins."""
    route = snapshot.routes.get(said["id"])
    if route is not None and said["service"] in snapshot.rows.get("services", {}):
        return route, ""
    row = {**_GONE_ROW, "id": said["id"], "name": said["name"]}
    what = "its route is gone" if route is None else "its service is gone"
    chain = snapshot.global_chain
    return CompiledRoute(row, None, None, chain, None), what


def adopt(tree: RouteTree, parcel: Parcel) -> StreamRecord:
    """Take a stream up: from now on it is this process's. What its route, service, consumer or credential was and is no more ends it
    politely.

    Args:
        tree: routes and facilities of the data path.
        parcel: the stream; its descriptors are gone afterwards, whatever happens.

    Raises:
        ValueError: it is of another version, or malformed: both connections are closed.
        OSError: a connection was lost on the way; the request's record is written.
    """
    sockets = [socket.socket(fileno=each) for each in parcel.sockets]
    restored: Restored | None = None
    try:
        check(parcel)
        for each in sockets:
            each.setblocking(False)
        restored = Restored(tree, parcel.state["request"])
        record = (_adopt_websocket if parcel.state["kind"] == "websocket" else _adopt_events)(
            restored, parcel.state, sockets
        )
    except BaseException as error:
        for each in sockets:
            each.close()
        if restored is not None:
            restored.give_back()
        if isinstance(error, KeyError | TypeError | AttributeError):
            raise ValueError(f"a stream is malformed: {error!r}") from error
        raise
    if restored.gone:
        record.close(SERVICE_RESTART, restored.gone)
    return record


def _adopt_websocket(restored: Restored, state: Mapping[str, Any], sockets: list[socket.socket]) -> RelayedStream:
    exchange = restored.exchange
    ending = WebSocketEnding(exchange, restored.pool)
    stream = RelayedStream(restored.context, exchange, ending)
    ending.keep_bytes()
    chain = exchange.route.chain
    restored.channel.stand_in()
    try:
        stream.take_up(state, sockets[0], sockets[1], None if chain.empty else partial(ending.admit, chain, stream))
    except BaseException:
        restored.channel.released()
        raise
    return stream


def _adopt_events(restored: Restored, state: Mapping[str, Any], sockets: list[socket.socket]) -> StreamRecord:
    context, exchange, channel = restored.context, restored.exchange, restored.channel
    exchange.resume(state["answer"])
    unsent, early = a2b_base64(state["unsent"]), a2b_base64(state["early"])
    connection = AdoptedConnection(restored.pool, state["reading"])
    try:
        _transport(context, sockets[1], connection)
        _transport(context, sockets[0], channel)
    except OSError as error:
        _log.info("{line}", line=request_line(exchange, f"a connection was lost while its process changed: {error}"))
        _end_lost(restored, connection)
        raise
    restored.pool.all[connection] = None
    asked = UpstreamExchange(context, exchange, restored.read_timeout)
    asked.method = state["method"].encode("latin-1")
    channel.exchange = exchange
    stream = asked.take_up(connection, state["events"])
    if exchange.open:
        channel.go_on(exchange, early, unsent)
    return stream


def _transport(context: ProxyContext, sock: socket.socket, protocol: Any) -> None:
    """Put a transport between a socket and ``protocol``, which is connected. Raises OSError: the connection is lost."""
    factory = Factory.forProtocol(lambda: protocol)
    factory.noisy = False
    sock.getpeername()
    context.reactor.adoptStreamConnection(sock.fileno(), sock.family, factory)  # which has a duplicate
    sock.close()


def _end_lost(restored: Restored, connection: AdoptedConnection) -> None:
    """Write the record of a request whose connections are not both there."""
    exchange, channel = restored.exchange, restored.channel
    exchange.open = False
    connection.abort()
    if channel.transport is None:
        channel.stand_in()
        exchange.released()
    else:
        restored.context.finished(exchange)
        channel.cut()
