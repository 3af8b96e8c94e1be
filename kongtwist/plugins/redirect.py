"""redirect: send clients to another place. Kong 3.9 `redirect`."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..core.chain.plugin import Plugin
from ..core.exchange import Answer, Exchange, Row
from ..core.http.uri import escape, normalise
from ..entities.schema import Boolean, Integer, String
from ..entities.typedefs import header_value, url

__all__ = ["Redirect"]


class Config:
    """A configuration, ready for requests.

    Attributes:
        origin: scheme and authority before the request's own path; None: the location is always the same.
        fragment: with its ``#``.
    """

    __slots__ = ("fragment", "location", "origin", "status")

    def __init__(self, conf: Row) -> None:
        self.status: int = conf["status_code"]
        self.location: bytes = conf["location"].encode()
        self.origin: bytes | None = None
        self.fragment = b""
        if conf["keep_incoming_path"]:
            parts = urlsplit(conf["location"])
            self.origin = f"{parts.scheme}://{parts.netloc}".encode()
            self.fragment = f"#{parts.fragment}".encode() if parts.fragment else b""

    def place(self, exchange: Exchange) -> bytes:
        """Where this request is sent."""
        if self.origin is None:
            return self.location
        query = exchange.raw_query
        path = escape(normalise(exchange.raw_path)).replace(b"?", b"%3F").replace(b"#", b"%23")
        return self.origin + path + (b"?" + query if query else b"") + self.fragment


class Redirect(Plugin):
    """Answer with ``Location``; with ``keep_incoming_path`` its path and query are the request's."""

    name = "redirect"
    priority = 779
    example = {"location": "https://new.example.com/", "status_code": 308}
    config = {
        "status_code": Integer(required=True, default=301, between=[100, 599], text="HTTP status of the answer."),
        "location": String(required=True, checks=(url, header_value), text="URL that clients are sent to."),
        "keep_incoming_path": Boolean(
            default=False, text="Put the request's path and query in place of the location's own."
        ),
    }

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def access(self, exchange: Exchange, conf: Config) -> Answer:
        return exchange.exit(conf.status, b"redirecting", [(b"Location", conf.place(exchange))])
