"""Small HTTP servers of a test's own, in threads of its process."""

from __future__ import annotations

import http.server
import threading
from typing import Any
from unittest import TestCase

__all__ = ["Answering", "served"]


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers with whole bodies, and prints nothing."""

    protocol_version = "HTTP/1.1"

    def answer(self, status: int, kind: str, body: bytes) -> None:
        """Answer with a body of this Content-Type."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def served(test: TestCase, handler: Any) -> int:
    """Serve until the test ends; the port.

    Args:
        test: the test.
        handler: makes a handler of `http.server` for each connection.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    test.addCleanup(thread.join)
    test.addCleanup(server.server_close)
    test.addCleanup(server.shutdown)
    return server.server_port
