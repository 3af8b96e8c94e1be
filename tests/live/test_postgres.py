"""PostgreSQL: the contract of storage with a real server, and several nodes on one database."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from kongtwist.core.chain.host import HostError, Tally
from kongtwist.core.storage_contract import Change
from kongtwist.entities import EntityError
from kongtwist.storage.base import StorageError
from kongtwist.storage.postgres.postgres_migrations import PostgresMigrations
from kongtwist.storage.postgres.postgres_storage import PostgresStorage
from kongtwist.storage.postgres.sql_connections import Connection
from kongtwist.storage.tallies import Tallies
from tests.live.postgres_server import PostgresServer, shared_server
from tests.live.support import PATIENCE
from tests.unit.storage import storage_contract as contract
from tests.unit.storage import storage_large_rows as large_rows
from tests.unit.storage import storage_tallies as tallies

NEVER = 3600.0
"""Seconds between two polls where a test wants none."""


class PostgresTestCase(contract.StorageTestCase):
    """Tables of its own for each test, and as many nodes as it wants."""

    timeout = 2 * PATIENCE

    def server(self) -> PostgresServer:
        return shared_server()

    def make_storage(self) -> PostgresStorage:
        self.database = self.server()
        self.schema = self.database.new_schema()
        self.migrations = PostgresMigrations(self.database.settings(schema=self.schema), self.fail)
        self.migrations.bootstrap()
        return self.another()

    def another(self, **settings: Any) -> PostgresStorage:
        """Storage on the same tables."""
        chosen = self.database.settings(schema=self.schema, **settings)
        return PostgresStorage(chosen, self.entities, reactor, **self.options)

    async def node(self, **settings: Any) -> PostgresStorage:
        """Another node on the same tables, open until the test ends."""
        storage = self.another(**settings)
        self.addCleanup(lambda: Deferred.fromCoroutine(storage.close()))
        await storage.open()
        return storage

    async def reopened(self) -> PostgresStorage:
        """The same tables after a restart."""
        await self.storage.close()
        self.storage = storage = self.another()
        await storage.open()
        return storage

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a condition holds."""
        until = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), until, f"not in time: {what}")
            await deferLater(reactor, 0.01, lambda: None)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """What a statement on the tables gives."""
        connection = Connection(self.database.settings(schema=self.schema))
        try:
            return connection.execute(query)
        finally:
            connection.close()

    def same(self, *nodes: PostgresStorage) -> bool:
        """Whether nodes have the same rows as the first one, and as the database."""
        (in_tables,) = self.sql("SELECT count(*) FROM kongtwist_rows")
        first = {name: dict(rows) for name, rows in self.storage.load().items()}
        return sum(map(len, first.values())) == in_tables[0] and all(first == each.load() for each in nodes)


class PostgresWriteTests(PostgresTestCase, contract.WriteContract):
    """Single writes."""


class PostgresPageTests(PostgresTestCase, contract.PageContract):
    """Lists."""


class PostgresLargeRowTests(PostgresTestCase, large_rows.LargeRowContract):
    """Rows with many members or dependents."""


class PostgresConcurrencyTests(PostgresTestCase, contract.ConcurrencyContract):
    """Writes that come together."""


class PostgresTallyTests(PostgresTestCase, tallies.TallyContract):
    """Counters of all nodes."""

    storage: PostgresStorage

    async def test_nodes(self) -> None:
        """Nodes that count the same tallies at once, in whatever order, lose nothing and do not lock one another out."""
        nodes = [self.storage, await self.node(), await self.node()]
        expires = contract.NOW + 60
        counting = self.begin(
            *(
                node.tally([Tally(str(key), 1, 1, expires) for key in range(50)][:: 1 if turn % 2 else -1], [])
                for turn in range(20)
                for node in nodes
            )
        )
        await gatherResults(counting)
        _, values = await nodes[0].tally([], [(str(key), 1) for key in range(50)])
        self.assertEqual(values, [60.0] * 50)

    async def test_rows_wait_for_the_disk(self) -> None:
        """Only what counts does not: the setting does not outlive its statement."""
        await self.storage.tally([Tally("a", 1, 1, contract.NOW + 60)], [])
        shown = await self.storage.pool.run(lambda connection: connection.execute("SHOW synchronous_commit"))
        self.assertEqual(shown, [("on",)])


class PostgresDurabilityTests(PostgresTestCase, contract.DurabilityContract):
    """What is there after a restart."""


class SharingTests(PostgresTestCase):
    """Nodes on one database."""

    storage: PostgresStorage

    async def test_changes_arrive(self) -> None:
        """What one node writes the other has and tells, whatever it was; it was told, not looked for."""
        other = await self.node(poll=NEVER)
        told: list[Change] = []
        other.subscribe(told.extend)
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        await self.storage.update("services", row["id"], {"retries": 1})
        route = await self.storage.insert("routes", {"paths": ["/"], "service": {"id": row["id"]}})
        await self.storage.delete("routes", route["id"])
        await self.until(lambda: len(told) == 4, "four changes")
        self.assertEqual(told, self.told)
        self.assertTrue(self.same(other))
        await other.update("services", row["id"], {"name": "b"})
        await self.until(lambda: self.storage.find("services", "name", "b"), "a change of the other's")
        self.assertIsNone(self.storage.find("services", "name", "a"))

    async def test_one_name_on_three_nodes(self) -> None:
        """Of writers of one name on different nodes at once, one has it."""
        nodes = [self.storage, await self.node(), await self.node()]
        for at in range(10):
            writes = self.begin(*(each.insert("services", {"name": f"n{at}", "host": "h"}) for each in nodes * 2))
            results = await DeferredList(writes, consumeErrors=True)
            self.assertEqual(sorted(fine for fine, _ in results), [False] * 5 + [True])
            for fine, failure in results:
                if not fine:
                    assert isinstance(failure, Failure)
                    error = failure.value
                    assert isinstance(error, EntityError)
                    self.assertEqual((error.status, error.code), (409, 5))
        await self.until(lambda: self.same(*nodes), "the same rows everywhere")
        self.assertEqual(len(self.storage.load()["services"]), 10)

    async def test_patches_on_three_nodes(self) -> None:
        """Each is merged into the newest row, whoever wrote it."""
        nodes = [self.storage, await self.node(), await self.node()]
        row = await self.storage.insert("services", {"host": "h"})
        patches: list[dict[str, Any]] = [{"name": "n"}, {"retries": 9}, {"tags": ["a"]}, {"path": "/p"}, {"port": 81}]
        writes = [nodes[at % 3].update("services", row["id"], each) for at, each in enumerate(patches)]
        await gatherResults(self.begin(*writes))
        for node in nodes:
            final = await node.update("services", row["id"], {})
            self.assertEqual(final, final | {name: value for each in patches for name, value in each.items()})

    async def test_parents_and_children_on_two_nodes(self) -> None:
        """No child without its parent: either the parent stays or the child is refused."""
        other = await self.node()
        for _ in range(10):
            service = await self.storage.insert("services", {"host": "h"})
            route = {"paths": ["/1"], "service": {"id": service["id"]}}
            writes = self.begin(other.insert("routes", route), self.storage.delete("services", service["id"]))
            results = await DeferredList(writes, consumeErrors=True)
            self.assertEqual(sorted(fine for fine, _ in results), [False, True])
        await self.until(lambda: self.same(other), "the same rows")
        for row in self.storage.load()["routes"].values():
            self.assertIsNotNone(self.storage.get("services", row["service"]["id"]))

    async def test_refusals_are_of_the_newest_state(self) -> None:
        """What another node did a moment ago counts, although nobody has told yet."""
        other = await self.deaf_node()
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        await other.insert("routes", {"paths": ["/"], "service": {"name": "a"}})
        self.assertEqual((await self.refusal(other.insert("services", {"name": "a", "host": "h"}))).status, 409)
        self.assertEqual((await other.update("services", row["id"], {"name": "b"}))["name"], "b")
        free = await self.storage.insert("services", {"name": "a", "host": "h"})
        await self.storage.delete("services", free["id"])
        await other.insert("services", {"name": "a", "host": "h"})

    async def test_refreshing(self) -> None:
        """Who asks has what others wrote until then; many who ask at once ask the server but a few times."""
        other = await self.deaf_node()
        self.assertFalse(await other.refresh())
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        self.assertIsNone(other.get("services", row["id"]))
        self.assertTrue(await other.refresh())
        self.assertEqual(other.get("services", row["id"]), row)
        asked: list[int] = []
        run = other.pool.run

        async def counted(*values: Any) -> Any:
            asked.append(1)
            return await run(*values)

        self.patch(other.pool, "run", counted)
        found = await gatherResults(self.begin(*(other.refresh() for _ in range(50))))
        self.assertEqual(set(found), {False})
        self.assertLess(len(asked), 5)

    async def deaf_node(self, **settings: Any) -> PostgresStorage:
        """A node that nobody tells of changes."""
        storage = await self.node(**{"poll": NEVER, **settings})
        await self.until(lambda: not storage._looking, "its first look")
        assert storage._listening is not None
        storage._listening._heard = lambda token: None
        return storage

    async def test_writers_without_a_pause(self) -> None:
        """Three nodes that all write all the time come all to their end."""
        nodes = [self.storage, await self.node(), await self.node()]

        async def writer(node: PostgresStorage, name: str) -> None:
            for at in range(20):
                row = await node.insert("services", {"name": f"{name}-{at}", "host": "h"})
                await node.update("services", row["id"], {"retries": 1})

        await gatherResults(
            self.begin(*(writer(node, f"{at}-{own}") for at, node in enumerate(nodes) for own in range(3)))
        )
        await self.until(lambda: self.same(*nodes), "the same rows everywhere")
        rows = self.storage.load()["services"].values()
        self.assertEqual((len(rows), {row["retries"] for row in rows}), (180, {1}))
        numbers = self.sql("SELECT sequence FROM kongtwist_changes ORDER BY sequence")
        self.assertEqual([each for (each,) in numbers], list(range(361)))

    async def test_looking_for_changes(self) -> None:
        """Where notifications do not arrive, changes are found by looking."""
        other = await self.deaf_node(poll=0.05)
        row = await self.storage.insert("services", {"host": "h"})
        await self.until(lambda: other.get("services", row["id"]), "the change")

    async def test_trimmed_changes(self) -> None:
        """Old changes are forgotten, the newest never; a node that missed them reads everything and tells the difference."""
        other = await self.deaf_node()
        keeper = await self.node(changes_kept=5, poll=0.05)
        told: list[Change] = []
        other.subscribe(told.extend)
        first = await self.storage.insert("services", {"name": "first", "host": "h"})
        await other.update("services", first["id"], {})
        del told[:]
        for at in range(20):
            await self.storage.insert("services", {"name": f"n{at}", "host": "h"})
        await self.storage.delete("services", first["id"])

        def kept() -> int:
            return int(self.sql("SELECT count(*) FROM kongtwist_changes")[0][0])

        await self.until(lambda: kept() <= 6, "fewer changes in the table")
        self.assertEqual(kept(), 6)
        await other.insert("services", {"name": "own", "host": "h"})
        await self.until(lambda: self.same(other, keeper), "the same rows")
        self.assertEqual([change.op for change in told], ["delete", *["create"] * 21])

    async def test_another_database_in_its_place(self) -> None:
        """A backup that was put back, with as many changes but others: nodes see it, and read everything."""
        for name in "ab":
            await self.storage.insert("services", {"name": name, "host": "h"})
        self.sql("UPDATE kongtwist_rows SET document = replace(document::text, '\"b\"', '\"z\"')::json")
        self.sql("UPDATE kongtwist_state SET token = 'restored'")
        self.sql(
            "UPDATE kongtwist_changes SET token = 'restored' WHERE sequence = (SELECT max(sequence) FROM kongtwist_changes)"
        )
        await self.storage.insert("services", {"name": "b", "host": "h"})
        self.assertEqual(sorted(row["name"] for row in self.storage.load()["services"].values()), ["a", "b", "z"])
        self.assertTrue(self.same())

    async def test_database_made_anew(self) -> None:
        """Without tables writes are refused with the remedy; with new, empty ones nodes follow."""
        await self.storage.insert("services", {"name": "a", "host": "h"})
        self.migrations.reset()
        for _ in range(2):
            error = await self.refusal(self.storage.insert("services", {"name": "b", "host": "h"}))
            self.assertEqual(error.status, 503)
        await self.until(lambda: "migrations bootstrap" in self.storage._away, "the remedy")
        self.assertEqual((self.storage.reachable(), len(self.storage.load()["services"])), (False, 1))
        self.migrations.bootstrap()
        await self.until(self.storage.reachable, "the database")
        self.assertEqual(dict(self.storage.load()["services"]), {})
        await self.storage.insert("services", {"name": "a", "host": "h"})

    async def test_entities_this_node_does_not_have(self) -> None:
        """Rows of a plugin that only other nodes have are let be."""
        self.entities = {name: each for name, each in self.entities.items() if name != "keyauth_credentials"}
        other = await self.node(poll=NEVER)
        consumer = await self.storage.insert("consumers", {"username": "u"})
        await self.storage.insert("keyauth_credentials", {"consumer": {"id": consumer["id"]}})
        await other.insert("consumers", {"username": "v"})
        self.assertNotIn("keyauth_credentials", other.load())
        third = await self.node()
        self.assertEqual(len(third.load()["consumers"]), 2)
        self.assertEqual(self.sql("SELECT count(*) FROM kongtwist_rows"), [(3,)])

    async def test_expiry_on_two_nodes(self) -> None:
        """Both look for what is over; it is deleted once."""
        other = await self.node()
        consumer = await self.storage.insert("consumers", {"username": "u"})
        await self.storage.insert("keyauth_credentials", {"ttl": 10, "consumer": {"id": consumer["id"]}})
        await self.until(lambda: other.load()["keyauth_credentials"], "the credential")
        self.now += 11
        found = await gatherResults(self.begin(self.storage.expire(), other.expire()))
        self.assertEqual(sorted(found), [0, 1])

    async def test_everything_at_once(self) -> None:
        """A large replacement is one commit, and one step for the other node; a row that stays as it is is none."""
        other, steps = await self.node(poll=NEVER), list[int]()
        other.subscribe(lambda changes: steps.append(len(changes)))
        row = await self.storage.insert("services", {"name": "n0", "host": "h"})
        rows = {key: row | {"id": key, "name": f"n{at}"} for at, key in zip(range(3000), contract.ids(), strict=False)}
        await self.storage.replace({"services": rows})
        await self.until(lambda: len(other.load()["services"]) == 3000, "all rows")
        self.assertEqual(steps, [1, 2999])
        self.assertTrue(self.same(other))


class LossTests(PostgresTestCase):
    """Connections that end, and a server that stands still."""

    storage: PostgresStorage

    async def test_listening_connection_lost(self) -> None:
        """A new one is made, and what was missed meanwhile is brought in; writes go on."""
        other = await self.node(poll=NEVER)
        before = other._listening
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        await self.until(lambda: other.get("services", row["id"]), "the missed change")
        await self.until(lambda: other._listening is not None and other._listening is not before, "a new connection")
        self.assertTrue(other.reachable())
        second = await self.storage.insert("services", {"name": "b", "host": "h"})
        await self.until(lambda: other.get("services", second["id"]), "the next change")

    async def test_all_connections_lost(self) -> None:
        """The next write notices that its idle connection has gone, and takes a new one."""
        await self.storage.insert("services", {"name": "a", "host": "h"})
        ended = self.sql(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND usename = 'kong' AND backend_type = 'client backend'"
        )
        self.assertGreaterEqual(len(ended), 2)
        pids = ", ".join(str(pid) for pid, _ in ended)
        await self.until(lambda: not self.sql(f"SELECT 1 FROM pg_stat_activity WHERE pid IN ({pids})"), "their ends")
        await self.storage.insert("services", {"name": "b", "host": "h"})
        self.assertEqual(len((await self.reopened()).load()["services"]), 2)

    async def test_refused_by_the_server(self) -> None:
        """A commit that the server refuses is answered 503 with the reason and undone; the next one works."""
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        self.sql("ALTER TABLE kongtwist_rows ADD CONSTRAINT small CHECK (length(document::text) < 100) NOT VALID")
        error = await self.refusal(self.storage.update("services", row["id"], {"name": "b"}))
        self.assertEqual((error.status, error.code), (503, 8))
        self.assertIn("violates check constraint", error.message)
        self.assertEqual((self.storage.reachable(), self.storage.get("services", row["id"])), (False, row))
        self.sql("ALTER TABLE kongtwist_rows DROP CONSTRAINT small")
        await self.storage.update("services", row["id"], {"name": "b"})
        self.assertTrue(self.storage.reachable())

    async def test_bound_of_connections(self) -> None:
        """However much is under way, a node has no more connections than pg_pool_size and the one that listens."""
        node = await self.node(pool_size=2)

        def held(connection: Connection) -> int:
            connection.execute("SELECT pg_sleep(0.05)")
            return connection.session.info.backend_pid

        pids = await gatherResults(self.begin(*(node.pool.run(held) for _ in range(12))))
        self.assertLessEqual(len(set(pids)), 2)

    async def test_unusable_databases(self) -> None:
        """One sentence each that says what to do."""
        for settings, sentence in (
            ({"schema": self.database.new_schema()}, "has no tables yet; run 'kongtwist migrations bootstrap'"),
            ({"database": "none"}, 'database "none" does not exist; start the server, or correct the properties pg_'),
            ({"host": "/nowhere"}, "cannot be reached: .*No such file or directory"),
        ):
            storage = PostgresStorage(
                self.database.settings(**{"schema": self.schema, **settings}), self.entities, reactor, **self.options
            )
            with self.assertRaisesRegex(StorageError, sentence):
                await storage.open()
        self.sql("INSERT INTO kongtwist_migrations (name, finished) VALUES ('999_later', true)")
        with self.assertRaisesRegex(StorageError, "migrated by a newer kongtwist .it has 999_later"):
            await self.another().open()


class FreezeTests(PostgresTestCase):
    """A server that stands still with its connections open, as a frozen machine does."""

    storage: PostgresStorage

    def server(self) -> PostgresServer:
        server = PostgresServer()
        self.addCleanup(server.discard)
        return server

    def another(self, **settings: Any) -> PostgresStorage:
        return super().another(**{"timeout": 3.0, **settings})

    async def test_in_the_middle_of_a_commit(self) -> None:
        """Not answered as done; undone here; whatever became of it, it is the same everywhere afterwards."""
        await self.until(lambda: not self.storage._looking, "the first look, which would be what is under way")
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        self.database.freeze()
        await deferLater(reactor, 0, lambda: None)  # out of the answer to the insert, while which no commit begins
        (write,) = self.begin(self.refusal(self.storage.update("services", row["id"], {"name": "b"})))
        self.assertEqual(self.storage.pool.busy, 1)
        waiting = self.begin(self.refusal(self.storage.insert("services", {"name": "c", "host": "h"})))
        error = await write
        self.assertEqual(error.status, 503)
        self.assertEqual((await waiting[0]).status, 503)  # and never sent
        self.assertEqual((self.storage.reachable(), self.storage.get("services", row["id"])), (False, row))
        at_once = await self.refusal(self.storage.insert("services", {"name": "d", "host": "h"}))
        self.assertEqual(at_once.status, 503)
        self.database.thaw()
        await self.until(self.storage.reachable, "the database")
        other = await self.node()
        await self.until(lambda: self.same(other), "the same rows")
        final = await self.storage.update("services", row["id"], {"name": "e"})
        await self.until(lambda: other.get("services", row["id"]) == final, "the next change")
        self.assertEqual(len(self.storage.load()["services"]), 1)

    async def test_tallies(self) -> None:
        """Refused in time while the server stands still, at once while it is away; counted again when it is back."""
        joined = Tallies(reactor, self.storage.tally, self.storage.tally_timeout)
        self.addCleanup(joined.close)
        one = [Tally("a", 1, 1, contract.NOW + 60)]
        self.assertEqual(await joined.add(one), [1.0])
        self.database.freeze()
        with self.assertRaisesRegex(HostError, "within 3 s"):
            await joined.add(one)
        await self.until(lambda: not self.storage.reachable(), "the database to be away")
        at_once = joined.add(one)
        await deferLater(reactor, 0, lambda: None)
        self.assertTrue(at_once.called)
        self.assertIsInstance(self.failureResultOf(at_once).value, HostError)
        self.database.thaw()
        await self.until(self.storage.reachable, "the database")
        self.assertIn(await joined.add(one), ([2.0], [3.0]))  # the one in the ice may have been counted

    async def test_closing(self) -> None:
        """A node on a server that stands still comes to its end."""
        self.database.freeze()
        write = self.begin(self.refusal(self.storage.insert("services", {"name": "a", "host": "h"})))
        await self.storage.close()
        self.assertEqual((await write[0]).status, 503)
        self.database.thaw()

    async def test_noticed_without_a_write(self) -> None:
        """The look for changes notices it."""
        node = await self.node(poll=0.05)
        self.database.freeze()
        await self.until(lambda: not node.reachable(), "the loss")
        self.database.thaw()
        await self.until(node.reachable, "the database")

    async def test_frozen_at_the_start(self) -> None:
        """A start on it fails with a sentence."""
        self.database.freeze()
        with self.assertRaisesRegex(StorageError, "(did not answer within 3 s|cannot be reached)"):
            await self.another().open()
        self.database.thaw()

    async def test_killed_and_back(self) -> None:
        """Writes are refused at once, reads go on, and when it is back all is in step, unlogged in between."""
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        other = await self.node()
        self.database.kill()
        await self.until(lambda: not self.storage.reachable() and not other.reachable(), "the loss")
        error = await self.refusal(self.storage.update("services", row["id"], {"name": "b"}))
        self.assertEqual((error.status, error.code), (503, 8))
        self.assertEqual((await self.refusal(other.refresh())).status, 503)
        self.assertEqual(await other.expire(), 0)
        self.assertEqual(self.storage.page("services", 5).rows, [row])
        self.database.start()
        await self.until(lambda: self.storage.reachable() and other.reachable(), "the database")
        changed = await other.update("services", row["id"], {"name": "b"})
        await self.until(lambda: self.storage.get("services", row["id"]) == changed, "the change")
