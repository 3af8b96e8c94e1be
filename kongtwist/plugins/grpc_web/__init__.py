"""grpc-web: lets browsers call gRPC services. Kong 3.9 `grpc-web`, and beside its gRPC-Web calls over WebSockets and Connect's
protocol.

What a client sends is made a gRPC request before the upstream is asked; the answer is made what the client can read as it
passes. Answers that are no gRPC (a plugin's refusal, a failed upstream) become the end of a call too. JSON needs to know the
messages: from ``proto``, or, which Kong does not do, from what the service tells of itself (server reflection).
"""

from __future__ import annotations

from collections.abc import Awaitable
from importlib import import_module
from typing import TYPE_CHECKING

from ...core.chain.host import Scope
from ...core.chain.phases import BodyFilter, CarriedRequest, DirectForm, WholeBody
from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, Exchange, Row
from ...core.grpc.grpc_status import INTERNAL, INVALID_ARGUMENT, UNKNOWN
from ...core.grpc.grpc_text import is_grpc
from ...core.grpc.web_frames import SocketMessages
from ...core.http.headers import spread
from ...entities.schema import Boolean, String
from ...entities.typedefs import header_value
from .._method_sources import NoMethods, Source
from .._once import Seldom
from .._service_targets import NoTarget, target_of
from .dialects import call_of
from .web_call import DIRECT, WebCall

if TYPE_CHECKING:
    from .json_codec import Methods
    from .web_call import Call

__all__ = ["GRPCWeb"]

SUBPROTOCOL = b"grpc-websockets"
"""Of @improbable-eng/grpc-web."""

_NEEDS_PROTO = "transcoding requests require a .proto file defining the service"
"""Kong's text for types it does not know, too."""

_HEADERS = b"content-type,x-grpc-web,x-user-agent"
"""What Kong allows in a preflight; here it is for one that asks for nothing."""


class Conf:
    """A configuration, ready for requests.

    Attributes:
        origin: value of Access-Control-Allow-Origin.
        keep_path: the client's path goes up.
        proto: path of the .proto file, or None.
        source: where methods come from; set in processes that serve.
        seldom: lines that would come with every request.
    """

    __slots__ = ("keep_path", "origin", "proto", "seldom", "source")

    def __init__(self, conf: Row) -> None:
        self.origin: bytes = (conf["allow_origin_header"] or "*").encode()
        self.keep_path = not conf["pass_stripped_path"]
        self.proto: str | None = conf["proto"]
        self.source: Source[Methods] | None = None
        self.seldom: Seldom | None = None


class GRPCWeb(Plugin):
    """Translate gRPC-Web, gRPC over WebSockets and Connect to gRPC."""

    name = "grpc-web"
    priority = 3
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    config = {
        "proto": String(
            required=False,
            text="Path of the .proto file that defines the service, for calls in JSON and by GET. Without it the service is asked"
            " (server reflection). Calls in binary need neither.",
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

    def open(self, conf: Conf, plugin: Row, host: Scope) -> Conf:
        conf.source = Source(host, conf.proto, _methods, self.name)
        conf.seldom = Seldom(host.report, host.now)
        return conf

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
            return Answer(415, _NEEDS_PROTO.encode())
        if exchange.method not in call.methods:
            answer = call.refuse(UNKNOWN, f"the method {exchange.method.decode('latin-1')} is not for calls", 405)
            answer.headers.append((b"Allow", b", ".join(call.methods)))
            return answer
        if conf.keep_path:
            exchange.set_upstream_path(exchange.raw_path)
        if conf.source is None or exchange.route.service is None or not (call.needs_method or conf.proto):
            return call.access()
        known = conf.source.known(exchange.route.service["id"])
        return self._described(exchange, conf, call, known)

    async def _described(self, exchange: Exchange, conf: Conf, call: Call, known: Methods | None) -> Answer | None:
        """`access`, when it is known what methods there are."""
        source, service = conf.source, exchange.route.service
        assert source is not None and service is not None and conf.seldom is not None
        path, key = exchange.match.upstream_path, service["id"]
        try:
            if conf.proto is not None:
                known = known or await source.read()
            elif known is None or (known.find(path) is None and source.may_ask_again(key)):
                known = await source.ask(key, target_of(exchange))
        except NoTarget as none:
            return none.answer
        except NoMethods as error:
            conf.seldom(f"grpc-web does not know the methods of service {service.get('name') or key}: {error}")
            if known is None:
                if not call.needs_method:
                    return call.access()
                code, status = (INTERNAL, 500) if conf.proto else (INVALID_ARGUMENT, 400)
                return call.refuse(code, _NEEDS_PROTO, status)
        finally:
            exchange.let_go()
        assert known is not None
        return call.describe(known.find(path)) or call.access()

    def direct(self, exchange: Exchange, conf: Conf) -> DirectForm | None:
        """Binary gRPC-Web differs from gRPC in its heads and its end."""
        call = _call(exchange)
        if not isinstance(call, WebCall) or call.text or call.json or exchange.method not in call.methods:
            return None
        if conf.keep_path:
            exchange.set_upstream_path(exchange.raw_path)
        call.access()
        return DIRECT

    def request_body_filter(self, exchange: Exchange, conf: Conf) -> BodyFilter | None:
        call = _call(exchange)
        return None if call is None else call.request_filter()

    def header_filter(self, exchange: Exchange, conf: Conf) -> Answer | BodyFilter | WholeBody | None:
        if not _is_told(exchange):  # cors has the last word, as in Kong
            exchange.set_response_header(b"Access-Control-Allow-Origin", conf.origin)
        call = None if exchange.method == b"OPTIONS" else _call(exchange)
        if call is None:
            return None
        block = exchange.response_fields
        if exchange.answer_source == "service" and block is not None and is_grpc(block.first(b"content-type")):
            return call.answered()
        return call.refused()


def _is_told(exchange: Exchange) -> bool:
    """Whether another plugin has said which pages may read the answer, or that none may."""
    changes = exchange.response_changes
    return bool(changes) and any(name.lower() == b"access-control-allow-origin" for _, name, _ in spread(changes or ()))


def _methods(descriptors: bytes) -> Methods:
    """Loads what it takes, which is why a thread does it."""
    made: Methods = import_module(f"{__package__}.json_codec").Methods(descriptors)
    return made


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
        own["call"] = call_of(exchange)
    found: Call | None = own["call"]
    return found
