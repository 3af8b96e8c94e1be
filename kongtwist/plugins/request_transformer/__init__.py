"""request-transformer: change the request before it goes to the upstream. Kong 3.9 `request-transformer`.

Order of work: path, method, headers, body, query; in each of them remove, rename, replace, add, append.
"""

from __future__ import annotations

from collections.abc import Awaitable

from ...core.chain.failures import UNEXPECTED
from ...core.chain.host import Scope
from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, BodyTooLarge, Exchange, Row
from ...core.grpc.grpc_text import is_grpc
from ...core.http.headers import PreparedChanges
from ...core.http.pairs import BodyBomb, split_pair
from ...core.http.query import join_arguments, parse_arguments
from ...core.http.uri import escape
from ...entities.entity import Config
from ...entities.schema import Array, Field, Record, String
from ...entities.typedefs import header_name, header_value
from .._once import Once
from .._passed_body import passed_body
from .transform_body import Rules, body_transformer, transform_arguments
from .transform_headers import HeaderChanges, HeaderRules, changed_headers
from .transform_rendering import Rendering, TemplatedRules, has_templates
from .transform_templates import TemplateFailed, fault_of_template, is_template

__all__ = ["RequestTransformer"]

_WITHOUT_BODY = frozenset((b"GET", b"HEAD", b"TRACE"))
"""Methods for which a form also becomes arguments of the query."""


def _has_value(pair: str) -> str | None:
    name, value = split_pair(pair)
    if not value:
        return f"key '{name}' has no value"
    fault = fault_of_template(value)
    return None if fault is None else f"value '{value}' is not in supported format, error:{fault}"


def _header(pair: str) -> str | None:
    name, value = split_pair(pair)
    if header_name(name) is not None:
        return f"'{name}' is not a valid header"
    return header_value(value)


def _removed_header(pair: str) -> str | None:
    name, _ = split_pair(pair)
    return None if header_name(name) is None else f"'{name}' is not a valid header"


def _two_headers(pair: str) -> str | None:
    wrong = [name for name in split_pair(pair) if header_name(name) is not None]
    return f"'{wrong[0]}' is not a valid header" if wrong else None


_PAIR = "^[^:]+:.*$"


def _strings(element: String, text: str) -> Array:
    return Array(element, required=True, default=[], text=text)


def _pairs(what: str, *, names: bool = False, **more: Field) -> Record:
    """The rules of one step: ``name:value``, or ``old:new`` where ``names``."""
    pair = "old:new" if names else "name:value"
    check = _two_headers if names else _header
    return Record(
        {
            "body": _strings(String(checks=(_has_value,)), f"Members of the body {what}, each as {pair}."),
            "headers": _strings(String(match=_PAIR, checks=(check,)), f"Headers {what}, each as {pair}."),
            "querystring": _strings(String(checks=(_has_value,)), f"Query arguments {what}, each as {pair}."),
            **more,
        },
        text=f"What is {what}.",
    )


class Transformation:
    """A configuration, ready for requests.

    Attributes:
        changes_bodies: there are rules for bodies.
        templated: there are templates among the values.
        templates: what is to be rendered for each request; None: nothing is.
    """

    __slots__ = (
        "body",
        "changes_bodies",
        "first",
        "fresh",
        "headers",
        "method",
        "names",
        "path",
        "query",
        "templated",
        "templates",
    )

    def __init__(self, conf: Row) -> None:
        uri: str | None = conf["replace"]["uri"]
        self.templates: TemplatedRules | None = None
        self.templated = has_templates(conf)
        if uri is not None and not uri.startswith("/") and not is_template(uri):
            raise ValueError("config.replace.uri must start with /")
        self.path = None if uri is None else escape(uri.encode("utf-8", "surrogatepass"))
        self.method: bytes | None = None if conf["http_method"] is None else conf["http_method"].encode()
        self.headers = HeaderRules.of(conf)
        self.first = Once()
        self.body = Rules.of(conf, "body")
        self.query = Rules.of(conf, "querystring")
        self.changes_bodies = not self.body.empty
        self.names = self.headers.names()
        # What becomes of headers where the request has none of these names, which is the usual case; None: see `access`.
        self.fresh: PreparedChanges | None = None
        if (
            self.path is None
            and self.method is None
            and self.body.empty
            and self.query.empty
            and not has_templates(conf)
        ):
            self.fresh = self.headers.on_none()


Wanted = Transformation | Rendering
"""What is to be done with one request."""


class RequestTransformer(Plugin):
    """Change path, method, headers, body and query of requests."""

    name = "request-transformer"
    priority = 801
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    example = {"add": {"headers": ["x-tier:gold"]}, "remove": {"querystring": ["debug"]}}
    config = Config(
        {
            "http_method": String(match="^%u+$", text="Method of the request to the upstream; null: the client's."),
            "remove": Record(
                {
                    "body": _strings(String(), "Names of members of the body that are removed."),
                    "headers": _strings(String(checks=(_removed_header,)), "Names of headers that are removed."),
                    "querystring": _strings(String(), "Names of query arguments that are removed."),
                },
                text="What is removed.",
            ),
            "rename": _pairs("renamed", names=True),
            "replace": _pairs(
                "replaced where they are there",
                uri=String(text="Path of the request to the upstream; null: the route's. No query."),
            ),
            "add": _pairs("added where they are missing"),
            "append": _pairs("appended to what is there"),
        }
    )

    def compile(self, conf: Row, plugin: Row) -> Transformation:
        return Transformation(conf)

    def opens(self, conf: Transformation) -> bool:
        return conf.templated

    def open(self, conf: Transformation, plugin: Row, host: Scope) -> Transformation:
        conf.templates = TemplatedRules(plugin["config"], plugin["id"], host.lua)
        return conf

    def access(self, exchange: Exchange, conf: Transformation) -> Answer | Awaitable[Answer | None] | None:
        fresh = conf.fresh
        if fresh is not None and not exchange.request_changes and exchange.block.has_none_of(conf.names):
            if fresh:
                exchange.request_changes = fresh
            return None
        if conf.templates is None:
            return self._transform(exchange, conf)
        try:
            return self._transform(exchange, Rendering(conf, conf.templates, exchange))
        except TemplateFailed as failure:
            return _failed(exchange, failure)

    def _transform(self, exchange: Exchange, conf: Wanted) -> Awaitable[Answer | None] | None:
        if conf.path is not None:
            exchange.set_upstream_path(conf.path)
        kind = exchange.get_header(b"content-type")
        if exchange.block.upgrade_websocket or is_grpc(kind):
            self._tell_of_streams(exchange, conf)
            if _is_call(exchange, kind):
                self._headers_and_query(exchange, conf)
                return None
        to_query = conf.method in _WITHOUT_BODY and _is_form(kind)
        if conf.method is not None:
            exchange.set_upstream_method(conf.method)
        changes = {} if conf.headers.empty else changed_headers(conf.headers, exchange.request_fields())
        _send_headers(exchange, changes)
        if b"content-type" in changes:
            kind = (changes[b"content-type"] or (None,))[0]
        transform = body_transformer(kind) if conf.changes_bodies else None
        if (to_query or transform is not None) and exchange.block.has_body:
            return self._with_body(exchange, conf, kind or b"", to_query)
        if transform is not None:
            _transform_body(exchange, conf, kind or b"", b"")
        _transform_query(exchange, conf, b"")
        return None

    def _tell_of_streams(self, exchange: Exchange, conf: Wanted) -> None:
        """Say once what rules do not do to streams. What a client claims to be changes no rule: a handshake whose method
        is another one goes up as an ordinary request (`kongtwist.proxy.websocket_route`)."""
        what = "gRPC calls" if is_grpc(exchange.get_header(b"content-type")) else "WebSockets"
        if conf.changes_bodies and conf.first(f"bodies of {what}"):
            exchange.report(f"plugin {self.name} has rules for bodies and lets those of {what} pass; this is said once")
        if conf.method is not None and conf.first(f"method of {what}"):
            becomes = "keep their method" if what == "gRPC calls" else "go up as ordinary requests by another method"
            exchange.report(f"plugin {self.name} has a rule for the method: {what} {becomes}; this is said once")

    def _headers_and_query(self, exchange: Exchange, conf: Wanted) -> None:
        """All that is done to a call of gRPC: with another method, or another body, it would be none any more."""
        if not conf.headers.empty:
            _send_headers(exchange, changed_headers(conf.headers, exchange.request_fields()))
        _transform_query(exchange, conf, b"")

    async def _with_body(self, exchange: Exchange, conf: Wanted, kind: bytes, to_query: bool) -> Answer | None:
        try:
            return await self._rest(exchange, conf, kind, to_query)
        except TemplateFailed as failure:
            return _failed(exchange, failure)

    async def _rest(self, exchange: Exchange, conf: Wanted, kind: bytes, to_query: bool) -> Answer | None:
        """The rest, once the body is here. One too large to be held is left as it is."""
        try:
            raw = await passed_body(exchange, exchange.gateway.body_limit)
        except BodyTooLarge:
            exchange.report(
                f"plugin {self.name} leaves the request body as it is: it is longer than"
                f" {exchange.gateway.body_limit} bytes",
                "raise client_body_buffer_size",
            )
            _transform_query(exchange, conf, b"")
            return None
        if conf.changes_bodies:
            try:
                _transform_body(exchange, conf, kind, raw)
            except BodyBomb as error:
                exchange.report(f"plugin {self.name} refuses a request whose JSON body it cannot transform: {error}")
                return exchange.error(400, "Bad request")
        _transform_query(exchange, conf, raw if to_query else b"")
        return None


def _failed(exchange: Exchange, failure: TemplateFailed) -> Answer:
    exchange.report(str(failure), "correct it in the plugin's configuration")
    return Answer.error(500, UNEXPECTED)


def _is_call(exchange: Exchange, kind: bytes | None) -> bool:
    """Whether it is a call for a service of gRPC, and not only says so."""
    service = exchange.route.service
    return is_grpc(kind) and service is not None and service["protocol"] in ("grpc", "grpcs")


def _is_form(kind: bytes | None) -> bool:
    lowered = (kind or b"").lower()
    others = b"application/json" in lowered or b"multipart/form-data" in lowered
    return not others and b"application/x-www-form-urlencoded" in lowered


def _send_headers(exchange: Exchange, changes: HeaderChanges) -> None:
    for name, values in changes.items():
        if values is None:
            exchange.clear_upstream_header(name)
        else:
            exchange.set_upstream_header(name, *values)


def _transform_body(exchange: Exchange, conf: Wanted, kind: bytes, raw: bytes) -> None:
    transform = body_transformer(kind)
    body = None if transform is None else transform(conf.body, raw, kind)
    if body is not None:
        exchange.set_upstream_body(body)


def _transform_query(exchange: Exchange, conf: Wanted, form: bytes) -> None:
    """Apply the query's rules; ``form``: a body whose fields become arguments too."""
    more = parse_arguments(form)
    if conf.query.empty and not more:
        return
    arguments = parse_arguments(exchange.raw_query)
    for name, values in more.items():
        arguments.setdefault(name, []).extend(values)
    transform_arguments(conf.query, arguments)
    exchange.set_upstream_query(join_arguments(arguments, ordered=True))
