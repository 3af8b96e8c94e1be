"""Rows and counters of plugins: one process, two workers, two nodes on PostgreSQL, and processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from kongtwist.storage.postgres.postgres_migrations import PostgresMigrations
from tests.live.postgres_server import PostgresServer, shared_server
from tests.live.support import Answer, GatewayProcess, LiveTestCase, wait_until

PLUGIN = "bundled,tests.live.rows_plugin:RowsPlugin"
ABSENT = "00000000-0000-4000-8000-000000000000"
KEYS = "keyauth_credentials"


class RowsTestCase(LiveTestCase):
    """Gateways with the plugin on a route."""

    def node(self, conf: Mapping[str, object] | None = None, route: bool = True) -> GatewayProcess:
        """Start one."""
        gateway = self.gateway({"plugins": PLUGIN, "nginx_main_worker_shutdown_timeout": "5s", **(conf or {})})
        if route:
            made = gateway.route("/do", "http://127.0.0.1:1")
            gateway.create(f"/routes/{made['id']}/plugins", name="rows-plugin")
        return gateway

    @staticmethod
    def ask(gateway: GatewayProcess, *words: object) -> Answer:
        """Have the plugin do something."""
        return gateway.get("/do", headers={"X-Do": json.dumps(words)})

    def do(self, gateway: GatewayProcess, *words: object) -> Any:
        """The same, and it must succeed; what was written must be served where it was written."""
        answer = self.ask(gateway, *words)
        self.assertEqual(answer.status, 200, answer)
        self.assertTrue(answer.json.get("served", True), answer)
        return answer.json["result"]

    def everywhere(self, gateway: GatewayProcess, words: list[object], expected: Any, workers: int) -> None:
        """Wait until all workers answer alike."""
        agree: set[int] = set()

        def all_agree() -> bool:
            told = self.ask(gateway, *words).json
            (agree.add if told["result"] == expected else agree.discard)(told["pid"])
            return len(agree) == workers

        wait_until(all_agree, f"{workers} workers to agree on {words}")

    def look(self, gateway: GatewayProcess, workers: int) -> None:
        """The whole life of rows, by whichever worker."""
        consumer = self.do(gateway, "insert", "consumers", {"username": "ann"})
        self.assertEqual(gateway.admin("GET", "/consumers/ann").json, consumer)
        self.everywhere(gateway, ["by", "consumers", "username", "ann"], consumer, workers)
        changed = self.do(gateway, "update", "consumers", consumer["id"], {"tags": ["x"]})
        self.assertEqual((changed["username"], changed["tags"]), ("ann", ["x"]))
        key = self.do(gateway, "insert", KEYS, {"consumer": {"id": consumer["id"]}, "ttl": 1000})
        self.assertEqual(len(key["key"]), 32)  # made by the entity
        self.everywhere(gateway, ["by", KEYS, "consumer", consumer["id"]], key, workers)
        put = self.do(gateway, "upsert", "consumers", ABSENT, {"username": "bob"})
        self.assertEqual((put["id"], put["username"]), (ABSENT, "bob"))
        self.refusals(gateway, consumer["id"])
        self.assertIs(self.do(gateway, "delete", "consumers", consumer["id"]), True)
        self.assertIs(self.do(gateway, "delete", "consumers", consumer["id"]), False)  # no error where there is none
        self.everywhere(gateway, ["get", KEYS, key["id"]], None, workers)  # it went with its consumer
        self.assertEqual(gateway.admin("GET", f"/key-auths/{key['id']}").status, 404)

    def refusals(self, gateway: GatewayProcess, taken: str) -> None:
        """As the Admin API answers them."""
        for words, path, sent in (
            (["insert", "consumers", {"username": "ann"}], "/consumers", {"username": "ann"}),
            (["insert", "consumers", {"id": taken, "username": "z"}], "/consumers", {"id": taken, "username": "z"}),
            (["insert", "consumers", {"nonsense": 1}], "/consumers", {"nonsense": 1}),
            (
                ["insert", KEYS, {"consumer": {"id": ABSENT[:-1] + "1"}}],
                "/key-auths",
                {"consumer": {"id": ABSENT[:-1] + "1"}},
            ),
        ):
            answer, admin = self.ask(gateway, *words), gateway.admin("POST", path, json=sent)
            if path == "/key-auths":
                admin = gateway.admin("POST", "/consumers/nobody/key-auth", json={})
                self.assertEqual((answer.status, answer.json["code"]), (400, 4))
            else:
                self.assertEqual((answer.status, answer.json), (admin.status, admin.json))
        missing = self.ask(gateway, "update", "consumers", ABSENT[:-1] + "2", {"username": "x"})
        self.assertEqual((missing.status, missing.json["code"]), (404, 6))
        self.assertEqual(self.ask(gateway, "insert", "nonsense", {}).status, 500)


class OneProcessTests(RowsTestCase):
    """A gateway that is one process."""

    def test_rows(self) -> None:
        self.look(self.node(), 1)

    def test_tallies(self) -> None:
        """Counted in the file, and there after a restart."""
        gateway = self.node()
        self.assertEqual(self.do(gateway, "add", ["a", 1], ["b", 2.5], ["a", 1]), [1, 2.5, 2])
        gateway.stop()
        gateway.start()
        self.assertEqual(self.do(gateway, "read", "a", "b", "c"), [2, 2.5, 0])

    def test_time_to_live(self) -> None:
        """A row whose time is over is not found any more."""
        gateway = self.node()
        consumer = self.do(gateway, "insert", "consumers", {"username": "ann"})
        key = self.do(gateway, "insert", KEYS, {"consumer": {"id": consumer["id"]}, "ttl": 1})
        self.assertEqual(self.do(gateway, "get", KEYS, key["id"])["id"], key["id"])
        wait_until(lambda: self.do(gateway, "get", KEYS, key["id"]) is None, "its end")
        self.assertIsNone(self.do(gateway, "by", KEYS, "key", key["key"]))

    def test_without_a_database(self) -> None:
        """Rows are read only, as Kong's without a database; tallies are the node's."""
        config = {
            "_format_version": "3.0",
            "consumers": [{"username": "ann"}],
            "services": [{"host": "127.0.0.1", "routes": [{"paths": ["/do"], "plugins": [{"name": "rows-plugin"}]}]}],
        }
        for workers in (1, 2):
            gateway = self.node(
                {
                    "database": "off", "declarative_config_string": json.dumps(config),
                    "nginx_worker_processes": workers,
                },
                route=False,
            )  # fmt: skip
            ann = self.do(gateway, "by", "consumers", "username", "ann")
            for words, verb in (
                (["insert", "consumers", {"username": "z"}], "create"),
                (["update", "consumers", ann["id"], {"tags": []}], "update"),
                (["upsert", "consumers", ann["id"], {"username": "z"}], "create or update"),
                (["delete", "consumers", ann["id"]], "remove"),
            ):
                answer = self.ask(gateway, *words)
                self.assertEqual((answer.status, answer.json["code"]), (405, 12))
                self.assertEqual(
                    answer.json["message"], f"cannot {verb} 'consumers' entities when not using a database"
                )
            values = [self.do(gateway, "add", ["a", 1])[0] for _ in range(20)]
            self.assertEqual(values, list(range(1, 21)))


class TwoWorkersTests(RowsTestCase):
    """A node with two workers, whose parent has the database."""

    def setUp(self) -> None:
        self.gateway_process = self.node({"nginx_worker_processes": 2})

    def workers(self) -> list[int]:
        """Their process ids."""
        found: list[int] = self.gateway_process.admin("GET", "/").json["pids"]["workers"]
        return found

    def test_rows(self) -> None:
        self.look(self.gateway_process, 2)

    def test_many_at_once(self) -> None:
        """All are stored, and served where they were written."""
        ids = self.do(self.gateway_process, "many", "consumers", "m", 300)
        self.assertEqual(len(set(ids)), 300)
        refused = self.ask(self.gateway_process, "many", "consumers", "t", 1001)
        self.assertEqual(refused.status, 503)
        self.assertIn("1000 writes of plugins wait already", refused.json["message"])

    def test_tallies_cells_and_metrics(self) -> None:
        """Counted over both workers."""
        gateway = self.gateway_process
        values = sorted(self.do(gateway, "add", ["a", 1])[0] for _ in range(30))
        self.assertEqual(values, list(range(1, 31)))
        pids: set[int] = set()
        total = 0

        def both() -> bool:
            nonlocal total
            answer = self.ask(gateway, "cells", 1).json
            total += 1
            pids.add(answer["pid"])
            self.assertEqual(answer["result"][1], total)
            self.do(gateway, "count")
            return len(pids) == 2 and total > 9

        wait_until(both, "both workers")
        text = gateway.admin("GET", "/metrics").body.decode()
        self.assertIn(f'# TYPE rows_plugin_total counter\nrows_plugin_total{{kind="a"}} {total}\n', text)

    def test_killed_worker(self) -> None:
        """What it had asked for is done or not; the others and its successor go on."""
        gateway = self.gateway_process
        stop = threading.Event()
        acknowledged: list[str] = []

        def write(writer: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    answer = self.ask(gateway, "insert", "consumers", {"username": f"w{writer}-{number}"})
                except (OSError, HTTPException):
                    continue  # it was killed while it answered
                if answer.status == 200:
                    acknowledged.append(answer.json["result"]["id"])

        writers = [threading.Thread(target=write, args=(at,)) for at in range(4)]
        for each in writers:
            each.start()
        for _ in range(2):
            enough = len(acknowledged) + 30
            wait_until(lambda: len(acknowledged) >= enough, "writes")  # noqa: B023 - called at once
            victim = self.workers()[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: victim not in self.workers() and len(self.workers()) == 2, "its successor")  # noqa: B023
        stop.set()
        for each in writers:
            each.join()
        missing = [key for key in acknowledged if gateway.admin("GET", f"/consumers/{key}").status != 200]
        self.assertEqual(missing, [])
        self.everywhere(
            gateway,
            ["get", "consumers", acknowledged[-1]],
            gateway.admin("GET", f"/consumers/{acknowledged[-1]}").json,
            2,
        )
        self.assertNotIn("Traceback", gateway.log())

    def test_killed_parent(self) -> None:
        """Workers that wait for it are told, finish, and end: nobody is left behind."""
        gateway = self.gateway_process
        pids = self.workers()
        with sqlite3.connect(os.path.join(gateway.prefix, "kongtwist.sqlite"), isolation_level=None) as locked:
            locked.execute("BEGIN IMMEDIATE")  # the parent cannot answer now
            found: list[Answer] = []
            asking = threading.Thread(
                target=lambda: found.append(self.ask(gateway, "insert", "consumers", {"username": "z"}))
            )
            asking.start()
            wait_until(
                lambda: gateway.admin("GET", "/status").json["server"]["connections_writing"] >= 1, "the question"
            )
            os.kill(gateway.pid, signal.SIGKILL)
            asking.join()
            locked.execute("ROLLBACK")
        locked.close()
        self.assertEqual((found[0].status, found[0].json["message"]), (503, "the node's parent process is gone"))
        for pid in pids:
            wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of a worker")  # noqa: B023 - called at once


class LifeTests(RowsTestCase):
    """Configurations of plugins in processes that serve, and what is left to do at a stop."""

    def notes(self, path: str) -> list[list[Any]]:
        """What the plugin has noted."""
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def test_change_and_stop(self) -> None:
        """Each serving process opens what it serves by, and closes it once: when its row changes, and at the stop, when what
        waits in queues is sent and what is written then is stored."""
        for workers in (1, 2):
            path = os.path.join(self.folder(), "notes")
            gateway = self.gateway(
                {
                    "plugins": "bundled,tests.live.rows_plugin:LifePlugin", "nginx_worker_processes": workers,
                    "nginx_main_worker_shutdown_timeout": "20s",
                }
            )  # fmt: skip
            route = gateway.route("/live", f"http://127.0.0.1:{self.upstream('echo')}")
            made = gateway.create(
                f"/routes/{route['id']}/plugins", name="life-plugin", config={"file": path, "mark": "a"}
            )
            wait_until(lambda: len(self.notes(path)) == workers, "all to open it")  # noqa: B023 - called at once
            for number in range(10):
                self.assertEqual(gateway.get(f"/live/a{number}").status, 200)
            changed = gateway.admin("PATCH", f"/plugins/{made['id']}", json={"config": {"mark": "b"}})
            self.assertEqual(changed.status, 200)
            closed = lambda: [each for each in self.notes(path) if each[2] == "closed"]  # noqa: E731, B023
            wait_until(lambda: len(closed()) == workers, "all to close it")  # noqa: B023 - called at once
            for number in range(10):
                self.assertEqual(gateway.get(f"/live/b{number}").status, 200)
            self.assertEqual(gateway.stop(), 0)
            notes = self.notes(path)
            pids = {pid for pid, *_ in notes}
            self.assertEqual(len(pids), workers)
            for what in ("opened", "closed"):
                found = sorted((pid, mark) for pid, mark, kind, *_ in notes if kind == what)
                self.assertEqual(found, sorted((pid, mark) for pid in pids for mark in "ab"))
            sent = sorted(target for _, _, kind, *rest in notes if kind == "sent" for target in rest[0])
            self.assertEqual(sent, sorted(f"/live/{mark}{number}" for mark in "ab" for number in range(10)))
            gateway.start()
            names = {row["username"] for row in gateway.admin("GET", "/consumers").json["data"]}
            self.assertEqual(names, {f"closed-{mark}-{pid}" for pid in pids for mark in "ab"})


class TwoNodesTests(RowsTestCase):
    """Nodes on one PostgreSQL database."""

    def database(self, server: PostgresServer) -> dict[str, object]:
        """Properties for new tables."""
        settings = server.settings(schema=server.new_schema())
        PostgresMigrations(settings, self.fail).bootstrap()
        return server.conf(pg_schema=settings.schema)

    def test_rows_and_tallies(self) -> None:
        """A row that a plugin writes on one is served by the other; both count the same tallies."""
        conf = self.database(shared_server())
        one = self.node(conf)
        two = self.node({**conf, "nginx_worker_processes": 2}, route=False)
        wait_until(lambda: two.get("/do", headers={"X-Do": '["get", "consumers", "x"]'}).status == 200, "the route")
        self.look(one, 1)
        self.assertEqual(one.admin("DELETE", f"/consumers/{ABSENT}").status, 204)
        self.look(two, 2)
        row = self.do(two, "insert", "consumers", {"username": "carol"})
        wait_until(lambda: self.do(one, "get", "consumers", row["id"]) == row, "the row on the other node")
        taken = self.ask(one, "insert", "consumers", {"username": "carol"})
        self.assertEqual((taken.status, taken.json["code"]), (409, 5))
        values = sorted(self.do(each, "add", ["a", 1])[0] for _ in range(10) for each in (one, two))
        self.assertEqual(values, list(range(1, 21)))

    def test_database_away(self) -> None:
        """Writing and counting are refused within pg_timeout, then at once; reading and serving go on."""
        server = PostgresServer()
        self.addCleanup(server.discard)
        conf = self.database(server)
        for workers in (1, 2):
            gateway = self.node({**conf, "pg_timeout": 2000, "nginx_worker_processes": workers}, route=workers == 1)
            self.do(gateway, "add", ["a", 1])
            server.freeze()
            try:
                counted = self.ask(gateway, "add", ["a", 1])
                self.assertEqual(counted.status, 500)
                self.assertIn("within", counted.json["message"])
                written = self.ask(gateway, "insert", "consumers", {"username": f"n{workers}"})
                self.assertEqual((written.status, written.json["code"]), (503, 8))
                self.assertIsNone(self.do(gateway, "get", "consumers", "x"))
            finally:
                server.thaw()
            wait_until(lambda: self.ask(gateway, "add", ["a", 1]).status == 200, "the database")  # noqa: B023
