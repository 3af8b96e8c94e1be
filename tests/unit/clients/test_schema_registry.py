"""A registry of schemas: what is asked, what is kept, and what is told when it does not answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.clients.schema_registry import Registries, Registry, RegistryLimits, RegistryServices
from kongtwist.core.chain.host import HTTPAnswer
from kongtwist.core.chain.host_basics import HostError
from kongtwist.core.chain.host_kafka import KafkaFull
from kongtwist.core.chain.host_schemas import RegistryOAuth, RegistrySettings, SchemaFailed, SchemaMismatch, Subject

URL = "http://registry:8081/base"
USER = Subject("users-value")
RULES = {"type": "object", "properties": {"id": {"type": "integer"}}}


class Server:
    """A registry and a token endpoint.

    Attributes:
        schemas: what is answered, by path.
        asked: method, URL and Authorization field of each request.
        held: answers that wait, where ``holds`` is set.
    """

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        self.asked: list[tuple[str, str, bytes | None]] = []
        self.bodies: list[bytes] = []
        self.options: list[dict[str, Any]] = []
        self.away = self.holds = False
        self.status = 200
        self.held: list[Deferred[HTTPAnswer]] = []
        self.refuses: set[bytes] = set()

    def request(self, method: str, url: str, **options: Any) -> Deferred[HTTPAnswer]:
        shown = dict(options.get("headers", ())).get(b"Authorization")
        self.asked.append((method, url, shown))
        self.bodies.append(options.get("body", b""))
        self.options.append(options)
        if self.away:
            return fail(HostError(f"{method} {url}: connection refused"))
        if self.holds:
            self.held.append(Deferred())
            return self.held[-1]
        return succeed(self.answer(url, shown))

    def answer(self, url: str, shown: bytes | None) -> HTTPAnswer:
        if url.startswith("http://tokens/"):
            return HTTPAnswer(
                self.status, [], json.dumps({"access_token": f"t{len(self.asked)}", "expires_in": 100}).encode()
            )
        if self.status != 200 or shown in self.refuses:
            return HTTPAnswer(self.status if shown not in self.refuses else 401, [], b'{"error_code":1,"message":"no"}')
        found = self.schemas.get(url.removeprefix(URL))
        if found is None:
            return HTTPAnswer(404, [], b'{"error_code":40401,"message":"Subject not found"}')
        return HTTPAnswer(200, [], found if isinstance(found, bytes) else json.dumps(found).encode())

    def put(self, subject: str, schema_id: int, schema: Any, kind: str | None = "JSON", **more: Any) -> None:
        """Have it, as the newest version and by its id."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        said = {"id": schema_id, "schema": text, **({} if kind is None else {"schemaType": kind}), **more}
        self.schemas[f"/subjects/{subject}/versions/latest"] = said
        self.schemas[f"/schemas/ids/{schema_id}"] = {name: each for name, each in said.items() if name != "id"}


class _Reactor(Clock):
    """Calls from threads are made at once."""

    def callFromThread(self, call: Callable[..., object], *args: Any) -> None:
        call(*args)


class RegistryCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = _Reactor()
        self.server = Server()
        self.threaded = 0
        self.compiled: list[dict[str, str]] = []

    def run_in_thread(self, call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        self.threaded += 1
        try:
            return succeed(call(*args))
        except Exception:  # noqa: BLE001 - as a thread would
            return fail()

    def services(self) -> RegistryServices:
        http: Any = self.server

        def compile(path: str) -> Deferred[bytes]:
            return fail(HostError(f"{path}, line 1: it is wrong"))

        return RegistryServices(self.clock, http, self.run_in_thread, compile, lambda: 1_700_000_000.0)

    def registry(self, limits: RegistryLimits = RegistryLimits(), **settings: Any) -> Registry:  # noqa: B008 - immutable
        return Registry(RegistrySettings(URL, **settings), self.services(), limits)

    def encoded(self, registry: Registry, value: bytes = b'{"id":1}', subject: Subject = USER) -> bytes:
        return self.successResultOf(Deferred.fromCoroutine(registry.encode(subject, value, 5.0)))

    def refused(self, registry: Registry, value: bytes = b'{"id":1}', subject: Subject = USER) -> Any:
        return self.failureResultOf(Deferred.fromCoroutine(registry.encode(subject, value, 5.0))).value


class WritingTests(RegistryCase):
    def test_once(self) -> None:
        """Two records, one question; the schema is made in a thread."""
        self.server.put("users-value", 7, RULES)
        registry = self.registry()
        self.assertEqual(self.encoded(registry), b'\0\0\0\0\x07{"id":1}')
        self.encoded(registry)
        self.assertEqual(self.server.asked, [("GET", f"{URL}/subjects/users-value/versions/latest", None)])
        self.assertEqual(self.threaded, 1)
        self.assertEqual(registry.waiting_bytes, 0)

    def test_names(self) -> None:
        """Subjects may have any character; versions are numbers, too."""
        self.server.schemas["/subjects/a%2Fb%20c/versions/3"] = {"id": 1, "schema": '"string"'}
        self.assertEqual(self.encoded(self.registry(), b'"x"', Subject("a/b c", "3")), b"\0\0\0\0\1\x02x")

    def test_without_asking(self) -> None:
        self.server.put("users-value", 7, RULES)
        registry = self.registry()
        self.assertIsNone(registry.encode_now(USER, b"{}"))
        self.encoded(registry)
        self.assertEqual(registry.encode_now(USER, b"{}"), b"\0\0\0\0\x07{}")
        self.assertRaises(SchemaMismatch, registry.encode_now, USER, b'{"id":"x"}')
        self.assertIsNone(registry.encode_now(USER, b'{"id":%s1}' % (b" " * 20000)))

    def test_misfit(self) -> None:
        self.server.put("users-value", 7, RULES)
        for value, text in ((b'{"id":"secret"}', "does not fit the schema users-value: at /id"), (b"{", "no JSON")):
            error = self.refused(self.registry(), value)
            self.assertIsInstance(error, SchemaMismatch)
            self.assertIn(text, str(error))
            self.assertNotIn("secret", str(error))

    def test_large(self) -> None:
        """A thread writes what would take the reactor long."""
        self.server.put("users-value", 7, RULES)
        registry = self.registry()
        self.encoded(registry, b'{"id":%s1}' % (b" " * 20000))
        self.assertEqual(self.threaded, 2)

    def test_room(self) -> None:
        """What waits for a registry is bounded."""
        self.server.holds = True
        registry = self.registry(RegistryLimits(bytes=100))
        first = Deferred.fromCoroutine(registry.encode(USER, b" " * 60, 5.0))
        self.assertIsInstance(self.refused(registry, b" " * 60), KafkaFull)
        first.cancel()
        self.failureResultOf(first)
        self.assertEqual(registry.waiting_bytes, 0)

    def test_newer(self) -> None:
        """After the ttl the newest version is asked for again."""
        self.server.put("users-value", 7, RULES)
        registry = self.registry(ttl=10.0)
        self.encoded(registry)
        self.server.put("users-value", 8, {})
        self.clock.advance(9)
        self.assertEqual(self.encoded(registry)[4], 7)
        self.clock.advance(2)
        self.assertIsNone(registry.encode_now(USER, b"{}"))
        self.assertEqual(self.encoded(registry)[4], 8)

    def test_bound(self) -> None:
        """The oldest schemas go."""
        registry = self.registry(RegistryLimits(schemas=3))
        for number in range(9):
            self.server.put(f"s{number}", number, {})
            self.encoded(registry, b"1", Subject(f"s{number}"))
        self.assertEqual((len(registry._codecs), len(registry._subjects)), (3, 3))
        self.encoded(registry, b"1", Subject("s0"))
        self.assertEqual(len(self.server.asked), 10)


class FailureTests(RegistryCase):
    def test_away(self) -> None:
        """Told with cause and remedy, and for a second nobody asks again; then it works."""
        self.server.away = True
        registry = self.registry()
        error = self.refused(registry)
        self.assertIsInstance(error, SchemaFailed)
        self.assertIn("connection refused", str(error))
        self.assertIn("config.schema_registry.confluent.url", error.remedy)
        self.assertFalse(error.final)
        self.refused(registry)
        self.assertEqual(len(self.server.asked), 1)
        self.server.away = False
        self.server.put("users-value", 7, RULES)
        self.clock.advance(1.1)
        self.encoded(registry)

    def test_known_is_used_on(self) -> None:
        self.server.put("users-value", 7, RULES)
        registry = self.registry(ttl=10.0)
        self.encoded(registry)
        self.clock.advance(11)
        self.server.away = True
        self.assertEqual(self.encoded(registry)[4], 7)
        # But not what the registry has no longer.
        self.server.away = False
        self.server.schemas.clear()
        self.clock.advance(2)
        self.assertTrue(self.refused(registry).final)

    def test_unknown(self) -> None:
        """Final, and not asked for again at once."""
        registry = self.registry()
        error = self.refused(registry)
        self.assertIn("has no subjects/users-value/versions/latest: Subject not found", str(error))
        self.assertTrue(error.final)
        self.refused(registry)
        self.assertEqual(len(self.server.asked), 1)

    def test_slow(self) -> None:
        """A request waits no longer than it may, and those who wait longer get the answer."""
        self.server.holds = True
        registry = self.registry()
        short = Deferred.fromCoroutine(registry.encode(USER, b"{}", 1.0))
        long = Deferred.fromCoroutine(registry.encode(USER, b"{}", 9.0))
        self.clock.advance(1)
        self.assertIn("did not answer in 1 s", str(self.failureResultOf(short).value))
        self.server.put("users-value", 7, RULES)
        self.server.held[0].callback(self.server.answer(self.server.asked[0][1], None))
        self.assertEqual(self.successResultOf(long), b"\0\0\0\0\x07{}")
        self.assertEqual(len(self.server.held), 1)

    def test_strange_answers(self) -> None:
        path = "/subjects/users-value/versions/latest"
        answers: list[Any] = [
            b"<html>",
            b"[]",
            {"schema": "{}"},
            {"id": 1},
            *({"id": each, "schema": "{}"} for each in (-1, 1 << 31, True, "7", 1.5)),
            *({"id": 1, "schema": "{}", "references": each} for each in ([1], 5, True, {"a": 1}, "x")),
        ]
        for said in answers:
            self.server.schemas[path] = said
            self.assertIn("does not answer as a registry", str(self.refused(self.registry())))

    def test_statuses(self) -> None:
        for status, text in ((401, "refuses us (401)"), (403, "refuses us"), (500, "with 500 (no)"), (302, "with 302")):
            self.server.status = status
            error = self.refused(self.registry())
            self.assertIn(text, str(error))
            self.assertFalse(error.final)

    def test_unusable(self) -> None:
        self.server.put("users-value", 7, {"type": "nope"}, None)
        self.assertTrue(self.refused(self.registry()).final)

    def test_let_go(self) -> None:
        """The last configuration closes while somebody waits."""
        self.server.holds = True
        registries = Registries(self.services())
        registry = registries.take(RegistrySettings(URL))
        self.assertIs(registries.take(RegistrySettings(URL)), registry)
        waiting = Deferred.fromCoroutine(registry.encode(USER, b"{}", 9.0))
        registries.give(registry)
        self.assertNoResult(waiting)
        registries.give(registry)
        self.assertIsInstance(self.failureResultOf(waiting).value, SchemaFailed)
        self.assertEqual((len(registries), self.clock.getDelayedCalls()), (0, []))


class ReferenceTests(RegistryCase):
    def test_all(self) -> None:
        """Schemas that others refer to are asked for once each, and may refer to others and to one another."""
        inner = {"type": "record", "name": "Inner", "fields": [{"name": "z", "type": "int"}]}
        middle = {"type": "record", "name": "Middle", "fields": [{"name": "i", "type": "Inner"}]}
        outer = {
            "type": "record",
            "name": "Outer",
            "fields": [{"name": "m", "type": "Middle"}, {"name": "i", "type": "Inner"}],
        }

        def named(*names: str) -> list[dict[str, Any]]:
            return [{"name": name, "subject": name, "version": 1} for name in names]

        self.server.put("users-value", 3, outer, None, references=named("middle", "inner"))
        self.server.schemas["/subjects/middle/versions/1"] = {
            "id": 2,
            "schema": json.dumps(middle),
            "references": named("inner"),
        }
        self.server.schemas["/subjects/inner/versions/1"] = {
            "id": 1,
            "schema": json.dumps(inner),
            "references": named("middle"),
        }
        self.assertEqual(self.encoded(self.registry(), b'{"m":{"i":{"z":1}},"i":{"z":2}}'), b"\0\0\0\0\x03\x02\x04")
        self.assertEqual(len(self.server.asked), 3)

    def test_endless(self) -> None:
        said = {"id": 1, "schema": "{}", "references": [{"name": "a", "subject": "a", "version": 1}]}
        self.server.schemas["/subjects/users-value/versions/latest"] = said
        for number in range(1, 300):
            following = [{"name": "a", "subject": "a", "version": number + 1}]
            self.server.schemas[f"/subjects/a/versions/{number}"] = {"schema": "{}", "references": following}
        self.assertIn("more than 100", str(self.refused(self.registry())))

    def test_places(self) -> None:
        """Names of imports stay in their folder, and its name is not told."""
        self.server.put("users-value", 1, "message A {}", "PROTOBUF")
        self.assertIn("cannot be compiled: _schema.proto, line 1: it is wrong", str(self.refused(self.registry())))
        for name in ("../x.proto", "/etc/x.proto", "a//b.proto", ""):
            references = [{"name": name, "subject": "a", "version": 1}]
            self.server.put("users-value", 1, "message A {}", "PROTOBUF", references=references)
            self.server.schemas["/subjects/a/versions/1"] = {"schema": "message B {}"}
            self.assertIn("is no file", str(self.refused(self.registry())))


class ReadingTests(RegistryCase):
    def test_by_id(self) -> None:
        self.server.put("users-value", 7, RULES)
        registry = self.registry()
        self.assertEqual(registry.find(7).decode(b'{"id": 1}'), b'{"id": 1}')
        self.assertIs(registry.find(7), registry.find(7))
        self.assertEqual([url for _, url, _ in self.server.asked], [f"{URL}/schemas/ids/7"])
        self.assertTrue(self.assertRaises(SchemaFailed, registry.find, 8).final)
        self.server.away = True
        self.assertFalse(self.assertRaises(SchemaFailed, registry.find, 9).final)

    def test_thread_waits(self) -> None:
        """For the answer, in a thread."""
        self.server.holds = True
        self.server.put("users-value", 7, RULES)
        registry = self.registry()
        found: list[Any] = []
        asked = threading.Event()

        def call_and_tell(call: Callable[..., object], *args: Any) -> None:
            call(*args)
            asked.set()

        self.patch(self.clock, "callFromThread", call_and_tell)
        thread = threading.Thread(target=lambda: found.append(registry.find(7)))
        thread.start()
        asked.wait()
        self.server.held[0].callback(self.server.answer(self.server.asked[0][1], None))
        thread.join()
        self.assertIs(found[0], registry._codecs[7])


class CredentialTests(RegistryCase):
    def shown(self, **settings: Any) -> bytes | None:
        self.server.put("users-value", 7, RULES)
        self.encoded(self.registry(**settings))
        return self.server.asked[-1][2]

    def test_basic(self) -> None:
        self.assertEqual(self.shown(username="u", password="p"), b"Basic dTpw")
        self.assertNotIn("'p'", repr(RegistrySettings(URL, username="u", password="p")))

    def test_verified(self) -> None:
        self.shown(verify=False)
        self.assertFalse(self.server.options[-1]["ssl_verify"])

    def test_token(self) -> None:
        """Used for most of its life; another one when it is refused."""
        oauth = RegistryOAuth("http://tokens/t", client_id="c", client_secret="s", scopes=("a", "b"), audience=("x",))
        self.server.put("users-value", 7, RULES)
        registry = self.registry(oauth=oauth, ttl=0.0)
        self.encoded(registry)
        self.encoded(registry)
        self.assertEqual([shown for _, _, shown in self.server.asked], [None, b"Bearer t1", b"Bearer t1"])
        form = b"grant_type=client_credentials&scope=a+b&audience=x&client_id=c&client_secret=s"
        self.assertEqual(self.server.bodies[0], form)
        self.server.refuses.add(b"Bearer t1")
        self.encoded(registry)
        self.assertEqual(self.server.asked[-1][2], b"Bearer t5")
        self.clock.advance(81)
        self.encoded(registry)
        self.assertEqual(self.server.asked[-1][2], b"Bearer t7")

    def test_ways(self) -> None:
        """How the token endpoint is shown the secret."""

        def asked(**options: Any) -> tuple[dict[bytes, bytes], bytes]:
            self.server.asked.clear()
            self.server.bodies.clear()
            self.server.options.clear()
            self.shown(oauth=RegistryOAuth("http://tokens/t", client_id="c d", client_secret="s", **options))
            return dict(self.server.options[0]["headers"]), self.server.bodies[0]

        fields, form = asked(auth_method="client_secret_basic", headers=(("x-a", "1"),), arguments=(("more", "2"),))
        self.assertEqual((fields[b"Authorization"], fields[b"x-a"]), (b"Basic YyUyMGQ6cw==", b"1"))
        self.assertEqual(form, b"grant_type=client_credentials&more=2")
        _, form = asked(auth_method="none", grant_type="password", username="u", password="p")
        self.assertEqual(form, b"grant_type=password&username=u&password=p&client_id=c+d")
        _, form = asked(auth_method="client_secret_jwt", algorithm="HS256")
        self.assertIn(b"client_assertion=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.", form)
        self.assertNotIn(b"client_secret=", form)

    def test_no_token(self) -> None:
        self.server.status = 400
        error = self.refused(self.registry(oauth=RegistryOAuth("http://tokens/t", client_secret="hidden")))
        self.assertIn("http://tokens/t answers 400", str(error))
        self.assertIn("oauth2", error.remedy)
        self.assertNotIn("hidden", repr(RegistryOAuth("http://tokens/t", client_secret="hidden")) + str(error))
