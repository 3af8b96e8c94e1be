"""From the trace a request belongs to, to what its upstream is told: ``config.propagation`` (Kong 3.9.3).

Extract, clear, inject. Setting any of the three members makes those alone count; without them the deprecated ``header_type`` and
``default_header_type`` say what happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .extraction import Say, extract
from .injection import INJECTORS, inject
from .trace_context import RequestHeaders, TraceContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..exchange import Exchange

__all__ = ["LEGACY_ORDER", "Propagation"]

LEGACY_ORDER = ("b3", "w3c", "jaeger", "ot", "datadog", "aws", "gcp")
"""Formats looked for where ``header_type`` decides."""

_CONTEXT = "trace_id"
"""Where the formats of a trace's id are kept for the log record, by all plugins that tell of it."""


class Propagation:
    """A configuration, ready for requests.

    Args:
        conf: a plugin's configuration: ``propagation``, and ``header_type`` and ``default_header_type`` where it has them.
    """

    __slots__ = ("clear", "default", "extract", "inject")

    def __init__(self, conf: Mapping[str, Any]) -> None:
        rules = conf.get("propagation") or {}
        self.default: str = rules.get("default_format") or "w3c"
        self.clear: tuple[bytes, ...] = ()
        self.extract: tuple[str, ...] = ()
        self.inject: tuple[str, ...] = ()
        if any(rules.get(name) is not None for name in ("extract", "clear", "inject")):
            self.extract = tuple(rules.get("extract") or ())
            self.inject = tuple(rules.get("inject") or ())
            self.clear = tuple(name.lower().encode() for name in rules.get("clear") or ())
            return
        self.default = conf.get("default_header_type") or self.default
        header_type = conf.get("header_type")
        if header_type == "ignore":
            self.inject = (self.default,)
        elif header_type is not None:
            self.extract = LEGACY_ORDER
            self.inject = ("preserve",) if header_type == "preserve" else ("preserve", header_type)

    def read(self, exchange: Exchange, say: Say) -> tuple[str | None, TraceContext]:
        """What a request says of its trace.

        Args:
            exchange: the request.
            say: told of malformed fields.

        Returns:
            the format it came in, None where it came in none; and what it says.
        """
        found = extract(self.extract, RequestHeaders(exchange), say) if self.extract else None
        return found if found is not None else (None, TraceContext())

    def write(self, exchange: Exchange, came: str | None, context: TraceContext, say: Say) -> None:
        """Tell the upstream, and the log record.

        Args:
            exchange: the request.
            came: the format in which the trace came (`read`).
            context: what is to be told.
            say: told of a format that cannot be written.
        """
        for header in self.clear:
            exchange.clear_upstream_header(header)
        formats: dict[str, str] = exchange.own("tracing").setdefault(_CONTEXT, {})
        for name in self.inject:
            form = self._preserved(came, context) if name == "preserve" else name
            try:
                injected = inject(form, context)
            except ValueError as error:
                say(str(error))
                continue
            for field, value in injected.fields:
                exchange.set_upstream_header(field, value)
            if injected.told or INJECTORS[form].key == "b3":
                formats[injected.key] = injected.told
        if formats:
            exchange.set_log_value(_CONTEXT, formats)

    def _preserved(self, came: str | None, context: TraceContext) -> str:
        """The format in which the trace came."""
        form = came or self.default
        return "b3-single" if form == "b3" and came is not None and context.single else form
