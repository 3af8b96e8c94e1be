"""kongtwist: a streaming API gateway for Twisted that speaks Kong's Admin API and configuration."""

__all__ = ["KONG_VERSION", "VERSION", "WORKSPACE_ID"]

VERSION = "0.1.0"
"""Our own version, shown beside Kong's in ``GET /`` and ``kongtwist version``."""

KONG_VERSION = "3.9.3"
"""The Kong version whose contract is kept; reported where clients gate on it (Via, Server, ``GET /``)."""

WORKSPACE_ID = "0dc6f45b-8f8d-40d2-a504-473544ee190b"
"""Id of the only workspace there is: that of Kong's default one where it has no database (Kong 3.9, ``kong/constants.lua``)."""
