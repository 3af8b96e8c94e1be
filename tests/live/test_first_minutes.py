"""What a newcomer does first, word for word, with real servers behind the gateway."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

from websockets.sync.client import connect

from tests.documents import blocks, commands
from tests.live.support import PATIENCE, ROOT, EventStream, LiveTestCase, free_port, wait_until

COMMANDS = [
    command
    for block in blocks("README.md")
    if block.language == "sh"
    for command in commands(block)
    if command.startswith("curl -i ")
]
"""Those of the README; only the ports differ in the test."""


class FirstMinutesTests(LiveTestCase):
    """From an empty gateway to streams, by curl."""

    def example(self, name: str) -> int:
        """Start a program of examples/; returns its port."""
        port = free_port()
        process = self.start([sys.executable, str(ROOT / "examples" / f"{name}.py"), str(port)], name)
        self.wait_for_port(port, process)
        return port

    def curl(self, command: str) -> tuple[int, str]:
        """Run a curl command; returns the status and the body."""
        done = subprocess.run(
            [*shlex.split(command), "--silent", "--show-error"],
            check=True, capture_output=True, timeout=PATIENCE,
        )  # fmt: skip
        head, _, body = done.stdout.decode().partition("\r\n\r\n")
        return int(head.split()[1]), body

    def test_commands(self) -> None:
        """The commands work as they stand; right after them both streams flow, with no restart."""
        gateway = self.gateway()
        ports = {
            "8001": gateway.admin_port, "9100": self.example("chat"), "9200": self.example("ticker"),
        }  # fmt: skip
        answers = [self.curl(re.sub(r":(\d{4})\b", lambda port: f":{ports[port[1]]}", command)) for command in COMMANDS]
        self.assertEqual([status for status, _ in answers], [201, 201, 201, 201, 200, 200])
        patched = json.loads(answers[4][1])
        self.assertEqual((patched["read_timeout"], patched["write_timeout"]), (3_600_000, 3_600_000))
        self.assertEqual(json.loads(answers[1][1])["protocols"], ["http", "https"])

        with connect(gateway.url("/ws", "ws"), proxy=None) as chat:
            self.assertEqual(json.loads(chat.recv(PATIENCE))["type"], "welcome")
            chat.send("hello")
            while (said := json.loads(chat.recv(PATIENCE)))["type"] != "message":
                pass
            self.assertEqual(said["text"], "hello")
            events = EventStream(gateway.proxy_port, "/events")
            self.addCleanup(events.close)
            self.assertEqual([next(events)["event"] for _ in range(3)], ["snapshot", "trade", "trade"])
            status = gateway.admin("GET", "/status").json
            # Both streams are being written, and nothing else is open.
            self.assertEqual(status["server"]["connections_writing"], 2)
            self.assertEqual(status["connections"]["active"], 2)

    def test_status_counts(self) -> None:
        """``/status`` counts the proxy's connections and requests, in both forms, and comes back to nothing."""
        gateway = self.gateway()
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        before = gateway.admin("GET", "/status").json["server"]
        for _ in range(3):
            self.assertEqual(gateway.get("/echo").status, 200)
        self.assertEqual(gateway.get("/nowhere").status, 404)

        def settled() -> bool:
            return bool(gateway.admin("GET", "/status").json["connections"]["active"] == 0)

        wait_until(settled, "closed connections not counted as active any more")
        status = gateway.admin("GET", "/status").json
        self.assertEqual(status["server"]["total_requests"] - before["total_requests"], 4)
        self.assertEqual(status["server"]["connections_accepted"] - before["connections_accepted"], 4)
        for name in ("active", "reading", "writing", "waiting", "accepted", "handled"):
            self.assertEqual(status["connections"][name], status["server"][f"connections_{name}"], name)
