"""How often a peer may do what costs us and brings it nothing."""

from __future__ import annotations

__all__ = ["Budget"]


class Budget:
    """Tokens that come back with time.

    Args:
        burst: tokens at first, and at most.
        rate: tokens that come back each second.
    """

    __slots__ = ("_burst", "_left", "_rate", "_since")

    def __init__(self, burst: int, rate: float) -> None:
        self._burst = self._left = float(burst)
        self._rate = rate
        self._since = 0.0

    def spend(self, now: float) -> bool:
        """Take a token; False where there is none.

        Args:
            now: monotonic seconds.
        """
        if self._left < 1.0:
            self._left = min(self._burst, self._left + (now - self._since) * self._rate)
            self._since = now
            if self._left < 1.0:
                return False
        elif self._left == self._burst:
            self._since = now
        self._left -= 1.0
        return True

    def refill(self) -> None:
        """All of them are back."""
        self._left = self._burst
