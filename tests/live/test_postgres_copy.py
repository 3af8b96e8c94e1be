"""A read-only copy of the database (``pg_ro_*``): a real server with a streaming replica that is behind, away, or none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from kongtwist.core.storage_contract import Change
from kongtwist.storage.base import StorageError
from kongtwist.storage.postgres.postgres_migrations import PostgresMigrations
from kongtwist.storage.postgres.postgres_storage import PostgresStorage
from kongtwist.storage.postgres.sql_connections import Connection, Refused
from tests.live.postgres_server import PostgresServer
from tests.live.restart_kit import RestartCase
from tests.live.support import PATIENCE, GatewayProcess, wait_until
from tests.live.test_postgres import NEVER, PostgresTestCase
from tests.live.test_postgres_nodes import NodesTestCase


def _pair() -> tuple[PostgresServer, PostgresServer]:
    server = PostgresServer()
    return server, PostgresServer(copy_of=server)


_shared_pair = cache(_pair)


class CopyTestCase(PostgresTestCase):
    """Nodes that read from a replica."""

    storage: PostgresStorage
    """A node without a copy, which writes."""

    def servers(self) -> tuple[PostgresServer, PostgresServer]:
        return _shared_pair()

    def server(self) -> PostgresServer:
        server, self.replica = self.servers()
        return server

    def reader(self, *, copy: dict[str, Any] | None = None, **settings: Any) -> PostgresStorage:
        """A node with a copy, not yet open."""
        chosen = self.replica.settings(**{"schema": self.schema, "read_only": True, **(copy or {})})
        return self.another(**{"copy": chosen, "poll": NEVER, **settings})

    async def reading(self, *, copy: dict[str, Any] | None = None, **settings: Any) -> PostgresStorage:
        """The same, open until the test ends."""
        node = self.reader(copy=copy, **settings)
        self.addCleanup(lambda: Deferred.fromCoroutine(node.close()))
        await node.open()
        await self.until(lambda: not node._looking, "its first look")
        return node

    def paused(self) -> None:
        """The replica stops bringing in what is written, until the test ends."""
        self.replica.copies(paused=True)
        self.addCleanup(self.replica.copies, paused=False)

    async def copied(self) -> None:
        """Wait until the replica has everything."""
        newest = self.sql("SELECT token FROM kongtwist_state")
        await self.until(lambda: self.on_replica("SELECT token FROM kongtwist_state") == newest, "the replica")

    def on_replica(self, query: str) -> list[tuple[Any, ...]]:
        """What a statement on the replica's tables gives; nothing, where they are not there yet."""
        connection = Connection(self.replica.settings(schema=self.schema, read_only=True))
        try:
            return connection.execute(query)
        except Refused:
            return []
        finally:
            connection.close()

    def user(self, *tables: str) -> str:
        """A user who may read these tables only."""
        name = f"user_{self.schema}"
        self.sql(f"CREATE USER {name} PASSWORD 'pg-geheim'")
        self.sql(f"GRANT USAGE ON SCHEMA {self.schema} TO {name}")
        for table in tables:
            self.sql(f"GRANT SELECT ON {table} TO {name}")
        return name


class ReadingTests(CopyTestCase):
    """What is read from the copy."""

    async def test_rows_come_from_the_copy(self) -> None:
        """A node that may not read the rows of the database itself has them from its copy."""
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        await self.copied()
        user = self.user("kongtwist_migrations", "kongtwist_state", "kongtwist_changes")
        with self.assertRaisesRegex(StorageError, "permission denied for table kongtwist_rows"):
            await self.another(user=user).open()
        node = await self.reading(user=user)
        self.assertEqual(node.get("services", row["id"]), row)

    async def test_a_copy_that_is_behind(self) -> None:
        """What was written since then comes from the database itself: new rows, changed and deleted ones."""
        kept = await self.storage.insert("services", {"name": "kept", "host": "h"})
        gone = await self.storage.insert("services", {"name": "gone", "host": "h"})
        await self.copied()
        self.paused()
        await self.storage.delete("services", gone["id"])
        changed = await self.storage.update("services", kept["id"], {"name": "changed"})
        new = await self.storage.insert("services", {"name": "new", "host": "h"})
        node = self.reader()
        self.addCleanup(lambda: Deferred.fromCoroutine(node.close()))
        await node.open()
        self.assertEqual(node.load()["services"], {kept["id"]: changed, new["id"]: new})
        await node.insert("routes", {"paths": ["/"], "service": {"name": "new"}})
        await self.until(lambda: self.same(node), "the same rows")

    async def test_changes_come_from_the_copy(self) -> None:
        """With time to get there, changes of other nodes are read from the copy, and the database itself is not asked."""
        node = await self.reading(propagation=PATIENCE)
        told: list[Change] = []
        node.subscribe(told.extend)
        with mock.patch.object(node.pool, "run", side_effect=AssertionError("the database was asked")):
            row = await self.storage.insert("services", {"name": "a", "host": "h"})
            await self.until(lambda: node.get("services", row["id"]) == row, "the change")
            await self.until(lambda: not node._looking, "its look")
        self.assertEqual([change.op for change in told], ["create"])

    async def test_changes_that_do_not_get_there(self) -> None:
        """They come from the database itself: at once, or after the time that they had."""
        for propagation in (0.0, 0.2):
            node = await self.reading(propagation=propagation)
            self.paused()
            row = await self.storage.insert("services", {"host": "h"})
            await self.until(lambda: node.get("services", row["id"]) == row, "the change")  # noqa: B023
            self.assertTrue(self.same(node))
            self.replica.copies(paused=False)

    async def test_looking_for_changes(self) -> None:
        """Where notifications do not arrive, changes are found by looking at the copy."""
        node = await self.reading(poll=0.05)
        assert node._listening is not None
        node._listening._heard = lambda token: None
        for name in ("a", "b"):
            row = await self.storage.insert("services", {"name": name, "host": "h"})
            await self.until(lambda: node.get("services", row["id"]) == row, "the change")  # noqa: B023

    async def test_own_writes(self) -> None:
        """They are there at once, and are not undone by a copy that does not have them yet."""
        await self.copied()
        node = await self.reading(poll=0.02)
        self.paused()
        row = await node.insert("services", {"name": "a", "host": "h"})
        await self.until(lambda: node._looking, "a look")
        await self.until(lambda: not node._looking, "its end")
        self.assertEqual(node.get("services", row["id"]), row)
        self.assertTrue(self.same(node))

    async def test_refreshing(self) -> None:
        """Who asks has what others wrote until then, whatever the copy has."""
        await self.copied()
        node = await self.reading()
        assert node._listening is not None
        node._listening._heard = lambda token: None
        self.paused()
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        self.assertTrue(await node.refresh())
        self.assertEqual(node.get("services", row["id"]), row)

    async def test_too_far_behind(self) -> None:
        """A copy from which the changes kept do not go on is not used; the log says so."""
        await self.copied()
        self.paused()
        keeper = await self.node(changes_kept=2, poll=0.05)
        for at in range(10):
            await self.storage.insert("services", {"name": f"n{at}", "host": "h"})
        await self.until(lambda: self.sql("SELECT count(*) FROM kongtwist_changes") == [(3,)], "fewer changes")
        with capturedLogs() as captured:
            node = await self.reading()
        self.assertTrue(self.same(node, keeper))
        self.assertIn("{copy} is too far behind {where}, which is read in its place", _said(captured))

    async def test_nothing_is_written_there(self) -> None:
        """A session with it is read-only, though the server is none."""
        connection = Connection(self.database.settings(schema=self.schema, read_only=True))
        self.addCleanup(connection.close)
        with self.assertRaises(Refused) as caught:
            connection.execute("DELETE FROM kongtwist_rows")
        self.assertEqual(caught.exception.sqlstate, "25006")

    async def test_no_copy(self) -> None:
        """What surely is no copy stops the start with a sentence."""
        empty = self.database.new_schema()
        other = self.database.new_schema()
        PostgresMigrations(self.database.settings(schema=other), self.fail).bootstrap()
        for copy, sentence in (
            ({"schema": empty}, "is no copy of the database kong at .*: it has none of its tables; correct .* pg_ro_"),
            ({"host": str(self.database.folder), "schema": other}, "is no copy of the database kong at .*correct .* pg_ro_"),
            ({"user": self.user()}, "permission denied for table .*; correct the properties pg_ro_"),
        ):  # fmt: skip
            node = self.reader(copy={"timeout": 0.5, **copy})
            with self.assertRaisesRegex(StorageError, f"^the read-only database kong at .*{sentence}"):
                await node.open()


def _said(captured: Sequence[dict[str, Any]]) -> list[str]:
    return [event["log_format"] for event in captured if event.get("log_namespace") == "kongtwist.storage"]


class LossTests(CopyTestCase):
    """One of the two servers is away."""

    def servers(self) -> tuple[PostgresServer, PostgresServer]:
        pair = _pair()
        for each in pair:
            self.addCleanup(each.discard)
        return pair

    async def test_copy_away(self) -> None:
        """Nodes start and go on without it, which the log tells once; when it is back it is read again."""
        self.replica.kill()
        with capturedLogs() as captured:
            node = await self.reading(poll=0.05)
            for name in ("a", "b", "c"):
                row = await self.storage.insert("services", {"name": name, "host": "h"})
                await self.until(lambda: node.get("services", row["id"]) == row, "the change")  # noqa: B023
            self.assertTrue(node.reachable())
            self.replica.start()
            await self.until(lambda: "{where} is back" in _said(captured), "the copy")
        self.assertEqual(_said(captured), ["{why}; {primary} is read in its place", "{where} is back"])

    async def test_frozen_copy(self) -> None:
        """Writes do not wait for one that stands still, and changes arrive when it goes on."""
        node = await self.reading(poll=0.05, copy={"timeout": PATIENCE})
        copy, asked, ended = node._copy, [], []
        assert copy is not None
        follow = copy.follow

        async def watched(known: Any) -> Any:
            asked.append(known)
            found = await follow(known)
            ended.append(known)
            return found

        self.replica.freeze()
        with mock.patch.object(copy, "follow", watched):
            await self.until(lambda: asked, "a look at it")
            await node.insert("services", {"name": "own", "host": "h"})
            self.assertEqual((len(asked), len(ended)), (1, 0))
            row = await self.storage.insert("services", {"name": "a", "host": "h"})
            self.replica.thaw()
            await self.until(lambda: node.get("services", row["id"]) == row, "the change")

    async def test_database_away_at_the_start(self) -> None:
        """A node starts with what the copy has, refuses changes, and takes them when the database is back."""
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        await self.copied()
        self.database.kill()
        await self.until(lambda: not self.storage.reachable(), "the loss")
        node = self.reader()
        self.addCleanup(lambda: Deferred.fromCoroutine(node.close()))
        await node.open()
        self.assertEqual((node.reachable(), node.load()["services"]), (False, {row["id"]: row}))
        self.assertEqual((await self.refusal(node.update("services", row["id"], {"name": "b"}))).status, 503)
        self.assertEqual((await self.refusal(node.refresh())).status, 503)
        with self.assertRaisesRegex(StorageError, "cannot be reached"):  # the process before may have written more
            await node.reread()
        self.database.start()
        await self.until(node.reachable, "the database")
        await node.reread()
        await node.update("services", row["id"], {"name": "b"})
        await self.until(lambda: self.same(node), "the same rows")

    async def test_database_out_of_reach(self) -> None:
        """Changes of others arrive by the copy all the while."""
        for at, start in enumerate((True, False)):
            settings: dict[str, Any] = {"host": "/nowhere"} if start else {}
            node = await self.reading(poll=0.05, **settings)
            if not start:
                node._lose("cut off")
                node.settings = node.pool._settings = self.reader(host="/nowhere").settings
            self.assertFalse(node.reachable())
            row = await self.storage.insert("services", {"name": f"s{at}", "host": "h"})
            await self.until(lambda: node.get("services", row["id"]) == row, "the change")  # noqa: B023
            self.assertFalse(node.reachable())

    async def test_both_away(self) -> None:
        """One sentence that tells of both."""
        self.replica.kill()
        node = self.reader(host="/nowhere")
        with self.assertRaisesRegex(
            StorageError, "^the database .*cannot be reached: .*; the read-only database .*; start the server"
        ):
            await node.open()


class GatewayTests(NodesTestCase):
    """Whole gateways."""

    def test_restart_without_the_database(self) -> None:
        """A gateway that starts while the database is away serves; changes are taken when it is back."""
        server, replica = _pair()
        self.addCleanup(server.discard)
        self.addCleanup(replica.discard)
        conf = self.database(server, pg_ro_host=replica.folder)
        gateway = self.gateway(conf)
        gateway.route("/r", f"http://127.0.0.1:{self.upstream('echo')}")
        self.assertEqual(gateway.get("/r/x").status, 200)
        copied = replica.settings(schema=self.settings.schema, read_only=True)
        wait_until(lambda: self.rows(copied) == self.rows(self.settings), "the replica")
        gateway.stop()
        server.kill()
        gateway.start()
        self.assertEqual(gateway.get("/r/x").status, 200)
        self.assertFalse(self.reachable(gateway))
        self.assertEqual(self.service(gateway, "refused").status, 503)
        self.assertIn("started with what the read-only database kong at", gateway.log())
        server.start()
        wait_until(lambda: self.reachable(gateway), "the database")
        self.assertEqual(self.service(gateway, "after").status, 201)

    @staticmethod
    def rows(settings: Any) -> list[tuple[Any, ...]]:
        """The rows that a server has."""
        connection = Connection(settings)
        try:
            return connection.execute("SELECT entity, id FROM kongtwist_rows ORDER BY id")
        finally:
            connection.close()

    def test_no_copy(self) -> None:
        """It stops the start with one sentence."""
        conf = self.database(pg_ro_schema="nobody_made_it", pg_ro_timeout=300)
        gateway = GatewayProcess(self, {**conf, "pg_ro_host": conf["pg_host"]})
        process = gateway.launch()
        self.assertEqual(process.wait(), 1)
        self.assertRegex(
            process.output().splitlines()[-1],
            "^kongtwist: the read-only database kong at .* is no copy of .*: it has none of its tables; correct .* pg_ro_",
        )


class RestartTests(RestartCase):
    """A restart while the database is away."""

    def test_goes_on_as_it_was(self) -> None:
        """The successor cannot know what was written last: the command says so, and the running process goes on, to the end."""
        server, replica = _pair()
        self.addCleanup(server.discard)
        self.addCleanup(replica.discard)
        settings = server.settings(schema=server.new_schema())
        PostgresMigrations(settings, self.fail).bootstrap()
        self.node(**server.conf(pg_schema=settings.schema, pg_ro_host=replica.folder))
        before = self.pid()
        server.kill()
        code, output = self.command("restart", "-c", str(self.conf_path))
        self.assertEqual((code, self.pid()), (1, before), output)
        self.assertIn("the database kong at", output)
        self.assertNotIn("Traceback", output + self.log())
        wait_until(lambda: self.admin("GET", "/services").status == 200, "the Admin API")
        server.start()
        wait_until(lambda: self.admin("GET", "/status").json["database"]["reachable"], "the database")
        self.assertEqual(self.admin("POST", "/services", name="after", url="http://127.0.0.1:1").status, 201)
