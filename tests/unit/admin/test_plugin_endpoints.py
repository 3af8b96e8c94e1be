"""Paths that plugins add to the Admin API: how they are found, asked, shown, and refused at the start."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import getChildForRequest
from twisted.web.test.requesthelper import DummyRequest

from kongtwist.admin.access.browser_guard import Guard
from kongtwist.admin.access.gate import Gate
from kongtwist.admin.access.tokens import Tokens
from kongtwist.admin.admin_resource import AdminResource
from kongtwist.admin.endpoints.node_information import fixed_paths
from kongtwist.admin.openapi.document import document
from kongtwist.admin.plugin_paths import FIXED_SEGMENTS, path_faults
from kongtwist.core.answers import Answer, StreamedAnswer
from kongtwist.core.chain.phases import AdminCall, AdminEndpoint
from kongtwist.core.chain.plugin import Plugin
from kongtwist.entities import EntityError, registry
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.storage.memory import MemoryStorage

TOKEN = "0123456789abcdef"
SECRET = "a secret"
GATES: list[Deferred[Answer]] = []


def told(call: AdminCall) -> Answer:
    """Answers with what it is asked."""
    seen = {"method": call.method, "arguments": call.arguments, "query": call.query, "body": call.body}
    host = cast(Any, call.host)
    return Answer(200, json.dumps({**seen, "host": host.node_id}).encode(), [(b"X-A", b"1"), (b"X-A", b"2")])


async def waiting(call: AdminCall) -> Answer:
    GATES.append(Deferred())
    return await GATES[-1]


def refusing(call: AdminCall) -> Answer:
    raise EntityError.not_found({"id": call.arguments["name"]})


def failing(call: AdminCall) -> Answer:
    raise RuntimeError(SECRET)


def gives(answer: Any) -> Any:
    return lambda call: answer


async def chunks() -> AsyncIterator[bytes]:
    yield b""


class Demo(Plugin):
    name = "demo"
    priority = 5
    endpoints = (
        AdminEndpoint("/demo", {"GET": told, "POST": told, "DELETE": gives(Answer(204))}, "Show what is asked"),
        AdminEndpoint("/demo/{name}", {"GET": told, "PUT": refusing}, "Show a name"),
        AdminEndpoint("/demo/{plugin_id}/parts/{part}", {"GET": told}, "Show a part", tag="Parts"),
        AdminEndpoint("/demo/waiting", {"GET": waiting}, "Wait"),
        AdminEndpoint("/demo/failing", {"GET": failing, "PATCH": gives(Answer.error(409, "not now"))}, "Fail"),
        AdminEndpoint("/demo/odd", {"GET": gives("text"), "POST": gives(StreamedAnswer(200, chunks()))}, "Be odd"),
        AdminEndpoint("/demo/page", {"GET": gives(Answer(200, b"<p>", [(b"Content-Type", b"text/html")]))}, "A page"),
        AdminEndpoint("/demo/status", {"GET": gives(Answer(99))}, "No status"),
    )


REGISTRY = registry({**load_plugins(["bundled"]), "demo": Demo()})


class EndpointCase(SynchronousTestCase):
    def setUp(self) -> None:
        gate = Gate(Guard(True, [], []), Tokens([TOKEN]), lambda: 0.0)
        self.admin = AdminResource(
            MemoryStorage(REGISTRY, lambda: 0.0),
            REGISTRY,
            cast(Any, SimpleNamespace(plugins={"demo": Demo()})),
            gate=gate,
            published=cast(Any, None),
            now=lambda: 0.0,
            host=cast(Any, SimpleNamespace(node_id="n1")),
        )

    def send(self, path: str, method: str = "GET", body: bytes = b"", **fields: str) -> Any:
        request: Any = DummyRequest(path.partition("?")[0].strip("/").encode().split(b"/"))
        request.method, request.uri = method.encode(), path.encode()
        request.path = request.uri.partition(b"?")[0]
        request._disconnected, request.isSecure = False, lambda: False
        request.content = BytesIO(body)
        for name, value in {"Host": "localhost", "Kong-Admin-Token": TOKEN, **fields}.items():
            request.requestHeaders.addRawHeader(name.replace("_", "-").encode(), value.encode())
        getChildForRequest(self.admin, request).render(request)
        return request

    def ask(self, path: str, method: str = "GET", body: bytes = b"", **fields: str) -> tuple[int, Any]:
        """Status and body of the answer."""
        request = self.send(path, method, body, **fields)
        self.assertEqual(request.finished, 1, path)
        written = b"".join(request.written)
        return request.responseCode or 200, json.loads(written) if written else None


class CallTests(EndpointCase):
    """What a plugin is asked, and what becomes of its answer."""

    def test_arguments(self) -> None:
        """Names stand before arguments; arguments of one place may have different names."""
        for path, arguments in (
            ("/demo", {}),
            ("/demo/", {}),
            ("/demo/x%2Fy", {"name": "x%2Fy"}),  # the Site decodes segments
            ("/demo/x/parts/7", {"plugin_id": "x", "part": "7"}),
            ("/demo/waiting/parts/7", {"plugin_id": "waiting", "part": "7"}),
        ):
            status, body = self.ask(path)
            self.assertEqual((status, body["arguments"], body["method"], body["host"]), (200, arguments, "GET", "n1"))
        for path in ("/demo/x/y", "/demo/x/parts", "/demo/x/parts/7/8", "/demo/waiting/z"):
            self.assertEqual(self.ask(path), (404, {"message": "Not found"}), path)

    def test_query_and_body(self) -> None:
        """The last of several arguments; JSON and forms; no body is None."""
        status, body = self.ask("/demo?a=1&a=2&b", "POST", b'{"x":[1]}', Content_Type="application/json")
        self.assertEqual((status, body["query"]["a"], body["body"]), (200, "2", {"x": [1]}))
        form = "application/x-www-form-urlencoded"
        self.assertEqual(self.ask("/demo", "POST", b"x=1&y=z", Content_Type=form)[1]["body"], {"x": "1", "y": "z"})
        self.assertIsNone(self.ask("/demo", "POST")[1]["body"])
        status, body = self.ask("/demo", "POST", b"{", Content_Type="application/json")
        self.assertEqual((status, body), (400, {"message": "Cannot parse JSON body"}))
        status, body = self.ask("/demo", "POST", b'"%b"' % (b"x" * 3_000_000), Content_Type="application/json")
        self.assertEqual(status, 413)

    def test_methods(self) -> None:
        """HEAD comes with GET, OPTIONS with all, others are 405."""
        self.assertEqual(self.ask("/demo", "HEAD"), (200, None))
        self.assertEqual(self.ask("/demo", "PATCH"), (405, {"message": "Method not allowed"}))
        self.assertEqual(self.ask("/demo", "DELETE"), (204, None))
        request = self.send("/demo", "OPTIONS")
        self.assertEqual(request.responseHeaders.getRawHeaders("allow"), ["DELETE, GET, HEAD, OPTIONS, POST"])

    def test_headers(self) -> None:
        """Fields of the answer are kept, several of one name too; its type is its own or JSON."""
        headers = self.send("/demo").responseHeaders
        self.assertEqual(headers.getRawHeaders("x-a"), ["1", "2"])
        self.assertEqual(headers.getRawHeaders("content-type"), ["application/json; charset=utf-8"])
        self.assertEqual(headers.getRawHeaders("access-control-allow-origin"), ["*"])
        self.assertEqual(self.send("/demo/page").responseHeaders.getRawHeaders("content-type"), ["text/html"])

    def test_waiting(self) -> None:
        """An answer may take its time."""
        request = self.send("/demo/waiting")
        self.assertEqual((request.finished, request.written), (0, []))
        GATES.pop().callback(Answer(202, b"{}"))
        self.assertEqual((request.finished, request.responseCode), (1, 202))

    def test_refusals(self) -> None:
        """Errors of entities and of the plugin have Kong's shape."""
        status, body = self.ask("/demo/x", "PUT")
        self.assertEqual((status, body["code"], body["name"]), (404, 6, "not found"))
        self.assertEqual(self.ask("/demo/failing", "PATCH"), (409, {"message": "not now"}))

    def test_failures(self) -> None:
        """What is raised, and what is no answer that can be sent, is 500 and in the log, without its text."""
        for path, method, kind in (
            ("/demo/failing", "GET", "RuntimeError"),
            ("/demo/odd", "GET", "TypeError"),
            ("/demo/odd", "POST", "TypeError"),
            ("/demo/status", "GET", "ValueError"),
        ):
            with capturedLogs() as events:
                self.assertEqual(self.ask(path, method), (500, {"message": "An unexpected error occurred"}), path)
            (line,) = map(formatEvent, events)
            self.assertIn(kind, line)
            self.assertNotIn(SECRET, line)

    def test_gate(self) -> None:
        """The gate is asked first."""
        self.assertEqual(self.ask("/demo", Kong_Admin_Token="wrong")[0], 401)


class ShownTests(EndpointCase):
    """Lists of all paths."""

    def test_endpoints(self) -> None:
        """``/endpoints`` has each template as it is declared."""
        listed = self.ask("/endpoints")[1]["data"]
        self.assertEqual([each for each in listed if each.startswith("/demo")], sorted(e.path for e in Demo.endpoints))

    def test_openapi(self) -> None:
        """So has the document, with text, heading and arguments."""
        paths = document(self.admin.paths(), REGISTRY)["paths"]
        part = paths["/demo/{plugin_id}/parts/{part}"]
        self.assertEqual([each["name"] for each in part["parameters"]], ["plugin_id", "part"])
        self.assertEqual((part["get"]["summary"], part["get"]["tags"]), ("Show a part", ["Parts"]))
        self.assertEqual(set(paths["/demo"]), {"get", "post", "delete"})


class FaultTests(SynchronousTestCase):
    """Paths that stop the start."""

    def faults(self, *paths: str, methods: Any = None) -> list[str]:
        plugin = type("Mine", (Plugin,), {
            "name": "mine", "priority": 1,
            "endpoints": tuple(AdminEndpoint(path, {"GET": told} if methods is None else methods, "x") for path in paths),
        })()  # fmt: skip
        return list(path_faults({"demo": Demo(), "mine": plugin}, REGISTRY))

    def test_good(self) -> None:
        """Paths of one's own, also below the first segment of another plugin's."""
        self.assertEqual(self.faults("/mine", "/mine/{a}", "/mine/{a}/b", "/demo/x/y"), [])

    def test_taken(self) -> None:
        """A path that is there already; plugin and path are named."""
        words = "plugin mine: the Admin API cannot have its path "
        for path, why in (
            ("/status/mine", "/status is the gateway's own"),
            ("/services/{x}/mine", "/services is the entity services's"),
            ("/key-auths/mine", "/key-auths is the entity keyauth_credentials's"),
            ("/targets", "/targets is the entity targets's"),
            ("/demo/{other}", "it is plugin demo's already"),
        ):
            self.assertEqual(self.faults(path), [f"{words}{path}: {why}"])
        self.assertEqual(self.faults("/mine", "/mine"), [f"{words}/mine: it is plugin mine's already"])

    def test_form(self) -> None:
        """A path that no request could have, or that no method answers."""
        for path in ("mine", "", "/", "/mine/", "/mine//x", "/mine/{}", "/mine/{a}b", "/mine/a?b", "/m ine"):
            self.assertIn("not of the form", " ".join(self.faults(path)), path)
        self.assertIn("must be a name", self.faults("/{x}")[0])
        self.assertIn("two arguments", self.faults("/mine/{x}/{x}")[0])
        for methods in ({}, {"HEAD": told}, {"get": told}):
            self.assertIn("methods must be", self.faults("/mine", methods=methods)[0])

    def test_fixed_segments(self) -> None:
        """The list of what is taken is the API's own."""
        fixed = fixed_paths(cast(Any, None), {}, cast(Any, None))
        self.assertEqual({*fixed, "openapi.json"}, FIXED_SEGMENTS)
