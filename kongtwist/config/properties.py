"""Every property of kong.conf, declared once: kind, default, meaning, and whether it has an effect here.

From it come reading (config/load.py), the documented ``conf/kongtwist.conf.default`` (config/default_file.py) and the warnings about
what is not built yet (config/unbuilt_properties.py). Names are Kong 3.9's; our own additions say so in their text. Each class is a
section of the documentation.
"""

from __future__ import annotations

from typing import Any

from .admin_properties import AdminAccess
from .dns_properties import DNS
from .goodbye_properties import Goodbyes
from .health_properties import HealthChecks
from .http2_properties import HTTP2
from .kafka_properties import KafkaServices
from .kinds import (
    ARRAY,
    BOOLEAN,
    CONNECTIONS,
    CPU_COUNT,
    DATABASE,
    DURATION,
    INTEGER,
    LISTENERS,
    NGX_BOOLEAN,
    NUMBER,
    PAIR,
    PORT_MAPS,
    RLIMIT,
    SIZE,
    STRING,
    UUID,
    Property,
    enum,
    enum_items,
    networks,
)
from .log_properties import Logs
from .lua_properties import Lua
from .plugin_properties import PluginServices
from .postgres_properties import Postgres, PostgresCopy
from .stream_properties import StreamRoutes
from .tls_kinds import TLS_VERSIONS
from .tls_properties import TlsCommands
from .tracing_properties import Tracing
from .unbuilt_properties import Unbuilt

__all__ = ["SECTIONS", "Properties", "declared", "properties"]

RESPONSE_HEADERS = (
    "server_tokens", "latency_tokens", "Server", "Via", "X-Kong-Proxy-Latency", "X-Kong-Response-Latency",
    "X-Kong-Admin-Latency", "X-Kong-Upstream-Latency", "X-Kong-Upstream-Status", "X-Kong-Request-Id",
)  # fmt: skip
ERROR_TYPES = ("application/json", "application/xml", "text/html", "text/plain")


def _directive(name: str, *blocks: str) -> tuple[str, ...]:
    """The names of an nginx directive in these blocks, weakest first."""
    return tuple(f"nginx_{block}_{name}" for block in blocks)


class Node:
    """Node."""

    prefix = Property(
        STRING,
        "kongtwist-data",
        "Working directory: process id, logs, database, generated certificates. Made with mode 0700 when it is not"
        " there. Relative paths of what a node writes (logs, sqlite_path) start from here; those of files it is given"
        " (declarative_config, certificates, keys, authorities), and this one, from the folder it is started in.",
        restart="a node is found by it",
    )
    plugins = Property(
        ARRAY,
        "bundled",
        "Plugins that can be configured: 'bundled' for all that come with the gateway, names of bundled ones, names of"
        " installed packages' plugins (entry points of the group kongtwist.plugins), dotted names package.module:Class,"
        " looked for where Python looks (PYTHONPATH) and last in the folder where the gateway is started; off for none.",
    )
    vaults = Property(
        enum_items("bundled", "env"),
        "bundled",
        "Kinds of vaults from which references may take secrets: bundled, which is env, or off. With off no reference of a row"
        " stands for anything, so that nobody reads the node's environment by the Admin API. Those in this file always do.",
    )
    node_id = Property(
        UUID,
        None,
        "The node's UUID; without it one is made at the first start and kept under prefix.",
        restart="it names this run of the node in logs and in the database",
    )
    nginx_worker_processes = Property(
        CPU_COUNT,
        "1",
        "Processes that serve traffic, on the same ports; auto is one per CPU. With 1 everything is one process.",
        aliases=("nginx_main_worker_processes",),
        restart="a node of one process serves in it, and one of several serves in others (from one of several to another"
        " number of several a reload does it)",
        restart_when=lambda old, new: (old > 1) != (new > 1),
    )
    nginx_daemon = Property(
        NGX_BOOLEAN,
        "on",
        "Whether 'kongtwist start' goes to the background. twistd has its own option for this (-n).",
        aliases=("nginx_main_daemon",),
        restart="only a start goes to the background",
    )
    nginx_main_worker_rlimit_nofile = Property(
        RLIMIT, "auto", "Files and sockets a process may have open; auto raises it to the most the system allows."
    )
    nginx_main_worker_shutdown_timeout = Property(
        DURATION,
        "10s",
        "Time that a graceful stop gives to open requests and streams before it cuts them; streams are told to end (goodbye_rate),"
        " WebSockets with 1001. A second signal ends the wait.",
        live=True,
    )
    reload_shutdown_timeout = Property(
        DURATION,
        "0",
        "Time that streams and requests which began before a reload have to end by themselves; then they are ended as at a"
        " stop, but WebSockets with 1012, so that clients come again (our own name). 0: as long as they last, as nginx's"
        " workers of before a reload go on.",
    )


class Listeners:
    """Listeners."""

    proxy_listen = Property(
        LISTENERS,
        "0.0.0.0:8000 reuseport backlog=16384, 0.0.0.0:8443 http2 ssl reuseport backlog=16384",
        "Addresses for proxied traffic: <ip>:<port> or unix:<path> with flags, separated by commas, or off. Flags: ssl,"
        " reuseport, backlog=N, ipv6only=on|off, deferred, so_keepalive=on|off|idle:interval:count; proxy_protocol: each"
        " connection begins with a PROXY header of version 1 or 2, before TLS (see real_ip_header); http2 offers"
        " HTTP/2 in TLS, which clients of gRPC need there (without ssl whoever begins with its preface has it); bind is taken"
        " and has no effect.",
    )
    admin_listen = Property(
        LISTENERS,
        "127.0.0.1:8001 reuseport backlog=16384",
        "Addresses of the Admin API, written as for proxy_listen. Whoever reaches it controls the gateway: keep it on"
        " the loopback address, or see docs/security.md. Sockets unix:<path> are the owner's alone (mode 0600).",
    )
    status_listen = Property(
        LISTENERS, "off", "Addresses of the Status API (read-only health and metrics), written as for proxy_listen."
    )
    admin_gui_listen = Property(
        LISTENERS, "off", "Addresses of the browser console, written as for proxy_listen; read, and not served yet."
    )
    port_maps = Property(
        PORT_MAPS,
        "",
        "Ports that clients connect to, where something in front of us passes them on to other ports of ours, as"
        " published:own, such as 80:8000, 443:8443. Upstreams (X-Forwarded-Port), logs (request.url), routes (net.dst.port)"
        " and plugins (kong.request.get_forwarded_port) are told the published ones.",
    )
    trusted_ips = Property(
        networks,
        "",
        "Addresses and CIDR blocks of peers whose X-Forwarded-* headers and client address are believed; unix: for"
        " those on unix sockets. Nobody by default.",
    )
    real_ip_header = Property(
        STRING,
        "X-Real-IP",
        "Header that a trusted peer names the client in; proxy_protocol: the PROXY header of the connection tells it, where the"
        " address has the flag proxy_protocol and the peer is one of trusted_ips.",
        aliases=("nginx_proxy_real_ip_header",),
    )
    real_ip_recursive = Property(
        NGX_BOOLEAN,
        "off",
        "Take the last address in that header which is not trusted itself, rather than the last one.",
        aliases=("nginx_proxy_real_ip_recursive",),
    )


class Tls:
    """TLS."""

    ssl_cert = Property(
        ARRAY,
        "",
        "Files with the certificate chains (PEM) that 'ssl' addresses of proxy_listen show when no SNI entity fits; one"
        " for each kind of key. Without it one is made under prefix/ssl at the first start.",
        live=True,
    )
    ssl_cert_key = Property(ARRAY, "", "Files with the keys of ssl_cert, in the same order.", live=True)
    client_ssl = Property(
        BOOLEAN,
        "off",
        "Show the certificate client_ssl_cert to upstreams of services with TLS that have no client_certificate of their own.",
    )
    client_ssl_cert = Property(
        STRING,
        None,
        "File with that certificate and its chain (PEM). Without it the one with RSA is shown that the node made for itself"
        " under prefix/ssl.",
    )
    client_ssl_cert_key = Property(STRING, None, "File with its key.")
    proxy_ssl_client_ca = Property(
        ARRAY,
        "",
        "Files with certificates (PEM) of authorities: on the ssl addresses of proxy_listen, clients are asked for a"
        " certificate, and refused in the handshake where they show one that none of these has signed. Who shows none goes on;"
        " the plugin client-certificate demands one (our own name).",
        live=True,
    )
    admin_ssl_cert = Property(ARRAY, "", "As ssl_cert, for admin_listen.", live=True)
    admin_ssl_cert_key = Property(ARRAY, "", "Keys of admin_ssl_cert.", live=True)
    status_ssl_cert = Property(ARRAY, "", "As ssl_cert, for status_listen.", live=True)
    status_ssl_cert_key = Property(ARRAY, "", "Keys of status_ssl_cert.", live=True)
    ssl_cipher_suite = Property(
        enum("modern", "intermediate", "old", "fips", "custom"),
        "intermediate",
        "Ciphers and TLS versions for clients, after Mozilla's recommendations of these names; modern is TLS 1.3 alone,"
        " custom takes ssl_ciphers.",
    )
    ssl_ciphers = Property(STRING, None, "OpenSSL cipher list of TLS 1.2 and older, for ssl_cipher_suite = custom.")
    ssl_protocols = Property(
        TLS_VERSIONS,
        "TLSv1.2 TLSv1.3",
        "TLS versions that clients may use.",
        aliases=_directive("ssl_protocols", "http", "proxy"),
    )
    ssl_prefer_server_ciphers = Property(
        NGX_BOOLEAN,
        "on",
        "The server's order of ciphers decides.",
        aliases=_directive("ssl_prefer_server_ciphers", "http", "proxy"),
    )
    ssl_session_tickets = Property(
        NGX_BOOLEAN,
        "on",
        "TLS sessions may be resumed by tickets.",
        aliases=_directive("ssl_session_tickets", "http", "proxy"),
    )
    ssl_dhparam = Property(
        STRING,
        None,
        "Parameters for ciphers with DHE, in TLS 1.2 and older: the name of a group of RFC 7919 (ffdhe2048, ffdhe3072, ffdhe4096,"
        " ffdhe6144, ffdhe8192), or of a file with PEM. Without it these ciphers are not spoken, those with ECDHE are.",
        aliases=_directive("ssl_dhparam", "http", "proxy"),
    )
    ssl_session_timeout = Property(
        DURATION,
        "1d",
        "Time a TLS session may be resumed.",
        aliases=_directive("ssl_session_timeout", "http", "proxy"),
    )


class ClientLimits:
    """Limits of client connections."""

    nginx_http_max_connections = Property(
        CONNECTIONS,
        "0",
        "Client connections that each worker process holds at once (our own name), those that became WebSockets or other"
        " streams, and those of stream_listen, among them; further ones wait in the backlog of their listener and are accepted"
        " when there is room. Those of the Admin and Status APIs and those to upstreams are not counted. 0 or auto: as many as"
        " descriptors allow.",
        aliases=("nginx_worker_connections", "nginx_events_worker_connections"),
        live=True,
    )
    max_connections_per_address = Property(
        INTEGER.within(0),
        "0",
        "Connections that one client address may have open in each worker process; one more is closed at once, without an"
        " answer. The address is the peer's, or the one that a PROXY header of a trusted peer names; other trusted peers"
        " (trusted_ips) may have any number, as they stand for many clients. 0: any number. Our own addition.",
    )
    max_requests_per_address = Property(
        INTEGER.within(0),
        "0",
        "Requests of one client address that each worker process serves at once, open WebSockets, event streams and calls"
        " among them; one more is answered 503. The address is the client's behind trusted peers. 0: any number. Our own"
        " addition.",
    )
    address_prefix_ipv4 = Property(
        INTEGER.within(1, 32), "32", "Bits of an IPv4 address by which the two settings before count; our own addition."
    )
    address_prefix_ipv6 = Property(
        INTEGER.within(1, 128),
        "64",
        "Bits of an IPv6 address by which they count: who has one mostly has a whole network of 64. Our own addition.",
    )
    nginx_http_client_header_timeout = Property(
        DURATION, "60s", "Time a client has for a request's head.", aliases=_directive("client_header_timeout", "proxy")
    )
    nginx_http_client_body_timeout = Property(
        DURATION,
        "60s",
        "Time between two pieces of a request's body.",
        aliases=_directive("client_body_timeout", "proxy", "location"),
    )
    nginx_http_send_timeout = Property(
        DURATION,
        "60s",
        "Time without progress after which a client that does not read is cut off.",
        aliases=_directive("send_timeout", "proxy", "location"),
    )
    nginx_http_keepalive_timeout = Property(
        DURATION,
        "75s",
        "Time an idle client connection is kept; 0 closes after every answer.",
        aliases=_directive("keepalive_timeout", "proxy", "location"),
    )
    nginx_http_keepalive_requests = Property(
        INTEGER.within(1),
        "10000",
        "Requests on one client connection before it is closed.",
        aliases=_directive("keepalive_requests", "proxy", "location"),
    )
    nginx_http_large_client_header_buffers = Property(
        PAIR,
        "4 8k",
        "Number and size of buffers for a request's head: the size limits the request line and each header line, the"
        " product the whole head.",
        aliases=_directive("large_client_header_buffers", "proxy"),
    )
    nginx_http_max_headers = Property(
        INTEGER.within(1, 100000),
        "1000",
        "Header lines a request may have.",
        aliases=_directive("max_headers", "proxy"),
    )
    nginx_http_client_max_body_size = Property(
        SIZE,
        "0",
        "Largest request body; larger ones are answered 413. 0: no limit.",
        aliases=_directive("client_max_body_size", "proxy", "location"),
    )
    client_body_buffer_size = Property(
        SIZE,
        "8k",
        "Bytes of a request body that may be held in memory: what a retry can send again, what plugins that want the"
        " whole body may get, and chunked bodies up to which upstreams are told a length (a Route's"
        " request_buffering). Bodies are never written to disk.",
        aliases=_directive("client_body_buffer_size", "http", "proxy", "location"),
    )


class Upstreams:
    """Upstream connections."""

    upstream_keepalive_pool_size = Property(
        INTEGER.within(0), "512", "Idle connections a process keeps per upstream address; 0 keeps none."
    )
    upstream_keepalive_max_requests = Property(
        INTEGER.within(0), "10000", "Requests on one upstream connection before it is closed; 0: no limit."
    )
    upstream_keepalive_idle_timeout = Property(
        NUMBER.within(0), "60", "Seconds an idle upstream connection is kept; 0: no limit."
    )
    upstream_http2 = Property(
        BOOLEAN,
        "off",
        "Ask services of protocol https for HTTP/2, which those that know it choose in TLS (ALPN); the others are spoken to over"
        " HTTP/1.1. Services of grpc and grpcs always get HTTP/2. Our own addition.",
    )
    upstream_http2_connections = Property(
        INTEGER.within(1),
        "64",
        "Connections over HTTP/2 that a process makes to one upstream address, once those it has are full; our own addition.",
    )
    upstream_http2_queue = Property(
        INTEGER.within(1),
        "10000",
        "Requests that wait in a process for a stream to one upstream address; further ones are answered 503; our own addition.",
    )
    grpc_methods_counted = Property(
        INTEGER.within(0),
        "1000",
        "gRPC methods that a process counts by themselves; the others are counted together; our own addition.",
    )
    nginx_proxy_proxy_read_timeout = Property(
        DURATION,
        None,
        "Longest silence of an upstream for Services that leave read_timeout at its default (60000 ms). No value: the"
        " Service's own always counts.",
        aliases=_directive("proxy_read_timeout", "location"),
    )
    nginx_proxy_proxy_buffer_size = Property(
        SIZE.within(1),
        "32k",
        "Largest head of an upstream's answer; larger ones are answered 502.",
        aliases=_directive("proxy_buffer_size", "http", "location"),
    )
    nginx_proxy_proxy_buffers = Property(
        PAIR,
        "8 8k",
        "Number and size of buffers: their product is what a stream may hold in each direction before its sender is"
        " made to wait.",
        aliases=_directive("proxy_buffers", "http", "location"),
    )


class Answers:
    """Answers."""

    headers = Property(
        enum_items(*RESPONSE_HEADERS),
        "server_tokens, latency_tokens, x-kong-request-id",
        "Response headers to add; server_tokens stands for Server and Via, latency_tokens for the latency headers. off"
        " adds none.",
    )
    headers_upstream = Property(
        enum_items("X-Kong-Request-Id"), "x-kong-request-id", "Request headers to add; off adds none."
    )
    allow_debug_header = Property(
        BOOLEAN,
        "off",
        "Tell clients that send the header Kong-Debug the id and name of their request's route and service, in the headers"
        " Kong-Route-Id, Kong-Route-Name, Kong-Service-Id and Kong-Service-Name.",
    )
    error_template_html = Property(
        STRING,
        None,
        "File with the body of the gateway's own errors for clients that take HTML, in place of its own: %s stands for the message,"
        " a second %s for the request's id, %% for a percent sign. A relative path starts from the folder the node is started in.",
    )
    error_template_json = Property(
        STRING, None, "The same for clients that take JSON; within quotation marks, %s is written as JSON has it."
    )
    error_template_xml = Property(STRING, None, "The same for clients that take XML.")
    error_template_plain = Property(STRING, None, "The same for clients that take plain text.")
    error_default_type = Property(
        enum(*ERROR_TYPES), "text/plain", "Form of the gateway's own errors for clients that ask for none."
    )


class Storage:
    """Storage."""

    database = Property(
        enum("sqlite", "off", "postgres"),
        "sqlite",
        "Where configuration is kept: sqlite (a file of this node; our own addition), postgres (a database that several"
        " nodes share; 'kongtwist migrations bootstrap' makes its tables), or off (the declarative file only, and the"
        " Admin API is read-only but for /config).",
        refused={"cassandra": "Cassandra is not supported; use postgres, sqlite or off"},
        restart=DATABASE,
    )
    sqlite_path = Property(
        STRING,
        "kongtwist.sqlite",
        "The SQLite file (our own name); made with mode 0600. It must be on a local disk.",
        restart=DATABASE,
    )
    declarative_config = Property(
        STRING,
        None,
        "Declarative file (YAML or JSON) to load with database = off; read again at reload. A relative path starts from"
        " the folder the node is started in.",
        live=True,
    )
    declarative_config_string = Property(
        STRING, None, "The same as text, in place of a file; for environment variables.", live=True
    )


class Routing:
    """Routing."""

    router_flavor = Property(
        enum("traditional_compatible", "traditional", "expressions"),
        "traditional_compatible",
        "How requests are matched to Routes: by the number of their attributes and the length of their path, as Kong does"
        " (traditional_compatible), by the rules of its former router (traditional), or also by expressions.",
    )


class Refused:
    """Refused until built."""

    role = Property(
        enum("traditional"),
        "traditional",
        "Part of the node in hybrid mode.",
        refused={
            "control_plane": "hybrid mode is not built yet, so no data plane would get its configuration",
            "data_plane": "hybrid mode is not built yet, so no configuration would arrive",
        },
    )
    wasm = Property(
        BOOLEAN,
        "off",
        "Wasm filters.",
        refused={
            "on": "Wasm filters are not built yet, so traffic would pass unfiltered",
            "true": "Wasm filters are not built yet, so traffic would pass unfiltered",
        },
    )
    pluginserver_names = Property(
        ARRAY,
        "",
        "External plugin servers.",
        refused={"*": "external plugin servers are not built yet, so their plugins would be missing"},
    )


SECTIONS: tuple[type, ...] = (
    Node,
    Logs,
    Listeners,
    StreamRoutes,
    Tls,
    TlsCommands,
    AdminAccess,
    ClientLimits,
    Upstreams,
    DNS,
    Answers,
    Storage,
    Postgres,
    PostgresCopy,
    HealthChecks,
    Goodbyes,
    HTTP2,
    PluginServices,
    Lua,
    Tracing,
    KafkaServices,
    Routing,
    Refused,
)
"""Sections of the documentation, in order; a section's title is its docstring."""


class Properties(
    Node,
    Logs,
    Listeners,
    StreamRoutes,
    Tls,
    TlsCommands,
    AdminAccess,
    ClientLimits,
    Upstreams,
    DNS,
    Answers,
    Storage,
    Postgres,
    PostgresCopy,
    HealthChecks,
    Goodbyes,
    HTTP2,
    PluginServices,
    Lua,
    Tracing,
    KafkaServices,
    Routing,
    Refused,
    Unbuilt,
):
    """All properties. Attributes are declarations here, typed values on an instance (`conf.Conf`)."""


def declared(section: type) -> dict[str, Property[Any]]:
    """The properties that a section declares, in order."""
    return {name: value for name, value in vars(section).items() if isinstance(value, Property)}


def properties() -> dict[str, Property[Any]]:
    """All properties by name, in the order of the documentation."""
    return {name: each for section in (*SECTIONS, Unbuilt) for name, each in declared(section).items()}
