"""kongtwist: a streaming API gateway for Twisted that speaks Kong's Admin API and configuration."""

__all__ = ["KONG_VERSION", "VERSION"]

VERSION = "0.1.0"
"""Our own version, shown beside Kong's in ``GET /`` and ``kongtwist version``."""

KONG_VERSION = "3.9.3"
"""The Kong version whose contract is kept; reported where clients gate on it (Via, Server, ``GET /``)."""
