"""What every Admin API answer has in common: JSON, errors, methods, CORS, latency, HEAD and OPTIONS (Kong 3.9)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from .. import KONG_VERSION
from ..core.http.query import parse_query
from ..core.long_work import AtOnce, LongWork
from ..entities import EntityError
from .access.path_mask import frames_of
from .admin_api import AdminAPI
from .replies import Reply, encoded, fields_of, not_found, refusal_of

__all__ = ["Branch", "Call", "JSONResource", "Methods", "Missing", "RefusedResource", "walk"]

_log = Logger(namespace="kongtwist.admin")

PIECE = 64 * 1024
"""Bytes of an answer that are handed to its connection at a time."""

Methods = Mapping[str, Callable[["Call"], Awaitable[Reply]]]
"""Method name -> coroutine function."""

Branch = Callable[[str], "JSONResource"]
"""Makes the resource below a path from the text of one more segment."""


class Call:
    """A request on its way through a resource.

    Attributes:
        request: twisted.web's.
        method: upper case.
        query: decoded query arguments, the first value of each.
        long_work: does long work beside the traffic.
    """

    __slots__ = ("_values", "long_work", "method", "query", "request")

    def __init__(self, request: Request, long_work: LongWork | None = None) -> None:
        self.request = request
        self.long_work: LongWork = long_work or AtOnce()
        self.method = request.method.decode("latin-1")
        query = request.uri.partition(b"?")[2]
        self._values = parse_query(query, "surrogateescape") if query else {}  # what is no UTF-8 is seen, and refused
        self.query = {name: values[0] for name, values in self._values.items()}

    def header(self, name: str) -> str | None:
        """The last field of this name."""
        found = self.headers(name)
        return found[-1] if found else None

    def headers(self, name: str) -> list[str]:
        """All fields of this name."""
        return fields_of(self.request, name)

    def all(self, name: str) -> list[str]:
        """All values of a query argument."""
        return self._values.get(name, [])


class JSONResource(Resource):
    """A resource whose methods are coroutines that give a `Reply`.

    Subclasses fill `methods`; HEAD and OPTIONS come by themselves. What is below is declared in `branches`, from which both
    the requests' way and the lists of all paths (``/endpoints``, ``/openapi.json``) are made.
    """

    def __init__(self, api: AdminAPI) -> None:
        super().__init__()
        self.api = api

    @property
    def methods(self) -> Methods:
        """Method name -> coroutine function."""
        return {}

    @property
    def branches(self) -> Mapping[str, Branch]:
        """Paths below: a segment, or ``{what}`` for any other one -> makes the resource from the segment's text."""
        return {}

    def getChild(self, path: bytes, request: Request) -> Resource:
        if not path:
            return self  # a trailing slash means nothing
        segment, branches = path.decode("utf-8", "surrogateescape"), self.branches
        branch = branches.get(segment) or next((each for name, each in branches.items() if name.startswith("{")), None)
        return Missing(self.api) if branch is None else branch(segment)

    def render(self, request: Request) -> int:
        self._answering = self._spawn(self._render(request))
        return NOT_DONE_YET

    @staticmethod
    def _spawn(answering: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Let an answer take its time; what goes wrong with it is logged."""
        return Deferred.fromCoroutine(answering).addErrback(_unexpected)

    async def _render(self, request: Request) -> None:
        began = time.monotonic()
        call = Call(request, self.api.long_work)
        gone = request.notifyFinish()
        gone = gone.addErrback(lambda _: None)  # a client that hangs up is no fault
        try:
            reply = await self._answer(call)
        except EntityError as error:
            reply = await refusal_of(error, call.long_work)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - answered 500 and logged
            path = self.api.masked_path(request.path).decode("latin-1")
            self.api.gate.log.error(
                "{method} {path} failed: {frames}", method=call.method, path=path, frames=frames_of(error)
            )
            reply = Reply(500, {"message": "An unexpected error occurred"})
        if not request._disconnected and not request.finished:
            self._send(call, reply, began)

    async def _answer(self, call: Call) -> Reply:
        methods = self.methods
        if call.method == "OPTIONS":
            return self._options(call, methods)
        found = methods.get("GET" if call.method == "HEAD" else call.method)
        if found is None:
            return Reply(405, {"message": "Method not allowed"}) if methods else not_found()
        return await found(call)

    @staticmethod
    def _options(call: Call, methods: Mapping[str, Any]) -> Reply:
        if not methods:
            return not_found()
        allowed = ", ".join(sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])}))
        return Reply(204, None, {
            "Allow": allowed,
            "Access-Control-Allow-Methods": allowed,
            "Access-Control-Allow-Headers": call.header("access-control-request-headers") or "Content-Type",
        })  # fmt: skip

    def _send(self, call: Call, reply: Reply, began: float) -> None:
        request = call.request
        request.setResponseCode(reply.status)
        headers = request.responseHeaders
        headers.removeHeader(b"content-type")
        headers.removeHeader(b"server")
        if self.api.shows_server:
            headers.setRawHeaders(b"server", [f"kong/{KONG_VERSION}".encode()])
        if self.api.shows_latency:
            headers.setRawHeaders(b"x-kong-admin-latency", [b"%d" % ((time.monotonic() - began) * 1000)])
        origin = self.api.verdict(request).origin
        if origin is not None:
            headers.setRawHeaders(b"access-control-allow-origin", [origin.encode("latin-1", "replace")])
        headers.setRawHeaders(b"access-control-allow-credentials", [b"true"])
        for name, value in reply.headers.items():
            headers.setRawHeaders(name, value if isinstance(value, list) else [value])
        body = reply.body
        if body is not None and not isinstance(body, bytes):
            body = encoded(body)
        if body is not None:
            headers.setRawHeaders(b"content-type", [reply.content_type.encode()])
            headers.setRawHeaders(b"content-length", [b"%d" % len(body)])
            if call.method != "HEAD" and len(body) > PIECE:
                request.registerProducer(sending := _Pieces(request, body), True)
                sending.resumeProducing()
                return
            if call.method != "HEAD":
                request.write(body)
        request.finish()


@implementer(IPushProducer)
class _Pieces:
    """Sends a long body no faster than its client takes it, and finishes the answer."""

    def __init__(self, request: Request, body: bytes) -> None:
        self._request, self._body = request, memoryview(body)
        self._at = 0
        self._paused = True

    def resumeProducing(self) -> None:
        """The connection has room."""
        self._paused = False
        while not self._paused and self._at < len(self._body):
            begin, self._at = self._at, self._at + PIECE
            self._request.write(bytes(self._body[begin : self._at]))
        if not self._paused and not self._request.finished:
            self._request.unregisterProducer()
            self._request.finish()

    def pauseProducing(self) -> None:
        """It has none for now."""
        self._paused = True

    def stopProducing(self) -> None:
        """The client is gone."""
        self._paused = True
        self._body = memoryview(b"")


def _unexpected(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _log.failure("an Admin API answer could not be sent", failure=failure)


class Missing(JSONResource):
    """404 for everything below."""

    async def _answer(self, call: Call) -> Reply:
        return not_found()

    def getChild(self, path: bytes, request: Request) -> Resource:
        return self


class RefusedResource(JSONResource):
    """The answer to a request that the gate, or the listener with its limits, refuses."""

    async def _answer(self, call: Call) -> Reply:
        return self.api.verdict(call.request).refusal or not_found()

    def getChild(self, path: bytes, request: Request) -> Resource:
        return self


def walk(path: str, resource: JSONResource) -> Iterator[tuple[str, JSONResource]]:
    """All resources of an API that answer something, with their paths as templates.

    Args:
        path: where ``resource`` is, without a slash at the end.
        resource: where to begin.
    """
    if resource.methods:
        yield path or "/", resource
    for segment, branch in resource.branches.items():
        yield from walk(f"{path}/{segment}", branch(segment))
