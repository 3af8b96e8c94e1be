"""What every writable back end of storage must do: one suite, run on each of them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from kongtwist.core.storage_contract import Change
from kongtwist.entities import EntityError, registry
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.storage.base import BaseStorage, StorageError, Transaction
from kongtwist.storage.declarative.dump import dumped

NOW = 1700000000.0
ABSENT = "00000000-0000-4000-8000-000000000000"


def ids() -> Any:
    """UUIDs in no order, the same in every run."""
    for number in range(1, 10_000):
        yield str(UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128, version=4))


class StorageTestCase(TestCase):
    """Storage, a clock and what subscribers were told."""

    def setUp(self) -> Any:
        self.now = NOW
        self.entities = registry(load_plugins(["bundled"]))
        self.told: list[Change] = []
        numbers = ids()
        self.options: dict[str, Any] = {"now": lambda: self.now, "new_id": lambda: next(numbers)}
        self.storage = self.make_storage()
        self.storage.subscribe(self.told.extend)
        return Deferred.fromCoroutine(self.storage.open())

    def tearDown(self) -> Any:
        return Deferred.fromCoroutine(self.storage.close())

    def make_storage(self) -> BaseStorage:
        """A new, empty back end."""
        return BaseStorage(self.entities, **self.options)

    def begin(self, *writes: Any) -> list[Deferred[Any]]:
        """Writes that are all under way at once."""
        return [Deferred.fromCoroutine(each) for each in writes]

    async def refusal(self, write: Any) -> EntityError:
        """Why a write is refused."""
        try:
            row = await write
        except EntityError as error:
            return error
        self.fail(f"accepted: {row}")


class WriteContract(StorageTestCase):
    """Single writes, their rules and what is told about them."""

    async def test_insert(self) -> None:
        """A whole row comes back, is found by id and name, and told before the answer."""
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        self.assertEqual((row["name"], row["port"], row["created_at"]), ("a", 80, int(NOW)))
        self.assertEqual(self.storage.get("services", row["id"]), row)
        self.assertEqual(self.storage.find("services", "name", "a"), row)
        self.assertEqual(self.storage.load()["services"], {row["id"]: row})
        self.assertEqual(self.told, [Change("create", "services", row, None)])

    async def test_other_entities(self) -> None:
        """Writes wait while entities change; rows stay the same, and what was stored of a plugin that comes is there again."""
        storage, everything = self.storage, self.entities
        await storage.insert("consumers", {"username": "bob"})
        key = await storage.insert("keyauth_credentials", {"key": "k", "consumer": {"username": "bob"}})
        plugin = await storage.insert("plugins", {"name": "key-auth"})
        few = registry(load_plugins(["cors"]))
        for entities in (few, everything):
            await storage.hold()
            (late,) = self.begin(storage.insert("consumers", {"username": f"ann{len(entities)}"}))
            store = await storage.candidate(entities)
            self.assertFalse(late.called)
            self.assertIsNot(storage.registry, entities)
            storage.adopt(entities, store)
            storage.release()
            await late
            self.assertEqual(len(storage.load()["consumers"]), 2 if entities is few else 3)
            self.assertEqual("keyauth_credentials" in storage.load(), entities is everything)
            self.assertEqual(storage.load()["plugins"][plugin["id"]]["name"], "key-auth")
        if storage.kind != "off":
            self.assertEqual(storage.load()["keyauth_credentials"], {key["id"]: key})
        self.assertEqual(
            (await self.refusal(storage.insert("consumers", {"username": "bob"}))).name, "unique constraint violation"
        )

    async def test_told_before_the_answer(self) -> None:
        """When a writer goes on, every subscriber knows."""
        seen: list[int] = []
        (first,) = self.begin(self.storage.insert("services", {"name": "a", "host": "h"}))
        await first.addCallback(lambda _: seen.append(len(self.told)))
        self.assertEqual(seen, [1])

    async def test_misfits_leave_nothing(self) -> None:
        error = await self.refusal(self.storage.insert("services", {"retries": 3}))
        self.assertEqual((error.status, error.code, error.fields), (400, 2, {"host": "required field missing"}))
        self.assertEqual((self.told, dict(self.storage.load()["services"])), ([], {}))

    async def test_taken_id(self) -> None:
        row = await self.storage.insert("services", {"host": "h"})
        error = await self.refusal(self.storage.insert("services", {"host": "g", "id": row["id"]}))
        self.assertEqual((error.status, error.code, error.fields), (400, 3, {"id": row["id"]}))
        self.assertEqual(self.storage.get("services", row["id"]), row)

    async def test_update(self) -> None:
        """Only what is given changes; other rows, and the old row object, stay as they are."""
        row = await self.storage.insert("services", {"name": "a", "host": "h", "tags": ["x"]})
        self.now += 5
        changed = await self.storage.update("services", row["id"], {"name": "b"})
        self.assertEqual(changed, row | {"name": "b", "updated_at": int(self.now)})
        self.assertEqual(self.storage.find("services", "name", "b"), changed)
        self.assertIsNone(self.storage.find("services", "name", "a"))
        self.assertEqual(self.told[1:], [Change("update", "services", changed, row)])
        self.assertEqual(row["name"], "a")

    async def test_update_of_nothing(self) -> None:
        error = await self.refusal(self.storage.update("services", ABSENT, {"name": "b"}))
        self.assertEqual((error.status, error.code), (404, 6))

    async def test_upsert(self) -> None:
        """By id or by name, making or replacing; the id of a name stays."""
        made = await self.storage.upsert("services", {"id": ABSENT}, {"host": "h", "retries": 1})
        self.assertEqual((made["id"], made["retries"]), (ABSENT, 1))
        named = await self.storage.upsert("services", {"name": "n"}, {"host": "h", "retries": 2})
        self.now += 5
        again = await self.storage.upsert("services", {"name": "n"}, {"host": "g"})
        self.assertEqual((again["id"], again["host"], again["retries"], again["name"]), (named["id"], "g", 5, "n"))
        self.assertEqual((again["created_at"], again["updated_at"]), (int(NOW), int(self.now)))
        self.assertEqual([change.op for change in self.told], ["create", "create", "update"])

    async def test_delete(self) -> None:
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        self.assertEqual(await self.storage.delete("services", row["id"]), row)
        self.assertIsNone(self.storage.get("services", row["id"]))
        self.assertIsNone(self.storage.find("services", "name", "a"))
        self.assertEqual(self.told[1:], [Change("delete", "services", None, row)])
        self.assertIsNone(await self.storage.delete("services", row["id"]))
        self.assertEqual(len(self.told), 2)
        await self.storage.insert("services", {"name": "a", "host": "h"})

    async def test_unique(self) -> None:
        """Names, and combinations that must be unique together; null is not a value."""
        await self.storage.insert("services", {"name": "a", "host": "h"})
        other = await self.storage.insert("services", {"name": "b", "host": "h"})
        for write in (
            self.storage.insert("services", {"name": "a", "host": "h"}),
            self.storage.update("services", other["id"], {"name": "a"}),
            self.storage.upsert("services", {"id": ABSENT}, {"name": "a", "host": "h"}),
        ):
            error = await self.refusal(write)
            self.assertEqual((error.status, error.code, error.fields), (409, 5, {"name": "a"}))
            self.assertEqual(error.message, "UNIQUE violation detected on '{name=\"a\"}'")
        await self.storage.insert("services", {"host": "h"})
        await self.storage.insert("services", {"host": "h"})
        await self.storage.insert("plugins", {"name": "key-auth"})
        error = await self.refusal(self.storage.insert("plugins", {"name": "key-auth"}))
        self.assertEqual(
            (error.status, error.fields), (409, {"name": "key-auth", "route": None, "service": None, "consumer": None})
        )
        await self.storage.insert("plugins", {"name": "key-auth", "service": {"id": other["id"]}})

    async def test_references(self) -> None:
        """By id or by name, and only to what is there."""
        service = await self.storage.insert("services", {"name": "a", "host": "h"})
        for reference in ({"id": service["id"]}, {"name": "a"}):
            row = await self.storage.insert("routes", {"paths": ["/"], "service": reference})
            self.assertEqual(row["service"], {"id": service["id"]})
        self.assertEqual(len(self.storage.children("routes", "service", service["id"])), 2)
        error = await self.refusal(self.storage.insert("routes", {"paths": ["/"], "service": {"id": ABSENT}}))
        self.assertEqual((error.status, error.code, error.fields), (400, 4, {"service": {"id": ABSENT}}))
        error = await self.refusal(self.storage.insert("routes", {"paths": ["/"], "service": {"name": "z"}}))
        self.assertEqual((error.status, error.code), (400, 13))

    async def test_deleting_parents(self) -> None:
        """Plugins go with what they are for, children first; routes keep their service."""
        service = await self.storage.insert("services", {"name": "a", "host": "h"})
        route = await self.storage.insert("routes", {"paths": ["/"], "service": {"id": service["id"]}})
        plugin = await self.storage.insert("plugins", {"name": "key-auth", "route": {"id": route["id"]}})
        error = await self.refusal(self.storage.delete("services", service["id"]))
        self.assertEqual((error.status, error.code, error.fields), (400, 4, {"@referenced_by": "routes"}))
        self.assertIsNotNone(self.storage.get("services", service["id"]))
        del self.told[:]
        await self.storage.delete("routes", route["id"])
        self.assertEqual(
            self.told, [Change("delete", "plugins", None, plugin), Change("delete", "routes", None, route)]
        )
        self.assertIsNone(self.storage.get("plugins", plugin["id"]))
        await self.storage.delete("services", service["id"])

    async def test_references_keep_the_id(self) -> None:
        """Of what is sent as a reference the id alone is kept, in lower case; without one a unique field finds it."""
        owner = await self.storage.insert("consumers", {"username": "u", "custom_id": "c"})
        other = await self.storage.insert("consumers", {"username": "o"})
        only = {"id": owner["id"]}
        for sent in (
            {"id": owner["id"], "secret": "pw", "username": "o"},
            {"id": owner["id"].upper(), "tags": ["x"]},
            {"username": "u"},
            {"custom_id": "c", "key": "pw"},
            {"id": None, "username": "u", "custom_id": "c"},
            {"id": "u", "username": "u"},
        ):
            made = await self.storage.insert("keyauth_credentials", {"consumer": sent})
            self.assertEqual(made["consumer"], only, sent)
            self.assertEqual(self.storage.get("keyauth_credentials", made["id"]), made)
            moved = await self.storage.update(
                "keyauth_credentials", made["id"], {"consumer": {"id": other["id"], "k": 1}}
            )
            self.assertEqual(moved["consumer"], {"id": other["id"]})
            back = await self.storage.upsert("keyauth_credentials", {"id": made["id"]}, {"consumer": sent})
            self.assertEqual(back["consumer"], only, sent)
            self.assertEqual(self.told[-1].new, back)
        error = await self.refusal(self.storage.insert("keyauth_credentials", {"consumer": {"custom_id": "x"}}))
        self.assertEqual(
            (error.code, list(error.fields), list(error.fields["consumer"])), (13, ["consumer"], ["custom_id"])
        )
        both = {"username": "y", "custom_id": "x"}
        error = await self.refusal(self.storage.insert("keyauth_credentials", {"consumer": both}))
        words = "the foreign key cannot be resolved with '{%s=\"%s\"}' for an existing 'consumers' entity"
        told = [f"consumer.{field}: {words % (field, both[field])}" for field in sorted(both)]
        self.assertEqual(error.message, f"2 foreign keys unresolved ({'; '.join(told)})")
        upper = await self.storage.insert("services", {"host": "h", "id": ABSENT.replace("8", "A")})
        self.assertEqual(upper["id"], ABSENT.replace("8", "a"))

    async def test_time_to_live(self) -> None:
        """An expired row is not there, for nobody, before it is swept; then it is deleted and told."""
        consumer = await self.storage.insert("consumers", {"username": "u"})
        owner = {"consumer": {"id": consumer["id"]}}
        short = await self.storage.insert("keyauth_credentials", {"key": "s", "ttl": 10, **owner})
        await self.storage.insert("keyauth_credentials", {"key": "l", **owner})
        self.now += 9
        self.assertEqual(await self.storage.expire(), 0)
        self.assertEqual(self.storage.get("keyauth_credentials", short["id"]), short)
        self.now += 2
        self.assertIsNone(self.storage.get("keyauth_credentials", short["id"]))
        self.assertIsNone(self.storage.find("keyauth_credentials", "key", "s"))
        self.assertEqual([row["key"] for row in self.storage.page("keyauth_credentials", 9).rows], ["l"])
        self.assertEqual(len(self.storage.children("keyauth_credentials", "consumer", consumer["id"])), 1)
        self.assertEqual(await self.storage.expire(), 1)
        self.assertEqual(self.told[-1], Change("delete", "keyauth_credentials", None, short))
        self.assertNotIn(short["id"], self.storage.load()["keyauth_credentials"])
        self.assertEqual(await self.storage.expire(), 0)

    async def test_together(self) -> None:
        """Several writes see each other while they are planned; all become durable and are told at once, in order."""

        def work(transaction: Transaction) -> str:
            row = transaction.insert("services", {"name": "a", "host": "h"})
            self.assertEqual(transaction.find("services", "name", "a"), row)
            transaction.insert("routes", {"paths": ["/r"], "service": {"id": row["id"]}})
            transaction.update("services", row["id"], {"port": 81})
            transaction.delete("services", gone["id"])
            return str(row["id"])

        gone = await self.storage.insert("services", {"name": "b", "host": "h"})
        made = await self.storage.together(work)
        row = self.storage.get("services", made)
        self.assertEqual(row and row["port"], 81)
        self.assertEqual(len(self.storage.children("routes", "service", made)), 1)
        self.assertIsNone(self.storage.get("services", gone["id"]))
        self.assertEqual([each.op for each in self.told[1:]], ["create", "create", "update", "delete"])

    async def test_together_or_not_at_all(self) -> None:
        """One that is refused takes the others with it; writes that are under way at the same time are none the wiser."""
        await self.storage.insert("services", {"name": "taken", "host": "h"})
        before = {name: dict(rows) for name, rows in self.storage.load().items() if rows}

        def work(transaction: Transaction) -> None:
            transaction.insert("services", {"name": "first", "host": "h"})
            transaction.update(
                "services", transaction.insert("services", {"name": "second", "host": "h"})["id"], {"port": 81}
            )
            transaction.insert("services", {"name": "taken", "host": "h"})

        error = await self.refusal(self.storage.together(work))
        self.assertEqual((error.status, error.code), (409, 5))
        self.assertEqual({name: dict(rows) for name, rows in self.storage.load().items() if rows}, before)
        self.assertEqual(len(self.told), 1)
        refused, made = self.begin(
            self.storage.together(work), self.storage.insert("services", {"name": "first", "host": "h"})
        )
        await self.assertFailure(refused, EntityError)
        self.assertEqual((await made)["name"], "first")
        self.assertEqual({row["name"] for row in self.storage.load()["services"].values()}, {"taken", "first"})

    async def test_replacing_everything(self) -> None:
        """A new configuration in one step, names changing hands between rows included."""
        a = await self.storage.insert("services", {"name": "a", "host": "h"})
        b = await self.storage.insert("services", {"name": "b", "host": "h"})
        gone = await self.storage.insert("routes", {"paths": ["/"], "service": {"id": b["id"]}})
        a2, b2 = a | {"name": "b"}, b | {"name": "a"}
        del self.told[:]
        await self.storage.replace({"services": {a["id"]: a2, b["id"]: b2}})
        self.assertEqual(self.storage.find("services", "name", "b"), a2)
        self.assertEqual(self.storage.find("services", "name", "a"), b2)
        self.assertCountEqual(
            self.told,
            [
                Change("delete", "routes", None, gone),
                Change("update", "services", a2, a),
                Change("update", "services", b2, b),
            ],
        )
        for name in "ab":
            error = await self.refusal(self.storage.insert("services", {"name": name, "host": "h"}))
            self.assertEqual(error.code, 5)


class PageContract(StorageTestCase):
    """Lists."""

    async def services(self, count: int, **more: Any) -> None:
        """Some rows."""
        for at in range(count):
            await self.storage.insert("services", {"name": f"{more.get('tags', ['s'])[0]}{at}", "host": "h", **more})

    def walk(self, size: int, entity: str = "services", **options: Any) -> list[list[str]]:
        """The ids on each page."""
        pages, offset = [], None
        while True:
            page = self.storage.page(entity, size, offset, **options)
            pages.append([row["id"] for row in page.rows])
            offset = page.offset
            if offset is None:
                return pages

    async def test_pages(self) -> None:
        """By id; every page full but the last, which has no offset, also where it is exactly full."""
        await self.services(7)
        everything = sorted(self.storage.load()["services"])
        self.assertEqual(self.walk(3), [everything[:3], everything[3:6], everything[6:]])
        self.assertEqual(self.walk(7), [everything])
        self.assertEqual([len(page) for page in self.walk(1)], [1] * 7)
        self.assertEqual(self.walk(100), [everything])

    async def test_stable_while_rows_come_and_go(self) -> None:
        """What was there all the time is listed exactly once, even if the row the offset stands for has gone."""
        await self.services(10)
        before = sorted(self.storage.load()["services"])
        first = self.storage.page("services", 4)
        await self.services(10, tags=["later"])
        await self.storage.delete("services", first.rows[-1]["id"])
        listed = [row["id"] for row in first.rows]
        offset = first.offset
        while offset is not None:
            page = self.storage.page("services", 3, offset)
            listed += [row["id"] for row in page.rows]
            offset = page.offset
        self.assertEqual(len(listed), len(set(listed)))
        self.assertEqual([each for each in listed if each in before], before)

    async def test_tags(self) -> None:
        """All of several, or any of them; pages are full of what matches."""
        for tags in (["a"], ["b"], ["a", "b"], ["c"], None):
            await self.storage.insert("services", {"host": "h", "tags": tags})

        def tagged(how: str, *tags: str, size: int = 100) -> list[list[str]]:
            rows = self.storage.load()["services"]
            pages = self.walk(size, tags=(how, tags))
            return [sorted("".join(rows[key]["tags"]) for key in page) for page in pages]

        self.assertEqual(tagged("and", "a", "b"), [["ab"]])
        self.assertEqual(tagged("or", "a", "b"), [["a", "ab", "b"]])
        self.assertEqual(tagged("and", "c"), [["c"]])
        self.assertEqual([len(page) for page in tagged("or", "a", "b", size=2)], [2, 1])

    async def test_children(self) -> None:
        """Only those of one parent."""
        for name in "ab":
            await self.storage.insert("services", {"name": name, "host": "h"})
            for _ in range(3):
                await self.storage.insert("routes", {"paths": ["/"], "service": {"name": name}})
        parent = self.storage.find("services", "name", "a")
        assert parent is not None
        page = self.storage.page("routes", 2, parent=("service", parent["id"]))
        rest = self.storage.page("routes", 2, page.offset, parent=("service", parent["id"]))
        self.assertEqual((len(page.rows), len(rest.rows), rest.offset), (2, 1, None))
        self.assertEqual({row["service"]["id"] for row in page.rows + rest.rows}, {parent["id"]})

    async def test_expired_rows_take_no_place(self) -> None:
        """Pages are full of rows that live, wherever the expired ones stand and whichever list it is; none is listed twice."""
        owner = await self.storage.insert("consumers", {"username": "u"})
        for at in range(12):
            await self.storage.insert("keyauth_credentials", {
                "key": f"k{at}", "consumer": {"id": owner["id"]}, "tags": ["t"], "ttl": 1 if at % 3 else None,
            })  # fmt: skip
        self.now += 5
        everything = sorted(self.storage.load()["keyauth_credentials"].values(), key=lambda row: row["id"])
        living = [row["id"] for row in everything if "expires_at" not in row]
        self.assertEqual((len(everything), len(living)), (12, 4))
        lists: tuple[dict[str, Any], ...] = (
            {}, {"parent": ("consumer", owner["id"])}, {"tags": ("and", ["t"])}, {"tags": ("or", ["t", "u"])},
        )  # fmt: skip
        for how in lists:
            self.assertEqual(self.walk(3, "keyauth_credentials", **how), [living[:3], living[3:]], how)
            self.assertEqual(self.walk(4, "keyauth_credentials", **how), [living], how)
            self.assertEqual(self.walk(1, "keyauth_credentials", **how), [[each] for each in living], how)
        self.assertEqual([row["entity_id"] for row in self.storage.tags()], living)
        text = "".join(dumped(self.storage.load(), self.entities, self.now))
        self.assertEqual([each["id"] in text for each in everything], [each["id"] in living for each in everything])

    async def test_bad_offsets(self) -> None:
        deep = b64encode(b"[" * 5000).decode()
        for offset, why in (
            (deep, "bad json encoding"),
            ("%", "bad base64 encoding"),
            ("eHg=", "bad json encoding"),
            ("WzFd", "bad json encoding"),
        ):
            with self.assertRaises(EntityError) as refused:
                self.storage.page("services", 5, offset)
            self.assertEqual((refused.exception.status, refused.exception.code), (400, 7))
            self.assertEqual(refused.exception.message, f"'{offset}' is not a valid offset: {why}")


class ConcurrencyContract(StorageTestCase):
    """Writes that are under way together."""

    async def test_patches_do_not_lose_each_other(self) -> None:
        """Each is merged into the newest row."""
        row = await self.storage.insert("services", {"host": "h"})
        patches: list[dict[str, Any]] = [{"name": "n"}, {"retries": 9}, {"tags": ["a"]}, {"path": "/p"}, {"port": 81}]
        await gatherResults(self.begin(*(self.storage.update("services", row["id"], each) for each in patches)))
        final = self.storage.get("services", row["id"])
        assert final is not None
        for patch in patches:
            self.assertEqual(final, final | patch)

    async def test_one_name_twice(self) -> None:
        """Of several writers that want a name one has it, the others learn so."""
        writes = self.begin(*(self.storage.insert("services", {"name": "n", "host": "h"}) for _ in range(4)))
        results = await DeferredList(writes, consumeErrors=True)
        self.assertEqual([fine for fine, _ in results], [True, False, False, False])
        for _, failure in results[1:]:
            assert isinstance(failure, Failure)
            error = failure.value
            assert isinstance(error, EntityError)
            self.assertEqual((error.status, error.code), (409, 5))
        self.assertEqual(len(self.storage.load()["services"]), 1)

    async def test_child_of_a_parent_that_goes(self) -> None:
        """Whichever is first: no child without its parent."""
        service = await self.storage.insert("services", {"host": "h"})
        writes = self.begin(
            self.storage.insert("routes", {"paths": ["/1"], "service": {"id": service["id"]}}),
            self.storage.delete("services", service["id"]),
            self.storage.insert("routes", {"paths": ["/2"], "service": {"id": service["id"]}}),
        )
        results = await DeferredList(writes, consumeErrors=True)
        self.assertEqual([fine for fine, _ in results], [True, False, True])
        self.assertIsNotNone(self.storage.get("services", service["id"]))

    async def test_order(self) -> None:
        """Changes are told in the order of the writes, also of those committed together."""
        await gatherResults(
            self.begin(*(self.storage.insert("services", {"name": f"n{at}", "host": "h"}) for at in range(20)))
        )
        self.assertEqual([change.new["name"] for change in self.told if change.new], [f"n{at}" for at in range(20)])

    async def test_a_failing_subscriber(self) -> None:
        """The writer is answered, the others are told, and the failure is logged."""

        def fail(changes: Sequence[Change]) -> None:
            raise RuntimeError("subscriber")

        after: list[Change] = []
        self.storage.subscribe(fail)
        self.storage.subscribe(after.extend)
        await self.storage.insert("services", {"name": "a", "host": "h"})
        self.assertEqual(len(after), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_a_failing_plan(self) -> None:
        """A bug in one write is that writer's error alone."""

        def broken(store: Any) -> Any:
            raise ZeroDivisionError

        writes = self.begin(
            self.storage.insert("services", {"host": "h"}),
            self.storage.write(broken),
            self.storage.insert("services", {"host": "h"}),
        )
        results = await DeferredList(writes, consumeErrors=True)
        self.assertEqual([fine for fine, _ in results], [True, False, True])

    async def test_failing_commit(self) -> None:
        """What cannot be made durable is undone, told to nobody, and answered 503; later writes work again."""
        kept = await self.storage.insert("services", {"name": "a", "host": "h"})
        del self.told[:]

        async def fail(changes: Sequence[Change]) -> None:
            raise StorageError("the disk is full")

        with_commit = self.storage._commit
        self.patch(self.storage, "_commit", fail)
        writes = self.begin(
            self.storage.update("services", kept["id"], {"name": "b"}),
            self.storage.insert("services", {"name": "c", "host": "h"}),
            self.storage.delete("services", kept["id"]),
        )
        for _, failure in await DeferredList(writes, consumeErrors=True):
            assert isinstance(failure, Failure)
            error = failure.value
            assert isinstance(error, EntityError)
            self.assertEqual((error.status, error.message), (503, "the disk is full"))
        self.assertEqual((self.storage.load()["services"], self.told), ({kept["id"]: kept}, []))
        self.assertEqual(self.storage.find("services", "name", "a"), kept)
        self.patch(self.storage, "_commit", with_commit)
        await self.storage.update("services", kept["id"], {"name": "b"})
        self.assertEqual(len(self.told), 1)

    async def test_commit_with_a_bug(self) -> None:
        """Nobody is left without an answer, and nothing is left half done."""

        async def fail(changes: Sequence[Change]) -> None:
            raise ZeroDivisionError

        self.patch(self.storage, "_commit", fail)
        (write,) = self.begin(self.storage.insert("services", {"host": "h"}))
        ((fine, _),) = await DeferredList([write], consumeErrors=True)
        self.assertFalse(fine)
        self.assertEqual(dict(self.storage.load()["services"]), {})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_closing(self) -> None:
        """Writes under way are finished, later ones refused."""
        (write,) = self.begin(self.storage.insert("services", {"name": "a", "host": "h"}))
        await self.storage.close()
        self.assertEqual((await write)["name"], "a")
        error = await self.refusal(self.storage.insert("services", {"host": "h"}))
        self.assertEqual(error.status, 503)
        self.assertFalse(self.storage.reachable())


class DurabilityContract(StorageTestCase):
    """What is there after a restart."""

    async def reopened(self) -> BaseStorage:
        """The same rows after a restart."""
        raise NotImplementedError

    async def test_reopening(self) -> None:
        """The same rows, after every kind of change, with their references, indexes and expiry."""
        service = await self.storage.insert("services", {"name": "ä\U0001f600", "host": "h"})
        gone = await self.storage.insert("services", {"name": "gone", "host": "h"})
        await self.storage.update("services", service["id"], {"retries": 3})
        await self.storage.delete("services", gone["id"])
        await self.storage.insert("routes", {"paths": ["/"], "service": {"id": service["id"]}})
        upstream = await self.storage.insert("upstreams", {"name": "u"})
        await self.storage.insert("targets", {"target": "h:1", "upstream": {"id": upstream["id"]}})
        consumer = await self.storage.insert("consumers", {"username": "c", "custom_id": "a\0b\ud800"})
        await self.storage.insert("keyauth_credentials", {"consumer": {"id": consumer["id"]}, "ttl": 5})
        before = {name: dict(rows) for name, rows in self.storage.load().items()}
        storage = await self.reopened()
        self.assertEqual(storage.load(), before)
        self.assertEqual(len(storage.children("routes", "service", service["id"])), 1)
        error = await self.refusal(storage.insert("upstreams", {"name": "u"}))
        self.assertEqual(error.code, 5)
        self.now += 6
        self.assertEqual(await storage.expire(), 1)
        self.assertEqual((await self.reopened()).load()["keyauth_credentials"], {})

    async def test_one_row_several_times_at_once(self) -> None:
        """Of writes of one row that are committed together the last counts."""
        kept = await self.storage.insert("services", {"name": "kept", "host": "h"})
        writes = [
            self.storage.update("services", kept["id"], {"retries": 1}),
            self.storage.upsert("services", {"id": ABSENT}, {"name": "brief", "host": "h"}),
            self.storage.update("services", kept["id"], {"retries": 2}),
            self.storage.delete("services", ABSENT),
            self.storage.insert("services", {"name": "brief", "host": "h"}),
            self.storage.update("services", kept["id"], {"retries": 3}),
        ]
        await gatherResults(self.begin(*writes))
        rows = (await self.reopened()).load()["services"].values()
        self.assertEqual(sorted((row["name"], row["retries"]) for row in rows), [("brief", 5), ("kept", 3)])
