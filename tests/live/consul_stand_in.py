"""A stand-in for Consul's store of keys and values: the registries have no Consul. What it does is what Consul documents for
``/v1/kv``: values in base64, flags, an index that grows with each change, ``?keys``, ``?cas``, and a token that it asks for."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["TOKEN", "ConsulStandIn"]

TOKEN = "token-of-the-tests"
"""What it lets in."""


class ConsulStandIn:
    """Serves on a port of its own until `stop`.

    Attributes:
        entries: key to (value, flags, index).
    """

    def __init__(self) -> None:
        self.entries: dict[str, tuple[bytes, int, int]] = {}
        self._index = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._serve("GET")

            def do_PUT(self) -> None:
                self._serve("PUT")

            def do_DELETE(self) -> None:
                self._serve("DELETE")

            def _serve(self, method: str) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("X-Consul-Token") != TOKEN:
                    status, told = 403, b"Permission denied: token lacks permission"
                else:
                    status, told = outer.answer(method, self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        """Status and body."""
        parts = urlsplit(target)
        query = parse_qs(parts.query, keep_blank_values=True)
        key = unquote(parts.path.removeprefix("/v1/kv/"))
        with self._lock:
            if method == "GET":
                return self._read(key, query)
            known = self.entries.get(key)
            cas = int(query["cas"][0]) if "cas" in query else None
            if cas is not None and cas != (known[2] if known else 0):
                return 200, b"false"
            self._index += 1
            if method == "DELETE":
                self.entries.pop(key, None)
            else:
                self.entries[key] = (body, int(query.get("flags", ["0"])[0]), self._index)
            return 200, b"true"

    def _read(self, key: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
        if "keys" in query:
            keys = [each for each in self.entries if each.startswith(key)]
            return (200, json.dumps(keys).encode()) if keys else (404, b"")
        known = self.entries.get(key)
        if known is None:
            return 404, b""
        entry = {"Key": key, "Value": b64encode(known[0]).decode(), "Flags": known[1], "ModifyIndex": known[2]}
        return 200, json.dumps([entry]).encode()
