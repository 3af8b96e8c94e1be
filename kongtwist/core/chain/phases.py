"""What plugins give back from their phases, beside answers (core/answers.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..answers import Answer
    from ..exchange import Exchange
    from ..http.head import HeaderBlock
    from .host import Host

__all__ = [
    "PHASES", "AdminCall", "AdminEndpoint", "BodyFilter", "CarriedMessages", "CarriedRequest", "CertificateChoice", "ClientHello",
    "DirectForm", "ProxyEndpoint", "WholeBody",
]  # fmt: skip

PHASES = (
    "certificate", "rewrite", "preread", "handshake", "access", "request_body_filter", "header_filter", "body_filter", "log", "on_open",
    "on_call",
)  # fmt: skip
"""Phases in the order they run (`on_open`, `on_call`: when a stream or a call begins, before the log phase at its end). ``certificate`` and
``rewrite`` see global plugins only; sessions of stream routes have ``preread`` and ``log`` alone, and requests no ``preread``."""


class BodyFilter:
    """Looks at a body, chunk by chunk, as it passes.

    Args:
        call: takes a chunk and whether it is the last one (which may be empty); gives what is passed on. A filter of a
            request may give an `Answer` instead: the request is refused with it, if nothing has been answered yet, and cut
            otherwise. What it raises ends the request: 500, or a cut where the answer has begun.
        keeps_length: what is passed on has, all in all, as many bytes as what came: Content-Length may stay. Where it says
            so wrongly the connection is cut.
    """

    __slots__ = ("call", "keeps_length")

    def __init__(self, call: Callable[[bytes, bool], bytes | Answer], keeps_length: bool = False) -> None:
        self.call = call
        self.keeps_length = keeps_length


class WholeBody:
    """Holds an answer back until its body is whole.

    Nothing is sent meanwhile, not even the head, so `call` may still change status and headers. Bodies are as the upstream
    sent them, compressed ones too. An event stream, or whatever else never ends, is held until it exceeds the limit: a
    plugin that may meet one looks at ``exchange.response_fields`` before it asks. What has no body (answers to HEAD, 204 and 304
    of the upstream) is not held, and `call` not called.

    Args:
        limit: bytes of the longest body that is held.
        call: takes the whole body; gives what is sent in its place, or an `Answer` that replaces the answer. What it
            raises becomes a 500.
        too_large: called in place of ``call`` when a body exceeds the limit; an `Answer` replaces the answer, None lets
            it pass as it is. Without it it passes.
    """

    __slots__ = ("call", "limit", "too_large")

    def __init__(
        self,
        limit: int,
        call: Callable[[bytes], bytes | Answer],
        too_large: Callable[[], Answer | None] | None = None,
    ) -> None:
        self.limit = limit
        self.call = call
        self.too_large = too_large


@dataclass(frozen=True, slots=True, eq=False)
class DirectForm:
    """How calls of gRPC are relayed from stream to stream, without their plugin being asked for each of them (`Plugin.direct`).

    Heads are changed as the plugin changed those of the first such call, and of the first such answer. Messages pass as they are.
    """

    takes: Callable[[HeaderBlock], bool]
    """Whether an answer with this head passes so. What the plugin's ``header_filter`` then does has to follow from the head alone."""
    last: Callable[[list[tuple[bytes, bytes]]], bytes]
    """What is sent behind the messages of an answer in place of its trailers: made of their names, in lower case, and values."""


class CarriedMessages(Protocol):
    """What the messages of a WebSocket mean that carries a request (`CarriedRequest`), the first one excepted, which holds the
    request's fields as lines. What it raises as ValueError ends the WebSocket (RFC 6455 7.4.1: 1002)."""

    @property
    def ended(self) -> bool:
        """The request is whole."""
        ...

    def begin(self) -> None:
        """A message begins."""
        ...

    def feed(self, data: bytes) -> bytes:
        """What the next piece of a message adds to the request's body."""
        ...


@dataclass(frozen=True, slots=True)
class CarriedRequest:
    """A WebSocket that the gateway takes itself, because it carries a request, which is then served like any other."""

    subprotocol: bytes  #: agreed on with the client
    method: bytes  #: of the request; its target is the handshake's
    messages: Callable[[], CarriedMessages]  #: made for each WebSocket
    credentials: (
        bool  #: fields of the handshake that browsers send by themselves (Cookie, Authorization) are the request's too
    )


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What is known of a client when it begins TLS."""

    sni: str | None  #: the server name it asks for, as sent; None: none
    client_ip: str = ""  #: address of the direct peer
    local_port: int = 0  #: port it connected to


@dataclass(frozen=True, slots=True)
class CertificateChoice:
    """The certificate a client is shown. Equal ones share a TLS context."""

    cert: str  #: PEM: the certificate, then those that sign it
    key: str = field(repr=False)  #: PEM: its private key
    cert_alt: str | None = None  #: another one, of the other kind of key (RSA, ECDSA)
    key_alt: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class AdminCall:
    """A request to an endpoint that a plugin adds to the Admin API."""

    method: str
    arguments: Mapping[str, str]  #: values of the path's ``{name}`` parts, decoded
    query: Mapping[str, str]  #: decoded; the last of several of one name
    body: Any  #: decoded JSON or form; None: none
    host: Host  #: of the process that serves the Admin API


@dataclass(frozen=True, slots=True)
class AdminEndpoint:
    """A path that a plugin adds to the Admin API while it is loaded, whether or not it is configured."""

    path: str  #: such as ``/proxy-cache/{plugin_id}/caches/{cache_key}``
    methods: Mapping[str, Callable[[AdminCall], Answer | Awaitable[Answer]]]
    """Method -> what answers it. An `EntityError` that is raised is answered in Kong's shape."""
    text: str  #: for the documentation and ``/openapi``
    tag: str = "Plugins"  #: heading in the documentation


@dataclass(frozen=True, slots=True)
class ProxyEndpoint:
    """A path that a plugin answers on the proxy listeners, wherever it is configured.

    Looked at in the plugin's turn in the access phase, before its ``access``; with ``anywhere`` in the rewrite phase, before
    routes are looked for, and then for global configurations only.
    """

    path: str  #: decoded and normalised; the request's path ends with it, or, ``anywhere``, begins with it
    call: Callable[[Exchange, Any], Any]
    """As `Plugin.access`: the exchange and the configuration. None goes on as if the path were none of ours."""
    methods: tuple[str, ...] = ()  #: those it is for; none: all
    anywhere: bool = False
