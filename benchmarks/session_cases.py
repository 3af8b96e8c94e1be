"""The rows on stream routes: bytes over TCP, beside nginx's module ``stream``, which some systems keep in a package of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from .cases import Case
from .measures import Pace, stream_cost
from .servers import Server, Stage, free_port
from .usage import Cost

__all__ = ["session_cases"]

MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
"""Where Debian's package libnginx-mod-stream has it; the variable NGINX_STREAM_MODULE names another place."""

SIZES = (
    ("TCP 100 B", 100, "at most 1.5x"),
    ("TCP 16 KB", 16_384, "at most 1.3x"),
    ("TCP 1 MB", 1_000_000, "at most 1.3x"),
)


def session_cases(stage: Stage) -> Iterator[Case]:
    """The rows in the order they are shown; none without the module."""
    module = Path(os.environ.get("NGINX_STREAM_MODULE", MODULE))
    if not module.exists():
        return

    @cache
    def echo() -> int:
        return stage.echo_upstream()

    @cache
    def nginx() -> Server:
        port = free_port()
        inner = f"server {{ listen 127.0.0.1:{port} backlog=4096; proxy_pass 127.0.0.1:{echo()}; tcp_nodelay on; }}"
        pid = stage.nginx("nginx-stream", "", f"load_module {module};\nstream {{ access_log off; {inner} }}\n")
        return Server("nginx", pid, port)

    @cache
    def ours() -> Server:
        port = free_port()
        route = {"name": "tcp", "protocols": ["tcp"], "destinations": [{"port": port}]}
        service = {"name": "tcp", "url": f"tcp://127.0.0.1:{echo()}", "read_timeout": 3_600_000, "routes": [route]}
        declared = {"_format_version": "3.0", "services": [service]}
        conf = {"stream_listen": f"127.0.0.1:{port} backlog=4096", "proxy_stream_access_log": "off"}
        made = stage.kongtwist("gateway-stream", declared, conf=conf)
        return Server(made.name, made.pid, port, made.admin, made.folder)

    def ping(server: Callable[[], Server], size: int) -> Callable[[Pace], Cost]:
        return lambda pace: stream_cost(stage, server(), ["ping", server().port, "/", 4, size], pace)

    for name, size, aim in SIZES:
        yield Case(name, [("nginx", ping(nginx, size)), ("kongtwist", ping(ours, size))], aim)
