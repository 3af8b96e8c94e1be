"""Connections that begin with a PROXY header (`core.proxy_protocol`), which is read before anything else, TLS included.

What serves the connection gets it when the header is there, as if it had just been made, with a `ProxiedPeer` in place of the
peer's address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.error_lines import error_line, seconds_text
from ..core.proxy_protocol import MalformedHeader, ProxiedPeer, parse_proxy_header
from .run_steps import run_steps

__all__ = ["ProxiedFactory", "ProxyRules"]

_log = Logger(namespace="kongtwist.proxy")


def _nothing(connection: Any) -> None:
    """Nobody counts."""


@dataclass(frozen=True, slots=True)
class ProxyRules:
    """How the headers of a listener's connections are read."""

    seconds: float  #: that a client has for its header; the connection is closed then
    begun: Callable[[Any], bool | None] = (
        _nothing  #: called with each connection whose header is waited for; False: it is refused...
    )
    over: Callable[[Any], None] = (
        _nothing  #: ...and when it is waited for no more: it is there, or the connection is gone
    )


class ProxiedFactory(ServerFactory):
    """Reads the header of each connection, and then has another factory's protocol serve it.

    Args:
        reactor: keeps the time (IReactorTime).
        factory: makes the protocols.
        rules: see `ProxyRules`.
        tells: ``factory`` takes a `ProxiedPeer` for an address.
    """

    noisy = False

    def __init__(self, reactor: Any, factory: Any, rules: ProxyRules, tells: bool) -> None:
        self.reactor = reactor
        self.wrapped = factory
        self.rules = rules
        self.tells = tells

    def doStart(self) -> None:
        """A port begins to serve."""
        self.wrapped.doStart()

    def doStop(self) -> None:
        """A port has ended."""
        self.wrapped.doStop()

    def buildProtocol(self, addr: Any) -> _Front:
        """What reads the header of one connection."""
        return _Front(self, addr)


class _Front(Protocol):
    """Reads one connection's header."""

    _timer: Any = None

    def __init__(self, factory: ProxiedFactory, address: Any) -> None:
        self._factory = factory
        self._address = address
        self._data = b""
        self.peer: str = getattr(address, "host", "unix:")  #: the address of who is connected

    # -- the transport's calls -----------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        rules = self._factory.rules
        if rules.begun(self) is False:
            transport: Any = self.transport
            transport.abortConnection()
            return
        self._timer = self._factory.reactor.callLater(rules.seconds, self._late)

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        if self._timer is None:
            return  # it is being closed
        self._data += data
        try:
            header = parse_proxy_header(self._data)
        except MalformedHeader as error:
            self._refuse(f"client sent a malformed PROXY header: {error}")
            return
        if header is None:
            return
        rest, self._data = self._data[header.size :], b""
        self._over()
        factory = self._factory
        address = ProxiedPeer(self._address, header) if factory.tells else self._address
        protocol = factory.wrapped.buildProtocol(address)
        if protocol is None:
            transport.loseConnection()
            return
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest and transport.connected and not transport.disconnecting:
            protocol.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over()

    # -- ends ----------------------------------------------------------------------------------------------------------

    def move(self) -> None:
        """Another configuration is in effect: what is behind the header is served by that of when it came."""

    def drain(self) -> None:
        """The gateway stops: nothing was asked for yet."""
        self._close()

    def cut(self) -> None:
        """End now."""
        self._close()

    def _late(self) -> None:
        self._refuse(f"client timed out while its PROXY header was read: {seconds_text(self._factory.rules.seconds)}")

    def _refuse(self, what: str) -> None:
        _log.info("{line}", line=error_line(what, client=self.peer))
        self._close()

    def _close(self) -> None:
        """Close without a word: whoever is there speaks another protocol."""
        transport: Any = self.transport
        run_steps(self._over, *(() if transport is None else (transport.abortConnection,)))

    def _over(self) -> None:
        """The header is waited for no more: the one place where what was taken for it is given back."""
        timer, self._timer = self._timer, None
        if timer is None:
            return
        run_steps(*((timer.cancel,) if timer.active() else ()), partial(self._factory.rules.over, self))
