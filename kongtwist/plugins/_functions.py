"""What the plugins share that have a cloud's function answer in place of the upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ..core.chain.failures import is_cancelled
from ..core.chain.host import Host, HTTPAnswer, HTTPClient
from ..core.chain.plugin import Plugin
from ..core.exchange import Exchange, Row
from ..core.http.headers import TOKEN

__all__ = ["FunctionPlugin", "answered_fields", "asked_fields"]

_CONNECTION = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length",
    b"expect",
))  # fmt: skip
"""Fields of a connection or of a message's framing, which each side writes anew (RFC 9110 7.6.1)."""


def asked_fields(exchange: Exchange) -> dict[bytes, tuple[bytes, ...]]:
    """The request's fields for the function, with what plugins changed: name in lower case to values."""
    fields = exchange.request_fields()
    named = {each.strip().lower() for value in fields.get(b"connection", ()) for each in value.split(b",")}
    return {name: values for name, values in fields.items() if name not in _CONNECTION and name not in named}


def answered_fields(exchange: Exchange, fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The function's fields for the client, with Via where the gateway adds one (``headers``)."""
    told = [(name, value) for name, value in fields if name.lower() not in _CONNECTION]
    conf = exchange.gateway.conf
    if conf is not None and not {"server_tokens", "Via"} & set(conf.headers):
        return told
    via = [value for name, value in told if name.lower() == b"via"]
    version = b"2" if exchange.http_version == "2" else b"1.1"
    rest = [(name, value) for name, value in told if name.lower() != b"via"]
    return [*rest, (b"Via", b", ".join((*via, version + b" " + TOKEN)))]


class FunctionPlugin(Plugin):
    """A plugin whose configurations, as `compile` makes them, have an attribute ``http``: the client they ask with; None in processes
    that do not serve."""

    def open(self, conf: Any, plugin: Row, host: Host) -> Any:
        conf.http = host.http
        return conf

    def client(self, conf: Any) -> HTTPClient:
        """What a function is asked with. Raises RuntimeError where it cannot be."""
        if conf.http is None:
            raise RuntimeError(f"{self.name}: functions cannot be asked in this process")
        http: HTTPClient = conf.http
        return http

    async def told(self, exchange: Exchange, ask: Callable[[], Awaitable[HTTPAnswer]]) -> HTTPAnswer | None:
        """The function's answer; None: it did not answer, or could not be asked, and the log says why."""
        try:
            return await ask()
        except Exception as error:
            if is_cancelled(error):
                raise
            exchange.report(f"plugin {self.name}: the function did not answer: {error}")
            return None
