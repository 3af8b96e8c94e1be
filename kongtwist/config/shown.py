"""The configuration as the Admin API's ``GET /`` shows it: each property in Kong's form, and what Kong derives from them
(Kong 3.9, ``kong/conf_loader``), where there is such a thing here.

Kong's forms: sizes, times and nginx's booleans are the texts they were written as, a list without members is ``{}``, a
property without value is left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..entities.addresses import parse_address
from .kinds import CONNECTIONS, CPU_COUNT, DURATION, NGX_BOOLEAN, PAIR, RLIMIT, SIZE, Listen, Property
from .load import DIRECTIVE, SECRET, Conf
from .properties import RESPONSE_HEADERS, properties
from .tls_kinds import TLS_COMMAND

__all__ = ["configuration", "shown"]

_TEXTS = (CONNECTIONS, CPU_COUNT, DURATION, NGX_BOOLEAN, PAIR, RLIMIT, SIZE, TLS_COMMAND)
"""Kinds whose values are shown as they were written."""

_BLOCKS = (
    "main", "events", "http", "upstream", "proxy", "location", "status", "admin", "stream", "supstream", "sproxy",
    "wasm_main", "wasm_main_shm_kv", "wasm_v8", "wasm_wasmer", "wasm_wasmtime",
)  # fmt: skip
_FLAGS = ("ssl", "http2", "proxy_protocol", "deferred", "bind", "reuseport")
_OPTIONS = {
    "backlog=%d+": r"backlog=[0-9]+", "ipv6only=on": "ipv6only=on", "ipv6only=off": "ipv6only=off",
    "so_keepalive=on": "so_keepalive=on", "so_keepalive=off": "so_keepalive=off",
    "so_keepalive=%w*:%w*:%d*": r"so_keepalive=\w*:\w*:[0-9]*",
}  # fmt: skip
"""Kong's names of the other flags, which are Lua patterns -> what a flag looks like."""

_TOKENS = {
    "server_tokens": ("Server", "Via"),
    "latency_tokens": (
        "X-Kong-Proxy-Latency", "X-Kong-Response-Latency", "X-Kong-Admin-Latency", "X-Kong-Upstream-Latency",
    ),
}  # fmt: skip

_LISTS = ("proxy", "admin", "status", "admin_gui", "stream", "cluster")


def shown(conf: Conf) -> dict[str, Any]:
    """All properties that have a value, under their other names too: plain JSON values, secrets masked, references as they
    were written."""
    found: dict[str, Any] = {}
    for name, declaration in properties().items():
        value = _value(conf, name, declaration)
        if value is not None:
            masked = "******" if SECRET.search(name) else value
            others = (alias for alias in declaration.aliases if _is_shown(alias))
            found.update(dict.fromkeys((name, *others), masked))
    return found


def configuration(
    conf: Conf, plugins: Iterable[str], opened: Sequence[tuple[str, Listen, int]] | None = None
) -> dict[str, Any]:
    """`shown`, and what is derived from it.

    Args:
        conf: the configuration.
        plugins: names of the loaded plugins.
        opened: property, address and real port of each listener; None: nothing is known but what is configured.
    """
    found = shown(conf)
    if opened is None:
        opened = [(name, listen, listen.port) for name, listen in conf.listeners()]
    for kind in _LISTS:
        listeners = [_listener(listen, port) for name, listen, port in opened if name == f"{kind}_listen"]
        found[f"{kind}_listeners"] = listeners or {}
        if kind != "cluster":
            flag = "stream_proxy_ssl_enabled" if kind == "stream" else f"{kind}_ssl_enabled"
            found[flag] = any(each["ssl"] for each in listeners)
    found["loaded_plugins"] = dict.fromkeys(plugins, True)
    found["loaded_vaults"] = {"env": True} if conf.vaults else {}
    found["pluginservers"] = {}
    enabled = {each for token in conf.headers for each in (token, *_TOKENS.get(token, ()))}
    found["enabled_headers"] = {name: name in enabled for name in RESPONSE_HEADERS}
    found["enabled_headers_upstream"] = {"X-Kong-Request-Id": "X-Kong-Request-Id" in conf.headers_upstream}
    for block in _BLOCKS:
        found[f"nginx_{block}_directives"] = _directives(found, block) or {}
    for name, path in (
        ("nginx_acc_logs", "proxy_access_log"), ("nginx_err_logs", "proxy_error_log"), ("admin_acc_logs", "admin_access_log"),
    ):  # fmt: skip
        found[name] = _log_path(conf, getattr(conf, path))
    found["nginx_pid"] = os.path.join(conf.prefix, "kongtwist.pid")
    return found


def _is_shown(alias: str) -> bool:
    """Whether a property is shown under this other name, too: in blocks below the server's only where it is Kong's own."""
    return not alias.startswith(("nginx_location_", "nginx_proxy_", "nginx_sproxy_")) or "_real_ip_" in alias


def _value(conf: Conf, name: str, declaration: Property[Any]) -> Any:
    if name in conf.references:
        return conf.references[name]
    value = getattr(conf, name)
    if declaration.kind in _TEXTS or (type(value) is int and name.startswith("nginx_")):
        return conf.given.get(name) or declaration.default
    if declaration.kind.name == "list of addresses, or off":
        return [each.text for each in value] or ["off"]
    if isinstance(value, list):
        texts = [str(each) for each in value]
        return [each.lower() for each in texts] if name in ("headers", "headers_upstream") else texts or {}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return list(value) if isinstance(value, tuple) else value


def _listener(listen: Listen, port: int) -> dict[str, Any]:
    """An address in Kong's form: each flag by name, and the address with all flags but http2."""
    words = listen.text.split()[1:]
    flags: dict[str, bool] = {flag: flag in words for flag in _FLAGS}
    for flag, pattern in _OPTIONS.items():
        word = next((word for word in words if re.fullmatch(pattern, word)), None)
        flags[word or flag] = word is not None
    host = address = listen.address
    if not listen.path:
        host = parse_address(f"[{listen.host}]" if ":" in listen.host else listen.host).with_port(0).removesuffix(":0")
        address = f"{host}:{port}"
    given = [flag for flag, there in flags.items() if there and flag != "http2"]
    return {**flags, "ip": host, "port": port, "listener": " ".join((address, *given))}


def _directives(found: Mapping[str, Any], block: str) -> list[dict[str, Any]]:
    matches = ((DIRECTIVE.fullmatch(name), value) for name, value in found.items())
    named = {match[2]: value for match, value in matches if match is not None and match[1] == block}
    return [{"name": name, "value": value} for name, value in sorted(named.items()) if isinstance(value, str)]


def _log_path(conf: Conf, text: str) -> str:
    path = text.split()[0]
    return path if path == "off" else conf.path(path)
