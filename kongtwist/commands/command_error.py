"""What a command that cannot be done raises."""

from __future__ import annotations

__all__ = ["CommandError"]


class CommandError(Exception):
    """The command cannot be done; the text is the sentence after ``Error:``."""
