"""request-transformer's rules where values are templates: rendered for each request, in the order in which they are used."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

from ...core.exchange import Exchange
from ...core.http.pairs import pairs_of
from ...core.http.uri import escape
from ...lua.pdk.pdk_values import field_values
from .._once import Once
from .transform_body import Rules
from .transform_headers import HeaderRules
from .transform_templates import Template, TemplateFailed, TemplateValues, is_template

__all__ = ["Rendering", "TemplatedRules", "has_templates"]

_STEPS = ("rename", "replace", "add", "append")
_Pairs = list[tuple[str, "str | Template"]]


def has_templates(conf: Mapping[str, Any]) -> bool:
    """Whether there is an expression in a value."""
    texts = [text for step in _STEPS for place in ("headers", "body", "querystring") for text in conf[step][place]]
    return any(map(is_template, [*texts, conf["replace"]["uri"] or ""]))


class _Ready(Protocol):
    """A configuration, ready for requests."""

    changes_bodies: bool
    first: Once
    method: bytes | None
    headers: HeaderRules
    body: Rules
    query: Rules


class TemplatedRules:
    """A configuration's values, compiled.

    Args:
        conf: the configuration.
        plugin_id: of the plugin's row.
        lua: the engine.

    Raises:
        LuaFailure: one does not compile, or Lua is off.
    """

    def __init__(self, conf: Mapping[str, Any], plugin_id: str, lua: Any) -> None:
        def compiled(text: str) -> str | Template:
            return Template(text, lua) if is_template(text) else text

        self.plugin_id = plugin_id
        uri: str | None = conf["replace"]["uri"]
        self.uri = None if uri is None else compiled(uri)
        self.pairs: dict[tuple[str, str], _Pairs] = {
            (step, place): [(name, compiled(value)) for name, value in pairs_of(conf[step][place])]
            for step in _STEPS
            for place in ("headers", "body", "querystring")
        }


class Rendering:
    """The rules for one request. They are those of its configuration, each rendered when it is first asked for.

    Raises:
        TemplateFailed: an attribute cannot be made.
    """

    def __init__(self, conf: _Ready, templates: TemplatedRules, exchange: Exchange) -> None:
        self._conf, self._templates = conf, templates
        self._values = TemplateValues(exchange, templates.plugin_id)
        self.method, self.first, self.changes_bodies = conf.method, conf.first, conf.changes_bodies

    def _text(self, value: str | Template) -> str:
        return value if isinstance(value, str) else value.render(self._values).decode("utf-8", "surrogateescape")

    def _pairs(self, step: str, place: str) -> list[tuple[str, str]]:
        return [(name, self._text(value)) for name, value in self._templates.pairs[step, place]]

    @cached_property
    def path(self) -> bytes | None:
        """As of the configuration."""
        uri = self._templates.uri
        if uri is None:
            return None
        path = self._text(uri).encode("utf-8", "surrogateescape")
        if not path.startswith(b"/"):
            raise TemplateFailed("[request-transformer] path must start with /")
        return escape(path)

    @cached_property
    def headers(self) -> HeaderRules:
        """As of the configuration."""
        replace, add, append = (
            [
                (name.lower().encode(), field_values(self._text(value))[0])
                for name, value in self._templates.pairs[step, "headers"]
                if value
            ]
            for step in ("replace", "add", "append")
        )
        return self._conf.headers._replace(replace=replace, add=add, append=append)

    @cached_property
    def body(self) -> Rules:
        """As of the configuration."""
        return self._rules(self._conf.body, "body")

    @cached_property
    def query(self) -> Rules:
        """As of the configuration."""
        return self._rules(self._conf.query, "querystring")

    def _rules(self, rules: Rules, place: str) -> Rules:
        return Rules(rules.remove, *(self._pairs(step, place) for step in _STEPS))
