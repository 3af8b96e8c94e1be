"""grpc-gateway: JSON over HTTP to gRPC services. Kong 3.9 `grpc-gateway`.

The access phase finds the method; the call is made when all plugins have let the request pass (`Exchange.answer_by`), so that those
behind this one, which limit or refuse, count for it. Without ``proto`` the service tells its methods by server reflection; that,
streams, WebSockets and what else ``google.api.http`` can say are more than Kong has.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...core.chain.host import Host, HostError, ProtoFault, Scope
from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, Exchange, Row
from ...core.grpc.grpc_status import http_status_of
from ...core.grpc.grpc_text import is_grpc
from ...core.http.uri import path_of
from ...entities import EntityError
from ...entities.schema import String
from .._method_sources import NoMethods, Source
from .._once import Seldom
from .._service_targets import NoTarget, target_of
from .method_calls import Calls, told

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .transcoder import Transcoder

__all__ = ["GRPCGateway"]

_PREFLIGHT = [
    (b"Content-Type", b"application/json"),
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Allow-Methods", b"GET,POST,PATCH,DELETE"),
    (b"Access-Control-Allow-Headers", b"content-type"),
]

_TOLD = 10
"""Faults of a file that an answer tells."""


class Config:
    """A configuration, ready for requests.

    Attributes:
        proto: path of the .proto file, or None.
        source: where the methods come from; set in processes that serve.
        host: for calls.
        seldom: lines that would come with every request.
    """

    __slots__ = ("host", "proto", "seldom", "source")

    def __init__(self, conf: Row) -> None:
        self.proto: str | None = conf["proto"]
        self.host: Scope | None = None
        self.source: Source[Transcoder] | None = None
        self.seldom: Seldom | None = None


class GRPCGateway(Plugin):
    """Answer HTTP requests by calls of gRPC methods."""

    name = "grpc-gateway"
    priority = 998
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    example = {"proto": "/etc/kong/protos/sensor.proto"}
    config = {
        "proto": String(
            required=False,
            text="The .proto file with the service and its google.api.http options, on every node; it finds what it imports in its"
            " own folder, and Google's common files. Without it the service is asked (server reflection).",
        ),
    }  # fmt: skip

    async def examine(self, conf: Row, host: Host) -> None:
        path = conf.get("proto")
        if not isinstance(path, str) or not path:
            return
        try:
            faults = (await host.threads(_transcoder, await host.proto(path))).faults
        except ProtoFault as fault:
            faults = [] if fault.missing else [str(fault)]  # it may lie on other nodes only
        except HostError:  # not offered, or no thread is free: who serves requests will tell
            return
        except (ValueError, KeyError) as error:
            faults = [f"{path}: {error}"]
        if faults:
            raise EntityError.schema_violation({"config": {"proto": "; ".join(faults[:_TOLD])}})

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def open(self, conf: Config, plugin: Row, host: Scope) -> Config:
        conf.host = host
        conf.source = Source(host, conf.proto, _transcoder, self.name)
        conf.seldom = Seldom(host.report, host.now)
        if conf.proto is not None:
            host.spawn("reading the .proto file of grpc-gateway", _read_ahead(conf))
        return conf

    def access(self, exchange: Exchange, conf: Config) -> Answer | Awaitable[Answer | None] | None:
        if is_grpc(exchange.block.first(b"content-type")):
            return None  # it speaks gRPC itself
        exchange.set_response_header(b"Access-Control-Allow-Origin", b"*")
        if exchange.method == b"OPTIONS":
            return exchange.exit(200, b"OK", _PREFLIGHT)
        if exchange.route.service is None:
            return None
        assert conf.source is not None
        key = exchange.route.service["id"]
        known = conf.source.known(key)
        if known is not None and _fits(exchange, known) and not conf.source.is_old(key):
            return _call(exchange, conf, known)
        return _find(exchange, conf)


def _transcoder(descriptors: bytes) -> Transcoder:
    """Loads what it takes, which is why a thread does it."""
    made: Transcoder = import_module(f"{__package__}.transcoder").Transcoder(descriptors)
    return made


async def _read_ahead(conf: Config) -> None:
    """Read the file before the first request comes for it."""
    assert conf.source is not None and conf.host is not None
    try:
        await conf.source.read()
    except NoMethods as error:
        conf.host.report(f"grpc-gateway cannot use its proto: {error}")


def _fits(exchange: Exchange, transcoder: Transcoder) -> bool:
    return _found(exchange, transcoder) is not None


def _found(exchange: Exchange, transcoder: Transcoder) -> Any:
    """The method that a request is for. A WebSocket begins with GET, whatever the rule says."""
    path = path_of(exchange.target)
    found = transcoder.index.find(exchange.method, path)
    if found is None and exchange.block.upgrade_websocket and exchange.method == b"GET":
        found = transcoder.index.find(b"POST", path)
    return found


async def _find(exchange: Exchange, conf: Config) -> Answer | None:
    """As `GRPCGateway.access` where the methods have to be read first."""
    service, source = exchange.route.service, conf.source
    assert service is not None and source is not None and conf.seldom is not None
    key = service["id"]
    known = source.known(key)
    try:
        if conf.proto is not None:
            known = known or await source.read()
        elif known is None or source.may_ask_again(key):
            known = await source.ask(key, target_of(exchange))
    except NoTarget as none:
        return none.answer
    except NoMethods as error:
        if known is None:
            conf.seldom(f"grpc-gateway does not know the methods of service {service.get('name') or key}: {error}")
            if error.code is None:
                return Answer.error(500, "An unexpected error occurred")
            status = http_status_of(error.code)
            return Answer.error(status if status in (503, 504) else 502, "The service does not tell its methods")
    finally:
        exchange.let_go()
    assert known is not None
    return _call(exchange, conf, known)


def _call(exchange: Exchange, conf: Config, known: Transcoder) -> Answer | None:
    """Have the method called when the other plugins agree."""
    found = _found(exchange, known)
    if found is None:
        path = path_of(exchange.target).decode("latin-1")
        if known.index.knows(exchange.method):
            return told(400, f'failed to transcode .proto file Unknown path "{path}"')
        return told(
            400, f'failed to transcode .proto file Unknown method "{exchange.method.decode("latin-1").lower()}"'
        )
    binding, values = found
    assert conf.host is not None and conf.seldom is not None
    calls = Calls(exchange, conf.host, conf.seldom, known, binding, values)
    exchange.answer_by(calls.answer)
    return None
