"""What proxy-cache does with requests and answers (Kong 3.9.3, ``kong/plugins/proxy-cache/handler.lua``).

Nothing is ever held back: an answer passes to its client as it comes, and a copy is made beside it, up to a limit. A copy that grows
beyond it is thrown away.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ...core.chain.host import Host
from ...core.chain.plugin import BodyFilter, Plugin
from ...core.exchange import Answer, BodyTooLarge, Exchange, StreamedAnswer
from ...core.grpc.grpc_text import is_grpc
from ...core.http.head import HeaderBlock
from ...core.rows import Row
from .cache_admin import ENDPOINTS, answer_question
from .cache_fields import CONFIG, CONFIG_CHECKS, PURGES
from .cache_keys import Directives, cache_key, directives, lifetime, variant, vary_of
from .cache_store import Kept, Store

__all__ = ["ProxyCache"]

_DROPPED = frozenset((
    b"age", b"connection", b"content-length", b"date", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-connection", b"server", b"te", b"trailer", b"trailers", b"transfer-encoding", b"upgrade", b"via", b"x-cache-key",
    b"x-cache-status",
))  # fmt: skip
"""Headers of an answer that are not kept: those of a connection, and those that are made anew."""

_CONDITIONS = (b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since")

_NO_ROWS: dict[str, Row] = {}

_MEMORY = 128 * 1024 * 1024
_LARGEST = 1024 * 1024


class _Type:
    """A media type as configured, such as ``application/json; charset=utf-8``."""

    __slots__ = ("parameters", "subtype", "type")

    def __init__(self, text: str) -> None:
        essence, *parameters = [each.strip() for each in text.split(";")]
        self.type, slash, self.subtype = essence.lower().partition("/")
        if not slash or not self.type or not self.subtype or "/" in self.subtype:
            raise ValueError("no media type")
        self.parameters = {}
        for each in parameters:
            name, equals, value = each.partition("=")
            if not equals:
                raise ValueError("no parameter")
            self.parameters[name.strip().lower()] = value.strip().strip('"')

    def takes(self, other: _Type) -> bool:
        """Whether an answer of another type is of this one."""
        return (
            self.type in ("*", other.type)
            and self.subtype in ("*", other.subtype)
            and self.parameters == other.parameters
        )


def _type(text: str) -> _Type | None:
    try:
        return _Type(text)
    except ValueError:
        return None


class Config:
    """A configuration, ready for requests."""

    __slots__ = (
        "age", "cache_control", "codes", "ignore_case", "key", "methods", "parameters", "status", "storage_ttl", "ttl", "types",
        "vary", "vary_spelled",
    )  # fmt: skip

    def __init__(self, conf: Row) -> None:
        self.codes = frozenset(conf["response_code"])
        self.methods = frozenset(each.encode() for each in conf["request_method"])
        self.types = [found for each in conf["content_type"] if (found := _type(each)) is not None]
        self.ttl: int = conf["cache_ttl"]
        self.cache_control: bool = conf["cache_control"]
        self.ignore_case = bool(conf["ignore_uri_case"])
        self.storage_ttl: int | None = conf["storage_ttl"]
        parameters = [each.encode() for each in conf["vary_query_params"] or ()]
        self.parameters = parameters or None
        self.vary = [each.lower().encode() for each in conf["vary_headers"] or ()]
        self.vary_spelled = tuple(each.replace(b"_", b"-") for each in self.vary)
        shown = conf["response_headers"]
        self.age, self.status, self.key = bool(shown["age"]), bool(shown["X-Cache-Status"]), bool(shown["X-Cache-Key"])


class _Pending:
    """A request whose answer may be kept."""

    __slots__ = ("body", "key")

    def __init__(self, key: str, body: bytes) -> None:
        self.key, self.body = key, body


class _Copy:
    """Copies a body as it passes."""

    __slots__ = ("_chunks", "_kept", "_most", "_size", "_store", "_variant", "_vary")

    def __init__(self, store: Store, most: int, kept: Kept, variant: bytes, vary: tuple[bytes, ...]) -> None:
        self._store, self._most, self._kept, self._variant, self._vary = store, most, kept, variant, vary
        self._chunks: list[bytes] | None = []
        self._size = 0

    def __call__(self, chunk: bytes, last: bool) -> bytes:
        if self._chunks is not None:
            self._size += len(chunk)
            if self._size > self._most:
                self._chunks = None
                return chunk
            self._chunks.append(bytes(chunk))
            if last:
                kept = self._kept
                kept.body = b"".join(self._chunks)
                kept.length = self._size
                kept.size += self._size
                self._store.put(kept, self._variant, self._vary)
        return chunk


class ProxyCache(Plugin):
    """Answer from memory; keep what upstreams answer."""

    name = "proxy-cache"
    priority = 100
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    example = {"strategy": "memory", "cache_ttl": 30}
    config = CONFIG
    config_checks = CONFIG_CHECKS
    entities = (PURGES,)
    endpoints = ENDPOINTS

    def __init__(self) -> None:
        self.store: Store | None = None  # of this process
        self._largest = _LARGEST

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def asked(self, question: Any, host: Host) -> Any:
        if self.store is not None:
            self.store.follow({row["id"]: row for row in host.rows.all(PURGES.name)}, host.now())
        return answer_question(self.store, question, host.now())

    # -- requests ------------------------------------------------------------------------------------------------------

    def access(self, exchange: Exchange, conf: Config) -> Answer | Awaitable[Answer | None] | None:
        block = exchange.block
        if exchange.method not in conf.methods or block.upgrade_websocket or is_grpc(block.first(b"content-type")):
            _say(exchange, conf, b"Bypass")
            return None
        said = directives(block.joined(b"cache-control")) if conf.cache_control else {}
        if conf.cache_control and ("no-store" in said or "no-cache" in said or b"authorization" in block):
            _say(exchange, conf, b"Bypass")
            return None
        if block.has_body:
            return self._with_body(exchange, conf, said)
        return self._look_up(exchange, conf, said, b"")

    async def _with_body(self, exchange: Exchange, conf: Config, said: Directives) -> Answer | None:
        """The same for a request whose answer may follow from its body."""
        try:
            body = await exchange.read_body(exchange.gateway.body_limit)
        except BodyTooLarge:
            _say(exchange, conf, b"Bypass")
            return None
        return self._look_up(exchange, conf, said, body)

    def _look_up(self, exchange: Exchange, conf: Config, said: Directives, body: bytes) -> Answer | None:
        key = cache_key(exchange, conf.ignore_case, conf.parameters, conf.vary)
        if conf.key or _debug(exchange):
            exchange.set_response_header(b"X-Cache-Key", key.encode())
        store = self._opened(exchange)
        now = exchange.gateway.now()
        store.follow(exchange.snapshot.rows.get(PURGES.name, _NO_ROWS), now)
        kept = store.find(key, variant(exchange, (*store.vary(key), *conf.vary_spelled), body), now)
        if kept is None:
            if "only-if-cached" in said:
                return exchange.exit(504)
            _say(exchange, conf, b"Miss")
        elif not _usable(kept, conf, said, int(now) - int(kept.stored)):
            _say(exchange, conf, b"Refresh")
        else:
            return self._hit(exchange, conf, kept, now)
        exchange.own(self.name)["pending"] = _Pending(key, body)
        return None

    @staticmethod
    def _hit(exchange: Exchange, conf: Config, kept: Kept, now: float) -> Answer:
        _say(exchange, conf, b"Hit")
        if conf.age or _debug(exchange):
            exchange.set_response_header(b"Age", b"%d" % (int(now) - int(kept.stored)))
        exchange.latencies = (max(now - exchange.wall_started, 0.0), 0.0)  # as if an upstream had answered at once
        if exchange.method == b"HEAD":
            return StreamedAnswer(kept.status, (), list(kept.headers), kept.length)
        return Answer(kept.status, kept.body, list(kept.headers))

    def _opened(self, exchange: Exchange) -> Store:
        store = self.store
        if store is None:
            conf = exchange.gateway.conf
            memory, workers = (_MEMORY, 1) if conf is None else (conf.mem_cache_size, conf.nginx_worker_processes)
            if conf is not None:
                self._largest = conf.proxy_cache_max_body_size
            store = self.store = Store(memory // max(workers, 1))
        return store

    # -- answers -------------------------------------------------------------------------------------------------------

    def header_filter(self, exchange: Exchange, conf: Config) -> BodyFilter | None:
        pending: _Pending | None = exchange.own(self.name).pop("pending", None)
        block = exchange.response_fields
        if pending is None or block is None or exchange.answer_source != "service":
            return None
        now = exchange.gateway.now()
        said = directives(block.joined(b"cache-control")) if conf.cache_control else {}
        ttl = lifetime(said, block, now) if conf.cache_control else conf.ttl
        vary = vary_of(block)
        if vary is None or not self._may_keep(exchange, conf, block, said, ttl):
            _say(exchange, conf, b"Bypass")
            return None
        length = block.content_length
        if length is not None and length > self._largest and exchange.method != b"HEAD":
            return None
        keep = conf.storage_ttl if conf.storage_ttl is not None else ttl
        # What plugins before this one took out, they may know from the first answer only.
        taken = {name.lower() for what, name, _ in exchange.response_changes or () if what == "clear"}
        drop = _DROPPED | block.connection | taken
        headers = [
            (name, value)
            for name, value in block.pairs
            if (small := name.lower()) not in drop and b"ratelimit-remaining" not in small
        ]
        kept = Kept(pending.key, exchange.status, headers, b"", length, now, ttl, keep)
        store = self._opened(exchange)
        vary = store.vary_with(pending.key, vary)
        found = variant(exchange, (*vary, *conf.vary_spelled), pending.body)
        if exchange.method == b"HEAD" or exchange.status in (204, 304):
            store.put(kept, found, vary)
            return None
        return BodyFilter(_Copy(store, self._largest, kept, found, vary), keeps_length=True)

    @staticmethod
    def _may_keep(exchange: Exchange, conf: Config, block: HeaderBlock, said: Directives, ttl: float) -> bool:
        """Whether an answer may be kept and given to others."""
        if exchange.status not in conf.codes or exchange.status == 101 or ttl <= 0:
            return False
        if exchange.status in (304, 412) and any(name in exchange.block for name in _CONDITIONS):
            return False  # who makes no condition must not get it
        if b"set-cookie" in block:  # it is for this client alone
            return False
        if not said.keys().isdisjoint(("private", "no-store", "no-cache")):
            return False
        told = _type((block.first(b"content-type") or b"").decode("latin-1"))
        if told is None or (told.type, told.subtype) == ("text", "event-stream"):
            return False
        return any(each.takes(told) for each in conf.types)


def _usable(kept: Kept, conf: Config, said: Directives, age: int) -> bool:
    """Whether an answer is fresh enough (RFC 9111 5.2.1)."""
    if not conf.cache_control:
        return age <= conf.ttl
    oldest, stale, fresh = (_seconds(said.get(name)) for name in ("max-age", "max-stale", "min-fresh"))
    if oldest is not None and age > oldest:
        return False
    if stale is not None and age - kept.ttl > stale:
        return False
    return fresh is None or kept.ttl - age >= fresh


def _seconds(value: Any) -> int | None:
    return value if isinstance(value, int) and value is not True else None


def _debug(exchange: Exchange) -> bool:
    return b"kong-debug" in exchange.block


def _say(exchange: Exchange, conf: Config, status: bytes) -> None:
    if conf.status or _debug(exchange):
        exchange.set_response_header(b"X-Cache-Status", status)
