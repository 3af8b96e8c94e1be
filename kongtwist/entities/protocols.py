"""Kong's names of protocols (Kong 3.9)."""

from __future__ import annotations

__all__ = ["PROTOCOLS"]

PROTOCOLS = ["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"]
"""Kong's protocols, as its messages list them."""
