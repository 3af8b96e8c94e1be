"""The base class of plugins and the phases they may take part in.

A plugin is one class in one module: its name, priority, configuration fields and one method per phase. The class is
instantiated once per process; configuration comes with each call, compiled once per configured plugin by
`Plugin.compile`. Phases follow Kong's names and order (Kong 3.9, plugin development guide).
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from ...entities.schema import Field, Record
    from ..exchange import Answer, Exchange, Row

__all__ = ["PHASES", "Plugin"]

PHASES = ("certificate", "rewrite", "access", "header_filter", "body_filter", "log")
"""Phases of a request in the order they run. ``certificate`` and ``rewrite`` see global plugins only."""


class Plugin:
    """Base class of all plugins. A subclass overrides the phases it needs; only those are compiled into chains."""

    name: ClassVar[str]  #: as in Kong's ``plugins`` entity, e.g. "key-auth"
    priority: ClassVar[int]  #: higher runs earlier; unique among bundled plugins
    version: ClassVar[str] = "3.9.3"
    protocols: ClassVar[tuple[str, ...]] = ("grpc", "grpcs", "http", "https")
    scopes: ClassVar[tuple[str, ...]] = ("service", "route", "consumer")  #: entities it may be bound to
    protocols_allowed: ClassVar[tuple[str, ...] | None] = (
        None  #: those that may be chosen; None: those of ``protocols``
    )
    config: ClassVar[Mapping[str, Field] | Record] = {}  #: configuration fields, in order (entities/schema.py)
    config_checks: ClassVar[tuple[Any, ...]] = ()  #: entity checks over the whole configuration
    example: ClassVar[Mapping[str, Any]] = {}  #: a valid configuration, for the documentation
    entities: ClassVar[tuple[Any, ...]] = ()  #: entities the plugin brings (credentials...)

    def compile(self, conf: Row, plugin: Row) -> Any:
        """Turn a stored configuration into what the phases get as ``conf``. Called when configuration changes.

        Args:
            conf: the plugin's ``config`` record, validated, defaults filled in.
            plugin: the whole plugin entity (its id and scope).
        """
        return conf

    def rewrite(self, exchange: Exchange, conf: Any) -> Answer | Awaitable[Answer | None] | None:
        """Before routing; global plugins only."""
        raise NotImplementedError

    def access(self, exchange: Exchange, conf: Any) -> Answer | Awaitable[Answer | None] | None:
        """Before the upstream is asked. An `Answer` ends the request; None goes on."""
        raise NotImplementedError

    def header_filter(self, exchange: Exchange, conf: Any) -> None:
        """The answer's head is known and not yet sent: ``exchange.status`` and the response headers may change."""
        raise NotImplementedError

    def body_filter(self, exchange: Exchange, conf: Any, chunk: bytes, last: bool) -> bytes:
        """A chunk of the answer's body; what is returned is sent. The length of such answers becomes unknown."""
        raise NotImplementedError

    def log(self, exchange: Exchange, conf: Any) -> None:
        """After the answer, always, also after an error or a disconnect. Must not wait."""
        raise NotImplementedError
