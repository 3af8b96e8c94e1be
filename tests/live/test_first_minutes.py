"""What a newcomer does first, word for word, with real servers behind the gateway."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

from websockets.sync.client import connect

from tests.documents import blocks, commands
from tests.live.support import PATIENCE, ROOT, EventStream, LiveTestCase, Process, free_port, wait_until

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
        process = self.start([sys.executable, str(ROOT / "examples" / f"{name}.py"), str(port)], Path(name).name)
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
        """The commands work as they stand; right after them all streams flow, with no restart."""
        gateway = self.gateway()
        ports = {
            "8001": gateway.admin_port, "9100": self.example("chat"), "9200": self.example("ticker"),
            "50051": self.example("sensors/sensor_service"),
        }  # fmt: skip
        answers = [
            self.curl(re.sub(r":(\d{4,5})\b", lambda port: f":{ports[port[1]]}", command)) for command in COMMANDS
        ]
        self.assertEqual([status for status, _ in answers], [201, 201, 201, 201, 200, 201, 201, 200])
        patched = json.loads(answers[4][1])
        self.assertEqual((patched["read_timeout"], patched["write_timeout"]), (3_600_000, 3_600_000))
        self.assertEqual(json.loads(answers[1][1])["protocols"], ["http", "https"])

        generator = [sys.executable, str(ROOT / "examples" / "sensors" / "sensor_generator.py")]
        target = f"127.0.0.1:{gateway.proxy_port}"
        done = subprocess.run([*generator, target, "3"], check=True, capture_output=True, timeout=PATIENCE)
        self.assertEqual(len(done.stdout.splitlines()), 3)

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

    def test_examples_without_their_port(self) -> None:
        """A port that somebody has: a sentence that says what to type, no traceback."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for name in ("chat", "ticker"):
                words = [sys.executable, str(ROOT / "examples" / f"{name}.py"), str(taken.getsockname()[1])]
                done = subprocess.run(words, check=False, capture_output=True, timeout=PATIENCE, text=True)
                self.assertEqual(done.returncode, 1)
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                self.assertIn(f"Name another port: python examples/{name}.py PORT", done.stderr)

    def test_demo_says_what_to_do(self) -> None:
        """The last three lines of a start with the demo: the page is there, the commands work as they stand, twice, and
        what they stored works after a restart."""
        gateway = self.gateway({"log_level": "notice"}, demo=True)
        assert gateway.process is not None
        process = gateway.process
        wait_until(lambda: "Ctrl-C" in process.output(), "the last line")
        look, add = process.output().splitlines()[-3:-1]
        self.assertEqual(self.curl(f"curl -i {look.split()[-1]}")[0], 200)
        *puts, follow = add.partition("curl")[2].split(" && curl")
        self.assertIn("/mine", follow)
        for _ in range(2):
            self.assertEqual([self.curl(f"curl -i {each.removeprefix('curl')}")[0] for each in puts], [200, 200])
        self.assertEqual(gateway.stop(), 0)
        gateway.start()
        events = EventStream(gateway.proxy_port, "/mine")
        self.addCleanup(events.close)
        self.assertEqual(next(events)["event"], "snapshot")

    def test_output_is_for_eyes(self) -> None:
        """One short line each: time, level, text; nothing below log_level, nothing about Twisted's factories."""
        for level, workers in (("notice", 1), ("info", 2)):
            gateway = self.gateway({"log_level": level, "nginx_worker_processes": workers}, demo=True)
            gateway.route("/gone", f"http://127.0.0.1:{free_port()}")
            self.assertEqual(gateway.get("/gone?apikey=s3cret").status, 502)
            assert gateway.process is not None
            process = gateway.process
            wait_until(partial(_says, process, "no answer from the upstream"), "a worker's line")
            self.assertEqual(gateway.stop(), 0)
            levels = "notice|warn|error" if level == "notice" else "info|notice|warn|error"
            for line in process.output().splitlines():
                self.assertRegex(line, rf"^\d{{4}}/\d\d/\d\d \d\d:\d\d:\d\d \[({levels})\] ")
            for noise in ("starting on", "Factory", "#", "twistd", "reactor", "Shut Down", "s3cret"):
                self.assertNotIn(noise, process.output())
            self.assertTrue(process.output().splitlines()[-1].endswith("[notice] stopped"))

    def test_output_once(self) -> None:
        """Where the error log goes to a standard stream nothing is said twice."""
        gateway = self.gateway({"proxy_error_log": "/dev/stdout", "log_level": "notice"})
        self.assertEqual(gateway.stop(), 0)
        assert gateway.process is not None
        lines = [line for line in gateway.process.output().splitlines() if line.endswith("stopped")]
        self.assertEqual(len(lines), 1)
        self.assertRegex(lines[0], r"\[notice\] \d+#0: \[kongtwist\.node\] stopped$")

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


def _says(process: Process, text: str) -> bool:
    return text in process.output()
