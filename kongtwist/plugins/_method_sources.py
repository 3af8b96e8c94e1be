"""Where a configuration's methods come from: a .proto file, or what the service tells of itself (server reflection).

They are read once. A file is read anew with the configuration; a server is asked anew for a path that nobody knows, every `AGAIN`
seconds at the most, and after `OLD` seconds. What could not be read is looked at again after `_FAULT_KEPT` seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ..core.chain.host import GRPCFailed, HostError, Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.chain.host import GRPCTarget

__all__ = ["NoMethods", "Source"]


class Described(Protocol):
    """What is made of descriptors."""

    faults: list[str]


M = TypeVar("M", bound=Described)

AGAIN = 10.0
"""Seconds before a server is asked again what it has."""
OLD = 300.0
"""Seconds after which a server is asked anew; what it told before is used until it has answered."""
_FAULT_KEPT = 2.0
"""Seconds for which requests get the fault of before: compiling, or asking, for each of them would be much work."""
_TIMEOUT = 10.0
"""Seconds that a server may take to tell its services."""
_MOST = 100
"""Servers whose methods are kept."""


class NoMethods(Exception):
    """The methods are not known.

    Args:
        text: why.
        code: gRPC's status, where a server was asked; None: it is about a file.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class Source(Generic[M]):
    """The methods of one configuration.

    Args:
        host: compiles files, asks servers.
        proto: the file; None: servers are asked.
        make: makes of descriptors what `read` and `ask` give; called in a thread. Raises ValueError or KeyError.
        plugin: whose configuration it is, for the log.
    """

    def __init__(self, host: Scope, proto: str | None, make: Callable[[bytes], M], plugin: str) -> None:
        self._make = make
        self._plugin = plugin
        self._host = host
        self._proto = proto
        self._of_file: M | None = None
        self._of_servers: dict[str, tuple[float, M]] = {}
        self._faults: dict[str, tuple[float, NoMethods]] = {}

    def known(self, service: str) -> M | None:
        """What is known of the methods of a service, given by its id."""
        if self._proto is not None:
            return self._of_file
        found = self._of_servers.get(service)
        return None if found is None else found[1]

    def may_ask_again(self, service: str) -> bool:
        """Whether the service may have got methods that are not known."""
        found = self._of_servers.get(service)
        return found is not None and self._host.now() - found[0] >= AGAIN

    def is_old(self, service: str) -> bool:
        """Whether what is known of a service may no longer be so."""
        found = self._of_servers.get(service)
        return found is not None and self._host.now() - found[0] >= OLD

    async def read(self) -> M:
        """Read the file. Raises NoMethods."""
        assert self._proto is not None
        self._check("")
        try:
            self._of_file = await self._made(await self._host.proto(self._proto), self._proto)
        except HostError as error:
            raise self._fault("", NoMethods(str(error))) from error
        except NoMethods as error:
            raise self._fault("", error) from None
        return self._of_file

    async def ask(self, service: str, target: GRPCTarget) -> M:
        """Ask a server for its methods. Raises NoMethods."""
        where = f"{target.host}:{target.port}"
        self._check(service)
        before = self._of_servers.get(service)
        if before is not None:  # others go on with it meanwhile
            self._of_servers[service] = (self._host.now(), before[1])
        try:
            descriptors = await self._host.grpc(target).describe(timeout=_TIMEOUT)
            made = await self._made(descriptors, where)
        except GRPCFailed as error:
            text = f"{where} does not tell its services by reflection: {error}"
            raise self._fault(service, NoMethods(text, error.code)) from error
        except HostError as error:
            raise self._fault(service, NoMethods(str(error))) from error
        except NoMethods as error:
            raise self._fault(service, error) from None
        self._of_servers.pop(service, None)
        self._of_servers[service] = (self._host.now(), made)
        if len(self._of_servers) > _MOST:
            del self._of_servers[next(iter(self._of_servers))]
        return made

    def _check(self, key: str) -> None:
        """Raise the fault of before while it is fresh."""
        found = self._faults.get(key)
        if found is not None and self._host.now() - found[0] < _FAULT_KEPT:
            raise NoMethods(str(found[1]), found[1].code)

    def _fault(self, key: str, fault: NoMethods) -> NoMethods:
        self._faults.pop(key, None)
        self._faults[key] = (self._host.now(), fault)
        if len(self._faults) > _MOST:
            del self._faults[next(iter(self._faults))]
        return fault

    async def _made(self, descriptors: bytes, where: str) -> M:
        try:
            made: M = await self._host.threads(self._make, descriptors)
        except (ValueError, KeyError) as error:
            raise NoMethods(f"{where}: {error}") from error
        for fault in made.faults:
            self._host.report(f"{self._plugin} leaves out a rule of {where}: {fault}")
        return made
