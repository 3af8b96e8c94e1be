"""Where addresses of names come from: the contract between the resolver and who asks for it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred

from ..core.names import Address

__all__ = ["Found", "NameNotResolved", "NameSource", "is_address"]


class NameNotResolved(Exception):
    """The name has no addresses, or they could not be found out.

    Args:
        name: what was asked for.
        why: what is wrong, in Kong's words where it has some; "" where nothing is known about it.
        absent: it was said that there are none; False: nobody could say.
        server: who was asked, and about what, as it stands in the log.
        seconds: how long this is remembered; None: ``dns_error_ttl``.
        keep: old addresses may be used on, as far as they are not too old.
    """

    def __init__(
        self,
        name: str,
        why: str = "",
        *,
        absent: bool = True,
        server: str = "",
        seconds: float | None = None,
        keep: bool = True,
    ) -> None:
        super().__init__(name)
        self.name, self.why, self.absent, self.server = name, why, absent, server
        self.seconds, self.keep = seconds, keep

    def again(self) -> NameNotResolved:
        """The same to be raised once more: what is raised collects tracebacks."""
        return NameNotResolved(
            self.name, self.why, absent=self.absent, server=self.server, seconds=self.seconds, keep=self.keep
        )

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}" if self.detail else self.name

    @property
    def detail(self) -> str:
        """What is wrong and who says so, for a line of the log; "" where nothing is known."""
        return f"{self.why} ({self.server})" if self.server and self.why else self.why


class Found(NamedTuple):
    """The addresses of a name.

    Attributes:
        addresses: at least one.
        expires: monotonic seconds at which they have to be looked up again.
        stale: until when they may be used while that is under way or fails.
    """

    addresses: tuple[Address, ...]
    expires: float
    stale: float


class NameSource(Protocol):
    """Looks names up, each time it is asked to."""

    def find(self, name: str) -> Deferred[Found]:
        """The addresses of a name. Fails with NameNotResolved."""

    def close(self) -> None:
        """Ask no more; what is under way is cancelled."""


def is_address(host: str) -> bool:
    """Whether ``host`` is an IPv4 or IPv6 address (without brackets)."""
    return isIPAddress(host) or isIPv6Address(host)
