"""session: keep clients known over many requests by a cookie. Kong 3.9 `session`."""

from .fields import SESSIONS
from .plugin import Session

__all__ = ["SESSIONS", "Session"]
