"""How often a peer may do what costs us and brings it nothing."""

from __future__ import annotations

__all__ = ["Budget"]


class Budget:
    """Tokens that come back with time.

    Args:
        burst: tokens at first, and at most.
        rate: tokens that come back each second.

    Attributes:
        burst: tokens at most.
        left: tokens that are there. Where speed matters the caller writes ``left = burst`` itself: all of them are back.
    """

    __slots__ = ("_rate", "_since", "burst", "left")

    def __init__(self, burst: int, rate: float) -> None:
        self.burst = self.left = float(burst)
        self._rate = rate
        self._since = 0.0

    def spend(self, now: float) -> bool:
        """Take a token; False where there is none.

        Args:
            now: monotonic seconds.
        """
        if self.left < 1.0:
            self.left = min(self.burst, self.left + (now - self._since) * self._rate)
            self._since = now
            if self.left < 1.0:
                return False
        elif self.left == self.burst:
            self._since = now
        self.left -= 1.0
        return True

    def refill(self) -> None:
        """All of them are back."""
        self.left = self.burst
