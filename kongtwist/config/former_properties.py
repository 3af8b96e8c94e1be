"""Names that stand in kong.conf files and are no properties of Kong 3.9: those of older versions (0.9 to 3.8), of the
enterprise edition, and bare nginx directives. What each means now, and which of them nobody should go on without.

Kong 3.9 reads over all of them in silence. Here each gives a warning with its remedy; a start is refused only where a value
asks for something to be kept closed that would then be open.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["is_former", "is_idle", "refusal", "remedy"]

_GONE = "nothing needs to be set instead"
_PORTS = "add an address with the flag ssl to %s"
_SERVICE = "set %s of each service"

_FORMER: dict[str, str] = {
    # -- 0.9 to 0.14 --
    "proxy_listen_ssl": _PORTS % "proxy_listen",
    "admin_listen_ssl": _PORTS % "admin_listen",
    "ssl": _PORTS % "proxy_listen",
    "admin_ssl": _PORTS % "admin_listen",
    "http2": "add the flag http2 to an address of proxy_listen",
    "admin_http2": "add the flag http2 to an address of admin_listen",
    "custom_plugins": "name the plugins in plugins, after bundled",
    "server_tokens": "write headers = latency_tokens to leave Server and Via out",
    "latency_tokens": "write headers = server_tokens to leave the latency headers out",
    "cluster_advertise": _GONE,
    "cluster_encrypt_key": _GONE,
    "cluster_keyring_file": _GONE,
    "cluster_listen_rpc": _GONE,
    "cluster_profile": _GONE,
    "cluster_ttl_on_failure": _GONE,
    "dnsmasq": "set dns_resolver",
    "dnsmasq_port": "set dns_resolver",
    "lua_code_cache": _GONE,
    "serf_path": _GONE,
    # -- 1.x and 2.x --
    "client_max_body_size": "write nginx_http_client_max_body_size",
    "upstream_keepalive": "write upstream_keepalive_pool_size",
    "nginx_upstream_keepalive": "write upstream_keepalive_pool_size",
    "nginx_upstream_keepalive_requests": "write upstream_keepalive_max_requests",
    "nginx_upstream_keepalive_timeout": "write upstream_keepalive_idle_timeout",
    "nginx_http_upstream_keepalive": "write upstream_keepalive_pool_size",
    "nginx_http_upstream_keepalive_requests": "write upstream_keepalive_max_requests",
    "nginx_http_upstream_keepalive_timeout": "write upstream_keepalive_idle_timeout",
    "upstream_keepalive_timeout": "write upstream_keepalive_idle_timeout",
    "upstream_keepalive_requests": "write upstream_keepalive_max_requests",
    "nginx_optimizations": _GONE,
    "origins": "give the services the address that is meant",
    "router_update_frequency": "write worker_state_update_frequency",
    "service_mesh": _GONE,
    "go_plugins_dir": "write the plugin in Python (docs/plugins.md)",
    "go_pluginserver_exe": "write the plugin in Python (docs/plugins.md)",
    "cluster_v2": _GONE,
    "declarative_config_format": _GONE,
    "admin_api_uri": "write admin_gui_api_url",
    # -- 3.x --
    "legacy_hybrid_protocol": _GONE,
    "legacy_worker_events": _GONE,
    "privileged_agent": "write dedicated_config_processing",
    "debug_ssl_cert": _GONE,
    "debug_ssl_cert_key": _GONE,
    # -- the enterprise edition --
    "admin_gui_auth": "guard the Admin API with admin_api_token or admin_ssl_client_ca",
    "enforce_rbac": "guard the Admin API with admin_api_token or admin_ssl_client_ca",
    "fips": "the cryptography here is not certified",
    "keyring_enabled": "keep secrets in a vault (docs/secrets.md)",
    "portal": "there is no developer portal",
    # -- nginx directives --
    "access_log": "write proxy_access_log",
    "error_log": "write proxy_error_log",
    "daemon": "write nginx_daemon",
    "worker_connections": "write nginx_events_worker_connections",
    "listen": "write proxy_listen",
    "resolver": "write dns_resolver",
    "set_real_ip_from": "write trusted_ips",
    "ssl_certificate": "write ssl_cert",
    "ssl_certificate_key": "write ssl_cert_key",
    "ssl_session_cache": "write ssl_session_cache_size",
    "ssl_verify_depth": "write lua_ssl_verify_depth",
    "proxy_connect_timeout": _SERVICE % "connect_timeout",
    "proxy_send_timeout": _SERVICE % "write_timeout",
    "proxy_read_timeout": _SERVICE % "read_timeout",
    "lua_shared_dict_size": _GONE,
}  # fmt: skip
"""Name -> what to do instead."""

_FAMILIES = (
    ("cassandra_", "Cassandra is not supported; use database = postgres, sqlite or off"),
    ("portal_", "there is no developer portal"),
    ("smtp_", "no mail is sent"),
    ("vitals", "look at /status and /metrics"),
    ("audit_log", "admin_access_log has each request to the Admin API"),
    ("rbac_", "guard the Admin API with admin_api_token or admin_ssl_client_ca"),
    ("keyring_", "keep secrets in a vault (docs/secrets.md)"),
    ("admin_gui_", "the console has no settings of that name"),
    ("event_hooks_", "there are no event hooks"),
    ("cluster_fallback_", "hybrid mode is not built yet"),
)
"""Beginnings of names -> what to do instead."""

_ON, _OFF = ("", "on", "true"), ("", "off", "false")
_BLOCKS = ("nginx_http_", "nginx_proxy_", "nginx_main_", "nginx_events_", "nginx_")

_GUARDS: dict[str, str] = {
    "enforce_rbac": "the Admin API would be open to everybody who reaches it; set admin_api_token or admin_ssl_client_ca instead",
    "keyring_enabled": "secrets would be stored as plain text; keep them in a vault instead (docs/secrets.md)",
    "fips": "the cryptography here is not certified for FIPS 140-2",
}
"""Names -> why no value but off may be read over."""


def is_former(name: str) -> bool:
    """Whether ``name`` (lower case) is one of those that are listed one by one."""
    return name in _FORMER or name in _GUARDS


def remedy(name: str, known: Mapping[str, str]) -> str | None:
    """What to do instead of setting ``name`` (lower case); None for a name that nobody knows.

    Args:
        name: as in the file.
        known: names that set a property -> the property.
    """
    if name in _FORMER:
        return _FORMER[name]
    if name.startswith("kong_"):  # as in the environment
        inner = name.removeprefix("kong_")
        return f"write {inner}" if inner in known else remedy(inner, known)
    bare = name.removeprefix("nginx_")
    for each in (bare, *(block + bare for block in _BLOCKS), *(f"{block}proxy_{bare}" for block in _BLOCKS)):
        if each in known and each != name:
            return f"write {known[each]}"
    return next((text for beginning, text in _FAMILIES if name.startswith(beginning)), None)


def refusal(name: str, text: str) -> str | None:
    """Why a value of ``name`` (lower case) stops the start; None where it does not."""
    why = _GUARDS.get(name.removeprefix("kong_"))
    if why is None or text.lower() in _OFF:
        return None
    return f"{name} cannot be '{text}': {why}"


def is_idle(name: str, text: str) -> bool:
    """Whether a value of ``name`` (lower case) asks for nothing that is not so anyway."""
    return text.lower() in (_ON if name in ("server_tokens", "latency_tokens", "lua_code_cache") else _OFF)
