"""azure-functions: have an Azure Function answer. Kong 3.9 `azure-functions`."""

from __future__ import annotations

from collections.abc import Awaitable

from ..core.chain.host import HTTPAnswer, HTTPClient
from ..core.exchange import Answer, BodyTooLarge, Exchange, Row
from ..entities.schema import Boolean, Number, String
from ..entities.typedefs import header_value
from ._functions import FunctionPlugin, answered_fields, asked_fields
from ._passed_body import passed_body

__all__ = ["AzureFunctions"]


def _authority(value: str) -> str | None:
    """Part of a URL's host, with a port at most."""
    return None if not set(value) & set("/?#@\\ \t\r\n") else "invalid value: " + value


def _path(value: str) -> str | None:
    return "invalid value: " + value if set(value) & set("?# \t\r\n") or not value.isascii() else None


class Function:
    """A configuration, ready for requests.

    Attributes:
        url: where the function is, without a query.
        keys: the fields that name the caller; they take the place of the client's.
    """

    __slots__ = ("http", "keepalive", "keys", "timeout", "url", "verify")

    def __init__(self, conf: Row) -> None:
        scheme, port = ("https", 443) if conf["https"] else ("http", 80)
        host = f"{conf['appname']}.{conf['hostdomain']}"
        prefix, name = (conf["routeprefix"] or "").strip("/"), conf["functionname"].strip("/")
        where = host if ":" in host else f"{host}:{port}"
        self.url = f"{scheme}://{where}{'/' + prefix if prefix else ''}/{name}"
        keys = ((b"x-functions-key", conf["apikey"]), (b"x-functions-clientid", conf["clientid"]))
        self.keys = [(header, None if value is None else value.encode()) for header, value in keys]
        self.timeout: float = conf["timeout"] / 1000
        self.keepalive: float = conf["keepalive"] / 1000
        self.verify: bool = bool(conf["https_verify"])
        self.http: HTTPClient | None = None


class AzureFunctions(FunctionPlugin):
    """Ask the function as the client asked here, and pass its answer on."""

    name = "azure-functions"
    priority = 749
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    example = {"appname": "shop", "functionname": "prices", "apikey": "{vault://env/azure-key}"}
    config = {
        "timeout": Number(default=600000, text="Milliseconds until the function's whole answer."),
        "keepalive": Number(default=60000, text="Milliseconds an idle connection is kept."),
        "https": Boolean(default=True, text="Ask with TLS."),
        "https_verify": Boolean(default=False, text="Verify the server's certificate."),
        "apikey": String(
            encrypted=True, referenceable=True, checks=(header_value,), text="Key of the function (x-functions-key)."
        ),
        "clientid": String(
            encrypted=True, referenceable=True, checks=(header_value,), text="Name of the key (x-functions-clientid)."
        ),
        "appname": String(required=True, checks=(_authority,), text="Name of the app: the first label of its host."),
        "hostdomain": String(
            required=True, default="azurewebsites.net", checks=(_authority,), text="The rest of its host, with a port or not."
        ),
        "routeprefix": String(default="api", checks=(_path,), text="Path before the function's name; null: none."),
        "functionname": String(required=True, checks=(_path,), text="Name of the function: the end of the path."),
    }  # fmt: skip

    def compile(self, conf: Row, plugin: Row) -> Function:
        return Function(conf)

    async def access(self, exchange: Exchange, conf: Function) -> Answer:
        http = self.client(conf)
        try:
            body = await passed_body(exchange, exchange.gateway.body_limit)
        except BodyTooLarge:
            limit = exchange.gateway.body_limit
            exchange.report(
                f"plugin {self.name} refuses a body longer than {limit} bytes", "raise client_body_buffer_size"
            )
            return exchange.error(413, "Request body too large")
        fields = asked_fields(exchange)
        fields.pop(b"host", None)
        for name, value in conf.keys:
            if value is None:
                fields.pop(name, None)
            else:
                fields[name] = (value,)
        query = exchange.raw_query

        def ask() -> Awaitable[HTTPAnswer]:
            return http.request(
                exchange.method.decode("latin-1"),
                conf.url + ("?" + query.decode("latin-1") if query else ""),
                headers=[(name, value) for name, values in fields.items() for value in values],
                body=body,
                timeout=conf.timeout,
                keepalive=conf.keepalive,
                ssl_verify=conf.verify,
            )

        found = await self.told(exchange, ask)
        if found is None:
            return exchange.exit(500, {"message": "An unexpected error occurred"})
        return Answer(found.status, found.body, answered_fields(exchange, found.headers))
