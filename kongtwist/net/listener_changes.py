"""From the listeners that are open to those of another configuration: what stays keeps its socket, so that nobody is refused."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence

from ..config.kinds import ConfError, Listen
from .listeners import SERVED_BY_WORKERS, Opened, open_listeners

__all__ = ["Inherited", "ListenerChange", "changed_listeners", "take_listeners"]

Inherited = dict[tuple[str, str, bool], list[list[socket.socket]]]
"""Sockets of another process by property, address and whether they are for UDP; a list for each listener."""


class ListenerChange:
    """A change that is prepared: new sockets are open, and nothing else has happened.

    Args:
        opened: all listeners of the new configuration.
        fresh: those of them that were not open before.
        gone: those that were open and are not wanted any more.
        added: further sockets of listeners that stay, which do not listen yet.
    """

    def __init__(
        self, opened: list[Opened], fresh: list[Opened], gone: list[Opened], added: list[socket.socket]
    ) -> None:
        self.opened, self.fresh, self.gone = opened, fresh, gone
        self._added = added

    def refuse(self) -> None:
        """It is not going to be."""
        for listener in self.fresh:
            listener.close()
        for sock in self._added:
            sock.close()

    def commit(self) -> None:
        """Have what stays behave as it is written now; what is gone stays open, for who still accepts there."""
        for each in self.opened:
            if each not in self.fresh:
                each.tune()


def changed_listeners(
    present: Sequence[Opened], wanted: Iterable[tuple[str, Listen]], workers: int = 1
) -> ListenerChange:
    """Open what is wanted and not open yet.

    Args:
        present: the listeners that are open.
        wanted: property name and declaration of each (`Conf.listeners`).
        workers: processes that will accept on those of ``proxy_listen`` and ``stream_listen``.

    Raises:
        ConfError: one cannot be opened; nothing has changed.
    """
    left = list(present)
    kept: dict[int, Opened] = {}
    declared = list(wanted)
    for at, (name, listen) in enumerate(declared):
        found = next((each for each in left if _is_same(each, name, listen)), None)
        if found is not None:
            left.remove(found)
            kept[at] = Opened(name, listen, list(found.sockets))
    new = [(at, name, listen) for at, (name, listen) in enumerate(declared) if at not in kept]
    for _, name, listen in new:
        clash = next((each for each in left if each.listen.clashes(listen)), None)
        if clash is not None:
            raise ConfError(
                f"{name} cannot go on from '{clash.listen.address}' to '{listen.address}' while the node listens there:"
                f" restart it, or leave '{clash.listen.address}' out in a reload before"
            )
    fresh = dict(zip((at for at, _, _ in new), open_listeners([each[1:] for each in new], workers), strict=True))
    added: list[socket.socket] = []
    try:
        for each in kept.values():
            if each.name in SERVED_BY_WORKERS:
                added += each.widen(workers)
    except OSError as error:
        change = ListenerChange([], list(fresh.values()), [], added)
        change.refuse()
        raise ConfError(f"cannot listen on {each.listen.address} once more: {error.strerror}") from error
    opened = [kept.get(at) or fresh[at] for at in range(len(declared))]
    return ListenerChange(opened, list(fresh.values()), left, added)


def take_listeners(listeners: Iterable[tuple[str, Listen]], inherited: Inherited, workers: int = 1) -> list[Opened]:
    """As `open_listeners`, but with the sockets that another process listens on, where it has such.

    Those of ``reuseport`` are all taken, whatever the number of workers: closing one would reset the connections that wait
    on it. More are not made: such a socket gets connections before anybody accepts on it.

    Args:
        listeners: as for `open_listeners`.
        inherited: what is taken is taken out.
        workers: as for `open_listeners`.

    Raises:
        ConfError: one cannot be opened, or cannot be changed while it is in use.
    """
    opened: list[Opened] = []
    try:
        for name, listen in listeners:
            theirs = inherited.get((name, listen.address, listen.udp))
            if not theirs:
                opened += open_listeners([(name, listen)], workers)
                continue
            taken = Opened(name, listen, theirs.pop(0))
            taken.shared = True
            opened.append(taken)
            _check_family(name, listen, taken.sockets[0])
            try:
                taken.tune()
            except OSError as error:
                raise ConfError(f"cannot change {listen.address} ({name}): {error.strerror}") from error
    except ConfError:
        for each in opened:
            each.close()
        raise
    return opened


def _check_family(name: str, listen: Listen, sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6 and bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)) != bool(
        listen.ipv6only
    ):
        raise ConfError(
            f"cannot change ipv6only of {listen.address} ({name}) while the node runs; stop it, and start it again"
        )


def _is_same(opened: Opened, name: str, listen: Listen) -> bool:
    """Whether a listener can go on as another declaration wants it."""
    old = opened.listen
    if old.path or listen.path:
        return old.path == listen.path and opened.name == name  # the mode of the file is another for another API
    return (old.host, old.port, old.ipv6only, old.udp) == (listen.host, listen.port, listen.ipv6only, listen.udp)
