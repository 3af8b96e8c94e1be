"""session: keep clients known over many requests by a cookie. Kong 3.9 `session`."""

from .session_fields import SESSIONS
from .session_phases import Session

__all__ = ["SESSIONS", "Session"]
