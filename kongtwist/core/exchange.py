"""One request and its answer, as routes and plugins see it.

An `Exchange` is made by a door (our HTTP/1.1 channel, a twisted.web Site) for each request. It holds facts and
decisions; the few I/O verbs at its end are the door's. Plugins read and change it through the methods in the middle,
whose meaning follows Kong's plugin development kit (``kong.request``, ``kong.response``, ``kong.service.request``).
Header names are lower-case bytes, header values bytes, ids and configuration values ``str``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .answers import Answer, StreamedAnswer
from .error_lines import request_line
from .http.headers import check_field, forwarded_lines, prepared_lines, request_opening, spread
from .http.identity_fields import SPELLINGS
from .http.lookups import named, variable
from .http.query import join_query, parse_query, without_argument
from .log_values import LogValue
from .rows import Row

if TYPE_CHECKING:
    from .gateway_facts import GatewayFacts
    from .http.head import HeaderBlock
    from .log_values import TLSFacts, Try
    from .peer import Peer
    from .views import Match, RouteView, SnapshotView

__all__ = ["Answer", "AnswerSink", "BodySink", "BodyTooLarge", "Exchange", "Row", "StreamedAnswer"]

_STREAMED = "\0streamed"
"""Stands among the plugins' names; no plugin has it."""

_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # `json.dumps` would make one each time


class BodySink(Protocol):
    """Receiver of a request body as it arrives."""

    def body_chunk(self, data: bytes) -> None: ...

    def body_end(self, trailers: list[tuple[bytes, bytes]]) -> None: ...


class AnswerSink(Protocol):
    """Producer of an answer; told when the client reads slower than it is fed."""

    def pause_answer(self) -> None: ...

    def resume_answer(self) -> None: ...

    def client_gone(self, reason: str) -> None: ...


class Exchange:
    """One request and its answer. Doors subclass it and implement the I/O verbs at the end.

    ``peer_port`` and ``sni`` have no place here: a door has its own for them, or asks the connection. An exchange of ours is made for
    every request, and takes 512 bytes with what the interpreter adds: up to there it is made in half the time.
    """

    of_stream: ClassVar[bool] = (
        False  #: a session of a stream route (core/stream_session.py), without request and answer
    )

    __slots__ = (
        "_ctx",
        "_own",
        "_query_args",
        "answer_sink",
        "answer_source",
        "answer_trailers",
        "authenticated_groups",
        "block",
        "body_sink",
        "bytes_in",
        "bytes_out",
        "client_ip",
        "consumer",
        "credential",
        "gateway",
        "held",
        "latencies",
        "local_port",
        "log_values",
        "match",
        "method",
        "minor",
        "mount",
        "own_lines",
        "peer_ip",
        "plugin_confs",
        "received",
        "request_changes",
        "request_id",
        "response_changes",
        "response_fields",
        "returned_filters",
        "route",
        "scheme",
        "sent_head",
        "service_call",
        "snapshot",
        "started",
        "status",
        "target",
        "tries",
        "trusted",
        "upstream_body",
        "upstream_method",
        "upstream_peer",
        "upstream_query",
        "upstream_status",
        "wall_started",
    )  # fmt: skip

    method: bytes  #: as received, upper case by the client's choice (RFC 9110 9.1: case-sensitive)
    target: bytes  #: the raw request target, query included
    minor: int  #: 1 for HTTP/1.1, 0 for HTTP/1.0
    block: HeaderBlock  #: the request's header block
    scheme: bytes  #: b"http" or b"https", of the connection
    peer_ip: str  #: address of the direct peer, without brackets
    peer_port: int
    client_ip: str  #: the client after real_ip_header and trusted_ips
    trusted: bool  #: the direct peer is one of trusted_ips
    local_port: int
    sni: str | None
    mount: bytes  #: path prefix under which a GatewayResource hangs; b"" on our own listeners
    started: float  #: monotonic seconds at the end of the head
    wall_started: float  #: epoch seconds at the end of the head
    request_id: bytes  #: 32 hex digits
    gateway: GatewayFacts  #: what the gateway tells of itself
    snapshot: SnapshotView
    route: RouteView  #: None (unseen by plugins of a route) where no route matched
    match: Match
    consumer: Row | None
    credential: Row | None
    authenticated_groups: list[str] | None
    plugin_confs: (
        dict[str, Any] | None
    )  #: what each plugin runs with (core/chain/chain.py: Compiled), where it depends on the consumer
    held: list[Any] | None  #: configurations this request counts on (core/chain/lifetimes.py)
    returned_filters: dict[str, Any] | None  #: what header filters gave for the body, by plugin (core/chain/chain.py)
    request_changes: (
        dict[bytes, bytes | None] | None
    )  #: header changes towards the upstream; None value = remove, several values of a field are divided by NUL, which none
    #: can hold. Changed by the methods below only: it may be shared
    upstream_method: bytes | None  #: method of the request to the upstream in place of the client's, or None
    upstream_query: bytes | None  #: changed query string (without "?"), or None
    upstream_body: (
        bytes | None
    )  #: whole body that goes up in place of the client's (Content-Length follows it), or None
    service_call: Callable[[Exchange], Awaitable[Answer]] | None  #: answers in place of the upstream; see `answer_by`
    upstream_peer: Peer | None  #: the target this request counts on. Changed by `hold` and `let_go` only
    response_changes: list[tuple[str, Any, bytes]] | None  #: see `core.http.headers.apply_changes`
    response_fields: HeaderBlock | None  #: the upstream's header block, once it came
    status: int  #: status sent to the client; 0 before
    upstream_status: int  #: status the upstream sent; 0 when it was not asked
    answer_source: str  #: "service", "exit" or "error"
    answer_trailers: list[tuple[bytes, bytes]] | None
    """The upstream's trailers, names in lower case, set before body filters see the end of the body; None before, and where the
    answer is not the upstream's. A body filter that has told them otherwise puts None there: they are not sent then."""
    own_lines: bytes  #: header lines of an answer made here, before the gateway's own; b"" for the upstream's
    sent_head: bytes  #: the head as sent to the client; b"" before
    log_values: list[LogValue] | None  #: changes to the log record (core/log_values.py)
    tries: list[Try] | None  #: attempts to reach the upstream, where a plugin logs them
    body_sink: BodySink | None
    answer_sink: AnswerSink | None
    begun: bool  #: something of the answer has been sent
    open: bool  #: the client still waits for (the rest of) the answer
    _ctx: dict[str, Any] | None
    _own: dict[str, dict[str, Any]] | None
    _query_args: dict[str, list[str]] | None
    bytes_in: int
    bytes_out: int
    latencies: tuple[float, float] | None

    def __init__(self) -> None:
        self.consumer = self.credential = self.authenticated_groups = None
        self.request_changes = self.upstream_query = self.response_changes = self.response_fields = None
        self.plugin_confs = self.latencies = self.upstream_body = self.upstream_peer = self._own = None
        self._query_args = self._ctx = self.held = self.returned_filters = self.body_sink = self.answer_sink = None
        self.upstream_method = self.log_values = self.tries = self.answer_trailers = self.service_call = None
        self.own_lines = self.sent_head = b""
        self.status = self.upstream_status = self.bytes_in = self.bytes_out = 0
        self.answer_source = "service"
        self.mount = b""
        self.route = self.match = self.snapshot = None  # type: ignore[assignment]

    # -- what a plugin may read ------------------------------------------------------------------------------------

    @property
    def local_ip(self) -> str:
        """The address that the client connected to; empty on a Unix socket, and where it is not known."""
        return ""

    @property
    def host_port(self) -> int:
        """The port that the client connected to, where ours is published as another one (``port_maps``)."""
        ports = self.gateway.host_ports
        return ports.get(self.local_port, self.local_port) if ports else self.local_port

    @property
    def http_version(self) -> str:
        """The version of HTTP that the client speaks: ``1.0``, ``1.1`` or ``2`` (``kong.request.get_http_version``)."""
        return "1.1" if self.minor else "1.0"

    @property
    def takes_trailers(self) -> bool:
        """Whether the client gets trailers: it asked for them (RFC 9110 10.1.4), or speaks HTTP/2, where they cost nothing."""
        return self.block.te_trailers or self.http_version == "2"

    def get_header(self, name: bytes) -> bytes | None:
        """The first value of request header ``name`` (lower case; ``-`` and ``_`` are the same), or None."""
        values = variable(self.block, name)
        return values[0] if values else None

    def get_headers(self, name: bytes) -> list[bytes]:
        """All values of request header ``name`` (lower case; ``_`` finds ``-`` too), in order."""
        return named(self.block, name)

    @property
    def raw_path(self) -> bytes:
        """The request target without its query string, as received."""
        return self.target.partition(b"?")[0]

    @property
    def raw_query(self) -> bytes:
        """The query string without ``?``; changes made by plugins included."""
        if self.upstream_query is not None:
            return self.upstream_query
        return self.target.partition(b"?")[2]

    def query_args(self) -> dict[str, list[str]]:
        """Decoded query arguments, name to values in order; an argument without ``=`` has the value ``""``."""
        if self._query_args is None:
            self._query_args = parse_query(self.raw_query)
        return self._query_args

    @property
    def ctx(self) -> dict[str, Any]:
        """``kong.ctx.shared``: what plugins leave for each other; made when first asked for."""
        shared = self._ctx
        if shared is None:
            shared = self._ctx = {}
        return shared

    @ctx.setter
    def ctx(self, shared: dict[str, Any]) -> None:
        self._ctx = shared

    def own(self, plugin: str) -> dict[str, Any]:
        """``kong.ctx.plugin``: what the phases of one plugin leave for each other in this request; made when first asked for.

        Args:
            plugin: the plugin's name.
        """
        own = self._own
        if own is None:
            own = self._own = {}
        return own.setdefault(plugin, {})

    @property
    def streamed(self) -> bool:
        """Whether it became an event stream, or a gRPC call with several messages in a direction: how long it lasted tells nothing of
        how long anybody waited. (A WebSocket has the status 101.)"""
        return self._own is not None and _STREAMED in self._own

    def mark_streamed(self) -> None:
        """It is `streamed`."""
        self.own(_STREAMED)

    def request_fields(self) -> dict[bytes, tuple[bytes, ...]]:
        """The request's fields, name in lower case to values, with what plugins have changed."""
        fields: dict[bytes, tuple[bytes, ...]] = {}
        for name, value in self.block.pairs:
            key = name.lower()
            fields[key] = (*fields.get(key, ()), value)
        for name, changed in (self.request_changes or {}).items():
            for other in SPELLINGS.get(name, ()):
                fields.pop(other, None)
            if changed is None:
                fields.pop(name, None)
            else:
                fields[name] = tuple(changed.split(b"\0"))
        return fields

    def answer_fields(self) -> dict[bytes, tuple[bytes, ...]]:
        """The answer's fields as far as they are known in the header_filter phase, with what plugins have changed: name in
        lower case to values. Those that the gateway adds at the end (Via, X-Kong-...) are not among them."""
        fields: dict[bytes, tuple[bytes, ...]] = {}
        block = self.response_fields
        if self.own_lines or block is None:
            pairs = [
                (name, value) for name, _, value in (each.partition(b": ") for each in self.own_lines.split(b"\r\n"))
            ]
        else:
            pairs = list(block.pairs)
        for name, value in pairs:
            key = name.lower()
            fields[key] = (*fields.get(key, ()), value)
        for what, name, value in spread(self.response_changes or ()):
            key = name.lower()
            if what == "clear":
                fields.pop(key, None)
            else:
                fields[key] = (*(fields.get(key, ()) if what == "add" else ()), value)
        fields.pop(b"", None)
        return fields

    @property
    def tls(self) -> TLSFacts | None:
        """What is known of the client's TLS connection; None without TLS, and where the door cannot tell."""
        return None

    @property
    def client_certificate(self) -> bytes | None:
        """The client's certificate (DER), verified in the handshake against ``proxy_ssl_client_ca``; None where it has shown
        none, or where the door does not verify any."""
        return None

    @property
    def http2_stream(self) -> Any:
        """The client's stream, while nobody but the relay may look at its bytes (`net.http2_stream.HTTP2Stream`); else None."""
        return None

    # -- what a plugin may change ----------------------------------------------------------------------------------

    def set_upstream_header(self, name: bytes, *values: bytes) -> None:
        """Send header ``name`` with these values to the upstream, in place of the client's (``kong.service.request``).

        This method and those for the response raise ValueError for what no header can hold (CR, LF, NUL).
        """
        for value in values:
            check_field(name, value)
        self._own_changes()[name] = b"\0".join(values)

    def clear_upstream_header(self, name: bytes) -> None:
        """Do not send header ``name`` to the upstream."""
        self._own_changes()[name] = None

    def _own_changes(self) -> dict[bytes, bytes | None]:
        """``request_changes``, made if there are none, and a copy if they are shared."""
        changes = self.request_changes
        if changes.__class__ is not dict:
            changes = self.request_changes = dict(changes or ())
        return changes

    def set_upstream_method(self, method: bytes) -> None:
        """Ask the upstream with this method (``kong.service.request.set_method``)."""
        self.upstream_method = method

    def set_upstream_path(self, path: bytes) -> None:
        """Ask the upstream for this path, escaped and without query (``kong.service.request.set_path``)."""
        self.match = self.match._replace(upstream_path=path)

    def set_upstream_query(self, query: bytes) -> None:
        """Send this query string, without ``?``, to the upstream (``kong.service.request.set_raw_query``)."""
        self.upstream_query = query
        self._query_args = None

    def set_query_args(self, args: Mapping[str, list[str]]) -> None:
        """Replace the query string sent to the upstream."""
        self.upstream_query = join_query(args)
        self._query_args = None

    def clear_query_arg(self, name: str) -> None:
        """Take the arguments ``name`` out of the query string sent to the upstream (``kong.service.request``)."""
        self.upstream_query = without_argument(self.raw_query, name)
        self._query_args = None

    def set_upstream_body(self, body: bytes) -> None:
        """Send ``body`` to the upstream in place of the client's (``kong.service.request.set_raw_body``).

        Only for a plugin that has awaited `read_body`; the upstream gets a Content-Length that fits.
        """
        self.upstream_body = body

    def answer_by(self, call: Callable[[Exchange], Awaitable[Answer]]) -> None:
        """Have ``call`` answer in place of the upstream, when all plugins have let the request pass: who speaks to the service in
        another protocol does so behind them all. A request that asks for a WebSocket may get a `WebSocketAnswer`.

        Args:
            call: takes this exchange, with what plugins have changed of it. It may wait, and is cancelled when the client leaves.
        """
        self.service_call = call

    def set_response_header(self, name: bytes, value: bytes) -> None:
        """Send header ``name`` (spelled as given) with ``value`` to the client, in place of any other of that name."""
        check_field(name, value)
        if self.response_changes is None:
            self.response_changes = []
        self.response_changes.append(("set", name, value))

    def set_response_lines(self, names: frozenset[bytes], lines: bytes) -> None:
        """As `set_response_header` for several fields at once, for who sets the same ones time and again.

        Args:
            names: the fields' names in lower case; none of those the gateway writes itself.
            lines: ``Name: value`` with CRLF, each.
        """
        self.set_prepared_lines(prepared_lines(names, lines))

    def set_prepared_lines(self, change: tuple[str, Any, bytes]) -> None:
        """As `set_response_lines`, for lines that are known to be right: what `core.http.headers.prepared_lines` gave, or of that
        form with nothing but digits for values."""
        if self.response_changes is None:
            self.response_changes = [change]
        else:
            self.response_changes.append(change)

    def add_response_header(self, name: bytes, value: bytes) -> None:
        """Send one more header ``name`` to the client."""
        check_field(name, value)
        if self.response_changes is None:
            self.response_changes = []
        self.response_changes.append(("add", name, value))

    def clear_response_header(self, name: bytes) -> None:
        """Do not send header ``name`` to the client."""
        if self.response_changes is None:
            self.response_changes = []
        self.response_changes.append(("clear", name, b""))

    def authenticate(self, consumer: Row | None, credential: Row | None) -> None:
        """Remember who this is (``kong.client.authenticate``)."""
        self.consumer = consumer
        self.credential = credential

    def set_log_value(self, key: str, value: Any, mode: str = "set") -> None:
        """Put a value into the log record of this request (``kong.log.set_serialize_value``).

        Args:
            key: where; dots lead into members of members, which are made where they lack.
            value: what JSON can say; None takes the member out.
            mode: ``set``, ``add`` (if it is not there) or ``replace`` (if it is).

        Raises:
            ValueError: another mode.
        """
        if mode not in ("set", "add", "replace"):
            raise ValueError("mode must be 'set', 'add' or 'replace'")
        if self.log_values is None:
            self.log_values = []
        self.log_values.append(LogValue(tuple(key.split(".")), value, mode))

    def report(self, what: str, remedy: str = "", detail: str = "") -> None:
        """Write a line about this request into the error log.

        Args:
            what: what happened; client, request, route, service and request id are added.
            remedy: what the operator can do about it.
            detail: further lines: a traceback.
        """
        line = request_line(self, what, remedy)
        self.gateway.report(f"{line}\n{detail}" if detail else line)

    @staticmethod
    def exit(status: int, body: Any = None, headers: list[tuple[bytes, bytes]] | None = None) -> Answer:
        """An answer with this body (``kong.response.exit``): bytes as they are, anything else but None as JSON."""
        extra = list(headers or [])
        if body is not None and not isinstance(body, bytes):
            body = _json(body).encode("utf-8", "replace")
            extra.append((b"Content-Type", b"application/json; charset=utf-8"))
        return Answer(status, body if body is not None else b"", extra)

    @staticmethod
    def error(status: int, message: str, headers: list[tuple[bytes, bytes]] | None = None) -> Answer:
        """An answer in the form the client accepts, with the request id (``kong.response.error``)."""
        return Answer(status, None, headers, message)

    # -- the target it counts on -------------------------------------------------------------------------------------

    def hold(self, peer: Peer) -> None:
        """Count this request on ``peer`` from now on (`Peer.active`), and no longer on the one before."""
        self.let_go()
        peer.active += 1
        self.upstream_peer = peer

    def let_go(self) -> None:
        """Count on no target any more. Whatever becomes of a request or a stream, the end of it calls this (`ProxyContext.finished`);
        who knows earlier that the target is done with it calls it too."""
        peer, self.upstream_peer = self.upstream_peer, None
        if peer is not None:
            peer.let_go()

    def release(self) -> None:
        """Hold no configuration any more. The end of a request calls this, behind its log phase."""
        held, self.held = self.held, None
        for each in held or ():
            each.let_go()

    # -- the door's I/O verbs --------------------------------------------------------------------------------------

    def start(self, status: int, reason: bytes, headers: bytes, length: int | None) -> None:
        """Send the head. ``headers``: complete lines, each with its CRLF, without framing and Connection headers, which the
        door adds. ``length``: bytes of body (to HEAD: what GET would give); None when unknown (chunked, or close-delimited
        for HTTP/1.0) or when there is none (204, 304)."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        raise NotImplementedError

    def finish(self, trailers: list[tuple[bytes, bytes]] | None = None) -> None:
        """The answer is complete."""
        raise NotImplementedError

    def abort(self) -> None:
        """Cut the client's connection so that the answer cannot look complete."""
        raise NotImplementedError

    def bound_silence(self, seconds: float) -> None:
        """Have the connection end when the client's host acknowledges nothing of what was sent for so long. Nothing where others
        share the connection (HTTP/2)."""

    def reset(self, code: int) -> None:
        """`abort`, with an error code of HTTP/2 (RFC 9113 7) for a client that speaks it."""
        self.abort()

    def begin(
        self, status: int, reason: bytes, headers: bytes, length: int | None, first: bytes, raw: bool = False
    ) -> None:
        """`start`, and the first piece of the body with it (one system call where the door can).

        Args:
            first: the piece; may be empty.
            raw: it is framed as chunks already; only where `takes_raw_chunks`.
        """
        self.start(status, reason, headers, length)
        if first:
            (self.write_raw if raw else self.write)(first)

    def answer(
        self, status: int, reason: bytes, headers: bytes, length: int | None, body: bytes, raw: bool = False
    ) -> None:
        """`begin` with the whole body, and `finish`. The caller gives no body where none may be (HEAD, 204, 304)."""
        self.begin(status, reason, headers, length, body, raw)
        self.finish()

    def takes_raw_chunks(self) -> bool:
        """Whether `write_raw` may be used for this answer, if its length is unknown."""
        return False

    def write_raw(self, data: bytes) -> None:
        """Send bytes of a chunked body with their framing, the last chunk and the trailers excepted."""
        raise NotImplementedError

    def raw_sender(self) -> Callable[[bytes], None]:
        """`write_raw` by a shorter way, for who knows that the answer is open; only where `takes_raw_chunks`."""
        return self.write_raw

    def interim(self, status: int, reason: bytes, headers: bytes, never: frozenset[bytes] = frozenset()) -> None:
        """Pass on an informational answer (103) where the door can; else nothing. ``never``: names, in lower case, of fields that
        came as never indexed (RFC 7541 7.1.3)."""

    def forwarded(self) -> bytes:
        """Lines telling the upstream where the request came from (core/http/headers.py: `forwarded_lines`)."""
        return forwarded_lines(self)

    def opening(self, path: bytes, prefix: bytes | None, host: bytes, upgrade: bool) -> bytes:
        """The first lines of the head of the request to the upstream (core/http/headers.py: `request_opening`)."""
        return request_opening(self, path, prefix, host, upgrade)

    def receive_body(self, sink: BodySink) -> None:
        """Give the request body to ``sink``, from its first byte on, as it comes: `body_chunk` calls, one `body_end`. What came before
        (and what `read_body` read) is given at once. Called again for a retry only by who kept the body."""
        raise NotImplementedError

    def pause_request(self) -> None:
        """Stop reading the request body (the upstream reads slower than the client sends)."""
        raise NotImplementedError

    def resume_request(self) -> None:
        """Go on reading the request body."""
        raise NotImplementedError

    def continue_request(self) -> None:
        """Ask for the body if the client waits for ``100 Continue`` (RFC 9110 10.1.1)."""
        raise NotImplementedError

    def read_body(self, limit: int) -> Awaitable[bytes]:
        """The whole request body, kept for the upstream too. Raises BodyTooLarge above ``limit`` bytes."""
        raise NotImplementedError

    def take_transport(self) -> tuple[Any, bytes]:
        """Hand over the client's transport for another protocol: (transport, bytes already received beyond the head). Whoever takes it
        calls `released` when the connection has ended."""
        raise NotImplementedError

    def released(self) -> None:
        """The transport that was taken has ended: counters and log phase."""
        raise NotImplementedError


class BodyTooLarge(Exception):
    """The request body is larger than what may be held in memory (``client_body_buffer_size``, bytes)."""
