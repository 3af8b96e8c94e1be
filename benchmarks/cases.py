"""What is measured: the same work for nginx and for the gateway, row by row."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hmac import digest
from typing import Any

from .measures import Pace, http_cost, stream_cost
from .servers import Server, Stage, free_port
from .usage import Cost

__all__ = ["Case", "Field", "cases"]

KEY = "3f6c1b9e5a7d4e0f"
ORIGIN = "https://app.example.org"
SECRET = "c2e4a6b8d0f1a3c5e7b9d1f3a5c7e9b1"
TOKENS = 20_000
"""Tokens that are sent in turn where none may have been seen before: more than are remembered."""
EVENT = 100
"""Bytes of one event."""


@dataclass(frozen=True)
class Case:
    """One row: first the server compared with, last ours; one between is a variant, named after what is otherwise."""

    name: str
    servers: list[tuple[str, Callable[[Pace], Cost]]]
    aim: str = ""  #: what is to be reached, as text


class Field:
    """The servers the rows are measured on, each started when it is first needed."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.events_port = free_port()
        self._number = next(stage.numbers)

    @cached_property
    def http_upstream(self) -> int:
        """The port of an nginx that answers at once."""
        port = free_port()
        self.stage.nginx(
            f"upstream-{self._number}",
            f"keepalive_timeout 3600; server {{ listen 127.0.0.1:{port} backlog=4096;"
            ' location / { default_type text/plain; return 200 "hello, world\\n"; } }',
        )
        return port

    @cached_property
    def echo_upstream(self) -> int:
        """The port of a WebSocket echo server."""
        return self.stage.echo_upstream()

    @cached_property
    def _nginx_servers(self) -> tuple[int, dict[str, int]]:
        ports = {name: free_port() for name in ("plain", "logged", "large")}
        log = f"access_log {self.stage.folder}/nginx-access.log combined buffer=32k flush=1s;"
        large = "proxy_buffer_size 128k; proxy_buffers 4 256k;"
        upgrade = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrading;"
        servers = "\n".join(
            f"server {{ listen 127.0.0.1:{port} backlog=4096; {extra}\n"
            f"  location /plain {{ proxy_pass http://plain/; {{keep}} }}\n"
            f"  location /ws {{ proxy_pass http://127.0.0.1:{self.echo_upstream}/; {upgrade} }}\n"
            f"  location /events {{ proxy_pass http://127.0.0.1:{self.events_port}/;\n"
            "    proxy_buffering off; {keep} } }"
            for port, extra in ((ports["plain"], ""), (ports["logged"], log), (ports["large"], large))
        ).replace("{keep}", 'proxy_set_header Connection "";')
        pid = self.stage.nginx(
            f"nginx-{self._number}",
            f"upstream plain {{ server 127.0.0.1:{self.http_upstream};\n"
            "  keepalive 64; keepalive_requests 1000000000; }\n"
            "map $http_upgrade $upgrading { default upgrade; '' ''; }\n"
            f"proxy_http_version 1.1; proxy_read_timeout 3600s;\n{servers}",
        )
        return pid, ports

    def nginx_at(self, name: str) -> Server:
        """nginx as a proxy: ``plain``, ``logged`` or ``large`` (buffers)."""
        pid, ports = self._nginx_servers
        return Server("nginx", pid, ports[name])

    @property
    def nginx(self) -> Server:
        """nginx as a plain proxy."""
        return self.nginx_at("plain")

    def _declarative(self) -> dict[str, Any]:
        http = f"http://127.0.0.1:{self.http_upstream}"
        limits = {"minute": 100_000_000, "hour": 1_000_000_000, "policy": "local"}
        key_auth, rate_limiting = {"name": "key-auth"}, {"name": "rate-limiting", "config": limits}
        jwt, acl = (
            {"name": "jwt", "config": {"claims_to_verify": ["exp"]}},
            {"name": "acl", "config": {"allow": ["gold"]}},
        )
        counting = {"name": "prometheus", "config": {
            "status_code_metrics": True, "latency_metrics": True, "bandwidth_metrics": True, "per_consumer": True,
        }}  # fmt: skip
        recorded = {"path": f"{self.stage.folder}/requests-{self._number}"}
        routes = {
            "jwt": (http, [jwt]), "acl": (http, [key_auth, acl]),
            "plain": (http, []), "key": (http, [key_auth]), "limited": (http, [key_auth, rate_limiting]),
            "cors": (http, [{"name": "cors", "config": {"origins": [ORIGIN, r"https://.*\.example\.com"], "credentials": True}}]),
            "transformed": (
                http, [{"name": "request-transformer", "config": {"add": {"headers": ["x-tier:gold", "x-from:bench"]}}}],
            ),
            "counted": (http, [counting]),
            "recorded": (http, [counting, {"name": "file-log", "config": recorded}]),
            "fields": (http, [{"name": "file-log", "config": {**recorded, "custom_fields_by_lua": FIELDS}}]),
            "without-fields": (http, [{"name": "file-log", "config": recorded}]),
            "ws": (f"http://127.0.0.1:{self.echo_upstream}", []),
            "counted-ws": (f"http://127.0.0.1:{self.echo_upstream}", [counting]),
            "events": (f"http://127.0.0.1:{self.events_port}", []),
        }  # fmt: skip
        services = [
            {"name": name, "url": url, "read_timeout": 3_600_000,
             "routes": [{"name": name, "paths": [f"/{name}"], "plugins": plugins}]}
            for name, (url, plugins) in routes.items()
        ]  # fmt: skip
        consumers = [{
            "username": "bench", "keyauth_credentials": [{"key": KEY}], "jwt_secrets": [{"key": KEY, "secret": SECRET}],
            "acls": [{"group": "gold"}],
        }]  # fmt: skip
        return {"_format_version": "3.0", "services": services, "consumers": consumers}

    @cached_property
    def kongtwist(self) -> Server:
        """The gateway without an access log."""
        return self.stage.kongtwist(f"gateway-{self._number}", self._declarative())

    @cached_property
    def kongtwist_logged(self) -> Server:
        """The gateway with its access log, as it is by default."""
        return self.stage.kongtwist(f"logged-{self._number}", self._declarative(), "logs/access.log")


FIELDS = {
    "kind": '"web"',
    "agent": 'kong.request.get_header("User-Agent")',
    "upgrade": 'return kong.request.get_header("Upgrade")',
    "duration": "os.time() - ngx.req.start_time()",
}
"""Members of log records that Lua makes: those of the tutorials."""


def _token(number: int) -> str:
    """A token of HS256 that holds for a day."""
    claims = {"iss": KEY, "exp": int(time.time()) + 86400, "sub": f"user-{number}"}
    parts = [
        urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in ({"alg": "HS256", "typ": "JWT"}, claims)
    ]
    signed = b".".join(parts)
    return b".".join([signed, urlsafe_b64encode(digest(SECRET.encode(), signed, "sha256")).rstrip(b"=")]).decode()


def cases(field: Field) -> Iterator[Case]:
    """The rows in the order they are shown."""
    stage = field.stage

    def get(server: Callable[[], Server], path: str, header: str = "", varying: bool = False) -> Callable[[Pace], Cost]:
        return lambda pace: http_cost(stage, server(), path, pace, header=header, varying=varying)

    def nginx(name: str = "plain") -> Callable[[], Server]:
        return lambda: field.nginx_at(name)

    plain = ("nginx", get(nginx(), "/plain"))

    def ours() -> Server:
        return field.kongtwist

    def unseen(server: Callable[[], Server], path: str) -> Callable[[Pace], Cost]:
        lines = [f"Bearer {_token(number)}" for number in range(TOKENS)]
        return lambda pace: http_cost(stage, server(), path, pace, values=("Authorization", lines))

    keyed = f"apikey: {KEY}"
    yield Case("HTTP GET", [plain, ("kongtwist", get(ours, "/plain"))], "at most 2.4x")
    yield Case(
        "HTTP GET, access log",
        [("nginx", get(nginx("logged"), "/plain")), ("kongtwist", get(lambda: field.kongtwist_logged, "/plain"))],
    )
    yield Case(
        "HTTP GET, heads that differ",
        [("nginx", get(nginx(), "/plain", varying=True)), ("kongtwist", get(ours, "/plain", varying=True))],
    )
    one = f"Authorization: Bearer {_token(0)}"
    yield Case("HTTP GET, jwt HS256, token seen before", [plain, ("kongtwist", get(ours, "/jwt", one))], "at most 2.2x")
    yield Case(
        "HTTP GET, jwt HS256, tokens not seen before",
        [("nginx", unseen(nginx(), "/plain")), ("kongtwist", unseen(ours, "/jwt"))],
        "at most 4.0x",
    )
    yield Case("HTTP GET, key-auth, acl", [plain, ("kongtwist", get(ours, "/acl", keyed))], "at most 2.2x")
    yield Case("HTTP GET, key-auth", [plain, ("kongtwist", get(ours, "/key", keyed))], "at most 1.9x")
    yield Case(
        "HTTP GET, key-auth, rate-limiting in 2 windows",
        [plain, ("kongtwist", get(ours, "/limited", keyed))],
        "at most 2.8x",
    )

    yield Case("HTTP GET, cors", [plain, ("kongtwist", get(ours, "/cors", f"origin: {ORIGIN}"))], "at most 2.0x")
    yield Case(
        "HTTP GET, request-transformer adds 2 headers",
        [plain, ("kongtwist", get(ours, "/transformed"))],
        "at most 2.6x",
    )

    itself = ("without", get(ours, "/plain"))
    for name, path in (("prometheus", "/counted"), ("prometheus and file-log", "/recorded")):
        yield Case(f"HTTP GET, {name}, beside itself without", [itself, ("kongtwist", get(ours, path))], "at most 1.4x")

    without = ("without", get(ours, "/without-fields"))
    yield Case(f"HTTP GET, file-log with {len(FIELDS)} fields of Lua", [without, ("kongtwist", get(ours, "/fields"))])

    def ping(server: Callable[[], Server], connections: int, size: int, path: str = "/ws") -> Callable[[Pace], Cost]:
        return lambda pace: stream_cost(stage, server(), ["ping", server().port, path, connections, size], pace)

    for name, connections, size, aim in (
        ("WebSocket 100 B", 4, 100, "at most 1.5x"),
        ("WebSocket 16 KB", 4, 16_384, "at most 0.6x"),
        ("WebSocket 1 MB", 4, 1_000_000, "at most 0.4x"),
    ):
        large = [("large buffers", ping(nginx("large"), connections, size))] if size > 1000 else []
        first, last = ping(nginx(), connections, size), ping(ours, connections, size)
        yield Case(name, [("nginx", first), *large, ("kongtwist", last)], aim)

    both = [("without", ping(ours, 4, 100)), ("kongtwist", ping(ours, 4, 100, "/counted-ws"))]
    yield Case("WebSocket 100 B, prometheus, beside itself without", both, "at most 1.1x")

    def events(server: Callable[[], Server]) -> Callable[[Pace], Cost]:
        return lambda pace: stream_cost(
            stage, server(), ["sse", server().port, "/events", field.events_port, 8, EVENT], pace
        )

    yield Case("SSE event", [("nginx", events(nginx())), ("kongtwist", events(ours))], "at most 2.0x")
