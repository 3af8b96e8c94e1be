"""Targets that are names, in one process and in several: each address has its share and its health, and follows the records."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .support import GatewayProcess, free_port, wait_until
from .test_names import NamesTestCase, a


class TargetAddressTests(NamesTestCase):
    def balanced(self, conf: dict[str, object] | None = None, port: int = 0, **upstream: Any) -> GatewayProcess:
        """A gateway before an upstream whose one target is a.test."""
        facts = {"dns_resolver": str(self.names), "dns_error_ttl": "0.1", **(conf or {})}
        gateway = self.gateway(facts)
        gateway.create("/upstreams", name="up", **upstream)
        gateway.create("/upstreams/up/targets", target=f"a.test:{port or self.port}", weight=100)
        gateway.create("/services", name="s", host="up", retries=1)
        gateway.create("/services/s/routes", name="r", paths=["/"])
        return gateway

    def addresses(self, gateway: GatewayProcess) -> dict[str, str]:
        """The target's addresses and their health."""
        (target,) = gateway.admin("GET", "/upstreams/up/health").json["data"]
        return {each["ip"]: each["health"] for each in target["data"]["addresses"]}

    def seen(self, gateway: GatewayProcess, count: int = 12) -> Counter[str]:
        found: Counter[str] = Counter()
        for _ in range(count):
            answer = gateway.get("/")
            self.assertEqual(answer.status, 200, answer.body)
            found[answer.body.decode().split()[0]] += 1
        return found

    def test_shares_and_changes(self) -> None:
        """Each address has the target's weight; addresses that come and go are followed, in one process and in two."""
        for number in (2, 3, 4):
            self.upstream(f"127.0.0.{number}")
        for workers in ("1", "2"):
            self.names.tell(a_test__A=a("127.0.0.2", "127.0.0.3", ttl=1))
            gateway = self.balanced({"nginx_worker_processes": workers})
            wait_until(lambda: set(self.addresses(gateway)) == {"127.0.0.2", "127.0.0.3"}, "addresses")  # noqa: B023
            wait_until(lambda: len(self.seen(gateway)) == 2, "both addresses")  # noqa: B023
            if workers == "1":
                self.assertEqual(self.seen(gateway), {"127.0.0.2": 6, "127.0.0.3": 6})
            self.names.tell(a_test__A=a("127.0.0.3", "127.0.0.4", ttl=1))
            wait_until(lambda: set(self.seen(gateway)) == {"127.0.0.3", "127.0.0.4"}, "the new addresses")  # noqa: B023
            wait_until(lambda: set(self.addresses(gateway)) == {"127.0.0.3", "127.0.0.4"}, "shown")  # noqa: B023

    def test_health_of_an_address(self) -> None:
        """By hand, and by traffic: the address that fails is left out in all workers, the name's others go on."""
        for number in (2, 3):
            self.upstream(f"127.0.0.{number}")
        self.names.tell(a_test__A=a("127.0.0.2", "127.0.0.3", "127.0.0.5"))
        gateway = self.balanced(
            {"nginx_worker_processes": "2"}, healthchecks={"passive": {"unhealthy": {"tcp_failures": 1}}}
        )
        wait_until(lambda: len(self.addresses(gateway)) == 3, "addresses")
        wait_until(lambda: self.seen(gateway) and self.addresses(gateway)["127.0.0.5"] == "UNHEALTHY", "the dead one")
        switch = f"/upstreams/up/targets/a.test:{self.port}/127.0.0.2:{self.port}"
        self.assertEqual(gateway.admin("PUT", f"{switch}/unhealthy").status, 204)
        self.assertEqual(self.addresses(gateway),
                         {"127.0.0.2": "UNHEALTHY", "127.0.0.3": "HEALTHY", "127.0.0.5": "UNHEALTHY"})  # fmt: skip
        self.assertEqual(set(self.seen(gateway)), {"127.0.0.3"})
        told = gateway.admin("GET", "/upstreams/up/health?balancer_health=1").json["data"]
        self.assertEqual((told["balancer_health"], told["details"]["weight"]),
                         ("HEALTHY", {"total": 300, "available": 100, "unavailable": 200}))  # fmt: skip
        self.assertEqual(gateway.admin("PUT", switch.replace("127.0.0.2", "127.0.0.9") + "/healthy").status, 404)
        self.assertEqual(gateway.admin("PUT", f"{switch}/healthy").status, 204)
        wait_until(lambda: set(self.seen(gateway)) == {"127.0.0.2", "127.0.0.3"}, "it is back")

    def test_srv_records(self) -> None:
        """They bring ports and weights, and with use_srv_name the Host header."""
        port = free_port()
        self.upstream("127.0.0.2")
        self.upstream("127.0.0.3", port)
        self.names.tell(
            a_test__SRV={"records": [
                ["a.test", "SRV", 60, 1, 1, self.port, "x.a.test"], ["a.test", "SRV", 60, 1, 2, port, "y.a.test"],
            ]},
            x_a_test__A={"records": [["x.a.test", "A", 60, "127.0.0.2"]]},
            y_a_test__A={"records": [["y.a.test", "A", 60, "127.0.0.3"]]},
        )  # fmt: skip
        for by_name in (False, True):
            gateway = self.balanced(port=1, use_srv_name=by_name)
            wait_until(lambda: len(self.addresses(gateway)) == 2, "addresses")  # noqa: B023
            self.assertEqual(self.seen(gateway), {"127.0.0.2": 4, "127.0.0.3": 8})
            hosts = {gateway.get("/").body.decode().split()[2] for _ in range(6)}
            names = ("x.a.test", "y.a.test") if by_name else ("a.test", "a.test")
            self.assertEqual(hosts, {f"{names[0]}:{self.port}", f"{names[1]}:{port}"})

    def test_no_address(self) -> None:
        """A name that is gone has no peers, and is shown as DNS_ERROR; one that comes back has them again."""
        self.upstream("127.0.0.2")
        self.names.tell(b_test__A=a("127.0.0.2"))
        gateway = self.balanced({"dns_not_found_ttl": "1", "dns_stale_ttl": "0"})

        def health() -> str:
            (target,) = gateway.admin("GET", "/upstreams/up/health").json["data"]
            return str(target["health"])

        wait_until(lambda: health() == "DNS_ERROR", "the error")
        self.assertEqual(gateway.get("/").status, 503)
        self.names.tell(a_test__A=a("127.0.0.2", ttl=1))
        wait_until(lambda: gateway.get("/").status == 200, "answers")
        self.assertEqual(self.seen(gateway), {"127.0.0.2": 12})
