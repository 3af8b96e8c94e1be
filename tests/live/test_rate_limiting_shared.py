"""rate-limiting over several processes, nodes and gateways: in SQLite, PostgreSQL, and a real Valkey that is harmed."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests.live.support import PATIENCE, Answer, GatewayProcess, LiveTestCase, wait_until
from tests.live.test_postgres_nodes import NodesTestCase
from tests.live.valkey_server import ValkeyServer

UNEXPECTED = "An unexpected error occurred"


class _Limited(LiveTestCase):
    """Gateways with a limited route ``/limited`` and a plain one, ``/free``."""

    def limited(self, gateway: GatewayProcess, **config: Any) -> None:
        port = self.upstream("echo")
        gateway.route("/free", f"http://127.0.0.1:{port}")
        gateway.route("/limited", f"http://127.0.0.1:{port}")
        self.limit(gateway, **config)

    def limit(self, gateway: GatewayProcess, **config: Any) -> None:
        gateway.create("/plugins", name="rate-limiting", config={"limit_by": "ip", **config})

    @staticmethod
    def flood(gateways: list[GatewayProcess], count: int, target: str = "/limited") -> list[Answer]:
        """Many requests at once, dealt to the gateways."""
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(lambda at: gateways[at % len(gateways)].get(target), range(count)))

    def statuses(self, answers: list[Answer]) -> dict[int, int]:
        return dict(Counter(each.status for each in answers))


class ClusterTests(_Limited):
    """Policy cluster, in SQLite."""

    def test_two_workers(self) -> None:
        """Together they let through what fits, however many decide at once; what is refused is not counted."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        self.limited(gateway, policy="cluster", year=15)
        self.assertEqual(self.statuses(self.flood([gateway], 40)), {200: 15, 429: 25})
        answer = gateway.get("/limited")
        self.assertEqual((answer.status, answer.headers["X-RateLimit-Remaining-Year"]), (429, "0"))
        self.assertEqual(answer.json["message"], "API rate limit exceeded")

    def test_counts_outlive_the_node(self) -> None:
        """Unlike those in memory."""
        gateway = self.gateway()
        self.limited(gateway, policy="cluster", year=3)
        self.assertEqual(self.statuses(self.flood([gateway], 3)), {200: 3})
        gateway.stop()
        gateway.start()
        self.assertEqual(gateway.get("/limited").status, 429)


class ClusterNodesTests(_Limited, NodesTestCase):
    """Policy cluster, in PostgreSQL."""

    def test_two_nodes(self) -> None:
        """Nodes of one database count together."""
        conf = self.database()
        nodes = [self.gateway(conf), self.gateway({**conf, "nginx_worker_processes": 2})]
        self.limited(nodes[0], policy="cluster", year=12)
        wait_until(lambda: nodes[1].get("/free").status == 200, "the second node has the routes")
        wait_until(lambda: "X-RateLimit-Limit-Year" in nodes[1].get("/free").headers, "the second node has the plugin")
        spent = 12 - int(nodes[0].get("/free").headers["X-RateLimit-Remaining-Year"])
        answers = self.statuses(self.flood(nodes, 40))
        self.assertEqual(answers, {200: 12 - spent, 429: 40 - (12 - spent)})

    def test_database_away(self) -> None:
        """As `fault_tolerant` says; counted again when it is back."""
        server = self.own_server()
        gateway = self.gateway(self.database(server, pg_timeout=1000))
        self.limited(gateway, policy="cluster", year=1)
        gateway.get("/limited")
        self.assertEqual(gateway.get("/limited").status, 429)
        server.stop()
        answer = gateway.get("/limited")
        self.assertEqual(answer.status, 200)
        self.assertNotIn("X-RateLimit-Limit-Year", answer.headers)
        server.start()
        wait_until(lambda: gateway.get("/limited").status == 429, "the database is used again")


class RedisTests(_Limited):
    """Policy redis."""

    def setUp(self) -> None:
        self.server = ValkeyServer(self.folder(), "--requirepass", "s3cret").start()
        self.addCleanup(self.server.kill)

    def redis(self, **more: Any) -> dict[str, Any]:
        """Configuration of the plugin."""
        redis = {"host": "127.0.0.1", "port": self.server.port, "password": "s3cret", "timeout": 500}
        return {"policy": "redis", "redis": redis, **more}

    def ask(self, *words: str) -> list[bytes]:
        """The lines of the server's answer to a command."""
        with socket.create_connection(("127.0.0.1", self.server.port), PATIENCE) as connection:
            connection.sendall(f"AUTH s3cret\r\n{' '.join(words)}\r\nQUIT\r\n".encode())
            data = b""
            while more := connection.recv(65536):
                data += more
        return data.split(b"\r\n")[1:-2]

    def counts(self) -> Mapping[str, int]:
        """What stands in the server: key to number."""
        keys = [line.decode() for line in self.ask("KEYS", "ratelimit:*") if line.startswith(b"ratelimit:")]
        return {key: int(self.ask("GET", key)[1]) for key in keys}

    def test_two_gateways(self) -> None:
        """Gateways that know nothing of each other count together, with Kong's keys."""
        gateways = [self.gateway(), self.gateway({"nginx_worker_processes": 2})]
        for each in gateways:
            self.limited(each, **self.redis(year=15))
        self.assertEqual(self.statuses(self.flood(gateways, 40)), {200: 15, 429: 25})
        ((key, count),) = self.counts().items()
        nobody = "00000000-0000-0000-0000-000000000000"
        self.assertRegex(key, rf"\Aratelimit:{nobody}:{nobody}:127\.0\.0\.1:\d+:year\Z")
        self.assertEqual(count, 40, "refused requests, too")
        self.assertEqual(self.ask("TTL", key)[0][:4], b":315")

    def test_handed_over(self) -> None:
        """With a sync_rate each learns of the other within it."""
        one, two = self.gateway(), self.gateway()
        for each in (one, two):
            self.limited(each, **self.redis(year=6, sync_rate=0.05))
        for _ in range(4):
            self.assertEqual(one.get("/limited").status, 200)
        wait_until(lambda: list(self.counts().values()) == [4], "the first one's requests in the server")
        self.assertEqual(two.get("/limited").headers["X-RateLimit-Remaining-Year"], "1")
        self.assertEqual(two.get("/limited").status, 200)
        wait_until(lambda: one.get("/limited").status == 429, "the second one's requests known")

    def test_handed_over_at_the_end(self) -> None:
        """What was counted since the last time goes to the server when the gateway stops."""
        gateway = self.gateway()
        self.limited(gateway, **self.redis(year=6, sync_rate=3600))
        for _ in range(4):
            gateway.get("/limited")
        self.assertEqual(list(self.counts().values()), [1])
        gateway.stop()
        self.assertEqual(list(self.counts().values()), [4])

    def test_killed(self) -> None:
        """Requests pass, or are answered 500; nothing is logged for each; it is used again when it is back."""
        tolerant, strict = self.gateway(), self.gateway()
        self.limited(tolerant, **self.redis(year=1000))
        self.limited(strict, **self.redis(year=1000, fault_tolerant=False))
        for each in (tolerant, strict):
            self.assertIn("X-RateLimit-Limit-Year", each.get("/limited").headers)
        self.server.kill()
        answers = self.flood([tolerant], 30)
        self.assertEqual(self.statuses(answers), {200: 30})
        self.assertFalse([each for each in answers if "X-RateLimit-Limit-Year" in each.headers])
        answers = self.flood([strict], 30)
        self.assertEqual(self.statuses(answers), {500: 30})
        self.assertEqual({each.json["message"] for each in answers}, {UNEXPECTED})
        for each in (tolerant, strict):
            self.assertEqual(each.log().count("no counts by policy redis"), 1)
            self.assertLess(each.log().count("redis"), 8)
        self.server.start()
        wait_until(lambda: "X-RateLimit-Limit-Year" in tolerant.get("/limited").headers, "Valkey is used again")
        wait_until(lambda: strict.get("/limited").status == 200, "Valkey is used again")

    def test_frozen(self) -> None:
        """A request waits as long as `timeout` says; others do not wait with it."""
        gateway = self.gateway()
        port = self.upstream("echo")
        for path in ("/free", "/limited"):
            gateway.route(path, f"http://127.0.0.1:{port}")
        (route,) = [each for each in gateway.admin("GET", "/routes").json["data"] if each["paths"] == ["/limited"]]
        config = self.redis(year=1000, limit_by="ip")
        config["redis"]["timeout"] = 3_600_000
        plugin = gateway.create(f"/routes/{route['id']}/plugins", name="rate-limiting", config=config)
        self.assertEqual(gateway.get("/limited").headers["X-RateLimit-Remaining-Year"], "999")
        self.server.freeze()
        with ThreadPoolExecutor(1) as pool:
            waiting: Future[Answer] = pool.submit(gateway.get, "/limited")
            for _ in range(20):
                self.assertEqual(gateway.get("/free").status, 200)
            self.assertFalse(waiting.done(), "it waits for the server")
            self.server.thaw()
            self.assertEqual(waiting.result().headers["X-RateLimit-Remaining-Year"], "998")
        self.server.freeze()
        config["redis"]["timeout"] = 200
        gateway.admin("PATCH", f"/plugins/{plugin['id']}", json={"config": config})
        self.assertEqual(gateway.get("/limited").status, 200)
        self.assertNotIn("X-RateLimit-Remaining-Year", gateway.get("/limited").headers)

    def test_wrong_password(self) -> None:
        """Nothing is counted; the log says why and what to do about it, once for many requests."""
        gateway = self.gateway()
        config = self.redis(year=1, fault_tolerant=False)
        config["redis"]["password"] = "wrong"
        self.limited(gateway, **config)
        (plugin,) = gateway.admin("GET", "/plugins").json["data"]
        self.assertEqual([gateway.get("/limited").status for _ in range(50)], [500] * 50)
        config["fault_tolerant"] = True
        gateway.admin("PATCH", f"/plugins/{plugin['id']}", json={"config": config})
        self.assertEqual([gateway.get("/limited").status for _ in range(50)], [200] * 50)
        lines = [line for line in gateway.log().splitlines() if "WRONGPASS" in line]
        self.assertEqual(len([line for line in lines if "requests are answered 500" in line]), 1)
        self.assertEqual(len([line for line in lines if "requests pass uncounted" in line]), 1)
        self.assertEqual([line for line in lines if "correct redis.username and redis.password" not in line], [])
        self.assertLessEqual(len(lines), 4)
        self.assertNotIn("s3cret", gateway.log())

    def test_refused_configuration(self) -> None:
        """Cluster and sentinel are no fields of this plugin in Kong 3.9."""
        gateway = self.gateway()
        for more in ({"cluster_nodes": [{"ip": "127.0.0.1", "port": 1}]}, {"sentinel_master": "m"}):
            config = self.redis(year=1)
            config["redis"] |= more
            answer = gateway.admin("POST", "/plugins", json={"name": "rate-limiting", "config": config})
            self.assertEqual(answer.status, 400)
            self.assertEqual(answer.json["fields"]["config"]["redis"], {next(iter(more)): "unknown field"})
