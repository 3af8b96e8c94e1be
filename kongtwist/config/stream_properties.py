"""Properties of stream routes: TCP, TLS and UDP; part of config/properties.py by length only. Names that Kong lacks are ours."""

from __future__ import annotations

from .kinds import DURATION, INTEGER, NGX_BOOLEAN, SIZE, STREAM_LISTENERS, STRING, Kind, Property, same_as
from .log_properties import ERROR_LOG, log_parts
from .tls_kinds import TLS_VERSIONS

__all__ = ["SESSION_FORMAT", "StreamRoutes"]

SESSION_FORMAT = "basic"
"""The one format of the access log of sessions (Kong 3.9, ``nginx_kong_stream.lua``)."""


def _session_log(text: str) -> str:
    _, form = log_parts(text)
    if form not in ("", SESSION_FORMAT):
        raise ValueError(f"names a format that is not declared: '{form}' ({SESSION_FORMAT})")
    return text


SESSION_LOG: Kind[str] = Kind("text", _session_log)


class StreamRoutes:
    """Stream routes."""

    stream_listen = Property(
        STREAM_LISTENERS,
        "off",
        "Addresses for TCP, TLS and UDP: <ip>:<port> or unix:<path> with flags, separated by commas, or off. Flags: ssl, udp, reuseport,"
        " backlog=N, ipv6only=on|off, so_keepalive=on|off|idle:interval:count, proxy_protocol (see docs/limits.md). One with ssl takes"
        " routes of tls, where TLS ends in the gateway, and of tls_passthrough; one with udp those of udp; any other those of tcp. See"
        " docs/stream-routes.md.",
    )
    proxy_stream_access_log = Property(
        SESSION_LOG,
        "logs/access.log basic",
        "Access log of sessions of stream routes: a file, /dev/stdout, or off. A format's name may follow: basic is the only one.",
    )
    proxy_stream_error_log = Property(
        ERROR_LOG,
        "logs/error.log",
        "Error log of sessions, written as proxy_error_log; it may be the same file. Made with stream_listen.",
    )
    nginx_stream_preread_timeout = Property(
        DURATION,
        "30s",
        "Time a client has for its whole ClientHello on an ssl address of stream_listen.",
        aliases=("nginx_sproxy_preread_timeout",),
    )
    nginx_stream_preread_buffer_size = Property(
        SIZE,
        "16k",
        "Bytes of the largest ClientHello on an ssl address of stream_listen.",
        aliases=("nginx_sproxy_preread_buffer_size",),
    )
    nginx_stream_ssl_handshake_timeout = Property(
        DURATION,
        "60s",
        "Time a client has for its TLS handshake there, where TLS ends in the gateway.",
        aliases=("nginx_sproxy_ssl_handshake_timeout",),
    )
    nginx_stream_ssl_protocols = same_as(
        "ssl_protocols", TLS_VERSIONS, "stream_listen", aliases=("nginx_sproxy_ssl_protocols",)
    )
    nginx_stream_ssl_prefer_server_ciphers = same_as(
        "ssl_prefer_server_ciphers", NGX_BOOLEAN, "stream_listen", aliases=("nginx_sproxy_ssl_prefer_server_ciphers",)
    )
    nginx_stream_ssl_dhparam = same_as("ssl_dhparam", STRING, "stream_listen", aliases=("nginx_sproxy_ssl_dhparam",))
    nginx_stream_ssl_session_tickets = same_as(
        "ssl_session_tickets", NGX_BOOLEAN, "stream_listen", aliases=("nginx_sproxy_ssl_session_tickets",)
    )
    nginx_stream_ssl_session_timeout = same_as(
        "ssl_session_timeout", DURATION, "stream_listen", aliases=("nginx_sproxy_ssl_session_timeout",)
    )
    stream_udp_sessions = Property(
        INTEGER.within(1, 1000000),
        "10000",
        "UDP sessions a process holds at once (our own name); datagrams of further clients are dropped, and the log says so. Each"
        " takes a descriptor.",
    )
    stream_udp_backlog = Property(
        INTEGER.within(1, 10000),
        "16",
        "Datagrams of a client kept while plugins and names are waited for (our own name); further ones are dropped.",
    )
