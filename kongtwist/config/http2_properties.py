"""Bounds of HTTP/2, with clients and with upstreams; part of config/properties.py by length only."""

from __future__ import annotations

from .kinds import INTEGER, NUMBER, SIZE, Property

__all__ = ["HTTP2"]


class HTTP2:
    """HTTP/2. These properties are ours; Kong leaves nginx's values as they are."""

    http2_max_concurrent_streams = Property(
        INTEGER.within(1, 1000000),
        "1000",
        "Requests a client may have open on one connection; one more is refused and may be tried again (REFUSED_STREAM).",
    )
    http2_stream_window_size = Property(
        SIZE.within(65535, 1 << 30),
        "256k",
        "Bytes that a client or an upstream may send on a stream before the other side has taken them: what the gateway"
        " holds for a stream at most, each way.",
    )
    http2_connection_window_size = Property(
        SIZE.within(65535, 1 << 30),
        "4m",
        "Bytes that a client may send so on all streams of a connection together.",
    )
    http2_max_block_size = Property(
        SIZE.within(16384, 1 << 24),
        "64k",
        "Bytes of a compressed field block, from clients and from upstreams. A larger one ends its own request: a client's head is"
        " answered 400 (gRPC: RESOURCE_EXHAUSTED), as one whose fields are larger than nginx_http_large_client_header_buffers"
        " allows; an upstream's 502. More than four times as much ends the connection (ENHANCE_YOUR_CALM).",
    )
    http2_max_continuations = Property(
        INTEGER.within(0),
        "8",
        "CONTINUATION frames of a field block, those of 16 KiB left out; more end the connection (ENHANCE_YOUR_CALM).",
    )
    http2_reset_burst = Property(
        INTEGER.within(1),
        "1000",
        "Streams that a client may reset, or have reset by its errors, at once. More end the connection (ENHANCE_YOUR_CALM).",
    )
    http2_reset_rate = Property(INTEGER.within(0), "33", "Such resets that a client may have more each second.")
    http2_ping_interval = Property(
        NUMBER.within(0, 86400),
        "0",
        "Seconds of silence after which a client of HTTP/2 with open requests or streams gets a PING. One that says nothing for as long"
        " again is given up: its connection ends, its streams are cancelled. 0: no PINGs.",
    )
    upstream_http2_ping_interval = Property(
        NUMBER.within(0, 86400),
        "0",
        "The same for upstreams of HTTP/2; what was asked of one that is given up is answered 502, of gRPC UNAVAILABLE. Servers of gRPC end"
        " connections of clients that ping more often than they allow (too_many_pings), most of them every 300 seconds. 0: no PINGs.",
    )
    http2_idle_frames = Property(
        INTEGER.within(1),
        "1000",
        "Frames that bring nothing (PING, SETTINGS, PRIORITY, small WINDOW_UPDATE, empty DATA, unknown ones) that may come in"
        " a row, without DATA or a request in between; 100 more each second. More end the connection (ENHANCE_YOUR_CALM).",
    )
    http2_unsent_answers = Property(
        INTEGER.within(1),
        "1000",
        "Answers to PING and SETTINGS, and resets, that are held for a peer that does not read. More end the connection"
        " (ENHANCE_YOUR_CALM).",
    )
