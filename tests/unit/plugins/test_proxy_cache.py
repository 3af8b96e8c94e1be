"""Answers are kept and found again as by Kong, never for whom they are not meant, within bounds, and without holding anything back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import BodyFilter, Plugin
from kongtwist.core.exchange import Exchange, StreamedAnswer
from kongtwist.core.http.head import HeaderBlock
from kongtwist.entities import EntityError
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.plugins.proxy_cache import ProxyCache
from kongtwist.plugins.proxy_cache.cache_keys import directives, lifetime, vary_of
from kongtwist.plugins.proxy_cache.cache_store import Kept, Store
from kongtwist.plugins.response_ratelimiting import ResponseRateLimiting
from kongtwist.testing import NOW, PluginHarness, finished
from kongtwist.testing.outcome import Outcome

PLAIN = (("Content-Type", "text/plain"),)
Fields = dict[str, str] | Sequence[tuple[str, str]]


class CacheCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.harness = self.made()

    def made(self, **config: Any) -> PluginHarness:
        return PluginHarness(ProxyCache, strategy="memory", **config)

    def get(
        self,
        target: str = "/a",
        fields: Fields = (),
        answer: Sequence[tuple[str, str]] = PLAIN,
        chunks: Sequence[bytes] = (b"one", b"two"),
        method: str = "GET",
        status: int = 200,
        body: bytes = b"",
    ) -> Outcome:
        outcome = self.harness.send(method, target, fields, body)
        if outcome.answer is None:
            self.harness.respond(outcome, status, answer, chunks)
            if method != "HEAD":
                self.assertEqual(outcome.sent, b"".join(chunks))
        return outcome

    def said(self, *arguments: Any, **named: Any) -> str | None:
        return self.get(*arguments, **named).response_headers.get("x-cache-status")


class RequestTests(CacheCase):
    def test_hit(self) -> None:
        """The second client gets what the first got, its age, and none of what was the connection's."""
        answer = (
            *PLAIN,
            ("X-Other", "1"),
            ("Connection", "close, X-Hop"),
            ("X-Hop", "1"),
            ("Date", "then"),
            ("Age", "7"),
        )
        first = self.get(answer=(*answer, ("X-RateLimit-Remaining-Hour", "3")))
        self.harness.advance(2.5)
        outcome = self.get()
        assert outcome.answer is not None
        self.assertEqual((outcome.answer.status, outcome.answer.body), (200, b"onetwo"))
        self.assertEqual(outcome.answer_headers, {"content-type": "text/plain", "x-other": "1"})
        key = first.response_headers["x-cache-key"]
        self.assertEqual(outcome.response_headers, {"x-cache-status": "Hit", "x-cache-key": key, "age": "2"})
        self.assertEqual(first.response_headers, {"x-cache-status": "Miss", "x-cache-key": key})

    def test_taken_out(self) -> None:
        """What a plugin before it keeps from the first client, the next ones do not see either."""
        self.harness.add(ResponseRateLimiting, limits={"sms": {"minute": 9}}, policy="local")
        told = (*PLAIN, ("X-Kong-Limit", "sms=1"))
        self.get(answer=told)
        self.assertEqual(self.get().answer_headers, {"content-type": "text/plain"})

    def test_key(self) -> None:
        """Kong's key: route, method, line, arguments in order, headers that count."""
        for config, target, fields, text in (
            ({}, "/a", {}, "route-1|GET|GET /a HTTP/1.1||"), ({}, "/a?b=2&a&b=1", {}, "route-1|GET|GET /a|a:b=1,2|"),
            ({"vary_query_params": ["b", "c"]}, "/A?a=1&b", {}, "route-1|GET|GET /A|b|"),
            ({"ignore_uri_case": True}, "/A?", {}, "route-1|GET|get /a||"),
            (
                {"vary_headers": ["X-B", "x-a"]}, "/", [("x-a", "2"), ("x-a", "1"), ("x-b", "0")],
                "route-1|GET|GET / HTTP/1.1||x-b=0:x-a=1,2",
            ),
        ):  # fmt: skip
            self.harness = self.made(**config)
            key = self.get(target, fields).response_headers["x-cache-key"]
            self.assertEqual(key, sha256(text.encode()).hexdigest(), text)

    def test_consumers(self) -> None:
        """Whoever authenticates has answers of his own."""
        self.harness.add(KeyAuth)
        for each in ("one", "two"):
            self.harness.store("consumers", id=each, username=each)
            self.harness.store("keyauth_credentials", id=f"k-{each}", key=each, consumer={"id": each})
        self.assertEqual([self.said("/", {"apikey": each}) for each in ("one", "two", "one")], ["Miss", "Miss", "Hit"])

    def test_clients_that_are_no_consumers(self) -> None:
        """Users of a directory, and those in whose name an application comes, have answers of their own as well."""

        class Names(Plugin):
            name = "names"
            priority = 1200

            def access(self, exchange: Exchange, conf: Any) -> None:
                user = exchange.get_header(b"x-token")
                exchange.request_changes = {b"x-authenticated-userid": user, b"x-consumer-id": None, b"x-other": user}

        self.harness.add(Names)
        self.assertEqual([self.said("/", {"x-token": each}) for each in ("one", "two", "one")], ["Miss", "Miss", "Hit"])

    def test_bypassed(self) -> None:
        """Other methods, WebSockets, gRPC; with cache_control what asks for no kept answer, and whoever shows a credential."""
        socket = {"upgrade": "websocket", "connection": "upgrade"}
        for fields, method in ((socket, "GET"), ({}, "POST"), ({"content-type": "application/grpc+proto"}, "GET")):
            self.assertEqual([self.said("/", fields, method=method) for _ in "ab"], ["Bypass"] * 2)
        self.harness = self.made(cache_control=True)
        answer = (*PLAIN, ("Cache-Control", "max-age=9"))
        for fields in ({"cache-control": "no-cache"}, {"cache-control": "x, No-Store"}, {"authorization": "Basic x"}):
            self.assertEqual([self.said("/", fields, answer) for _ in "ab"], ["Bypass"] * 2)

    def test_freshness(self) -> None:
        """Old answers are fetched anew, gone ones missed; storage_ttl keeps them longer."""
        self.harness = self.made(cache_ttl=2, storage_ttl=10)
        self.get()
        for seconds, said in ((2, "Hit"), (1, "Refresh"), (11, "Miss")):
            self.harness.advance(seconds)
            self.assertEqual(self.said(), said)
        self.harness = self.made(cache_ttl=2)
        self.get()
        self.harness.advance(2.1)
        self.assertEqual(self.said(), "Miss")

    def test_requests_that_say_how_fresh(self) -> None:
        """max-age, max-stale, min-fresh, only-if-cached."""
        self.harness = self.made(cache_control=True, storage_ttl=100)
        answer = (*PLAIN, ("Cache-Control", "public, max-age=10"))
        missing = self.get("/none", {"cache-control": "only-if-cached"})
        self.assertEqual((missing.answer and missing.answer.status, missing.answer and missing.answer.body), (504, b""))
        for asked, age, said in (
            ("max-age=3", 3, "Hit"), ("max-age=3", 4, "Refresh"), ("max-stale=2", 12, "Hit"), ("max-stale=2", 13, "Refresh"),
            ("min-fresh=6", 4, "Hit"), ("min-fresh=7", 4, "Refresh"), ("only-if-cached", 1, "Hit"),
        ):  # fmt: skip
            self.assertEqual(self.said(f"/{asked}{age}", answer=answer), "Miss")
            self.harness.advance(age)
            self.assertEqual(self.said(f"/{asked}{age}", {"cache-control": asked}, answer), said, (asked, age))

    def test_head(self) -> None:
        """HEAD is told the length that the upstream told."""
        self.assertEqual(self.said(method="HEAD", answer=(*PLAIN, ("Content-Length", "77")), chunks=()), "Miss")
        outcome = self.get(method="HEAD")
        assert isinstance(outcome.answer, StreamedAnswer)
        self.assertEqual((outcome.answer.length, outcome.answer.status), (77, 200))

    def test_shown(self) -> None:
        """Headers can be turned off; a request with Kong-Debug gets them all the same."""
        self.harness = self.made(response_headers={"age": False, "X-Cache-Status": False, "X-Cache-Key": False})
        self.assertEqual([self.get().response_headers for _ in "ab"], [{}, {}])
        self.assertEqual(
            set(self.get(fields={"kong-debug": "1"}).response_headers), {"age", "x-cache-key", "x-cache-status"}
        )


class ConfigTests(CacheCase):
    def test_memory(self) -> None:
        """The memory must be one that Kong has."""
        error = self.assertRaises(EntityError, self.made, memory={"dictionary_name": "x"})
        self.assertEqual(error.fields, {"@entity": ["missing shared dict 'x'"]})

    def test_no_types(self) -> None:
        """A type that is none takes nothing."""
        self.harness = self.made(content_type=["text/plain;", "text"])
        for kind in ("text/plain", "text/plain;", "text"):
            self.assertEqual(self.said(answer=[("Content-Type", kind)]), "Bypass")


class AnswerTests(CacheCase):
    def test_what_is_not_kept(self) -> None:
        """Statuses and types that are not configured, what sets cookies, event streams, what differs by all."""
        self.harness = self.made(content_type=["text/*", "application/json; charset=UTF-8"])
        for fields, status in (
            (PLAIN, 500), ((), 200), ([("content-type", "application/json")], 200), ([("content-type", "nonsense")], 200),
            ([("content-type", "application/json; charset=utf-16")], 200), ([("content-type", "text/event-stream")], 200),
            ([*PLAIN, ("Set-Cookie", "a=b")], 200), ([*PLAIN, ("Vary", "*")], 200),
        ):  # fmt: skip
            self.assertEqual([self.said(answer=fields, status=status) for _ in "ab"], ["Bypass"] * 2, fields)
        for fields in ([("content-type", "text/html")], [("content-type", 'application/json;charset="UTF-8"')]):
            self.assertEqual([self.said(str(fields), answer=fields) for _ in "ab"], ["Miss", "Hit"], fields)

    def test_what_answers_say(self) -> None:
        """With cache_control an answer has to say how long it may be used, and that it is for all."""
        for said, kept in (
            ("", False), ("max-age=0", False), ("private, max-age=3", False), ("no-store, s-maxage=3", False),
            ("s-maxage=3, max-age=0", True),
            ("no-cache", False), ("max-age=3", True), ("max-age=x", False),
        ):  # fmt: skip
            self.harness = self.made(cache_control=True)
            fields = [*PLAIN, ("Cache-Control", said)]
            self.assertEqual(self.said(answer=fields) == "Miss", kept, said)
            self.assertEqual(self.said(answer=fields) == "Hit", kept, said)

    def test_streams_are_not_held(self) -> None:
        """Each piece goes on as it comes; a copy that grows too long is thrown away, and one whose length says so never made."""
        self.harness.gateway.conf = SimpleNamespace(
            mem_cache_size=1 << 20, nginx_worker_processes=1, proxy_cache_max_body_size=5
        )
        outcome = self.harness.send()
        self.harness.respond(outcome, 200, PLAIN, [])
        copy = outcome.returned["proxy-cache"]
        assert isinstance(copy, BodyFilter)
        self.assertTrue(copy.keeps_length)
        self.assertEqual(
            [copy.call(b"abc", False), copy.call(b"def", False), copy.call(b"", True)], [b"abc", b"def", b""]
        )
        self.assertEqual(self.said("/"), "Miss")
        self.assertEqual(self.get("/long", answer=(*PLAIN, ("Content-Length", "6"))).returned, {})
        self.assertEqual([self.said("/short", chunks=[b"12345"]) for _ in "ab"], ["Miss", "Hit"])

    def test_broken_off(self) -> None:
        """What never came to its end is not kept."""
        outcome = self.harness.send()
        self.harness.respond(outcome, 200, PLAIN, [])
        copy = outcome.returned["proxy-cache"]
        assert isinstance(copy, BodyFilter)
        copy.call(b"half", False)
        self.assertEqual(self.said("/"), "Miss")

    def test_vary(self) -> None:
        """Answers that differ by request headers, as they say; one more header is learned, none forgotten."""
        answer = (*PLAIN, ("Vary", "Accept-Language, X-Tone"))
        for language, said in (("de", "Miss"), ("fr", "Miss"), ("de", "Hit"), ("fr", "Hit"), ("", "Miss")):
            self.assertEqual(self.said(fields={"accept-language": language} if language else {}, answer=answer), said)
        self.assertEqual(self.said(fields={"accept-language": "it"}, answer=PLAIN), "Miss")
        self.assertEqual(self.said(fields={"accept-language": "de"}), "Hit")
        packed = (*PLAIN, ("Content-Encoding", "gzip"))
        self.assertEqual(self.said("/z", {"accept-encoding": "gzip"}, packed), "Miss")
        self.assertEqual(self.said("/z", {}, packed), "Miss")
        self.assertEqual(self.said("/z", {"accept-encoding": "gzip"}, packed), "Hit")


class PoisoningTests(CacheCase):
    def test_headers_that_are_not_in_the_key(self) -> None:
        """What an attacker brings about with his request is what he alone gets."""
        self.assertEqual(self.said(chunks=[b"good"]), "Miss")
        for name in (
            "X-Forwarded-Host", "X-Host", "Forwarded", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Forwarded-Scheme",
            "X-Forwarded-Prefix", "Origin", "Range", "X-Forwarded-Server", "Authorization",
        ):  # fmt: skip
            self.assertEqual(self.said(fields={name: "evil"}, chunks=[b"evil"]), "Miss", name)
            self.assertEqual(self.said(fields={name.lower(): "evil"}), "Hit", name)
        self.assertEqual(self.said(fields={"host": "evil.example"}, chunks=[b"evil"]), "Miss")
        outcome = self.get()
        self.assertEqual(outcome.answer and outcome.answer.body, b"good")

    def test_other_spellings(self) -> None:
        """Upstreams that read ``_`` as ``-`` see the same header; so is it here, also where an answer names it in Vary."""
        for name in ("X_Forwarded_Host", "X-Original_URL", "X_HTTP_Method-Override"):
            self.assertEqual(self.said(f"/{name}", {name: "evil"}, chunks=[b"evil"]), "Miss", name)
            self.assertEqual(self.said(f"/{name}", chunks=[b"good"]), "Miss", name)
            self.assertEqual(self.said(f"/{name}", {name.lower(): "evil"}), "Hit", name)
        answer = [*PLAIN, ("Vary", "X-Tenant-Id")]
        self.assertEqual(self.said("/vary", {"X_Tenant_Id": "evil"}, answer), "Miss")
        self.assertEqual(self.said("/vary", answer=answer), "Miss")
        self.assertEqual(self.said("/vary", {"X-Other_Thing": "1"}, answer), "Hit")
        for name in ("X-Tenant-Id", "x_tenant_id"):
            self.harness = self.made(vary_headers=[name])
            for fields in (
                {},
                {"X_Tenant_Id": "evil"},
                {"X-Tenant_Id": "evil"},
                {"X_Tenant_Id": "a", "X-Tenant-Id": "evil"},
            ):
                self.assertEqual(self.said(fields=fields), "Miss", (name, fields))

    def test_conditions(self) -> None:
        """What is answered to a condition is for who made it, also where such answers may be kept."""
        self.harness = self.made(response_code=[200, 206, 304, 412])
        for name, status in (
            ("If-None-Match", 304),
            ("If-Modified-Since", 304),
            ("If-Match", 412),
            ("If-Unmodified-Since", 412),
        ):
            target = f"/{name}"
            self.assertEqual(self.said(target, {name: "x"}, status=status, chunks=()), "Bypass")
            self.assertEqual(self.said(target), "Miss")
            self.assertEqual(self.said(target, {name: "x"}), "Hit")
        part = {"range": "bytes=0-1"}
        self.assertEqual(self.said("/part", {**part, "if-range": '"one"'}, status=206), "Miss")
        self.assertEqual(self.said("/part", {**part, "if-range": '"two"'}, status=206), "Miss")

    def test_first(self) -> None:
        """The same where the attacker comes first."""
        for name in ("X-Forwarded-Host", "Host", "X-Original-URL"):
            self.assertEqual(self.said(f"/{name}", {name: "evil"}, chunks=[b"evil"]), "Miss")
            self.assertEqual(self.said(f"/{name}", chunks=[b"good"]), "Miss")

    def test_bodies(self) -> None:
        """A request with a body is answered as another one only if the body is the same; one that is too long not at all."""
        self.harness = self.made(request_method=["GET", "POST"])
        for method in ("GET", "POST"):
            asked = [self.said("/", method=method, body=body) for body in (b"a", b"b", b"a", b"")]
            self.assertEqual(asked, ["Miss", "Miss", "Hit", "Miss"])
        self.assertEqual(self.said(method="POST", body=b"x" * 9000), "Bypass")


class AdminTests(CacheCase):
    def ask(self, method: str, path: str) -> tuple[int, Any]:
        answer: Any = self.harness.admin(method, path)
        answer = finished(answer)
        return answer.status, json.loads(answer.body) if answer.body else None

    def test_look_and_purge(self) -> None:
        """Under its key, with or without the configuration's id; both must exist."""
        key = self.get().response_headers["x-cache-key"]
        self.harness.advance(1)
        self.get(fields={"host": "other"}, chunks=[b"newer"])
        row = self.harness.store("plugins", **self.harness.row)
        self.harness.store("plugins", id="other", name="key-auth")
        status, shown = self.ask("GET", f"/proxy-cache/{row['id']}/caches/{key}")
        self.assertEqual(
            (status, shown["body"], shown["status"], shown["ttl"], shown["version"]), (200, "newer", 200, 300, 1)
        )
        self.assertEqual(shown["headers"], {"Content-Type": "text/plain", "X-Cache-Key": key})
        self.assertEqual((shown["timestamp"], shown["body_len"]), (NOW + 1, 5))
        for path in (f"/proxy-cache/other/caches/{key}", f"/proxy-cache/none/caches/{key}", "/proxy-cache/123"):
            for method in ("GET", "DELETE"):
                self.assertEqual(self.ask(method, path), (404, {"message": "Not found"}), path)
        self.assertEqual(self.ask("GET", f"/proxy-cache/{key}")[1], shown)
        self.assertEqual(self.ask("DELETE", f"/proxy-cache/{key}"), (204, None))
        self.assertEqual(self.ask("DELETE", f"/proxy-cache/{key}")[0], 404)
        self.assertEqual([self.said(), self.said(fields={"host": "other"})], ["Miss", "Miss"])
        self.assertEqual(self.ask("DELETE", "/proxy-cache"), (204, None))
        self.assertEqual(self.said(), "Miss")

    def test_other_nodes(self) -> None:
        """A purge is a row for them where there is a database for several, also of what this node does not keep."""
        key = self.get().response_headers["x-cache-key"]
        for database, found in (("sqlite", []), ("off", []), ("postgres", [key, "strange", None])):
            self.harness.host.conf = SimpleNamespace(
                database=database, mem_cache_size=1 << 20, nginx_worker_processes=1, proxy_cache_max_body_size=99
            )
            asked = [self.ask("DELETE", f"/proxy-cache{each}")[0] for each in (f"/{key}", "/strange", "")]
            self.assertEqual(asked, [204, 404, 204])
            told = self.harness.host.rows.all("proxy_cache_purges")
            self.assertEqual([row["cache_key"] for row in told], found)
            self.assertTrue(all(row["expires_at"] == self.harness.clock.seconds() + 600 for row in told))
            self.get()

    def test_purged_elsewhere(self) -> None:
        """What another node has purged is not found any more, here by requests and by the Admin API; once, for each purge."""
        key, _ = (self.get(each).response_headers["x-cache-key"] for each in ("/", "/other"))
        self.harness.store("proxy_cache_purges", id="1", cache_key=key, expires_at=NOW + 600)
        self.assertEqual(self.ask("GET", f"/proxy-cache/{key}")[0], 404)
        self.assertEqual([self.said("/") for _ in "ab"], ["Miss", "Hit"])
        self.assertEqual(self.said("/other"), "Hit")
        self.harness.store("proxy_cache_purges", id="2", cache_key=None, expires_at=NOW + 600)
        self.assertEqual([self.said(each) for each in ("/", "/other") * 2], ["Miss"] * 2 + ["Hit"] * 2)

    def test_purged_long_ago(self) -> None:
        """Rows whose time is over mean nothing, in whatever set of rows they are."""
        key = self.get("/").response_headers["x-cache-key"]
        self.harness.store("proxy_cache_purges", id="1", cache_key=key, expires_at=NOW)
        self.assertEqual(self.said("/"), "Hit")

    def test_before_anything_is_kept(self) -> None:
        """Nothing is found, and clearing does no harm."""
        self.assertEqual(self.ask("GET", "/proxy-cache/1")[0], 404)
        self.assertEqual(self.ask("DELETE", "/proxy-cache")[0], 204)


class StoreTests(SynchronousTestCase):
    def kept(self, key: str, body: bytes = b"", keep: float = 9) -> Kept:
        return Kept(key, 200, [], body, None, 0.0, 5, keep)

    def test_bound(self) -> None:
        """What was used longest ago goes first; what alone is too long is not kept."""
        store = Store(4000)
        for key in "abc":
            store.put(self.kept(key), b"", ())
        self.assertIsNotNone(store.find("a", b"", 1))
        store.put(self.kept("d"), b"", ())
        self.assertEqual([store.find(key, b"", 1) is not None for key in "abcd"], [True, False, True, True])
        store.put(self.kept("e", b"x" * 4000), b"", ())
        self.assertEqual((len(store), store.size), (3, 3 * 1024))
        store.put(self.kept("a", b"yy"), b"", ())
        self.assertEqual((len(store), store.size), (3, 3 * 1024 + 2))
        self.assertTrue(store.purge("a"))
        store.clear()
        self.assertEqual((len(store), store.size), (0, 0))

    def test_gone(self) -> None:
        """Behind its time it is given back; without one it stays."""
        store = Store(9999)
        store.put(self.kept("a"), b"", ())
        store.put(self.kept("b", keep=0), b"", ())
        self.assertIsNone(store.newest("a", 9))
        self.assertEqual([store.find(key, b"", 1e9) is not None for key in "ab"], [False, True])
        self.assertEqual(len(store), 1)

    def test_learned_meanwhile(self) -> None:
        """An answer that knows fewer headers than its key by now could not be found, and is not kept."""
        store = Store(9999)
        store.put(self.kept("a"), b"1", (b"x", b"y"))
        store.put(self.kept("a"), b"2", (b"x",))
        self.assertEqual(len(store), 1)
        store.put(self.kept("a"), b"3", (b"x", b"y", b"z"))
        self.assertEqual((len(store), store.vary("a")), (1, (b"x", b"y", b"z")))


class FieldTests(SynchronousTestCase):
    def block(self, **fields: str) -> HeaderBlock:
        return HeaderBlock.from_pairs(
            [(name.replace("_", "-").encode(), text.encode()) for name, text in fields.items()]
        )

    def test_directives(self) -> None:
        """Names and values (RFC 9111 5.2)."""
        found = directives(b'No-Cache="Set-Cookie, X", max-age=10 , s-maxage="5",private, x=y, max-stale')
        self.assertEqual(
            found,
            {"no-cache": "Set-Cookie, X", "max-age": 10, "s-maxage": 5, "private": True, "x": "y", "max-stale": True},
        )
        self.assertEqual(directives(None), {})
        directives(b'a="' * 20000)  # whatever it is, it is over soon

    def test_lifetime(self) -> None:
        """s-maxage before max-age before Expires."""
        expires = self.block(expires="Thu, 01 Jan 1970 00:01:00 GMT")
        self.assertEqual(lifetime({"max-age": 5, "s-maxage": 7}, expires, 0), 7)
        self.assertEqual([lifetime({}, expires, now) for now in (10, 100)], [50, 0])
        self.assertEqual(lifetime({}, self.block(expires="0"), 0), 0)
        self.assertEqual(lifetime({"max-age": True}, expires, 0), 0)

    def test_vary(self) -> None:
        self.assertEqual(vary_of(self.block(vary="B, a,b")), (b"a", b"b"))
        self.assertIsNone(vary_of(self.block(vary="a, *")))
