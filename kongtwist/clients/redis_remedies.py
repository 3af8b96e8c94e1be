"""What an operator does about a Redis server that does not let us in, or does not do what is asked."""

from __future__ import annotations

from ..core.chain.host import RedisSettings

__all__ = ["remedy"]

_BY_BEGINNING = (
    ("WRONGPASS", "correct redis.username and redis.password"),
    ("NOAUTH", "the server demands a password: set redis.password"),
    ("ERR AUTH", "the server has no password: take redis.password out, or set one there"),
    ("NOPERM", "allow redis.username the command and the keys (ACL SETUSER)"),
    ("READONLY", "it is a replica: name the primary in redis.host"),
    ("DENIED", "it runs in protected mode: set a password there, and here in redis.password"),
    ("OOM", "it is full: give it more memory, or have it evict keys (maxmemory)"),
    ("MISCONF", "it cannot write to its disk: look into its log"),
    ("ERR DB index", "correct redis.database"),
    ("ERR invalid DB index", "correct redis.database"),
    ("its certificate is for another name", "name that in redis.server_name"),
    ("TLS failed: certificate verify failed", "name its authority in lua_ssl_trusted_certificate"),
    ("TLS failed: wrong version number", "it speaks no TLS here: correct redis.ssl or redis.port"),
)  # fmt: skip
"""How a problem begins, and what is to be done."""

_CLUSTER = "clusters are not supported: name a server outside a cluster, or a proxy in front of one"


def remedy(problem: str, settings: RedisSettings, ready: bool = False) -> str:
    """The problem with what is to be done about it, where that is known.

    Args:
        problem: the server's error, or why there is no connection.
        settings: of the server.
        ready: it has let us in before.
    """
    code, _, rest = problem.partition(" ")
    if code in ("MOVED", "ASK"):
        where = rest.rpartition(" ")[2]
        return f"it is a node of a cluster, and the key is kept by {where} ({problem}); {_CLUSTER}"
    for beginning, what in _BY_BEGINNING:
        if problem.startswith(beginning):
            return f"{problem}; {what}"
    if not ready and not settings.ssl and problem in ("the connection was closed", "what it answers is not RESP"):
        return f"{problem}; see whether it is a Redis server, and whether it demands TLS (redis.ssl)"
    return problem
