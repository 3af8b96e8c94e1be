"""cors where the vectors are silent: origins that pretend, and what is remembered. Nothing but the public kit is used."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import EntityError
from kongtwist.plugins import cors
from kongtwist.plugins.grpc_web import GRPCWeb
from kongtwist.testing import Outcome, PluginHarness

ALLOW = "access-control-allow-origin"
CREDENTIALS = "access-control-allow-credentials"


class CorsTests(SynchronousTestCase):
    def ask(self, origin: str | None, **config: Any) -> dict[str, str]:
        """The headers of the answer to a GET."""
        return self.answer(PluginHarness(cors.Cors, **config), origin).response_headers

    def answer(self, harness: PluginHarness, origin: str | None, *upstream: tuple[str, str]) -> Outcome:
        outcome = harness.send("GET", "/", {} if origin is None else {"origin": origin})
        self.assertIsNone(outcome.answer)
        return harness.respond(outcome, 200, upstream)

    def preflight(self, origin: str, **config: Any) -> Outcome:
        asked = {"origin": origin, "access-control-request-method": "PUT"}
        return PluginHarness(cors.Cors, **config).send("OPTIONS", "/", asked)

    def test_look_alikes(self) -> None:
        """What only resembles an allowed origin is not allowed, in preflights neither."""
        config = {"origins": [r"https://(.*\.)?good\.example", r"a\.example|b\.example", "https://plain.example:8443"]}
        for origin in ("https://good.example", "https://x.good.example", "http://a.example", "https://b.example:81"):
            self.assertEqual(self.ask(origin, **config).get(ALLOW), origin)
        self.assertEqual(self.ask("https://plain.example:8443", **config).get(ALLOW), "https://plain.example:8443")
        for origin in (
            "https://good.example.evil.example", "https://evil-good.example", "https://xgood.example", "http://good.example",
            "https://good.example:444", "http://a.example.evil.example", "http://xa.example", "http://b.example.evil.example",
            "https://evil.example/.good.example", "https://evil.example#.good.example", "https://evil.example?.good.example",
            "https://good.example@evil.example", "https://evil.example\\.good.example", "https://good.example/",
            "https://good.example,https://evil.example", "https://plain.example",
            "http://plain.example:8443", "https://PLAIN.example:8443", "https://plain.example:8443.evil.example", "", "https://",
            "https://x." * 100 + "good.example",
        ):  # fmt: skip
            told = self.ask(origin, **config)
            self.assertEqual(told, {"vary": "Origin"}, origin)
            told = self.preflight(origin, **config).response_headers
            self.assertNotIn(ALLOW, told, origin)
            self.assertEqual(told["vary"], "Origin")

    def test_null(self) -> None:
        """Any page can make ``null`` its origin: only its own name lets it in, and never together with all others."""
        origins: list[str] | None
        for origins in ([".*"], ["null|https://a.example"], ["https://.*"], ["https://a.example", "https://b.example"]):
            told = self.ask("null", origins=origins, credentials=True)
            self.assertNotIn(ALLOW, told, origins)
        for origins in (None, ["*"], ["*", "https://a.example"]):
            told = self.ask("null", origins=origins, credentials=True)
            self.assertEqual((told[ALLOW], told.get(CREDENTIALS)), ("*", None), origins)
            self.assertEqual(told["vary"], "Origin")
            told = self.preflight("null", origins=origins, credentials=True).response_headers
            self.assertEqual((told[ALLOW], told.get(CREDENTIALS)), ("*", None))
        self.assertEqual(self.ask("null", origins=["null", "https://a.example"])[ALLOW], "null")

    def test_upstream_has_no_say(self) -> None:
        """What the upstream says of origins is replaced, or taken out where the page may not read."""
        harness = PluginHarness(
            cors.Cors, origins=["https://a.example", "https://b.example"], exposed_headers=["x-a", "x-b"]
        )
        own = ("Access-Control-Allow-Origin", "*"), ("Vary", "Accept-Encoding")
        fields = self.answer(harness, "https://a.example", *own).exchange.answer_fields()
        self.assertEqual(fields[ALLOW.encode()], (b"https://a.example",))
        self.assertEqual(fields[b"vary"], (b"Accept-Encoding", b"Origin"))
        self.assertEqual(fields[b"access-control-expose-headers"], (b"x-a,x-b",))
        fields = self.answer(harness, "https://evil.example", *own).exchange.answer_fields()
        self.assertNotIn(ALLOW.encode(), fields)

    def test_grpc_web(self) -> None:
        """What it allows to all by itself is what is said here, or nothing."""
        harness = PluginHarness(cors.Cors, origins=["https://a.example", "https://b.example"])
        harness.add(GRPCWeb)
        for origin, told in (("https://a.example", (b"https://a.example",)), ("https://evil.example", None)):
            exchange = harness.request("GET", "/", {"origin": origin})
            outcome = Outcome(exchange)
            outcome.answer = exchange.exit(200)
            fields = harness.respond(outcome).exchange.answer_fields()
            self.assertEqual(fields.get(ALLOW.encode()), told)

    def test_ports(self) -> None:
        """A default port is no port, on both sides."""
        config = {"origins": ["https://a.example:443", "http://b.example", "http://[::1]:81|x"]}
        self.assertEqual(self.ask("https://a.example", **config)[ALLOW], "https://a.example")
        self.assertEqual(self.ask("http://b.example:80", **config)[ALLOW], "http://b.example")
        self.assertNotIn(ALLOW, self.ask("http://a.example:443", **config))

    def test_preflight(self) -> None:
        """It has what it asked for, and nothing that is for other answers; other header filters add nothing to it."""
        outcome = self.preflight(
            "https://a.example", origins=["https://a.example"], exposed_headers=["x-a"], max_age=600.0
        )
        assert outcome.answer is not None
        self.assertEqual((outcome.answer.status, outcome.answer.body), (200, b""))
        self.assertEqual(
            outcome.response_headers,
            {
                "vary": "Origin", ALLOW: "https://a.example", "access-control-max-age": "600",
                "access-control-allow-methods": "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT",
            },
        )  # fmt: skip
        harness = PluginHarness(cors.Cors)
        told = harness.respond(harness.send("OPTIONS", "/", {"origin": "https://a.example"})).response_headers
        self.assertEqual(told, {ALLOW: "*"}, "OPTIONS of another kind")

    def test_refused_by_others(self) -> None:
        """A preflight that never came here, as another plugin answered it, still tells the page what it may read."""
        harness = PluginHarness(cors.Cors, origins=["https://a.example"])
        exchange = harness.request(
            "OPTIONS", "/", {"origin": "https://a.example", "access-control-request-method": "PUT"}
        )
        outcome = Outcome(exchange)
        outcome.answer = exchange.error(403, "Forbidden")
        self.assertEqual(harness.respond(outcome).response_headers[ALLOW], "https://a.example")

    def test_remembered(self) -> None:
        """So many origins, and no longer ones than there are."""
        self.patch(cors, "_REMEMBERED", 8)
        harness = PluginHarness(cors.Cors, origins=[r".*\.a\.example"])
        for number in range(100):
            told = self.answer(harness, f"https://x{number}.a.example").response_headers
            self.assertEqual(told[ALLOW], f"https://x{number}.a.example")
            self.assertLessEqual(len(harness.conf._known), 8)
        self.answer(harness, "https://" + "x" * 400 + ".a.example")
        self.assertLess(max(map(len, harness.conf._known)), 100)

    def test_expression_that_runs_wild(self) -> None:
        """It is given up, nobody is let in by it, and the log says what to do."""
        harness = PluginHarness(cors.Cors, origins=[r"(a|aa|a?)+$"])
        for _ in range(2):
            told = self.answer(harness, "https://" + "a" * 200 + "b").response_headers
            self.assertNotIn(ALLOW, told)
        self.assertEqual(len(harness.reports), 1)
        self.assertIn("simplify config.origins", harness.reports[0])

    def test_refused_configurations(self) -> None:
        """Broken expressions, and text that no header can hold."""
        for config, text in (
            ({"origins": ["*.a.example"]}, "'*.a.example' is not a valid regex"), ({"headers": ["x\r\ny: z"]}, "headers"),
            ({"exposed_headers": ["x\ny"]}, "exposed_headers"),
        ):  # fmt: skip
            error = self.assertRaises(EntityError, PluginHarness, cors.Cors, **config)
            self.assertIn(text, error.message)
