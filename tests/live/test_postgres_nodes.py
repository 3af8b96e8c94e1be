"""Gateways on one PostgreSQL database: real processes, a real server that goes away, comes back and is attacked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from itertools import count
from pathlib import Path
from typing import Any

from kongtwist.storage.postgres.postgres_migrations import PostgresMigrations
from kongtwist.storage.postgres.sql_connections import Connection
from tests.live import test_admin_recorded
from tests.live.pki import authority
from tests.live.postgres_server import PASSWORD, PostgresServer, shared_server
from tests.live.support import PATIENCE, ROOT, Answer, GatewayProcess, LiveTestCase, wait_until


class NodesTestCase(LiveTestCase):
    """Gateways on tables of a test's own."""

    def database(self, server: PostgresServer | None = None, **more: object) -> dict[str, object]:
        """Properties for new, empty tables on a server."""
        self.server = server or shared_server()
        self.settings = self.server.settings(schema=self.server.new_schema())
        PostgresMigrations(self.settings, self.fail).bootstrap()
        return self.server.conf(pg_schema=self.settings.schema, **more)

    def own_server(self, **options: Any) -> PostgresServer:
        """A server that only this test uses, to do it harm."""
        server = PostgresServer(**options)
        self.addCleanup(server.discard)
        return server

    def names(self) -> set[str]:
        """Names of the services in the tables."""
        connection = Connection(self.settings)
        try:
            rows = connection.execute("SELECT document->>'name' FROM kongtwist_rows WHERE entity = 'services'")
            return {name for (name,) in rows}
        finally:
            connection.close()

    @staticmethod
    def reachable(gateway: GatewayProcess) -> bool:
        """What /status says of the database."""
        return bool(gateway.admin("GET", "/status").json["database"]["reachable"])

    @staticmethod
    def service(gateway: GatewayProcess, name: str) -> Answer:
        """Create a service."""
        return gateway.admin("POST", "/services", json={"name": name, "url": "http://127.0.0.1:1"})


class SharingTests(NodesTestCase):
    """Three nodes."""

    def test_three_nodes(self) -> None:
        """A route made on any of them serves on all; what is deleted is gone everywhere."""
        conf = self.database()
        nodes = [self.gateway(conf) for _ in range(3)]
        port = self.upstream("echo")
        for at, node in enumerate(nodes):
            route = node.route(f"/r{at}", f"http://127.0.0.1:{port}")
            for other in nodes:
                wait_until(lambda: other.get(f"/r{at}/x").status == 200, f"route {at}")  # noqa: B023 - called at once
            following = nodes[(at + 1) % 3]
            self.assertEqual(following.admin("DELETE", f"/routes/{route['id']}").status, 204)
            for other in nodes:
                wait_until(lambda: other.get(f"/r{at}/x").status == 404, f"route {at} gone")  # noqa: B023

    def test_workers(self) -> None:
        """Worker processes of another node serve it too."""
        conf = self.database()
        one, two = self.gateway(conf), self.gateway({**conf, "nginx_worker_processes": 2})
        one.route("/r", f"http://127.0.0.1:{self.upstream('echo')}")
        wait_until(lambda: all(two.get("/r/x").status == 200 for _ in range(10)), "the route in both workers")

    def test_purges(self) -> None:
        """What one node purges from proxy-cache, all workers of the other forget, too; also where it kept nothing itself."""
        conf = {**self.database(), "nginx_worker_processes": 2}
        one, two = self.gateway(conf), self.gateway(conf)
        one.route("/r", f"http://127.0.0.1:{self.upstream('echo')}")
        types = ["application/json; charset=utf-8"]
        one.create("/plugins", name="proxy-cache", config={"strategy": "memory", "content_type": types})
        wait_until(lambda: "X-Cache-Status" in two.get("/r").headers, "the plugin on the other node")
        numbers = count()

        def told() -> set[str]:
            """What the other node's workers answer: for whom each answer was made."""
            answers = [two.get("/r", headers={"X-Made-For": str(next(numbers))}) for _ in range(12)]
            return {dict(each.json["headers"]).get("X-Made-For", "") for each in answers}

        key = two.get("/r", headers={"X-Made-For": "-"}).headers["X-Cache-Key"]
        for path, status in ((f"/proxy-cache/{key}", 404), ("/proxy-cache", 204)):
            before = told()
            wait_until(lambda: told() <= before, "answers that are kept")  # noqa: B023 - called at once
            self.assertEqual(one.admin("DELETE", path).status, status)
            wait_until(lambda: not told() & before, "answers of all workers made anew")  # noqa: B023

    def test_writers_on_all_nodes(self) -> None:
        """Of writers of one name one is answered 201, the others 409; no row is lost, none is there twice."""
        conf = self.database()
        nodes = [self.gateway(conf) for _ in range(3)]
        with ThreadPoolExecutor(9) as crowd:
            for at in range(8):
                statuses = list(crowd.map(lambda node: self.service(node, f"n{at}").status, nodes * 3))  # noqa: B023
                self.assertEqual(sorted(statuses), [201] + [409] * 8)
            own = list(crowd.map(lambda at: self.service(nodes[at % 3], f"own{at}").status, range(60)))
        self.assertEqual(set(own), {201})
        self.assertEqual(self.names(), {f"n{at}" for at in range(8)} | {f"own{at}" for at in range(60)})
        for node in nodes:
            wait_until(lambda: len(node.admin("GET", "/services?size=1000").json["data"]) == 68, "all rows")  # noqa: B023

    def test_requests_that_go_to_any_node(self) -> None:
        """Behind a load balancer each request may come to another node: it finds what the one before was acknowledged."""
        conf = self.database()
        one, two = self.gateway(conf), self.gateway(conf)
        for at in range(20):
            service = one.create("/services", name=f"s{at}", url="http://127.0.0.1:1")
            route = two.create(f"/services/s{at}/routes", name=f"r{at}", paths=[f"/{at}"])
            self.assertEqual(one.admin("GET", f"/services/s{at}/routes/r{at}").json, route)
            self.assertEqual(two.admin("PATCH", f"/routes/r{at}", json={"tags": ["x"]}).status, 200)
            plugin = one.create(f"/routes/r{at}/plugins", name="key-auth")
            self.assertEqual(two.admin("DELETE", f"/plugins/{plugin['id']}").status, 204)
            self.assertEqual(one.admin("DELETE", f"/routes/r{at}").status, 204)
            self.assertEqual(two.admin("DELETE", f"/services/{service['id']}").status, 204)
            self.assertEqual(self.names(), set())

    def test_import_and_export(self) -> None:
        """``kongtwist config db_import`` writes to the database of running nodes, which have it at once; db_export reads it."""
        gateway = self.gateway(self.database())
        gateway.create("/services", name="before", host="h")
        folder = self.folder()
        text = "_format_version: '3.0'\nservices:\n- {name: imported, host: h, routes: [{name: r, paths: [/r]}]}\n"
        Path(folder, "in.yml").write_text(text)
        words = [
            sys.executable,
            "-c",
            "import sys; from kongtwist.commands.main import main; sys.exit(main())",
            "config",
        ]
        for action, file in (("db_import", "in.yml"), ("db_export", "out.yml")):
            given = [*words, action, os.path.join(folder, file), "-c", os.path.join(gateway.folder, "kong.conf")]
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(given, capture_output=True, text=True, env=env, timeout=PATIENCE)
            self.assertEqual(done.returncode, 0, done.stderr)
        wait_until(lambda: gateway.admin("GET", "/services/imported/routes/r").status == 200, "what was imported")
        exported = Path(folder, "out.yml").read_text()
        self.assertIn("imported", exported)
        self.assertIn("before", exported)

    def test_password_is_not_shown(self) -> None:
        """Neither by the Admin API nor in a log, whatever happens."""
        server = self.own_server()
        gateway = self.gateway({**self.database(server), "log_level": "debug"})
        self.assertEqual(gateway.admin("GET", "/").json["configuration"]["pg_password"], "******")
        server.kill()
        wait_until(lambda: not self.reachable(gateway), "the loss")
        shown = [gateway.report(), str(self.service(gateway, "a").body)]
        for each in shown:
            self.assertNotIn(PASSWORD, each)
        self.assertIn("traffic goes on", gateway.log())


class LossTests(NodesTestCase):
    """The server goes away and comes back."""

    def test_away_and_back(self) -> None:
        """Traffic goes on, writes are answered 503, /status says so; back again, all nodes are in step."""
        server = self.own_server()
        conf = self.database(server)
        nodes = [self.gateway(conf) for _ in range(2)]
        nodes[0].route("/r", f"http://127.0.0.1:{self.upstream('echo')}")
        wait_until(lambda: nodes[1].get("/r/x").status == 200, "the route")
        server.kill()
        for node in nodes:
            wait_until(lambda: not self.reachable(node), "the loss")  # noqa: B023
            answer = self.service(node, "refused")
            self.assertEqual((answer.status, answer.json["name"]), (503, "database error"))
            self.assertEqual(node.get("/r/x").status, 200)
            self.assertEqual(len(node.admin("GET", "/routes").json["data"]), 1)
        server.start()
        for node in nodes:
            wait_until(lambda: self.reachable(node), "the database")  # noqa: B023
        self.assertEqual(self.service(nodes[0], "after").status, 201)
        wait_until(lambda: nodes[1].admin("GET", "/services/after").status == 200, "the new service")
        self.assertEqual(self.names(), {"s-r", "after"})
        for node in nodes:
            told = [line for line in node.log().splitlines() if "[kongtwist.storage]" in line]
            self.assertEqual((len(told), "refused" in told[0], "is back" in told[-1]), (2, True, True), told)

    def test_server_that_stands_still(self) -> None:
        """A write under way is answered 503 in time, later ones at once, and traffic goes on."""
        server = self.own_server()
        gateway = self.gateway(self.database(server, pg_timeout=3000))
        gateway.route("/r", f"http://127.0.0.1:{self.upstream('echo')}")
        server.freeze()
        self.assertEqual(self.service(gateway, "frozen").status, 503)
        self.assertFalse(self.reachable(gateway))
        self.assertEqual([self.service(gateway, f"at-once{at}").status for at in range(20)], [503] * 20)
        self.assertEqual(gateway.get("/r/x").status, 200)
        server.thaw()
        wait_until(lambda: self.reachable(gateway), "the database")
        self.assertEqual(self.service(gateway, "after").status, 201)
        listed = {row["name"] for row in gateway.admin("GET", "/services").json["data"]}
        wait_until(lambda: self.names() == listed, "what the gateway lists")
        self.assertLessEqual(listed - {"s-r", "after"}, {"frozen"})

    def test_killed_in_the_middle_of_writes(self) -> None:
        """No acknowledged write is lost, three times on the same data, whichever node took it."""
        server = self.own_server(durable=True)
        conf = self.database(server)
        nodes = [self.gateway(conf) for _ in range(2)]
        acknowledged: set[str] = set()
        stop = threading.Event()

        def write(number: int) -> None:
            at = 0
            while not stop.is_set():
                at += 1
                name = f"w{number}-{at}"
                try:
                    if self.service(nodes[number % 2], name).status == 201:
                        acknowledged.add(name)
                except (OSError, HTTPException):
                    time.sleep(0.01)

        with ThreadPoolExecutor(6) as crowd:
            writers = [crowd.submit(write, number) for number in range(6)]
            try:
                for _ in range(3):
                    enough = len(acknowledged) + 50
                    wait_until(lambda: len(acknowledged) >= enough, "fifty more writes")  # noqa: B023
                    server.kill()
                    server.start()
            finally:
                stop.set()
        for each in writers:
            each.result()
        for node in nodes:
            wait_until(lambda: self.reachable(node), "the database")  # noqa: B023
        self.assertEqual(acknowledged - self.names(), set())
        for node in nodes:
            wait_until(lambda: _all_names(node) == self.names(), "all rows")  # noqa: B023

    def test_connections_ended_by_the_administrator(self) -> None:
        """A node whose connections are all ended catches up with what the other wrote."""
        conf = self.database()
        one, two = self.gateway(conf), self.gateway(conf)
        for at in range(3):
            self.server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kongtwist'"
            )
            wait_until(lambda: self.service(one, f"s{at}").status in (201, 409), "a write")  # noqa: B023
            wait_until(lambda: two.admin("GET", f"/services/s{at}").status == 200, "the change")  # noqa: B023

    def test_bound_of_connections(self) -> None:
        """However many write, a node has pg_pool_size connections and one more."""
        server = self.own_server()
        gateway = self.gateway(self.database(server, pg_pool_size=2))
        most = 0
        with ThreadPoolExecutor(16) as crowd:
            writes = [crowd.submit(self.service, gateway, f"s{at}") for at in range(200)]
            while not all(each.done() for each in writes):
                ((now,),) = server.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kongtwist'")
                most = max(most, now)
        self.assertEqual({each.result().status for each in writes}, {201})
        self.assertLessEqual(most, 3)
        self.assertGreaterEqual(most, 2)


class StartTests(NodesTestCase):
    """Databases on which a node cannot start."""

    def refusal(self, conf: dict[str, object]) -> str:
        """The last line of a start that fails."""
        gateway = GatewayProcess(self, conf)
        process = gateway.launch()
        self.assertEqual(process.wait(), 1)
        self.assertNotIn("Traceback", process.output())
        self.assertNotIn(PASSWORD, process.output())
        return process.output().splitlines()[-1]

    def test_refusals(self) -> None:
        """One sentence each, with the remedy."""
        server = shared_server()
        for conf, sentence in (
            ({"pg_schema": server.new_schema()}, "has no tables yet; run 'kongtwist migrations bootstrap'"),
            ({"pg_host": "/nowhere"}, "cannot be reached: .*No such file.*; start the server, or correct .* pg_"),
            ({"pg_database": "none"}, 'database "none" does not exist'),
            ({"pg_user": "nobody"}, 'role "nobody" does not exist'),
        ):
            self.assertRegex(self.refusal(server.conf(**conf)), f"^kongtwist: the database .*{sentence}")

    def test_newer_database(self) -> None:
        conf = self.database()
        connection = Connection(self.settings)
        connection.execute("INSERT INTO kongtwist_migrations (name, finished) VALUES ('999_later', true)")
        connection.close()
        self.assertRegex(self.refusal(conf), "migrated by a newer kongtwist .* upgrade")


class TLSTests(NodesTestCase):
    """TLS to the server."""

    def setUp(self) -> None:
        folder, right = self.folder(), authority("right")
        self.trusted, _ = right.write(folder, "right")
        self.other, _ = authority("wrong").write(folder, "wrong")
        certificate = right.sign("localhost").write(folder, "server")
        self.secure = self.own_server(tcp=True, certificate=certificate)

    def conf(self, **more: object) -> dict[str, object]:
        """Properties that reach the server with TLS."""
        conf = self.database(self.secure)
        return {**conf, "pg_host": "localhost", "pg_ssl": "on", "pg_ssl_verify": "on", **more}

    def ciphers(self) -> list[Any]:
        """Whether the connections of gateways are encrypted."""
        return self.secure.execute(
            "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'kongtwist'"
        )

    def test_verified(self) -> None:
        """All connections are encrypted; notifications come through TLS too."""
        conf = self.conf(lua_ssl_trusted_certificate=f"system,{self.trusted}")
        one, two = self.gateway(conf), self.gateway(conf)
        self.assertEqual(self.service(one, "a").status, 201)
        wait_until(lambda: two.admin("GET", "/services/a").status == 200, "the service")
        self.assertEqual(self.ciphers(), [(True,)])

    def test_versions(self) -> None:
        """The newest of lua_ssl_protocols that the server speaks."""
        for versions, wanted in (("TLSv1.2 TLSv1.3", "TLSv1.3"), ("TLSv1.2", "TLSv1.2")):
            gateway = self.gateway(self.conf(pg_ssl_verify="off", lua_ssl_protocols=versions))
            found = self.secure.execute(
                "SELECT DISTINCT version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'kongtwist'"
            )
            self.assertEqual(found, [(wanted,)])
            gateway.stop()

    def test_not_verified(self) -> None:
        """Without pg_ssl_verify any certificate will do, but it is TLS."""
        gateway = self.gateway(self.conf(pg_ssl_verify="off", pg_host="127.0.0.1"))
        self.assertEqual(self.service(gateway, "a").status, 201)
        self.assertEqual(self.ciphers(), [(True,)])

    def test_refused(self) -> None:
        """A server of another authority, one of another name, and one that speaks no TLS."""
        for conf, sentence in (
            ({"lua_ssl_trusted_certificate": self.other}, "certificate verify failed"),
            ({"lua_ssl_trusted_certificate": self.trusted, "pg_host": "127.0.0.2"}, "does not match host name"),
            ({"lua_ssl_trusted_certificate": "/none.pem"}, "lua_ssl_trusted_certificate cannot be read"),
        ):
            gateway = GatewayProcess(self, self.conf(**conf))
            process = gateway.launch()
            self.assertEqual(process.wait(), 1)
            self.assertRegex(process.output().splitlines()[-1], sentence)
        plain = self.own_server(tcp=True)
        gateway = GatewayProcess(self, {**self.database(plain), "pg_host": "127.0.0.1", "pg_ssl": "on"})
        process = gateway.launch()
        self.assertEqual(process.wait(), 1)
        self.assertIn("server does not support SSL", process.output())


class RecordedTests(NodesTestCase, test_admin_recorded.RecordedAdminTests):
    """Kong was recorded on PostgreSQL: the same answers from ours on it."""

    def gateway(self, conf: Mapping[str, object] | None = None, **options: Any) -> GatewayProcess:
        return super().gateway({**self.database(), **(conf or {})}, **options)


def _all_names(gateway: GatewayProcess) -> set[str]:
    names: set[str] = set()
    path = "/services?size=1000"
    while path:
        page = gateway.admin("GET", path).json
        names |= {row["name"] for row in page["data"]}
        path = page["next"] or ""
    return names
