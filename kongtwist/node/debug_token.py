"""The secret of ``X-Kong-Request-Debug-Token``: the one that is configured, or one that is made at each start and reload.

It is kept in ``<prefix>/.request_debug_token``, for its owner only (Kong 3.9, ``kong/init.lua``; Kong writes it into the error log as
well). Workers read it there.
"""

from __future__ import annotations

import os
from uuid import uuid4

from twisted.logger import Logger

from ..config.load import Conf
from ..observability.error_log import notice

__all__ = ["debug_token", "renew_debug_token", "tell_debug_token"]

FILE = ".request_debug_token"

_log = Logger(namespace="kongtwist.node")


def renew_debug_token(conf: Conf) -> None:
    """Write the token of this start or reload; without ``request_debug`` there is none."""
    path = conf.path(FILE)
    try:
        if os.path.lexists(path):
            os.unlink(path)
        if not conf.request_debug:
            return
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(conf.request_debug_token or str(uuid4()))
    except OSError as error:
        _log.error("[request-debug] cannot write {path}: {why}", path=path, why=error.strerror)


def tell_debug_token(conf: Conf) -> None:
    """Say in the log where the token is; the secret itself stands in no log."""
    if conf.request_debug:
        notice(_log, "[request-debug] the token for request debugging is in {path}", path=conf.path(FILE))


def debug_token(conf: Conf) -> str:
    """The token of the moment; "" where there is none."""
    try:
        with open(conf.path(FILE), encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return conf.request_debug_token or ""
