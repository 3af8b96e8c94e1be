"""The harness itself: a server that tests wait for is the one they have started."""

from __future__ import annotations

import socket
import sys

from .support import LiveTestCase, free_port, request

SERVER = "import socket, sys, time; server = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"


class WaitingTests(LiveTestCase):
    """`LiveTestCase.wait_for_port`."""

    def test_own(self) -> None:
        """A process that listens, or whose child does."""
        for words in ([sys.executable, "-c", SERVER], ["sh", "-c", '"$@"; true', "sh", sys.executable, "-c", SERVER]):
            port = free_port()
            self.wait_for_port(port, self.start([*words, str(port)], "server"))

    def test_another(self) -> None:
        """Somebody else on its port is taken for nobody's server."""
        foreign = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(foreign.close)
        process = self.start(["sleep", "600"], "server")
        with self.assertRaisesRegex(AssertionError, "another process listens"):
            self.wait_for_port(foreign.getsockname()[1], process)

    def test_nginx_tells(self) -> None:
        """Its error log is in the report of a test that fails."""
        port = self.nginx(f"location / {{ proxy_pass http://127.0.0.1:{free_port()}; }}")
        self.assertEqual(request(port, "GET", "/").status, 502)
        self.assertIn("Connection refused", self.report())
