"""correlation-id: give every request an id that upstream and client see. Kong 3.9 `correlation-id`."""

from __future__ import annotations

from itertools import count

from ..core.chain.plugin import Plugin
from ..core.exchange import Exchange, Row
from ..entities.schema import Boolean, String
from ..entities.typedefs import token

__all__ = ["CorrelationId"]


class Config:
    """A configuration, ready for requests."""

    __slots__ = ("echo", "generator", "header", "name")

    def __init__(self, conf: Row) -> None:
        self.name: bytes | None = None if conf["header_name"] is None else conf["header_name"].encode()
        self.header = (self.name or b"").lower()
        self.generator: str = conf["generator"]
        self.echo: bool = conf["echo_downstream"]


class CorrelationId(Plugin):
    """Keep the client's id, else make one; tell the upstream, and the client where that is wanted."""

    name = "correlation-id"
    priority = 100001
    example = {"header_name": "X-Request-ID", "echo_downstream": True}
    config = {
        "header_name": String(default="Kong-Request-ID", checks=(token,), text="Header the id travels in."),
        "generator": String(
            required=True, default="uuid#counter", one_of=["uuid", "uuid#counter", "tracker"],
            text="What an id is: a UUID; the worker's UUID and a number; or address, ports, process and time.",
        ),
        "echo_downstream": Boolean(required=True, default=False, text="Send the id to the client too."),
    }  # fmt: skip

    def __init__(self) -> None:
        self._worker = ""
        self._numbers = count(1)

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def access(self, exchange: Exchange, conf: Config) -> None:
        found = exchange.get_header(conf.header)
        if not found:
            found = self._new(exchange, conf.generator)
            if conf.name is not None:
                exchange.set_upstream_header(conf.header, found)
        exchange.ctx["correlation_id"] = found
        exchange.set_log_value("correlation_id", found.decode("utf-8", "replace"))

    def header_filter(self, exchange: Exchange, conf: Config) -> None:
        if conf.echo and conf.name is not None:
            # Where access did not come to its turn the client's own id is echoed, if it sent one.
            found = exchange.ctx.get("correlation_id") or exchange.get_header(conf.header)
            if found:
                exchange.set_response_header(conf.name, found)

    def _new(self, exchange: Exchange, generator: str) -> bytes:
        gateway = exchange.gateway
        if generator == "uuid":
            return gateway.new_id().encode()
        number = next(self._numbers)
        if generator == "uuid#counter":
            if not self._worker:
                self._worker = gateway.new_id()
            return f"{self._worker}#{number}".encode()
        # tracker: address-port-pid-connection-requests-time. The peer's port stands for the connection's number.
        return (
            f"{exchange.client_ip}-{exchange.local_port}-{gateway.worker_pid}-{exchange.peer_port}-{number}"
            f"-{gateway.now():.3f}"
        ).encode()
