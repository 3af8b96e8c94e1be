"""Endpoints that plugins add to the Admin API (`kongtwist.core.chain.plugin.Plugin.endpoints`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from inspect import isawaitable
from typing import Any, NamedTuple

from twisted.web.http import Request
from twisted.web.resource import Resource

from ...core.answers import Answer, StreamedAnswer
from ...core.chain.phases import AdminCall, AdminEndpoint
from ...core.chain.plugin import Plugin
from ..admin_api import AdminAPI
from ..json_resource import Branch, Call, JSONResource, Methods, Missing
from ..payload import BadBody, read_body
from ..plugin_paths import is_argument, segments_of
from ..replies import JSON, Reply

__all__ = ["PluginPath", "plugin_endpoints"]

_OURS = frozenset(("connection", "content-length", "content-type", "date", "transfer-encoding"))
"""Fields of an answer that a plugin does not set: they follow from its body, or are set apart."""

Handler = Callable[[AdminCall], Answer | Awaitable[Answer]]


class _Candidate(NamedTuple):
    """An endpoint that a path may still lead to."""

    endpoint: AdminEndpoint
    rest: tuple[str, ...]
    """Segments of its template that are still to come."""
    values: tuple[str, ...] = ()
    """Values of the arguments so far."""

    def step(self, value: str) -> _Candidate:
        """One segment further."""
        values = (*self.values, value) if is_argument(self.rest[0]) else self.values
        return _Candidate(self.endpoint, self.rest[1:], values)


class PluginPath(JSONResource):
    """A path that leads to endpoints of plugins. Where a name and an argument both fit a segment, the name is stronger.

    Args:
        api: the Admin API.
        candidates: the endpoints it may lead to.
    """

    def __init__(self, api: AdminAPI, candidates: Sequence[_Candidate]) -> None:
        super().__init__(api)
        self._candidates = candidates

    @property
    def found(self) -> _Candidate | None:
        """The endpoint that the path is."""
        return next((each for each in self._candidates if not each.rest), None)

    @property
    def methods(self) -> Methods:
        found = self.found
        return (
            {} if found is None else {method: _answering(self.api, found, method) for method in found.endpoint.methods}
        )

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {
            name: self._branch(name) for name in dict.fromkeys(each.rest[0] for each in self._candidates if each.rest)
        }

    def _branch(self, name: str) -> Branch:
        """For the lists of all paths: those that have this segment in their template."""
        below = [each for each in self._candidates if each.rest and each.rest[0] == name]
        return lambda segment: PluginPath(self.api, [each.step(segment) for each in below])

    def getChild(self, path: bytes, request: Request) -> Resource:
        if not path:
            return self
        segment = path.decode("utf-8", "surrogateescape")
        ahead = [each for each in self._candidates if each.rest]
        named = [each.step(segment) for each in ahead if each.rest[0] == segment]
        other = [each.step(segment) for each in ahead if is_argument(each.rest[0])]
        return PluginPath(self.api, [*named, *other]) if named or other else Missing(self.api)


def _answering(api: AdminAPI, found: _Candidate, method: str) -> Callable[[Call], Awaitable[Reply]]:
    """What answers a method of an endpoint."""
    handler: Handler = found.endpoint.methods[method]
    names = [each[1:-1] for each in segments_of(found.endpoint) if is_argument(each)]

    async def answer(call: Call) -> Reply:
        assert api.host is not None
        try:
            body = await read_body(call)
        except BadBody as bad:
            return bad.reply
        answered = handler(
            AdminCall(
                method=method,
                arguments=dict(zip(names, found.values, strict=True)),
                query={name: call.all(name)[-1] for name in call.query},
                body=body if _has_body(call) else None,
                host=api.host,
            )
        )
        return _reply(await answered if isawaitable(answered) else answered)

    return answer


def _has_body(call: Call) -> bool:
    content = call.request.content
    assert content is not None
    content.seek(0)
    return bool(content.read(1))


def _reply(answer: Any) -> Reply:
    """A plugin's answer as one of the Admin API.

    Raises:
        TypeError, ValueError: it is not an answer that can be sent whole.
    """
    if not isinstance(answer, Answer) or isinstance(answer, StreamedAnswer):
        raise TypeError(f"an Admin API endpoint of a plugin gave {type(answer).__name__}, not an Answer")
    if not 200 <= answer.status <= 599:
        raise ValueError(f"an Admin API endpoint of a plugin gave the status {answer.status}")
    headers: dict[str, list[str]] = {}
    kind = JSON
    for name, value in answer.headers:
        text = name.decode("latin-1")
        if text.lower() == "content-type":
            kind = value.decode("latin-1")
        elif text.lower() not in _OURS:
            headers.setdefault(text, []).append(value.decode("latin-1"))
    if answer.status in (204, 205, 304):
        return Reply(answer.status, None, headers)
    if answer.body is None and answer.message is not None:
        return Reply(answer.status, {"message": answer.message}, headers)
    return Reply(answer.status, answer.body or b"", headers, kind)


def plugin_endpoints(api: AdminAPI, plugins: Mapping[str, Plugin]) -> Iterator[tuple[str, PluginPath]]:
    """First segments of the paths that plugins add, with what is below them."""
    endpoints = [(endpoint, segments_of(endpoint)) for plugin in plugins.values() for endpoint in plugin.endpoints]
    for first in dict.fromkeys(segments[0] for _, segments in endpoints):
        yield first, PluginPath(api, [_Candidate(each, rest[1:]) for each, rest in endpoints if rest[0] == first])
