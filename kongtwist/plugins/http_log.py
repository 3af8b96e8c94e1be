"""http-log: send a record of every request to an HTTP server. Kong 3.9 `http-log`.

Records wait in a queue of the gateway, beside the traffic: a server that is slow, refuses or is gone costs requests and streams
nothing, and what waits is bounded (config.queue). Configurations that send to the same place in the same way share a queue.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from urllib.parse import urlsplit

from ..core.chain.host import HostError, QueueSettings, Scope
from ..core.exchange import Exchange, Row
from ..core.log_record import LogRecords
from ..entities.entity import Config
from ..entities.queue_fields import batch_rules, former_queue_fields, queue_record
from ..entities.schema import Map, Number, String
from ..entities.typedefs import header_name, header_value, url
from ._custom_fields import CustomFields, LogPlugin, custom_fields_by_lua

__all__ = ["HttpLog"]

_PORTS = {"http": 80, "https": 443}

_NO_TIMEOUT = 60_000
"""Milliseconds in place of 0: what Kong's sockets then take (lua_socket_read_timeout)."""

_SHOWN = 500
"""Bytes of a server's refusal that are written into the log."""


def _authorized_once(conf: Row) -> str | None:
    """User and password stand in the address or in a header, not in both."""
    endpoint, headers = conf.get("http_endpoint"), conf.get("headers")
    if not isinstance(endpoint, str) or not isinstance(headers, dict):
        return None
    if "@" in _authority(endpoint) and any(name.lower() == "authorization" for name in headers):
        return "specifying both an 'Authorization' header and user info in 'http_endpoint' is not allowed"
    return None


def _authority(endpoint: str) -> str:
    try:
        return urlsplit(endpoint).netloc
    except ValueError:
        return ""


class Endpoint:
    """Where records go: a configuration, ready for requests.

    Attributes:
        key: equal for configurations that share a queue; shows no credentials.
        url: the address without user, password and query.
        settings: of the queue.
        sentences: what is to be said of deprecated fields.

    Raises:
        ValueError: the address has a port that is none.
    """

    def __init__(self, conf: Row) -> None:
        parts = urlsplit(conf["http_endpoint"])
        userinfo, _, _ = parts.netloc.rpartition("@")
        self.host = parts.hostname or ""
        self.port = parts.port or _PORTS.get(parts.scheme, 0)
        name = f"[{self.host}]" if ":" in self.host else self.host
        # As in Kong, a query does not go with it.
        self.url = f"{parts.scheme}://{name}:{self.port}{parts.path or '/'}"
        self.method: str = conf["method"] or "POST"
        timeout, keepalive = conf["timeout"], conf["keepalive"]
        self.timeout = (10000 if timeout is None else timeout if timeout > 0 else _NO_TIMEOUT) / 1000.0
        self.keepalive = (60000 if keepalive is None else keepalive) / 1000.0
        content_type: str = conf["content_type"] or "application/json"
        headers = {"Content-Type": content_type}
        if userinfo:
            headers["Authorization"] = "Basic " + b64encode(userinfo.encode()).decode()
        self.headers = [(n.encode(), v.encode()) for n, v in {**(conf["headers"] or {}), **headers}.items()]
        rules, self.sentences = batch_rules(conf)
        self.settings = QueueSettings(**rules)
        self.alone = self.settings.max_batch_size == 1
        same = ("http_endpoint", "method", "content_type", "timeout", "keepalive", "retry_count")
        secret = sha256(":".join(str(conf[field]) for field in same).encode("utf-8", "surrogatepass")).hexdigest()
        self.key = f"http-log:{self.url}:{secret[:16]}"


class Sender:
    """An `Endpoint` with its queue."""

    def __init__(self, endpoint: Endpoint, row: Row, host: Scope) -> None:
        self.endpoint = endpoint
        self.records = LogRecords(host.workspace_id)
        self.fields = CustomFields(row, host)
        self._host = host
        for sentence in endpoint.sentences:
            host.report(f"plugin http-log ({row['id']}): {sentence}")
        self.queue = host.queue(endpoint.key, endpoint.settings, self.send)

    async def send(self, entries: list[bytes]) -> None:
        """Send a batch: one record, or a list of them where more than one may come.

        Raises:
            ValueError: the server did not take it.
        """
        endpoint = self.endpoint
        where = f"{endpoint.host}:{endpoint.port}"
        body = entries[0] if endpoint.alone else b"[%b]" % b",".join(entries)
        try:
            # Kong does not look at the server's certificate.
            answer = await self._host.http.request(
                endpoint.method, endpoint.url, headers=endpoint.headers, body=body, timeout=endpoint.timeout,
                keepalive=endpoint.keepalive, ssl_verify=False,
            )  # fmt: skip
        except HostError as error:
            raise ValueError(f"failed request to {where}: {error}") from error
        if answer.status >= 300:
            said = answer.body[:_SHOWN].decode("utf-8", "replace")
            raise ValueError(f"request to {where} returned status code {answer.status} and body {said}")


_FORMER = former_queue_fields("http-log")
_FORMER["retry_count"].text = "Has no effect; two plugins with different ones do not share a queue."


class HttpLog(LogPlugin):
    """Send a record of every request to an HTTP server."""

    name = "http-log"
    priority = 12
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    example = {"http_endpoint": "http://logs.internal:9200/kong", "headers": {"X-Source": "edge"}}
    config = Config(
        {
            "http_endpoint": String(
                required=True, encrypted=True, referenceable=True, checks=(url,),
                text="URL records are sent to; user:password@ becomes basic authentication, a query is not sent.",
            ),
            "method": String(default="POST", one_of=["POST", "PUT", "PATCH"], text="Method of the requests."),
            "content_type": String(
                default="application/json", one_of=["application/json", "application/json; charset=utf-8"],
                text="Content-Type of the requests; their body is the same for both.",
            ),
            "timeout": Number(default=10000, text="Milliseconds a request may take; 0: 60,000."),
            "keepalive": Number(default=60000, text="Milliseconds an idle connection is kept."),
            **_FORMER,
            "headers": Map(
                String(
                    match_none=[
                        {"err": "cannot contain 'Host' header", "pattern": "^[Hh][Oo][Ss][Tt]$"},
                        {
                            "err": "cannot contain 'Content-Length' header",
                            "pattern": "^[Cc][Oo][Nn][Tt][Ee][Nn][Tt]%-[Ll][Ee][nn][Gg][Tt][Hh]$",
                        },
                        {
                            "err": "cannot contain 'Content-Type' header",
                            "pattern": "^[Cc][Oo][Nn][Tt][Ee][Nn][Tt]%-[Tt][Yy][Pp][Ee]$",
                        },
                    ],
                    checks=(header_name,),
                ),
                String(referenceable=True, checks=(header_value,)),
                text="Headers of the requests; they replace none that is sent anyway. null: none.",
            ),
            "queue": queue_record(),
            "custom_fields_by_lua": custom_fields_by_lua(),
        },
        checks=(_authorized_once,),
    )  # fmt: skip

    def compile(self, conf: Row, plugin: Row) -> Endpoint:
        return Endpoint(conf)

    def open(self, conf: Endpoint, row: Row, host: Scope) -> Sender:
        return Sender(conf, row, host)

    def log(self, exchange: Exchange, conf: Sender) -> None:
        if conf.fields.put(exchange):
            conf.queue.add(conf.records.text(exchange))
