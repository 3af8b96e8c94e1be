"""How long configurations that are opened live: until the last request that began with them is over.

Only plugins that override `Plugin.open` or `Plugin.close` have lives; chains of others pay nothing. A request holds the lives
it runs with (`Exchange.held`) from its first phase, or from the moment a configuration is chosen for it, until it is finished;
a stream is a request that lasts. A life is retired when a configuration without it is served, and is closed when nobody holds
it any more.

While a plugin waits in a phase behind which configurations are still to be chosen, a request holds a `Generation`: what is
retired in it or later is not closed before. Nothing here does I/O: closing is a coroutine that whoever makes `Lifetimes` runs.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any

from ..exchange import Exchange
from ..rows import Row
from .failures import is_cancelled
from .host import Scope
from .plugin import Plugin

__all__ = ["Generation", "Life", "Lifetimes", "drop_generations", "has_life", "hold", "hold_generation"]


def has_life(plugin: Plugin) -> bool:
    """Whether configurations of a plugin are opened and closed."""
    return type(plugin).open is not Plugin.open or type(plugin).close is not Plugin.close


class Life:
    """One opened configuration.

    Attributes:
        conf: what phases get.
        users: requests and streams that hold it.
        retired: it takes no new requests.
        closed: it is closed, or about to be.
    """

    __slots__ = ("_lifetimes", "closed", "conf", "label", "plugin", "retired", "scope", "users")

    def __init__(self, lifetimes: Lifetimes, plugin: Plugin, conf: Any, scope: Scope, label: str) -> None:
        self._lifetimes = lifetimes
        self.plugin = plugin
        self.conf = conf
        self.scope = scope
        self.label = label
        self.users = 0
        self.retired = self.closed = False

    def let_go(self) -> None:
        """One holds it no more."""
        self.users -= 1
        if self.retired and not self.users:
            self._lifetimes.close(self)

    def retire(self) -> None:
        """Close it when nobody holds it."""
        self.retired = True
        if not self.users:
            self._lifetimes.close(self)


class Generation:
    """The time between two configurations, for requests that have yet to choose what they run with."""

    __slots__ = ("_lifetimes", "retired", "users")

    def __init__(self, lifetimes: Lifetimes) -> None:
        self._lifetimes = lifetimes
        self.users = 0
        self.retired: list[Life] = []  # at its end

    def let_go(self) -> None:
        """One holds it no more."""
        self.users -= 1
        if not self.users:
            self._lifetimes.sweep()


class Lifetimes:
    """The opened configurations of a process that serves traffic.

    One configuration is built at a time: `open` and `left` tell what changes with it, then either `built` and `served`, or
    `abandoned`, is called.

    Args:
        scope_for: gives a row's configuration its scope.
        spawn: runs a coroutine, named for the log; must not raise. What it returns can be awaited.
        report: takes a text for the error log.
    """

    def __init__(
        self,
        scope_for: Callable[[Row], Scope],
        spawn: Callable[[str, Coroutine[Any, Any, None]], Awaitable[None]],
        report: Callable[[str], None],
    ) -> None:
        self._scope_for = scope_for
        self._spawn = spawn
        self._report = report
        self._open: dict[Life, None] = {}
        self._closing: dict[object, Awaitable[None] | None] = {}
        self._fresh: list[Life] = []
        self._gone: list[Life] = []
        self._generation = Generation(self)
        self._generations: deque[Generation] = deque((self._generation,))

    def __len__(self) -> int:
        """Lives that are not over."""
        return len(self._open) + len(self._closing)

    # -- building ----------------------------------------------------------------------------------------------------

    def open(self, plugin: Plugin, conf: Any, row: Row, certificates: Mapping[str, Row] | None = None) -> Life:
        """Open a compiled configuration.

        Args:
            plugin: the plugin.
            conf: what `Plugin.compile` gave.
            row: the whole plugin entity.
            certificates: see `Scope.certificates`.

        Raises:
            Exception: whatever the plugin raised; what it had asked for is released.
        """
        scope = self._scope_for(row)
        if certificates:
            scope.certificates = certificates
        label = f"{row['name']} ({row.get('id')})"
        try:
            opened = plugin.open(conf, row, scope)
            if isinstance(opened, Coroutine):
                opened.close()
                raise TypeError("open must not wait: begin what waits with host.spawn")
        except Exception:
            self._run(scope, label, self._released(scope, label))
            raise
        life = Life(self, plugin, opened, scope, label)
        self._open[life] = None
        self._fresh.append(life)
        return life

    def left(self, lives: Iterable[Life]) -> None:
        """These are not in the configuration that is being built."""
        self._gone += lives

    def built(self) -> None:
        """The configuration is complete; the next one follows it."""
        self._fresh = []

    def served(self) -> None:
        """It has taken the place of the one before."""
        gone, self._gone = self._gone, []
        if gone:
            self._generation.retired = gone
            self._generation = Generation(self)
            self._generations.append(self._generation)
            self.sweep()

    def abandoned(self) -> None:
        """It will not be completed: what was opened for it is closed, and nothing has left."""
        fresh, self._fresh, self._gone = self._fresh, [], []
        for life in fresh:
            life.retire()

    # -- closing -----------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Retire what left in generations that nobody holds, nor any before them."""
        generations = self._generations
        while generations[0] is not self._generation and not generations[0].users:
            for life in generations.popleft().retired:
                life.retire()

    def close(self, life: Life) -> None:
        """Close a life that nobody holds, once."""
        if life.closed:
            return
        life.closed = True
        del self._open[life]
        self._run(life.scope, life.label, self._closed(life))

    def retire(self) -> None:
        """No request begins any more with what is open: close each when nobody holds it, at once where nobody does."""
        for life in list(self._open):
            life.retire()

    def end(self) -> list[Awaitable[None]]:
        """Close all that is open, held or not: the process stops serving. What can be waited for is returned; cancelling
        one cancels the plugin's wait, and its scope is released all the same."""
        for life in list(self._open):
            self.close(life)
        return [each for each in self._closing.values() if each is not None]

    @property
    def generation(self) -> Generation:
        """The one of now."""
        return self._generation

    def _run(self, scope: Scope, label: str, closing: Coroutine[Any, Any, None]) -> None:
        self._closing[scope] = None
        running = self._spawn(f"closing of plugin {label}", closing)
        if scope in self._closing:
            self._closing[scope] = running

    async def _closed(self, life: Life) -> None:
        try:
            waiting = life.plugin.close(life.conf)
            if waiting is not None:
                await waiting
        except Exception as error:
            if is_cancelled(error):
                raise
            self._failed(life.label, error)
        finally:
            await self._released(life.scope, life.label)
            life.conf = None

    async def _released(self, scope: Scope, label: str) -> None:
        try:
            await scope.release()
        except Exception as error:
            if is_cancelled(error):
                raise
            self._failed(label, error)
        finally:
            self._closing.pop(scope, None)

    def _failed(self, label: str, error: Exception) -> None:
        text = "".join(traceback.format_exception(error))
        self._report(f"plugin {label} failed when its configuration was closed: {error!r}\n{text}")


def hold(exchange: Exchange, lives: Iterable[Life]) -> None:
    """Count a request on lives, on each once."""
    held = exchange.held
    if held is None:
        held = exchange.held = []
    for life in lives:
        if life not in held:
            life.users += 1
            held.append(life)


def hold_generation(exchange: Exchange, lifetimes: Lifetimes) -> None:
    """Have nothing closed that a request may yet choose; no harm where it holds a generation already."""
    held = exchange.held
    if held is None:
        held = exchange.held = []
    if not any(isinstance(each, Generation) for each in held):
        generation = lifetimes.generation
        generation.users += 1
        held.append(generation)


def drop_generations(exchange: Exchange) -> None:
    """All is chosen."""
    held = exchange.held
    if held is not None:
        for each in [each for each in held if isinstance(each, Generation)]:
            held.remove(each)
            each.let_go()
