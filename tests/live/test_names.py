"""Names of upstreams, asked of a name server that changes, fails, truncates, delays, lies and is silent."""

from __future__ import annotations

import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Any

from .support import ROOT, GatewayProcess, LiveTestCase, Process, free_port, request, wait_until


class NameServer:
    """A name server of a test."""

    def __init__(self, case: LiveTestCase, address: str = "127.0.0.1") -> None:
        self.address, self.port, self.control = address, free_port(), free_port()
        words = [sys.executable, "-m", "tests.live.name_server", address, str(self.port), str(self.control)]
        self.process = case.start(words, "name-server", env={"PYTHONPATH": str(ROOT)})
        case.wait_for_port(self.control, self.process)
        self.zone: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"

    def tell(self, **zone: Any) -> None:
        """Have it answer by this table, and forget what was asked; ``a_test__A`` stands for ``A a.test``."""
        self.zone = {}
        for name, found in zone.items():
            host, _, kind = name.partition("__")
            self.zone[f"{kind} {host.replace('__', '.').replace('_', '.')}"] = found
        request(self.control, "POST", "/zone", json=self.zone)

    def queries(self) -> list[dict[str, Any]]:
        return request(self.control, "GET", "/asked").json  # type: ignore[no-any-return]

    def asked(self) -> list[str]:
        return [each["question"] for each in self.queries()]


def a(*addresses: str, ttl: int = 60, **behaviour: Any) -> dict[str, Any]:
    """Addresses of a.test."""
    return {"records": [["a.test", "A", ttl, each] for each in addresses], **behaviour}


class NamesTestCase(LiveTestCase):
    """A gateway whose service is a name."""

    def setUp(self) -> None:
        super().setUp()
        self.names = NameServer(self)
        self.port = free_port()

    def upstream(self, address: str, port: int = 0) -> Process:  # type: ignore[override]
        """Something that listens at one address of this machine."""
        words = [sys.executable, str(ROOT / "tests" / "live" / "address_server.py"), address, str(port or self.port)]
        process = self.start(words, f"upstream-{address}")

        def listening() -> bool:
            socket.create_connection((address, port or self.port), 1).close()
            return True

        wait_until(listening, f"an upstream at {address}")
        return process

    def serving(
        self,
        conf: Mapping[str, object] | None = None,
        host: str = "a.test",
        env: Mapping[str, str] | None = None,
        **service: Any,
    ) -> GatewayProcess:
        gateway = self.gateway({"dns_resolver": str(self.names), "dns_error_ttl": "0.1", **(conf or {})}, env=env)
        gateway.create("/services", name="s", host=host, port=self.port, **service)
        gateway.create("/services/s/routes", name="r", paths=["/"])
        return gateway

    def reached(self, gateway: GatewayProcess) -> str:
        """Address that a request reached."""
        answer = gateway.get("/")
        self.assertEqual(answer.status, 200, answer)
        return answer.body.decode().split()[0]

    def failed(self, gateway: GatewayProcess, status: int, message: str) -> None:
        answer = gateway.get("/")
        self.assertEqual((answer.status, answer.json["message"]), (status, message))


class AddressTests(NamesTestCase):
    def test_changes_under_load(self) -> None:
        """Addresses come and go while clients ask; no request fails, and soon all go to the new ones."""
        for number in (2, 3, 4):
            self.upstream(f"127.0.0.{number}")
        self.names.tell(a_test__A=a("127.0.0.2", "127.0.0.3", ttl=1))
        gateway = self.serving()
        over, seen, bad = Event(), Counter[str](), list[Any]()

        def ask() -> None:
            while not over.is_set():
                answer = gateway.get("/")
                if answer.status == 200:
                    seen[answer.body.decode().split()[0]] += 1
                else:
                    bad.append(answer)

        threads = [Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: set(seen) == {"127.0.0.2", "127.0.0.3"}, "both addresses")
            for addresses in (("127.0.0.4",), ("127.0.0.2", "127.0.0.4"), ("127.0.0.3",)):
                self.names.tell(a_test__A=a(*addresses, ttl=1))

                def only_these() -> bool:
                    seen.clear()
                    wait_until(lambda: seen.total() > 20, "requests")
                    return set(seen) == set(addresses)  # noqa: B023 - called within the turn

                wait_until(only_these, f"only {addresses}")
        finally:
            over.set()
            for thread in threads:
                thread.join()
        self.assertEqual(bad, [])

    def test_moved(self) -> None:
        """An upstream that is somewhere else now: the request that finds out waits for the new address, and does not fail."""
        former = self.upstream("127.0.0.2")
        self.names.tell(a_test__A=a("127.0.0.2", ttl=1))
        gateway = self.serving()
        self.assertEqual(self.reached(gateway), "127.0.0.2")
        former.kill()
        self.upstream("127.0.0.3")
        self.names.tell(a_test__A=a("127.0.0.3", ttl=1, delay=0.5))
        time.sleep(1.5)  # the answer is too old by now
        self.assertEqual(self.reached(gateway), "127.0.0.3")

    def test_one_query_for_all(self) -> None:
        """Many clients at once, a server that takes its time: one question of each kind, each from another port."""
        self.upstream("127.0.0.2")
        self.names.tell(a_test__A=a("127.0.0.2", delay=1), a_test__SRV={"delay": 1})
        gateway = self.serving()
        found: list[int] = []
        threads = [Thread(target=lambda: found.append(gateway.get("/").status)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, [200] * 20)
        self.assertEqual(self.names.asked(), ["SRV a.test", "A a.test"])
        one, two = self.names.queries()
        self.assertNotEqual((one["port"], one["id"]), (two["port"], two["id"]))

    def test_held_and_renewed(self) -> None:
        """The answer is used for its time, and then on while the new one is under way, however long that takes."""
        self.upstream("127.0.0.2")
        self.names.tell(a_test__A=a("127.0.0.2", ttl=2))
        gateway = self.serving()
        self.reached(gateway)
        self.names.tell(a_test__A=a("127.0.0.2", ttl=2, delay=1.5))
        for _ in range(20):
            self.reached(gateway)

        def renewed() -> bool:
            self.reached(gateway)
            return "A a.test" in self.names.asked()

        wait_until(renewed, "a renewal")

    def test_old_addresses_hold_on(self) -> None:
        """While servers fail in any way; not for ever, and not when the name is gone."""
        self.upstream("127.0.0.2")
        self.names.tell(a_test__A=a("127.0.0.2", ttl=1))
        gateway = self.serving()
        self.reached(gateway)
        faults: list[dict[str, Any]] = [{"code": "SERVFAIL"}, {"code": "REFUSED"}, {"records": []}, {"drop": True}]
        for behaviour in faults:
            self.names.tell(a_test__A=behaviour)

            def still() -> bool:
                self.reached(gateway)
                return "A a.test" in self.names.asked()

            wait_until(still, f"questions with {behaviour}")
            self.reached(gateway)
        self.names.tell(b_test__A=a("127.0.0.2"))
        wait_until(lambda: gateway.get("/").status == 503, "503")

    def test_lies(self) -> None:
        """Answers with wrong ids are not believed; what is cut short comes over TCP."""
        self.upstream("127.0.0.2")
        self.names.tell(a_test__A=a("127.0.0.2", forged=True))
        self.assertEqual(self.reached(self.serving()), "127.0.0.2")
        self.names.tell(a_test__A=a("127.0.0.2", truncated=True))
        self.assertEqual(self.reached(self.serving()), "127.0.0.2")
        self.assertEqual([each["tcp"] for each in self.names.queries()], [False, False, True])

    def test_other_kinds(self) -> None:
        """Aliases; kinds in another order; search domains and options of the environment."""
        self.upstream("127.0.0.2")
        alias = {"records": [["w.test", "CNAME", 60, "a.test"], ["a.test", "A", 60, "127.0.0.2"]]}
        self.names.tell(w_test__A=alias)
        self.assertEqual(self.reached(self.serving({"dns_order": "A"}, "w.test")), "127.0.0.2")
        self.assertEqual(self.names.asked(), ["A w.test"])
        self.names.tell(a_test__A=a("127.0.0.2"))
        gateway = self.serving({"dns_order": "AAAA,A"}, "a", env={"LOCALDOMAIN": "none.test test"})
        self.assertEqual(self.reached(gateway), "127.0.0.2")
        self.assertEqual(self.names.asked(), ["AAAA a.none.test", "AAAA a.test", "AAAA a", "A a.none.test", "A a.test"])


class ServiceTests(NamesTestCase):
    def test_ports_and_weights(self) -> None:
        """SRV records of a service's host: their ports, their weights, the first priority only; the Host header has the port."""
        ports = [free_port(), free_port(), free_port()]
        for port in ports[:2]:
            self.upstream("127.0.0.2", port)
        records = [
            ["s.test", "SRV", 60, 1, 3, ports[0], "a.test"],
            ["s.test", "SRV", 60, 1, 1, ports[1], "a.test"],
            ["s.test", "SRV", 60, 2, 9, ports[2], "a.test"],
        ]
        self.names.tell(s_test__SRV={"records": records}, a_test__A=a("127.0.0.2"))
        gateway = self.serving(host="s.test")
        answers = [gateway.get("/").body.decode().split() for _ in range(40)]
        self.assertEqual(Counter(port for _, port, _ in answers), {str(ports[0]): 30, str(ports[1]): 10})
        self.assertEqual({host for _, _, host in answers}, {f"s.test:{port}" for port in ports[:2]})
        self.assertEqual(self.names.asked(), ["SRV s.test", "A a.test"])


class FaultTests(NamesTestCase):
    """What clients are told, and what the log says."""

    def test_absent(self) -> None:
        """NXDOMAIN and no records: 503, remembered for dns_not_found_ttl."""
        self.names.tell(b_test__A=a("127.0.0.2"))
        gateway = self.serving({"dns_not_found_ttl": "600"})
        self.failed(gateway, 503, "name resolution failed")
        self.names.tell(a_test__TXT={})
        self.failed(gateway, 503, "name resolution failed")
        self.assertEqual(self.names.asked(), [])
        line = f"name resolution failed for a.test: dns server error: 3 name error (CNAME a.test, {self.names})"
        wait_until(lambda: line in gateway.log(), "a line")
        gateway = self.serving()
        self.failed(gateway, 503, "name resolution failed")
        self.assertIn("dns client error: 101 empty record received", gateway.log())

    def test_failures(self) -> None:
        """What nobody can say: 500 with the reason, asked again a moment later."""
        for code, why in (("SERVFAIL", "2 server failure"), ("REFUSED", "5 refused")):
            self.names.tell(**{f"a_test__{kind}": {"code": code} for kind in ("SRV", "A", "CNAME")})
            gateway = self.serving()
            text = f"failed the initial dns/balancer resolve for 'a.test' with: dns server error: {why}"
            self.failed(gateway, 500, text)
        self.upstream("127.0.0.2")
        self.names.tell(a_test__A=a("127.0.0.2"))
        wait_until(lambda: gateway.get("/").status == 200, "an answer")

    def test_silent_servers(self) -> None:
        """One that is silent: the other is asked. All of them: 500, and nothing waits for ever."""
        self.upstream("127.0.0.2")
        silent = NameServer(self)
        silent.tell(a_test__SRV={"drop": True}, a_test__A={"drop": True})
        self.names.tell(a_test__A=a("127.0.0.2"))
        options = {"RES_OPTIONS": "timeout:1 attempts:2"}
        gateway = self.serving({"dns_resolver": f"{silent}, {self.names}"}, env=options)
        self.assertEqual(self.reached(gateway), "127.0.0.2")
        self.assertEqual(self.names.asked(), ["SRV a.test", "A a.test"])
        self.assertEqual(silent.asked(), ["SRV a.test"])  # the one that answers is asked first from then on
        gateway = self.serving({"dns_resolver": str(silent)}, env=options)
        text = "failed the initial dns/balancer resolve for 'a.test' with: the name server does not answer"
        self.failed(gateway, 500, text)
        self.names.process.kill()
        gateway = self.serving(env=options)
        answer = gateway.get("/")
        self.assertEqual(answer.status, 500)
        self.assertIn("connection refused", answer.json["message"])

    def test_absurd_names(self) -> None:
        """Nobody is asked about a name that cannot be."""
        gateway = self.serving(host=f"{'x' * 64}.test")
        self.failed(gateway, 503, "name resolution failed")
        self.assertEqual(self.names.asked(), [])

    def test_stop_while_asking(self) -> None:
        """A gateway that waits for a name server still stops."""
        self.names.tell(a_test__SRV={"drop": True})
        gateway = self.serving({"nginx_main_worker_shutdown_timeout": "1s"})
        client = socket.create_connection(("127.0.0.1", gateway.proxy_port))
        self.addCleanup(client.close)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(self.names.asked, "a question")
        self.assertEqual(gateway.stop(), 0)
        self.assertNotIn("Unhandled", gateway.log())


class LocalTests(NamesTestCase):
    """Names that no server is asked for."""

    def test_hosts_file(self) -> None:
        """What is in it, and what it is changed to while the gateway runs."""
        for number in (2, 3):
            self.upstream(f"127.0.0.{number}")
        path = Path(self.folder(), "hosts")
        path.write_text("127.0.0.2 a.test\n", encoding="utf-8")
        gateway = self.serving({"dns_hostsfile": path})
        self.assertEqual(self.reached(gateway), "127.0.0.2")
        path.write_text("127.0.0.3 a.test # another\n", encoding="utf-8")
        wait_until(lambda: self.reached(gateway) == "127.0.0.3", "the new address")
        self.assertEqual(self.names.asked(), [])

    def test_localhost_and_upstreams(self) -> None:
        """localhost; the name of an Upstream; an address."""
        self.upstream("127.0.0.1")
        gateway = self.serving(host="localhost")
        self.assertEqual(self.reached(gateway), "127.0.0.1")
        gateway.create("/upstreams", name="up.test")
        gateway.create("/upstreams/up.test/targets", target=f"127.0.0.1:{self.port}")
        for host in ("up.test", "127.0.0.1"):
            self.assertEqual(gateway.admin("PATCH", "/services/s", json={"host": host}).status, 200)
            wait_until(lambda: self.reached(gateway) == "127.0.0.1", host)
        self.assertEqual(self.names.asked(), [])

    def test_system(self) -> None:
        """``dns_client = system``: the system's resolver, as everything on this machine has it."""
        self.upstream("127.0.0.1")
        gateway = self.serving({"dns_client": "system"}, host="localhost")
        self.assertEqual(self.reached(gateway), "127.0.0.1")
        gateway.create("/services", name="t", host="a.test", port=self.port)
        gateway.create("/services/t/routes", name="t", paths=["/t"])
        self.names.tell(a_test__A=a("127.0.0.1"))
        answer = gateway.get("/t")
        self.assertEqual((answer.status, answer.json["message"]), (503, "name resolution failed"))
        self.assertEqual(self.names.asked(), [])

    def test_targets(self) -> None:
        """The target of an Upstream that is a name, in workers, and health checks of it, ask the same server."""
        self.upstream("127.0.0.2")
        self.names.tell(a_test__A=a("127.0.0.2"))
        gateway = self.serving({"nginx_worker_processes": "2"}, host="up")
        active = {"http_path": "/", "healthy": {"interval": 0.2, "successes": 1}}
        gateway.create("/upstreams", name="up", healthchecks={"active": active})
        gateway.create("/upstreams/up/targets", target=f"a.test:{self.port}")
        wait_until(lambda: gateway.get("/").status == 200, "an answer")

        def healthy() -> bool:
            rows = gateway.admin("GET", "/upstreams/up/health").json["data"]
            return bool(rows[0]["health"] == "HEALTHY")

        wait_until(healthy, "HEALTHY")
