"""Properties with commands of OpenSSL's configuration (nginx's ``ssl_conf_command``); part of config/properties.py by length only."""

from __future__ import annotations

from .kinds import Property
from .tls_kinds import TLS_COMMAND, TLS_RANGE

__all__ = ["TlsCommands"]


class TlsCommands:
    """Finer settings of TLS."""

    nginx_http_ssl_conf_command = Property(
        TLS_COMMAND,
        None,
        "A command of OpenSSL's configuration for TLS of clients: Ciphersuites (those of TLS 1.3), CipherString (those of older"
        " versions), MinProtocol, MaxProtocol, Protocol, or Options with SessionTicket, ServerPreference, PrioritizeChaCha,"
        " EncryptThenMac, ExtendedMasterSecret, AllowNoDHEKEX or NoRenegotiation. It is done after the properties ssl_*. Other commands"
        " stop the start. For proxy_listen, admin_listen and status_listen.",
    )
    nginx_proxy_ssl_conf_command = Property(
        TLS_COMMAND, None, "The same for proxy_listen alone, in place of nginx_http_ssl_conf_command."
    )
    nginx_admin_ssl_conf_command = Property(
        TLS_COMMAND, None, "The same for admin_listen alone, in place of nginx_http_ssl_conf_command."
    )
    nginx_status_ssl_conf_command = Property(
        TLS_COMMAND, None, "The same for status_listen alone, in place of nginx_http_ssl_conf_command."
    )
    nginx_stream_ssl_conf_command = Property(
        TLS_COMMAND, None, "The same for stream_listen.", aliases=("nginx_sproxy_ssl_conf_command",)
    )
    nginx_http_proxy_ssl_conf_command = Property(
        TLS_COMMAND,
        None,
        "The same for TLS to upstreams of the protocols https and wss.",
        aliases=("nginx_proxy_proxy_ssl_conf_command", "nginx_location_proxy_ssl_conf_command"),
    )
    nginx_http_grpc_ssl_conf_command = Property(
        TLS_COMMAND,
        None,
        "The same for TLS to upstreams of the protocol grpcs.",
        aliases=("nginx_proxy_grpc_ssl_conf_command", "nginx_location_grpc_ssl_conf_command"),
    )
    nginx_stream_proxy_ssl_conf_command = Property(
        TLS_COMMAND,
        None,
        "The same for TLS of stream routes to upstreams.",
        aliases=("nginx_sproxy_proxy_ssl_conf_command",),
    )
    lua_ssl_protocols = Property(
        TLS_RANGE,
        "TLSv1.2 TLSv1.3",
        "TLS versions of connections that plugins and health checks make, and of those to PostgreSQL (pg_ssl). Those to Kafka and of"
        " gRPC, which libraries make, take TLS 1.2 and newer whatever stands here.",
    )
