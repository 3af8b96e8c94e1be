"""Properties that bound what plugins are given of the gateway; part of config/properties.py by length only."""

from __future__ import annotations

from .kinds import ARRAY, INTEGER, SIZE, Property

__all__ = ["PluginServices"]


class PluginServices:
    """What plugins may take up, in each process. Names that are not Kong's are ours."""

    lua_ssl_trusted_certificate = Property(
        ARRAY,
        "system",
        "Authorities that the certificates of PostgreSQL and of the servers that plugins talk to are checked against: files"
        " in PEM format, and system for those of this machine.",
    )
    lua_ssl_verify_depth = Property(
        INTEGER.within(0), "1", "Certificates that may stand between a server's and one of those authorities'."
    )
    plugin_max_pending_writes = Property(
        INTEGER.within(1),
        "1000",
        "Rows that plugins have under way to storage at once at the most (tokens, sessions); more are refused (503).",
    )
    plugin_max_pending_tallies = Property(
        INTEGER.within(1),
        "20000",
        "Counters of all nodes (rate limits by cluster) that may wait for the database; more are refused.",
    )
    metrics_max_series = Property(
        INTEGER.within(100, 10000000),
        "100000",
        "Figures (a name with its labels; a histogram is one) that /metrics shows at the most, and that each worker keeps. What would be"
        " one more is not counted; kongtwist_plugin_metrics_dropped_total says that there was no room (our own name).",
    )
    mem_cache_size = Property(
        SIZE,
        "128m",
        "Bytes that the answers kept by proxy-cache take on this node; those used longest ago go first. Each worker has its own share"
        " of it, and its own answers. (In Kong entities take it up too; here they do not.)",
    )
    proxy_cache_max_body_size = Property(
        SIZE,
        "1m",
        "Bytes of the longest answer that proxy-cache keeps. A longer one, or one that turns out to be longer while it passes, is not"
        " kept; it is never held back.",
    )
    plugin_threads = Property(
        INTEGER.within(1, 1000), "10", "Threads for calls of plugins that block (passwords, LDAP and the like)."
    )
    plugin_thread_backlog = Property(
        INTEGER.within(0), "1000", "Such calls that may wait for a thread; more are refused."
    )
    plugin_ldap_binds = Property(
        INTEGER.within(1),
        "64",
        "Logins that one configuration of ldap-auth has under way at once at its server, in each worker, at the most; one more is"
        " answered 500.",
    )
    plugin_acme_orders = Property(
        INTEGER.within(1),
        "4",
        "Names for which one configuration of acme gets certificates at once, in each worker, at the most, because clients ask for"
        " them; one more is tried when a client next asks for it. Each takes a thread (plugin_threads).",
    )
    plugin_queue_bytes = Property(
        SIZE,
        "64m",
        "Bytes of entries that wait in one queue of a plugin, in each worker, where its queue.max_bytes is not set; the oldest go."
        " 0: as many as they come to.",
    )
    plugin_grpc_threads = Property(
        INTEGER.within(1, 10000),
        "100",
        "Calls that plugins have under way to gRPC services at once at the most (grpc-gateway). Each takes a thread until it"
        " ends, a stream for as long as it lasts; one more is refused at once (503).",
    )
    plugin_grpc_message_size = Property(
        SIZE,
        "4m",
        "Bytes of the largest gRPC message that is held to be translated (grpc-gateway, Connect's unary calls, JSON), and of the"
        " body or WebSocket message that becomes one; larger ones end the call with RESOURCE_EXHAUSTED.",
    )
    plugin_grpc_channels = Property(
        INTEGER.within(1), "100", "Connections to gRPC services that are kept while no call uses them."
    )
