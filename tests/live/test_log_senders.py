"""file-log, tcp-log, udp-log, loggly, syslog, statsd and datadog, with a real syslog daemon: up, killed, and back."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from kongtwist.clients.scopes import Services
from kongtwist.core.chain.host import Host
from kongtwist.core.limits import Limits
from kongtwist.net.resolver import Resolver
from kongtwist.observability.shared_counters import LocalCounters
from kongtwist.plugins import syslog
from kongtwist.testing import NOW, PluginHarness
from tests.live.support import GatewayProcess, LiveTestCase, request, wait_until
from tests.live.syslog_server import SyslogServer


def record(line: dict[str, Any]) -> dict[str, Any]:
    """The record in a line that the daemon took."""
    text = line["rawmsg-after-pri"]
    found: dict[str, Any] = json.loads(text[text.index("{") :])
    return found


def uris(lines: list[dict[str, Any]]) -> list[str]:
    return [record(line)["request"]["uri"] for line in lines]


class SenderTests(LiveTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = SyslogServer(self)

    def logged(self, name: str, **config: Any) -> GatewayProcess:
        """A gateway whose requests one plugin logs."""
        gateway = self.gateway()
        gateway.route("/a", f"http://127.0.0.1:{self.upstream('echo')}", "a")
        gateway.create("/plugins", name=name, config=config)
        return gateway

    def ask(self, gateway: GatewayProcess, *paths: str) -> None:
        for path in paths:
            request(gateway.proxy_port, "GET", path)

    def test_udp(self) -> None:
        """A datagram for each request, answered there or here."""
        gateway = self.logged("udp-log", host="localhost", port=self.server.udp)
        self.ask(gateway, "/a/1", "/none")
        wait_until(lambda: len(self.server.of("imudp")) == 2, "two datagrams")
        first, second = map(record, self.server.of("imudp"))
        self.assertEqual((first["request"]["uri"], first["response"]["status"]), ("/a/1", 200))
        self.assertEqual((second["request"]["uri"], second["response"]["status"]), ("/none", 404))
        self.assertIn("route", first)

    def test_loggly(self) -> None:
        """The daemon understands the line: severity by status, facility, program, token and tags."""
        gateway = self.logged(
            "loggly", host="127.0.0.1", port=self.server.udp, key="token", tags=["a", "b"], log_level="warning",
            client_errors_severity="err",
        )  # fmt: skip
        self.ask(gateway, "/a/1", "/none")
        wait_until(lambda: self.server.of("imudp"), "a line")
        (line,) = self.server.of("imudp")
        self.assertEqual(
            (line["syslogseverity-text"], line["syslogfacility-text"], line["programname"], line["structured-data"]),
            ("err", "user", "kong", '[token@41058 tag="a" tag="b"]'),
        )
        self.assertEqual(json.loads(line["msg"])["request"]["uri"], "/none")

    def test_statsd(self) -> None:
        """Lines as they are, by UDP in one datagram for a request, and by TCP; datadog's tags beside them."""
        metrics = [
            {"name": "status_count", "stat_type": "counter", "sample_rate": 1},
            {"name": "latency", "stat_type": "timer"},
        ]
        config = {"host": "127.0.0.1", "port": self.server.udp, "metrics": metrics}
        gateway = self.logged("statsd", **config, udp_packet_size=1000)
        gateway.create("/plugins", name="datadog", config={"host": "127.0.0.1", "port": self.server.udp})
        self.ask(gateway, "/a/1", "/none")

        def lines() -> set[str]:
            """Without figures."""
            found = {each for line in self.server.of("imudp") for each in line["rawmsg-after-pri"].split("\n")}
            return {re.sub(r":\d+\|ms", ":N|ms", each) for each in found}

        wanted = {
            "kong.service.a.status.200:1|c", "kong.service.a.latency:N|ms", "kong.global.unmatched.status.404:1|c",
            "kong.request.count:1|c|#name:a,status:200,app:kong", "kong.latency:N|ms|#name:a,status:200,app:kong",
        }  # fmt: skip
        wait_until(lambda: wanted <= lines(), f"the lines; there are {lines()}")
        (plugin,) = (each for each in gateway.admin("GET", "/plugins").json["data"] if each["name"] == "statsd")
        config = {"use_tcp": True, "port": self.server.tcp}
        gateway.admin("PATCH", f"/plugins/{plugin['id']}", json={"config": config})

        def by_tcp() -> bool:
            self.ask(gateway, "/a/2")
            found = [line["rawmsg-after-pri"] for line in self.server.of("imtcp")]
            return "kong.service.a.status.200:1|c" in found

        wait_until(by_tcp, "a line by TCP")

    def test_tcp(self) -> None:
        """Lines in order over one connection; those of a time without a server come when there is one."""
        gateway = self.logged("tcp-log", host="127.0.0.1", port=self.server.tcp)
        self.ask(gateway, *(f"/a/{number}" for number in range(20)))
        wait_until(lambda: len(self.server.of("imtcp")) == 20, "the lines")
        self.server.kill()
        self.ask(gateway, *(f"/a/{number}" for number in range(20, 40)))
        self.server.start()
        wait_until(lambda: "/a/39" in uris(self.server.of("imtcp")), "the lines of before")
        found = uris(self.server.of("imtcp"))
        if found[20] != "/a/20":  # written before the end of the connection was told, which TCP cannot know
            found.insert(20, "/a/20")
        self.assertEqual(found, [f"/a/{number}" for number in range(40)])
        self.assertIn("tcp-log", gateway.log())

    def test_file(self) -> None:
        """Two workers write whole lines into one file, which is moved away meanwhile."""
        folder = self.folder()
        path = os.path.join(folder, "requests.json")
        gateway = self.gateway({"nginx_worker_processes": 2})
        gateway.route("/a", f"http://127.0.0.1:{self.upstream('echo')}")
        gateway.create("/plugins", name="file-log", config={"path": path, "reopen": True})

        def found() -> list[str]:
            files = sorted(Path(folder).glob("requests.json*"), reverse=True)
            lines = [line for file in files for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
            return [json.loads(line)["request"]["uri"] for line in lines]

        def first() -> bool:
            self.ask(gateway, "/a/first")
            return os.path.exists(path)

        wait_until(first, "a line")
        wanted = [f"/a/{number}" for number in range(40)]
        self.ask(gateway, *wanted[:20])
        os.rename(path, path + ".1")
        self.ask(gateway, *wanted[20:])
        wait_until(lambda: set(wanted) <= set(found()), "all lines")
        self.assertEqual(sorted(each for each in found() if each != "/a/first"), sorted(wanted))
        self.assertTrue(os.path.exists(path))


class SyslogTests(LiveTestCase, TestCase):
    """The plugin with the gateway's own sockets; the machine's daemon is not asked."""

    def test_syslog(self) -> None:
        """The daemon understands the line; while it is away requests go on, and it is found again."""
        server = SyslogServer(self)
        self.patch(syslog, "SOCKET", server.path)
        clock: Any = cast(Any, reactor)
        reports: list[str] = []
        services = Services(clock, Resolver(clock, Limits(), clock.seconds))
        facts = Host(counters=LocalCounters(), now=lambda: NOW, report=reports.append, worker_pid=7)
        harness = PluginHarness(syslog.Syslog, facility="local5", client_errors_severity="warning")
        scope = services.scope(facts, "syslog", harness.row)
        self.addCleanup(lambda: Deferred.fromCoroutine(services.close(1)))
        sender = harness.plugin.open(harness.row["config"], harness.row, scope)
        exchange = harness.respond(harness.send("GET", "/a"), 404).exchange
        harness.plugin.log(exchange, sender)
        wait_until(lambda: server.of("imuxsock"), "a line")
        (line,) = server.of("imuxsock")
        self.assertEqual(
            (line["syslogseverity-text"], line["syslogfacility-text"], line["programname"]),
            ("warning", "local5", "kong"),
        )
        self.assertEqual(uris([line]), ["/a"])
        server.kill()
        harness.plugin.log(exchange, sender)
        self.assertIn("a datagram for", reports[0])
        server.start()

        def again() -> bool:
            harness.plugin.log(exchange, sender)
            return len(server.of("imuxsock")) > 1

        wait_until(again, "a line of the daemon that was started again")
