"""What plugins are given to call gRPC services: targets, calls and their failures (part of core/chain/host.py).

Messages are bytes: who calls knows their types. A call takes one of the gateway's threads while it lasts (``plugin_grpc_threads``);
where all are taken it is refused at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .host_basics import HostError, TLSSettings

__all__ = ["GRPCCall", "GRPCClient", "GRPCFailed", "GRPCReply", "GRPCTarget", "Metadata"]

Metadata = Sequence[tuple[str, "str | bytes"]]
"""Names in lower case with their values: bytes where a name ends in ``-bin``, else printable ASCII."""


@dataclass(frozen=True, slots=True)
class GRPCTarget:
    """A server to be called. Calls to equal targets share a connection."""

    host: str  #: a name or an address, IPv6 without brackets
    port: int
    authority: str = ""  #: what calls name as ``:authority``; "": host and port
    tls: TLSSettings | None = None  #: None: plain text
    connect_timeout: float = 60.0  #: seconds for the connection, TLS included


class GRPCReply(NamedTuple):
    """What a unary call gave."""

    message: bytes
    initial: Metadata
    trailing: Metadata


class GRPCFailed(HostError):
    """A call ended with another status than OK.

    Args:
        code: gRPC's status code.
        text: its message.
        initial: metadata from before the messages.
        trailing: metadata from behind them.
        unsent: there was no connection, so that nothing was sent: the call may be made elsewhere.
        busy: the gateway has no thread for it.
    """

    def __init__(
        self,
        code: int,
        text: str,
        initial: Metadata = (),
        trailing: Metadata = (),
        *,
        unsent: bool = False,
        busy: bool = False,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.initial = initial
        self.trailing = trailing
        self.unsent = unsent
        self.busy = busy


class GRPCCall(Protocol):
    """A call whose messages come and go one by one. Whoever has it ends it: by its end, or by `cancel`."""

    @property
    def initial(self) -> Metadata:
        """Metadata from before the messages; empty until `begun`."""
        ...

    @property
    def trailing(self) -> Metadata:
        """Metadata from behind the messages; empty until the end."""
        ...

    def begun(self) -> Awaitable[None]:
        """Wait until the first message is here, or the end; or the server has sent metadata and nothing with them."""
        ...

    @property
    def failed(self) -> GRPCFailed | None:
        """How the call ended, where it has ended with another status than OK and all messages are received."""
        ...

    def receive(self) -> Awaitable[bytes | None]:
        """The next message; None at an end with the status OK. Raises GRPCFailed at any other."""
        ...

    def send(self, message: bytes) -> Awaitable[None]:
        """Send one more message; waits while the server takes none. Raises GRPCFailed when the call is over."""
        ...

    def finish(self) -> None:
        """There are no more messages from us."""
        ...

    def cancel(self) -> None:
        """End it; no harm if it is over. The server hears of it."""
        ...


class GRPCClient(Protocol):
    """Calls to one server."""

    def unary(
        self, method: str, message: bytes, *, metadata: Metadata = (), timeout: float | None = None
    ) -> Awaitable[GRPCReply]:
        """Call a method that answers with one message.

        Args:
            method: its path, ``/package.Service/Method``.
            message: the request.
            metadata: goes before it.
            timeout: seconds that the call may take; the server is told.

        Raises:
            GRPCFailed: the status is not OK, or there is no connection or no thread.
        """
        ...

    def call(
        self, method: str, message: bytes | None = None, *, metadata: Metadata = (), timeout: float | None = None
    ) -> GRPCCall:
        """Begin a call. What keeps it from being made is raised by its methods.

        Args:
            method: its path, ``/package.Service/Method``.
            message: the one request; None: there are many, see `GRPCCall.send`.
            metadata: goes before it.
            timeout: seconds that the call may take; the server is told.
        """
        ...

    def describe(self, *, timeout: float) -> Awaitable[bytes]:
        """Ask the server for its services and types (server reflection, v1 and v1alpha).

        Args:
            timeout: seconds that all of it may take.

        Returns:
            a ``google.protobuf.FileDescriptorSet``, files after those that they import.

        Raises:
            GRPCFailed: it cannot be asked, or does not tell (UNIMPLEMENTED).
        """
        ...
