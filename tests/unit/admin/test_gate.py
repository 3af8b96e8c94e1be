"""Tests of the Admin API's gate as a Resource (kongtwist/admin/access/gate.py, site.py), as in somebody else's Site."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource, getChildForRequest
from twisted.web.test.requesthelper import DummyRequest

from kongtwist.admin.access.browser_guard import Guard
from kongtwist.admin.access.gate import Gate
from kongtwist.admin.access.tokens import Tokens
from kongtwist.admin.admin_resource import AdminResource
from kongtwist.entities import registry
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.storage.memory import MemoryStorage

TOKEN = "0123456789abcdef"


class MountedTests(SynchronousTestCase):
    """The Admin API below a path of another program's Site."""

    def setUp(self) -> None:
        entities = registry(load_plugins(["bundled"]))
        unused = cast(Any, None)
        gate = Gate(Guard(True, [], []), Tokens([TOKEN]), lambda: 0.0)
        storage = MemoryStorage(entities, lambda: 0.0)
        admin = AdminResource(
            storage, entities, cast(Any, SimpleNamespace(plugins={})), gate=gate, published=unused, now=lambda: 0.0
        )
        self.root = Resource()
        self.root.putChild(b"admin", admin)

    def ask(self, path: str, method: bytes = b"GET", **fields: str) -> tuple[int, Any, Any]:
        """Status, body and headers of the answer."""
        request: Any = DummyRequest([part.encode() for part in path.split("/")])
        request.method, request.uri = method, f"/{path}".encode()
        request.path = request.uri
        request._disconnected = False
        request.isSecure = lambda: False
        for name, value in {"Host": "localhost", **fields}.items():
            request.requestHeaders.addRawHeader(name.replace("_", "-").encode(), value.encode())
        getChildForRequest(self.root, request).render(request)
        written = b"".join(request.written)
        return request.responseCode or 200, json.loads(written) if written else None, request.responseHeaders

    def test_refused_everywhere(self) -> None:
        """Without a token no path below the mount answers, nor does the mount itself, known path or not."""
        for path in ("admin", "admin/", "admin/services", "admin/services/x/routes", "admin/nowhere/at/all"):
            for method in (b"GET", b"POST", b"OPTIONS", b"DELETE"):
                status, body, headers = self.ask(path, method)
                self.assertEqual((status, body), (401, {"message": "Unauthorized"}), path)
                self.assertTrue(headers.hasHeader("www-authenticate"))

    def test_admitted(self) -> None:
        """With one it answers."""
        status, body, headers = self.ask("admin/services", Kong_Admin_Token=TOKEN)
        self.assertEqual((status, body["data"]), (200, []))
        self.assertEqual(headers.getRawHeaders("access-control-allow-origin"), ["*"])
        self.assertEqual(self.ask("admin/nowhere", Authorization=f"Bearer {TOKEN}")[0], 404)

    def test_pages(self) -> None:
        """A foreign page is refused before its token is looked at, and gets no permission to read that."""
        status, body, headers = self.ask(
            "admin/services", Origin="http://x.example", User_Agent="Mozilla/5.0", Kong_Admin_Token=TOKEN
        )
        self.assertEqual(status, 403)
        self.assertIn("admin_gui_url", body["message"])
        self.assertFalse(headers.hasHeader("access-control-allow-origin"))

    def test_preflight(self) -> None:
        """The question before a request needs no token and tells the methods."""
        fields = {"Origin": "http://localhost", "Access_Control_Request_Method": "POST"}
        status, _, headers = self.ask("admin/services", b"OPTIONS", User_Agent="Mozilla/5.0", **fields)
        self.assertEqual(status, 204)
        self.assertEqual(headers.getRawHeaders("access-control-allow-origin"), ["http://localhost"])
        self.assertEqual(headers.getRawHeaders("access-control-allow-methods"), ["GET, HEAD, OPTIONS, POST"])
