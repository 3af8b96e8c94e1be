"""Properties of Kong 3.9 that have no effect here yet: known by name, kind and default, so that any kong.conf is read.

Setting one to something other than its default gives one warning that lists them all (`conf.load`); a value of the
wrong kind is an error as anywhere. Building one means moving its line to config/properties.py.
"""

from __future__ import annotations

from .kinds import ARRAY, BOOLEAN, KNOWN, NUMBER, SIZE, STRING, Kind, Property, T, enum

__all__ = ["Unbuilt"]


def _known(kind: Kind[T], default: str | None, text: str, *aliases: str) -> Property[T]:
    return Property(kind, default, text, status=KNOWN, aliases=aliases)


class Unbuilt:
    """Known to Kong, without effect here yet."""

    # -- node --
    admin_gui_access_log = _known(STRING, "logs/admin_gui_access.log", "access log of the console")
    admin_gui_error_log = _known(STRING, "logs/admin_gui_error.log", "error log of the console")
    vaults = _known(ARRAY, "bundled", "secret stores; {vault://env/NAME} in this file is always understood")
    port_maps = _known(ARRAY, None, "ports as published:internal, for X-Forwarded-Port")
    host_ports = _known(STRING, None, "what port_maps comes to")
    anonymous_reports = _known(BOOLEAN, "on", "reports to a vendor; none are ever sent here")
    proxy_server = _known(STRING, None, "forward proxy for control-plane traffic")
    proxy_server_ssl_verify = _known(BOOLEAN, "on", "check that proxy's certificate")
    error_template_html = _known(STRING, None, "file with the HTML form of errors")
    error_template_json = _known(STRING, None, "file with the JSON form of errors")
    error_template_xml = _known(STRING, None, "file with the XML form of errors")
    error_template_plain = _known(STRING, None, "file with the plain form of errors")
    dedicated_config_processing = _known(BOOLEAN, "on", "a process of its own for configuration", "privileged_worker")
    worker_consistency = _known(
        enum("strict", "eventual"), "eventual", "when changes reach workers; here at once", "router_consistency"
    )
    worker_state_update_frequency = _known(NUMBER, "5", "seconds between rebuilds; here changes apply at once")
    worker_events_max_payload = _known(NUMBER, "65535", "bytes of a message between workers")
    lmdb_environment_path = _known(STRING, "dbless.lmdb", "folder of an LMDB copy")
    lmdb_map_size = _known(SIZE, "2048m", "its size")
    kic = _known(BOOLEAN, "off", "an ingress controller is in charge")
    openresty_path = _known(STRING, None, "an OpenResty installation")

    # -- listeners and TLS --
    nginx_user = _known(STRING, "kong kong", "user and group of workers; see twistd --uid", "nginx_main_user")
    nginx_events_multi_accept = _known(STRING, "on", "accept several connections at once; always so here")
    nginx_http_charset = _known(STRING, "UTF-8", "charset added to text answers")
    nginx_admin_client_body_buffer_size = _known(SIZE, "10m", "bytes of an Admin API request kept in memory")
    ssl_dhparam = _known(STRING, None, "Diffie-Hellman parameters; ECDHE is used", "nginx_http_ssl_dhparam")
    ssl_session_cache_size = _known(SIZE, "10m", "size of the TLS session cache")
    nginx_http_ssl_conf_command = _known(STRING, None, "OpenSSL configuration command")
    nginx_http_proxy_ssl_conf_command = _known(STRING, None, "the same towards upstreams")
    nginx_http_lua_ssl_conf_command = _known(STRING, None, "the same for Lua sockets")
    nginx_http_grpc_ssl_conf_command = _known(STRING, None, "the same towards gRPC upstreams")
    nginx_stream_ssl_conf_command = _known(STRING, None, "the same for streams")
    nginx_stream_proxy_ssl_conf_command = _known(STRING, None, "the same from streams to upstreams")
    nginx_stream_lua_ssl_conf_command = _known(STRING, None, "the same for Lua sockets of streams")
    nginx_stream_ssl_protocols = _known(STRING, None, "TLS versions of streams")
    nginx_stream_ssl_prefer_server_ciphers = _known(STRING, None, "who decides the cipher of streams")
    nginx_stream_ssl_dhparam = _known(STRING, None, "Diffie-Hellman parameters of streams")
    nginx_stream_ssl_session_tickets = _known(STRING, None, "TLS tickets of streams")
    nginx_stream_ssl_session_timeout = _known(STRING, None, "life of TLS sessions of streams")
    client_ssl_cert = _known(STRING, None, "certificate for client_ssl")
    client_ssl_cert_key = _known(STRING, None, "its key")

    # -- console --
    admin_gui_ssl_cert = _known(ARRAY, None, "certificate of the console")
    admin_gui_ssl_cert_key = _known(ARRAY, None, "its key")
    admin_gui_path = _known(STRING, "/", "path of the console")
    admin_gui_csp_header = _known(BOOLEAN, "off", "send a Content-Security-Policy")

    # -- hybrid mode --
    cluster_listen = _known(ARRAY, "0.0.0.0:8005", "addresses for data planes")
    cluster_control_plane = _known(STRING, "127.0.0.1:8005", "address of the control plane")
    cluster_cert = _known(STRING, None, "certificate between the planes")
    cluster_cert_key = _known(STRING, None, "its key")
    cluster_mtls = _known(enum("shared", "pki"), "shared", "how the planes trust each other")
    cluster_ca_cert = _known(STRING, None, "authority for pki")
    cluster_server_name = _known(STRING, None, "server name for pki")
    cluster_data_plane_purge_delay = _known(NUMBER, "1209600", "seconds until an absent data plane is forgotten")
    cluster_ocsp = _known(enum("on", "off", "optional"), "off", "revocation check of data planes")
    cluster_max_payload = _known(NUMBER, "16777216", "bytes of the largest configuration")
    cluster_use_proxy = _known(BOOLEAN, "off", "reach the control plane through proxy_server")
    cluster_dp_labels = _known(ARRAY, None, "labels of a data plane")
    cluster_rpc = _known(BOOLEAN, "off", "calls between the planes")
    cluster_rpc_sync = _known(BOOLEAN, "off", "send changes only", "cluster_incremental_sync")
    cluster_cjson = _known(BOOLEAN, "off", "choice of a JSON library")

    # -- PostgreSQL --
    pg_ro_host = _known(STRING, None, "host of a read-only copy")
    pg_ro_port = _known(NUMBER, None, "its port")
    pg_ro_database = _known(STRING, None, "its database")
    pg_ro_schema = _known(STRING, None, "its schema")
    pg_ro_timeout = _known(NUMBER, None, "its time limit, milliseconds")
    pg_ro_user = _known(STRING, None, "its user")
    pg_ro_password = _known(STRING, None, "its password")
    pg_ro_ssl = _known(BOOLEAN, None, "TLS to it")
    pg_ro_ssl_verify = _known(BOOLEAN, None, "check its certificate")
    pg_ro_max_concurrent_queries = _known(NUMBER, None, "queries to it at once")
    pg_ro_semaphore_timeout = _known(NUMBER, None, "milliseconds to wait for a turn")
    pg_ro_keepalive_timeout = _known(NUMBER, None, "milliseconds an idle connection to it is kept")
    pg_ro_pool_size = _known(NUMBER, None, "connections kept to it")
    pg_ro_backlog = _known(NUMBER, None, "operations that may wait for one")
    _debug_pg_ttl_cleanup_interval = _known(NUMBER, "300", "seconds between removals of expired rows")
    db_update_propagation = _known(NUMBER, "0", "seconds a change takes to all replicas")
    db_cache_ttl = _known(NUMBER, "0", "seconds entities are cached; here all are in memory")
    db_cache_neg_ttl = _known(NUMBER, None, "seconds a miss is cached")
    db_resurrect_ttl = _known(NUMBER, "30", "seconds to go on with what was cached")
    db_cache_warmup_entities = _known(ARRAY, "services", "what to cache at the start")

    # -- names and outgoing connections --
    dns_resolver = _known(ARRAY, None, "name servers; here the system's are asked", "resolver_address")
    dns_hostsfile = _known(STRING, "/etc/hosts", "hosts file; here always the system's", "resolver_hosts_file")
    dns_order = _known(ARRAY, "LAST,SRV,A,CNAME", "kinds of records asked for; here A and AAAA")
    dns_not_found_ttl = _known(NUMBER, "30", "seconds an absent name is remembered")
    dns_no_sync = _known(BOOLEAN, "off", "ask again for a name that is being asked for")
    new_dns_client = _known(BOOLEAN, "off", "choice of a resolver")
    resolver_family = _known(ARRAY, "A,SRV", "kinds of records asked for")
    resolver_mem_cache_size = _known(SIZE, "5m", "size of the shared cache of names")
    lua_socket_pool_size = _known(NUMBER, "256", "size of Lua's socket pools")
    lua_ssl_protocols = _known(STRING, "TLSv1.2 TLSv1.3", "TLS versions towards others")

    # -- Lua, Wasm --
    lua_package_cpath = _known(STRING, None, "where Lua's C modules are")
    lua_max_req_headers = _known(NUMBER.within(1, 1000), "100", "request headers that plugins see; here all")
    lua_max_resp_headers = _known(NUMBER.within(1, 1000), "100", "response headers that plugins see; here all")
    lua_max_uri_args = _known(NUMBER.within(1, 1000), "100", "query arguments that plugins see; here all")
    lua_max_post_args = _known(NUMBER.within(1, 1000), "100", "form arguments that plugins see; here all")
    nginx_http_lua_regex_match_limit = _known(
        STRING, "100000", "steps of a regular expression; here 10 ms of CPU a request"
    )
    nginx_http_lua_regex_cache_max_entries = _known(STRING, "8192", "regular expressions kept")
    wasm_filters_path = _known(STRING, None, "folder of filters")
    wasm_dynamic_module = _known(STRING, None, "the module that runs them")
    wasm_filters = _known(ARRAY, "bundled,user", "filters that may be used")
    nginx_wasm_main_shm_kv = _known(STRING, None, "size of their key-value store")
