"""statsd with Etsy's own server (npm ``statsd``): by UDP and by TCP it understands every line, and counts what the gateway counted."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any
from unittest import SkipTest

from tests.live.programs import find_program
from tests.live.support import LiveTestCase, free_port, request, wait_until

HERE = Path(__file__).parent
PROGRAM = HERE / "node_modules" / "statsd" / "stats.js"


class StatsdServer:
    """The server, which keeps what it counts until it ends.

    Attributes:
        udp, tcp: where it takes metrics.
    """

    def __init__(self, case: LiveTestCase) -> None:
        if not PROGRAM.exists():
            if os.environ.get("CI"):
                raise AssertionError("statsd is not installed; tests/peers.sh does it")
            raise SkipTest("needs statsd; tests/peers.sh installs it")
        self.udp, self.tcp, self._management = free_port(), free_port(), free_port()
        servers = [{"server": f"./servers/{kind}", "address": "127.0.0.1", "port": port}
                   for kind, port in (("udp", self.udp), ("tcp", self.tcp))]  # fmt: skip
        path = Path(case.folder(), "config.js")
        path.write_text(json.dumps({
            "servers": servers, "mgmt_address": "127.0.0.1", "mgmt_port": self._management, "flushInterval": 3_600_000,
            "backends": ["./backends/console"], "dumpMessages": True,
        }))  # fmt: skip
        self.process = case.start([find_program("node"), str(PROGRAM), str(path)], "statsd")
        case.wait_for_port(self._management, self.process)

    def told(self, what: str) -> dict[str, Any]:
        """``counters``, ``timers`` or ``gauges`` by name."""
        with socket.create_connection(("127.0.0.1", self._management), 10) as asking:
            asking.sendall(what.encode() + b"\n")
            text = b""
            while not text.endswith(b"END\n\n"):
                piece = asking.recv(65536)
                if not piece:
                    raise AssertionError(f"statsd closed the connection behind {text!r}")
                text += piece
            asking.sendall(b"quit\n")
            asking.recv(1)  # to the end: it does not survive connections that are reset
        # JavaScript as node shows objects: names in single quotes, or bare.
        found = re.sub(r"(?m)^(\s*[{]?\s*)(\w+):", r'\1"\2":', text.decode().rpartition("END")[0].replace("'", '"'))
        return dict(json.loads(found))


class StatsdTests(LiveTestCase):
    def test_counted(self) -> None:
        """Each request is one in each counter, of 20; times are there as often; no line is bad."""
        server = StatsdServer(self)
        gateway = self.gateway()
        gateway.route("/a", f"http://127.0.0.1:{self.upstream('echo')}", "a")
        for use_tcp, port in ((False, server.udp), (True, server.tcp)):
            prefix = "tcp" if use_tcp else "udp"
            config = {
                "host": "127.0.0.1",
                "port": port,
                "prefix": prefix,
                "use_tcp": use_tcp,
                "queue": {"max_batch_size": 10},
            }
            plugin = gateway.create(
                "/plugins", name="statsd", config={**config, "udp_packet_size": 1000 * (not use_tcp)}
            )
            for number in range(20):
                self.assertEqual(request(gateway.proxy_port, "GET", f"/a/{number}").status, 200)
            request(gateway.proxy_port, "GET", "/none")

            def counted(prefix: str = prefix) -> bool:
                counters = server.told("counters")
                return (
                    counters.get(f"{prefix}.service.a.request.count") == 20
                    and counters.get(f"{prefix}.global.unmatched.request.count") == 1
                )

            wait_until(counted, f"20 requests by {prefix}")
            counters, timers = server.told("counters"), server.told("timers")
            self.assertEqual(counters[f"{prefix}.service.a.status.200"], 20)
            for name in ("request.size", "response.size"):
                self.assertGreater(counters[f"{prefix}.service.a.{name}"], 20 * len("GET / HTTP/1.1"), name)
            for name in ("latency", "upstream_latency", "kong_latency"):
                self.assertEqual(len(timers[f"{prefix}.service.a.{name}"]), 20, name)
            self.assertEqual(counters["statsd.bad_lines_seen"], 0)
            self.assertTrue(server.process.running)
            gateway.admin("DELETE", f"/plugins/{plugin['id']}")
