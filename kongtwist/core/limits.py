"""Every bound of the data path in one place, with its unit. No traffic may make the gateway hold or wait for more.

Defaults are those of Kong 3.9's nginx templates where Kong sets them, else nginx's own. Nought means "no limit" only where
a line says so.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KONG_READ_TIMEOUT", "Limits"]

KONG_READ_TIMEOUT = 60.0
"""Seconds: what Kong gives a Service as ``read_timeout`` when it is not told (Kong 3.9, entity services)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one gateway; made from the configuration by the composition."""

    # -- client side: heads --------------------------------------------------------------------------------------
    head_timeout: float = 60.0
    """Seconds from the first byte of a head to its end (nginx ``client_header_timeout``); the connection is closed."""
    keepalive_timeout: float = 75.0
    """Seconds an idle client connection is kept (nginx ``keepalive_timeout``); 0 closes after each answer."""
    keepalive_requests: int = 10000
    """Requests on one client connection before it is closed (``nginx_http_keepalive_requests``)."""
    header_buffer_size: int = 8192
    """Bytes of the longest request line (414) and of the longest header line (494), nginx ``large_client_header_buffers``."""
    header_buffers: int = 4
    """Such buffers: their product bounds a whole head (494)."""
    max_headers: int = 1000
    """Header lines in a request (494; nginx ``max_headers``)."""
    pipeline_buffer: int = 65536
    """Bytes of pipelined requests kept while an answer is pending; beyond it reading stops."""

    # -- client side: bodies -------------------------------------------------------------------------------------
    client_max_body_size: int = 0
    """Bytes of the largest request body (413; ``nginx_http_client_max_body_size``); 0: no limit."""
    client_body_buffer_size: int = 8192
    """Bytes of a request body kept for replay and for plugins; a larger body forbids a retry."""
    client_body_timeout: float = 60.0
    """Seconds between two pieces of a request body (408; nginx ``client_body_timeout``)."""
    send_timeout: float = 60.0
    """Seconds without any progress of a client that reads slowly (nginx ``send_timeout``); the connection is cut."""
    lingering_time: float = 30.0
    """Seconds in all that a client may go on sending after an early answer (nginx ``lingering_time``)."""
    lingering_timeout: float = 5.0
    """Seconds between two pieces of what is discarded so (nginx ``lingering_timeout``)."""
    drain_size: int = 1048576
    """Bytes of a request body discarded after an early answer to keep the connection alive; beyond it, it is closed."""
    trailer_size: int = 8192
    """Bytes of the trailer section of a chunked body, and of one chunk's size line with its extensions."""

    # -- HTTP/2 --------------------------------------------------------------------------------------------------
    http2_max_concurrent_streams: int = 1000
    """Streams a client may have open on one connection; one more is refused (REFUSED_STREAM)."""
    http2_stream_window_size: int = 262144
    """Bytes of DATA a peer may send on a stream before somebody has taken them: what a stream holds at most."""
    http2_connection_window_size: int = 4194304
    """The same for all streams of a client's connection together."""
    http2_max_block_size: int = 65536
    """Bytes of one compressed field block; its request or answer is refused beyond it, and beyond four times as much the connection
    ends (ENHANCE_YOUR_CALM)."""
    http2_max_continuations: int = 8
    """CONTINUATION frames of one field block, those of 16 KiB left out (ENHANCE_YOUR_CALM)."""
    http2_reset_burst: int = 1000
    """Streams a peer may reset, or have us reset for its errors, at once (ENHANCE_YOUR_CALM)."""
    http2_reset_rate: float = 33.0
    """Such resets that it may have more each second."""
    http2_idle_frames: int = 1000
    """Frames that bring nothing (PING, SETTINGS, PRIORITY, small WINDOW_UPDATE, empty DATA, unknown ones) in a row, without
    DATA or a request in between; 100 more each second (ENHANCE_YOUR_CALM)."""
    http2_unsent_answers: int = 1000
    """Answers to PING and SETTINGS, and resets, held for a peer that does not read (ENHANCE_YOUR_CALM)."""

    # -- upstream side -------------------------------------------------------------------------------------------
    default_read_timeout: float = 60.0
    """Seconds of silence allowed to the upstreams of Services that leave ``read_timeout`` at Kong's default of 60000 ms
    (``nginx_proxy_proxy_read_timeout``)."""
    proxy_buffer_size: int = 32768
    """Bytes of the largest response head (502; ``nginx_proxy_proxy_buffer_size``)."""
    high_water: int = 65536
    """Bytes buffered per direction of a stream before its producer is paused (the product of ``proxy_buffers``)."""
    max_interim: int = 32
    """1xx heads an upstream may send before its answer (502)."""
    upstream_keepalive_pool_size: int = 512
    """Idle connections kept per upstream address; 0: none is kept (``upstream_keepalive_pool_size``)."""
    upstream_keepalive_max_requests: int = 10000
    """Requests on one upstream connection; 0: no limit (``upstream_keepalive_max_requests``)."""
    upstream_keepalive_idle_timeout: float = 60.0
    """Seconds an idle upstream connection is kept; 0: no limit (``upstream_keepalive_idle_timeout``)."""
    upstream_http2_connections: int = 64
    """Connections over HTTP/2 to one upstream address (``upstream_http2_connections``); what they have no stream for waits."""
    upstream_http2_queue: int = 10000
    """Requests that wait for a stream to one upstream address (``upstream_http2_queue``); further ones are refused (503)."""
    grpc_methods: int = 1000
    """gRPC methods that are counted by themselves (``grpc_methods_counted``); the others are counted together."""

    # -- names ---------------------------------------------------------------------------------------------------
    dns_valid_ttl: float | None = None
    """Seconds addresses of a name are used before it is asked for again (``dns_valid_ttl``); None: as long as DNS says, 30 where the
    system's resolver is asked."""
    dns_error_ttl: float = 1.0
    """Seconds a failed lookup is remembered (``dns_error_ttl``)."""
    dns_stale_ttl: float = 3600.0
    """Seconds old addresses are used on when a renewed lookup fails (``dns_stale_ttl``)."""
    dns_cache_size: int = 10000
    """Names remembered, and looked up at once (``dns_cache_size``)."""

    # -- sessions of stream routes -------------------------------------------------------------------------------
    preread_timeout: float = 30.0
    """Seconds for a whole ClientHello (``nginx_stream_preread_timeout``)."""
    preread_buffer_size: int = 16384
    """Bytes of the largest ClientHello (``nginx_stream_preread_buffer_size``)."""
    handshake_timeout: float = 60.0
    """Seconds for a client's TLS handshake (``nginx_stream_ssl_handshake_timeout``)."""
    udp_sessions: int = 10000
    """UDP sessions of a process (``stream_udp_sessions``); datagrams of further clients are dropped."""
    udp_backlog: int = 16
    """Datagrams of a session kept while it is decided where it goes (``stream_udp_backlog``); further ones are dropped."""

    # -- sockets -------------------------------------------------------------------------------------------------
    accept_pause: float = 0.5
    """Seconds accepting pauses when descriptors have run out (nginx ``accept_mutex_delay``)."""

    def read_timeout(self, of_service: float) -> float:
        """Seconds of silence allowed to an upstream whose Service says ``of_service``."""
        return of_service if of_service != KONG_READ_TIMEOUT else self.default_read_timeout

    @property
    def head_size(self) -> int:
        """Bytes of the largest request head."""
        return self.header_buffer_size * self.header_buffers
