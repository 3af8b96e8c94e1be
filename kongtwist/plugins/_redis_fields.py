"""The Redis server of a plugin's configuration (Kong 3.9.3, ``kong/tools/redis/schema.lua``)."""

from __future__ import annotations

from ..core.chain.host import RedisSettings
from ..core.rows import Row
from ..entities.schema import Boolean, Field, Integer, String
from ..entities.typedefs import host, sni

__all__ = ["redis_fields", "redis_settings"]


def redis_fields(used_by: str) -> dict[str, Field]:
    """The members of ``config.redis``.

    Args:
        used_by: what needs the server, such as ``policy redis``.
    """
    return {
        "host": String(checks=(host,), text=f"Host of the Redis server ({used_by})."),
        "port": Integer(default=6379, between=[0, 65535], text="The TCP port of the server."),
        "timeout": Integer(default=2000, between=[0, 2147483646], text="Milliseconds to connect, send and read, each."),
        "username": String(referenceable=True, text="User to log in as; null: none."),
        "password": String(encrypted=True, referenceable=True, len_min=0, text="Password to log in with; null: none."),
        "database": Integer(default=0, text="Number of the database."),
        "ssl": Boolean(required=False, default=False, text="Connect with TLS."),
        "ssl_verify": Boolean(required=False, default=False, text="Verify the server's certificate."),
        "server_name": String(required=False, checks=(sni,), text="Server name for TLS; null: the host."),
    }


def redis_settings(redis: Row) -> RedisSettings:
    """What the host makes a client of."""
    return RedisSettings(
        host=redis["host"], port=redis["port"], timeout=redis["timeout"], username=redis["username"],
        password=redis["password"], database=redis["database"] or 0, ssl=bool(redis["ssl"]),
        ssl_verify=bool(redis["ssl_verify"]), server_name=redis["server_name"],
    )  # fmt: skip
