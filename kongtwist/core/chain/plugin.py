"""The base class of plugins and the phases they may take part in.

A plugin is one class: its name, priority, configuration fields and one method per phase. The class is instantiated once per
process; configuration comes with each call, compiled once per configured plugin. Phases follow Kong's names and order (Kong
3.9, plugin development guide).

The life of a configuration: `Plugin.compile` in every process, `Plugin.open` in those that serve traffic, phases, and when the
row is gone or changed and the last request or stream that began with it is over, `Plugin.close`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .phases import (
    PHASES,
    AdminCall,
    AdminEndpoint,
    BodyFilter,
    CarriedRequest,
    CertificateChoice,
    ClientHello,
    DirectForm,
    ProxyEndpoint,
    WholeBody,
)
from .stream_watch import StreamInfo, StreamWatch

if TYPE_CHECKING:
    from ...entities.schema import Field, Record
    from ..answers import Answer, StreamedAnswer
    from ..exchange import Exchange
    from ..rows import Row
    from ..stream_session import StreamSession
    from .host import Host, Scope

__all__ = [
    "PHASES", "AdminCall", "AdminEndpoint", "BodyFilter", "CarriedRequest", "CertificateChoice", "ClientHello", "DirectForm",
    "Plugin", "ProxyEndpoint", "StreamInfo", "StreamWatch", "WholeBody",
]  # fmt: skip


class Plugin:
    """Base class of all plugins. A subclass overrides the phases it needs; only those are compiled into chains."""

    name: ClassVar[str]  #: as in Kong's ``plugins`` entity, e.g. "key-auth"
    priority: ClassVar[int]  #: higher runs earlier; unique among bundled plugins
    version: ClassVar[str] = "3.9.3"
    authenticates: ClassVar[bool] = (
        False  #: finds out who a client is; skipped where that is settled (`credentials.vouch`)
    )
    logs_in_batches: ClassVar[bool] = (
        False  #: ``log`` may come a moment later, with those of other requests: it only tells of the request, and nothing goes by it
    )
    traces: ClassVar[bool] = False  #: spans are noted of requests on its routes (core/tracing/trace.py)
    protocols: ClassVar[tuple[str, ...]] = ("grpc", "grpcs", "http", "https")
    scopes: ClassVar[tuple[str, ...]] = ("service", "route", "consumer")  #: entities it may be bound to
    protocols_allowed: ClassVar[tuple[str, ...] | None] = (
        None  #: those that may be chosen; None: those of ``protocols``
    )
    config: ClassVar[Mapping[str, Field] | Record] = {}  #: configuration fields, in order (entities/schema.py)
    config_checks: ClassVar[tuple[Any, ...]] = ()  #: entity checks over the whole configuration
    example: ClassVar[Mapping[str, Any]] = {}  #: a valid configuration, for the documentation
    entities: ClassVar[tuple[Any, ...]] = ()  #: entities the plugin brings (credentials...)
    endpoints: ClassVar[tuple[AdminEndpoint, ...]] = ()  #: paths it adds to the Admin API
    proxy_endpoints: ClassVar[tuple[ProxyEndpoint, ...]] = ()  #: paths it answers itself on the proxy listeners

    # -- when it is written ----------------------------------------------------------------------------------------

    def examine(self, conf: Row, host: Host) -> Awaitable[None] | None:
        """Look at a configuration before the Admin API stores it, for what its fields' rules cannot tell: a file it names. May
        wait. An `EntityError` that is raised refuses it.

        Args:
            conf: the ``config`` record as it would be, not validated yet: fields may lack or have any type.
            host: of the process that serves the Admin API.
        """
        return None

    def asked(self, question: Any, host: Host) -> Any:
        """Answer a question that an Admin endpoint of the plugin has asked all processes that serve (`Host.ask_workers`). Does not
        wait.

        Args:
            question: what JSON can say.
            host: of this process.

        Returns:
            what JSON can say.
        """
        return None

    # -- the life of a configuration -------------------------------------------------------------------------------

    def compile(self, conf: Row, plugin: Row) -> Any:
        """Turn a stored configuration into what the phases get as ``conf``. Called when configuration changes, in every
        process that reads it; does nothing but compute. What it raises refuses the row: its requests are answered 500.

        Args:
            conf: the plugin's ``config`` record, validated, defaults filled in.
            plugin: the whole plugin entity (its id and scope).
        """
        return conf

    def open(self, conf: Any, plugin: Row, host: Scope) -> Any:
        """Begin what the configuration needs while it is served: timers, queues, clients. Does not wait. Called once, in
        processes that serve traffic, before the first request. What it raises refuses the row, as with `compile`.

        Args:
            conf: what `compile` gave.
            plugin: the whole plugin entity.
            host: the gateway; what is asked of it is released after `close`.

        Returns:
            what the phases, and `close`, get as ``conf``.
        """
        return conf

    def certificates(self, conf: Row) -> Iterable[str]:
        """Ids of rows of ``certificates`` that a configuration uses. `open` finds them in `Scope.certificates`; when one of them changes,
        the configuration is compiled and opened anew.

        Args:
            conf: the plugin's ``config`` record.
        """
        return ()

    def opens(self, conf: Any) -> bool:
        """Whether a compiled configuration is opened, and closed, at all. Where only some need it: requests do not count on
        others, which spares them the work."""
        return True

    def takes_part(self, conf: Any, phase: str) -> bool:
        """Whether a configuration, as the phases get it, has something to do in a phase that the plugin has. Asked when chains are made:
        a phase in which no configuration takes part costs requests nothing."""
        return True

    def close(self, conf: Any) -> Awaitable[None] | None:
        """End what `open` began. Called once: the row is gone, changed or compiled anew, or the gateway stops, and the last
        request and stream that began with this configuration is over. What it raises is logged. At a stop, who waits
        longer than ``nginx_main_worker_shutdown_timeout`` is cancelled.
        """
        return None

    # -- the phases of a request -----------------------------------------------------------------------------------

    def certificate(self, hello: ClientHello, conf: Any) -> CertificateChoice | None:
        """A client begins TLS; global configurations only. None leaves the choice to others: the next plugin, then SNIs.
        What it raises ends the handshake."""
        raise NotImplementedError

    def rewrite(
        self, exchange: Exchange, conf: Any
    ) -> Answer | StreamedAnswer | Awaitable[Answer | StreamedAnswer | None] | None:
        """Before routing; global configurations only."""
        raise NotImplementedError

    def preread(self, session: StreamSession, conf: Any) -> Answer | Awaitable[Answer | None] | None:
        """A session of a stream route begins: a connection, or the first datagram of a client. Its route is known, its upstream not asked
        yet. None goes on. An `Answer` ends it: below 400 its body is sent to the client first, else nothing is; its status stands in
        the logs (Kong 3.9: ``kong.response.exit`` in the phase preread)."""
        raise NotImplementedError

    def handshake(self, exchange: Exchange, conf: Any) -> CarriedRequest | Answer | None:
        """A client asks for a WebSocket; not for configurations of a consumer, whom nobody knows yet. None leaves it to others:
        then access runs, and the upstream is asked. A `CarriedRequest`: the gateway agrees, and all phases run for the
        request that the WebSocket carries. An `Answer` refuses the handshake."""
        raise NotImplementedError

    def access(
        self, exchange: Exchange, conf: Any
    ) -> Answer | StreamedAnswer | Awaitable[Answer | StreamedAnswer | None] | None:
        """Before the upstream is asked. An `Answer` ends the request; None goes on."""
        raise NotImplementedError

    def request_body_filter(self, exchange: Exchange, conf: Any) -> BodyFilter | None:
        """The request goes up and has a body: a filter for its chunks, or None. Called once per request, before the first
        chunk. A body that a plugin has set (`Exchange.set_upstream_body`) is not filtered."""
        raise NotImplementedError

    def header_filter(self, exchange: Exchange, conf: Any) -> Answer | BodyFilter | WholeBody | None:
        """The answer's head is known and not yet sent: ``exchange.status`` and the response headers may change.

        Returns:
            None; an `Answer` that replaces the answer (the header filters behind see it); or what is to be done with the
            body, which also makes its length unknown.
        """
        raise NotImplementedError

    def body_filter(self, exchange: Exchange, conf: Any, chunk: bytes, last: bool) -> bytes:
        """A chunk of the answer's body; what is returned is sent. The length of such answers becomes unknown."""
        raise NotImplementedError

    def log(self, exchange: Exchange, conf: Any) -> None:
        """After the answer, always, also after an error or a disconnect. Must not wait: records go into a queue."""
        raise NotImplementedError

    def direct(self, exchange: Exchange, conf: Any) -> DirectForm | None:
        """How calls like this one may be relayed without the plugin, where it is alone in a chain that nobody logs; None: they may not.
        Asked before ``access``, where the next calls on the connection may be like this one: the same method, path, host, content
        type and configuration, other fields of their own. Changes the request as ``access`` does, which still runs for this one.

        Where such a call turns out not to be plain its body filters take it up, even within a message: they are given the beginning
        of such a message first, and what they make of that is dropped. They may count messages, change nothing in them, and at the
        end of an answer add what `DirectForm.last` gives. A request that ends within a message is theirs to refuse."""
        raise NotImplementedError

    def on_open(self, stream: StreamInfo, conf: Any) -> StreamWatch | None:
        """A stream has begun: a WebSocket after its handshake, an event stream after its head. What is returned is told of
        its end; what is raised ends the stream."""
        raise NotImplementedError

    def on_call(self, call: StreamInfo, conf: Any) -> StreamWatch | None:
        """A call of gRPC is about to go to its upstream. As `on_open`; what is raised refuses the call. It takes all calls of its routes
        off the direct path: `takes_part` says for which configurations that is worth it."""
        raise NotImplementedError
