"""The Admin API's tokens (``admin_api_token``), and the log lines about requests without one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from hmac import compare_digest

__all__ = ["RefusalReport", "Tokens", "given_tokens"]


def given_tokens(direct: Sequence[str], authorization: Sequence[str]) -> list[str]:
    """The tokens that a request brings.

    Args:
        direct: its ``Kong-Admin-Token`` fields.
        authorization: its ``Authorization`` fields; the scheme must be Bearer (RFC 6750).

    Returns:
        at most one of each; a field given twice counts as none, so that nobody can try many at once.
    """
    found = [direct[0].strip()] if len(direct) == 1 else []
    if len(authorization) == 1:
        scheme, _, token = authorization[0].strip().partition(" ")
        if scheme.lower() == "bearer":
            found.append(token.strip())
    return found


class Tokens:
    """Tokens that let somebody in: several, so that one can be replaced without a moment in which none works.

    Args:
        tokens: in clear; only their digests are kept.
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._digests: tuple[bytes, ...] = ()
        self.replace(tokens)

    def replace(self, tokens: Iterable[str]) -> None:
        """Take these from now on, and no others."""
        self._digests = tuple(_digest(token) for token in tokens)

    @property
    def required(self) -> bool:
        """Whether a request needs one."""
        return bool(self._digests)

    def admit(self, given: Iterable[str]) -> bool:
        """Whether one of ``given`` is right. It takes as long for a wrong one that is nearly right as for any other."""
        admitted = not self._digests
        for token in given:
            digest = _digest(token)
            for known in self._digests:
                admitted |= compare_digest(digest, known)
        return admitted


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


class RefusalReport:
    """Turns refusals into few lines for the log: the first at once, then one in `EVERY` seconds with their number."""

    EVERY = 10.0
    """Seconds between two lines."""

    ADDRESSES = 5
    """Addresses named in a line."""

    def __init__(self) -> None:
        self._next = float("-inf")
        self._count = 0
        self._addresses: dict[str, None] = {}

    def note(self, address: str, now: float) -> str | None:
        """Count a refusal.

        Args:
            address: the peer's.
            now: seconds of any clock.

        Returns:
            how many there were since the last line and from where, when a line is due.
        """
        self._count += 1
        if len(self._addresses) <= self.ADDRESSES:
            self._addresses[address] = None
        if now < self._next:
            return None
        names = list(self._addresses)
        more = " and others" if len(names) > self.ADDRESSES else ""
        times = "1 request" if self._count == 1 else f"{self._count} requests"
        self._next, self._count, self._addresses = now + self.EVERY, 0, {}
        return f"{times} from {', '.join(names[: self.ADDRESSES])}{more}"
