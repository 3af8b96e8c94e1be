"""grpc-web: lets browsers call gRPC services. Kong 3.9 `grpc-web`, and beside its gRPC-Web calls over WebSockets and Connect's
protocol.

What a client sends is made a gRPC request before the upstream is asked; the answer is made what the client can read as it
passes. Answers that are no gRPC (a plugin's refusal, a failed upstream) become the end of a call too.
"""

from __future__ import annotations

from collections.abc import Awaitable

from ...core.chain.phases import BodyFilter, CarriedRequest, WholeBody
from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, Exchange, Row
from ...core.grpc.grpc_text import is_grpc
from ...core.grpc.web_frames import SocketMessages
from ...entities.schema import Boolean, String
from ...entities.typedefs import header_value
from .connect_calls import ConnectStream, ConnectUnary
from .web_call import Call, WebCall

__all__ = ["GRPCWeb"]

SUBPROTOCOL = b"grpc-websockets"
"""Of @improbable-eng/grpc-web."""

_NEEDS_PROTO = b"transcoding requests require a .proto file defining the service"
"""Kong's text for types it does not know, too."""

_HEADERS = b"content-type,x-grpc-web,x-user-agent"
"""What Kong allows in a preflight; here it is for one that asks for nothing."""


class Conf:
    """A configuration, ready for requests."""

    __slots__ = ("keep_path", "origin")

    def __init__(self, conf: Row) -> None:
        self.origin: bytes = (conf["allow_origin_header"] or "*").encode()
        self.keep_path = not conf["pass_stripped_path"]


class GRPCWeb(Plugin):
    """Translate gRPC-Web, gRPC over WebSockets and Connect to gRPC."""

    name = "grpc-web"
    priority = 3
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    config = {
        "proto": String(
            required=False,
            text="Path of the .proto file that defines the service; needed for calls in JSON, and to tell which methods may be"
            " called with GET.",
        ),
        "pass_stripped_path": Boolean(
            required=False,
            text="Call the path that the Route has made (strip_path); else, or null, the path as the client sent it.",
        ),
        "allow_origin_header": String(
            required=False,
            default="*",
            checks=(header_value,),
            text="Value of Access-Control-Allow-Origin: the origin whose pages may call, or * for all.",
        ),
    }

    def compile(self, conf: Row, plugin: Row) -> Conf:
        return Conf(conf)

    def handshake(self, exchange: Exchange, conf: Conf) -> CarriedRequest | Answer | None:
        """A WebSocket with the subprotocol is a call."""
        offered = b",".join(exchange.get_headers(b"sec-websocket-protocol")).split(b",")
        if SUBPROTOCOL not in [each.strip().lower() for each in offered]:
            return None
        origin = exchange.get_header(b"origin")
        same = origin is None or origin.partition(b"://")[2].lower() == (exchange.block.host or b"").lower()
        if not same and conf.origin not in (b"*", origin):
            return exchange.error(403, "This origin may not call")
        # What a browser adds by itself (cookies) may only speak for its user where the page is one we trust.
        return CarriedRequest(SUBPROTOCOL, b"POST", SocketMessages, same or conf.origin == origin)

    def access(self, exchange: Exchange, conf: Conf) -> Answer | Awaitable[Answer | None] | None:
        if exchange.method == b"OPTIONS":
            return _preflight(exchange)
        call = _call(exchange)
        if call is None:
            if is_grpc(exchange.get_header(b"content-type")):
                return None
            return Answer(400, _NEEDS_PROTO)
        if conf.keep_path:
            exchange.set_upstream_path(exchange.raw_path)
        return call.access()

    def request_body_filter(self, exchange: Exchange, conf: Conf) -> BodyFilter | None:
        call = _call(exchange)
        return None if call is None else call.request_filter()

    def header_filter(self, exchange: Exchange, conf: Conf) -> Answer | BodyFilter | WholeBody | None:
        exchange.set_response_header(b"Access-Control-Allow-Origin", conf.origin)
        call = None if exchange.method == b"OPTIONS" else _call(exchange)
        if call is None:
            return None
        block = exchange.response_fields
        if exchange.answer_source == "service" and block is not None and is_grpc(block.first(b"content-type")):
            return call.answered()
        return call.refused()


def _preflight(exchange: Exchange) -> Answer:
    asked = b",".join(exchange.get_headers(b"access-control-request-headers")) or _HEADERS
    return Answer(
        200,
        b"OK",
        [(b"Access-Control-Allow-Methods", b"POST, GET"), (b"Access-Control-Allow-Headers", asked)],
    )


def _call(exchange: Exchange) -> Call | None:
    """The call that a request is; None: it is none that needs us. An authentication that refuses it comes before our own
    access phase, so this is asked in every phase, and remembered."""
    own = exchange.own(GRPCWeb.name)
    if "call" not in own:
        own["call"] = _new_call(exchange)
    found: Call | None = own["call"]
    return found


def _new_call(exchange: Exchange) -> Call | None:
    kind = (exchange.get_header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if exchange.method == b"GET" and not kind:
        return None
    match kind:
        case b"application/grpc-web" | b"application/grpc-web+proto":
            return WebCall(exchange, kind)
        case b"application/grpc-web-text" | b"application/grpc-web-text+proto":
            return WebCall(exchange, kind, text=True)
        case b"application/connect+proto":
            return ConnectStream(exchange, kind)
        case b"application/proto":
            return ConnectUnary(exchange, kind)
    return None
