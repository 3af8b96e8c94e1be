"""Properties of Kong 3.9 that have no effect here: known by name, kind and default, so that any kong.conf is read.

Some have no meaning here, and say why; setting one to something other than its default gives a warning with that (`conf.load`). The
others are not built yet, and one warning lists those that are set. A value of the wrong kind is an error as anywhere. Building one
means moving its line to config/properties.py.
"""

from __future__ import annotations

from .kinds import ARRAY, BOOLEAN, KNOWN, NUMBER, SIZE, STRING, Kind, Property, T, enum

__all__ = ["Unbuilt"]


def _known(kind: Kind[T], default: str | None, text: str, *aliases: str) -> Property[T]:
    return Property(kind, default, text, status=KNOWN, aliases=aliases)


def _idle(kind: Kind[T], default: str | None, text: str, why: str, *aliases: str) -> Property[T]:
    """One that has no meaning here."""
    return Property(kind, default, text, status=KNOWN, why=why, aliases=aliases)


_IN_MEMORY = "every row of the configuration is in memory"
_HYBRID = "there are no control planes and data planes; each node has its configuration from its own storage"
_NO_LUA_SOCKETS = "what plugins connect to is spoken to without Lua's sockets"


class Unbuilt:
    """Known to Kong, without effect here."""

    # -- node --
    admin_gui_access_log = _known(STRING, "logs/admin_gui_access.log", "access log of the console")
    admin_gui_error_log = _idle(
        STRING, "logs/admin_gui_error.log", "error log of the console", "all errors go to proxy_error_log"
    )
    host_ports = _idle(STRING, None, "what port_maps comes to", "port_maps says all of it")
    anonymous_reports = _idle(BOOLEAN, "on", "reports to a vendor", "none are ever sent")
    proxy_server = _idle(
        STRING, None, "forward proxy for control-plane traffic", "there is no control plane to reach through it"
    )
    proxy_server_ssl_verify = _idle(
        BOOLEAN, "on", "check that proxy's certificate", "there is no control plane to reach through that proxy"
    )
    dedicated_config_processing = _idle(
        BOOLEAN,
        "on",
        "a process of its own for configuration",
        "with several workers the process above them does that already",
        "privileged_worker",
    )
    worker_consistency = _idle(
        enum("strict", "eventual"),
        "eventual",
        "when changes reach workers",
        "they reach all workers before the Admin API answers",
        "router_consistency",
    )
    worker_state_update_frequency = _idle(
        NUMBER, "5", "seconds between rebuilds", "changes serve at once, and are made in slices beside the traffic"
    )
    worker_events_max_payload = _idle(
        NUMBER, "65535", "bytes of a message between workers", "messages between workers have no such bound"
    )
    lmdb_environment_path = _idle(
        STRING,
        "dbless.lmdb",
        "folder of an LMDB copy",
        "a node without a database has its configuration in memory, and begins with its file again at each start",
    )
    lmdb_map_size = _idle(SIZE, "2048m", "its size", "there is no such copy")
    kic = _idle(
        BOOLEAN,
        "off",
        "an ingress controller is in charge",
        "an ingress controller is a client of the Admin API as any other",
    )
    openresty_path = _idle(STRING, None, "an OpenResty installation", "there is no OpenResty")

    # -- listeners and TLS --
    nginx_user = _idle(
        STRING,
        "kong kong",
        "user and group of workers",
        "the processes have the user who starts them; let the service manager choose it, or twistd (--uid, --gid)",
        "nginx_main_user",
    )
    nginx_events_multi_accept = _idle(STRING, "on", "accept several connections at once", "that is always so")
    nginx_http_charset = _idle(
        STRING,
        "UTF-8",
        "charset added to text answers",
        "the gateway's own answers say UTF-8, and what upstreams say is passed on as it is",
    )
    nginx_admin_client_body_buffer_size = _idle(
        SIZE,
        "10m",
        "bytes of an Admin API request kept in memory",
        "bodies of requests are kept in memory, up to nginx_admin_client_max_body_size",
    )
    ssl_session_cache_size = _idle(
        SIZE,
        "10m",
        "size of the TLS session cache",
        "sessions are resumed by tickets, which clients keep; where these are off, OpenSSL's cache has its own size",
    )
    nginx_http_lua_ssl_conf_command = _idle(
        STRING, None, "OpenSSL configuration command for Lua sockets", _NO_LUA_SOCKETS
    )
    nginx_stream_lua_ssl_conf_command = _idle(STRING, None, "the same for Lua sockets of streams", _NO_LUA_SOCKETS)

    # -- console --
    admin_gui_ssl_cert = _known(ARRAY, None, "certificate of the console")
    admin_gui_ssl_cert_key = _known(ARRAY, None, "its key")
    admin_gui_path = _known(STRING, "/", "path of the console")
    admin_gui_csp_header = _known(BOOLEAN, "off", "send a Content-Security-Policy")

    # -- hybrid mode --
    cluster_listen = _idle(ARRAY, "0.0.0.0:8005", "addresses for data planes", _HYBRID)
    cluster_control_plane = _idle(STRING, "127.0.0.1:8005", "address of the control plane", _HYBRID)
    cluster_cert = _idle(STRING, None, "certificate between the planes", _HYBRID)
    cluster_cert_key = _idle(STRING, None, "its key", _HYBRID)
    cluster_mtls = _idle(enum("shared", "pki"), "shared", "how the planes trust each other", _HYBRID)
    cluster_ca_cert = _idle(STRING, None, "authority for pki", _HYBRID)
    cluster_server_name = _idle(STRING, None, "server name for pki", _HYBRID)
    cluster_data_plane_purge_delay = _idle(
        NUMBER, "1209600", "seconds until an absent data plane is forgotten", _HYBRID
    )
    cluster_ocsp = _idle(enum("on", "off", "optional"), "off", "revocation check of data planes", _HYBRID)
    cluster_max_payload = _idle(NUMBER, "16777216", "bytes of the largest configuration", _HYBRID)
    cluster_use_proxy = _idle(BOOLEAN, "off", "reach the control plane through proxy_server", _HYBRID)
    cluster_dp_labels = _idle(ARRAY, None, "labels of a data plane", _HYBRID)
    cluster_rpc = _idle(BOOLEAN, "off", "calls between the planes", _HYBRID)
    cluster_rpc_sync = _idle(BOOLEAN, "off", "send changes only", _HYBRID, "cluster_incremental_sync")
    cluster_cjson = _idle(BOOLEAN, "off", "choice of a JSON library", _HYBRID)

    # -- PostgreSQL --
    _debug_pg_ttl_cleanup_interval = _idle(
        NUMBER,
        "300",
        "seconds between removals of expired rows",
        "rows that have expired are not seen any more, and deleted in rounds of their own",
    )
    db_cache_ttl = _idle(NUMBER, "0", "seconds entities are cached", _IN_MEMORY)
    db_cache_neg_ttl = _idle(NUMBER, None, "seconds a miss is cached", _IN_MEMORY)
    db_resurrect_ttl = _idle(NUMBER, "30", "seconds to go on with what was cached", _IN_MEMORY)
    db_cache_warmup_entities = _idle(ARRAY, "services", "what to cache at the start", _IN_MEMORY)

    # -- names and outgoing connections --
    dns_no_sync = _idle(
        BOOLEAN, "off", "ask again for a name that is being asked for", "all who wait for a name share one query"
    )
    new_dns_client = _idle(
        BOOLEAN, "off", "choice between two DNS clients", "there is one client, for which all names of properties hold"
    )
    resolver_family = _idle(
        ARRAY, "A,SRV", "kinds of records the new client asks for", "dns_order says what is asked for"
    )
    resolver_mem_cache_size = _idle(
        SIZE, "5m", "memory that workers share for names", "each process remembers names for itself (dns_cache_size)"
    )
    lua_socket_pool_size = _idle(NUMBER, "256", "size of Lua's socket pools", _NO_LUA_SOCKETS)

    # -- Lua, Wasm --
    lua_package_cpath = _idle(STRING, None, "where Lua's C modules are", "Lua has no modules in C here")
    lua_max_req_headers = _idle(
        NUMBER.within(1, 1000), "100", "request headers that plugins see", "they see all, up to nginx_http_max_headers"
    )
    lua_max_resp_headers = _idle(
        NUMBER.within(1, 1000),
        "100",
        "response headers that plugins see",
        "they see all, up to nginx_proxy_proxy_buffer_size",
    )
    lua_max_uri_args = _idle(
        NUMBER.within(1, 1000),
        "100",
        "query arguments that plugins see",
        "they see all, up to nginx_http_large_client_header_buffers",
    )
    lua_max_post_args = _idle(
        NUMBER.within(1, 1000), "100", "form arguments that plugins see", "they see all, up to client_body_buffer_size"
    )
    nginx_http_lua_regex_match_limit = _idle(
        STRING, "100000", "steps of a regular expression", "one may take 10 ms of CPU in a request"
    )
    nginx_http_lua_regex_cache_max_entries = _idle(
        STRING, "8192", "regular expressions kept", "a route's expressions are kept as long as the route"
    )
    wasm_filters_path = _known(STRING, None, "folder of filters")
    wasm_dynamic_module = _known(STRING, None, "the module that runs them")
    wasm_filters = _known(ARRAY, "bundled,user", "filters that may be used")
    nginx_wasm_main_shm_kv = _known(STRING, None, "size of their key-value store")
