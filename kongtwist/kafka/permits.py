"""A bound on how many do something at once: who is over it is refused, and does not wait."""

from __future__ import annotations

__all__ = ["Permits"]


class Permits:
    """See the module.

    Args:
        most: how many.

    Attributes:
        used: by how many.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    def take(self) -> bool:
        """Whether there was one left, which is taken."""
        if self.used >= self.most:
            return False
        self.used += 1
        return True

    def give(self) -> None:
        """One that was taken is given back."""
        self.used -= 1
