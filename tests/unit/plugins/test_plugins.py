"""The bundled plugins where the vectors and recordings are silent. Nothing but the public kit is used."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.plugins.correlation_id import CorrelationId
from kongtwist.plugins.ip_restriction import IpRestriction, Networks
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.plugins.rate_limiting import RateLimiting
from kongtwist.plugins.request_termination import RequestTermination
from kongtwist.testing import NOW, PluginHarness


class KeyAuthTests(SynchronousTestCase):
    def harness(self, **config: Any) -> PluginHarness:
        harness = PluginHarness(KeyAuth, **config)
        harness.store("consumers", id="c1", username="bob", custom_id=None)
        harness.store("consumers", id="c2", username="anon")
        harness.store("keyauth_credentials", id="k1", key="secret", consumer={"id": "c1"})
        return harness

    def test_realm(self) -> None:
        """The challenge names the realm."""
        outcome = self.harness(realm="lab").send()
        self.assertEqual(outcome.answer_headers, {"www-authenticate": 'Key realm="lab"'})

    def test_claims_of_the_client_are_removed(self) -> None:
        """Who the client says it is never reaches the upstream."""
        outcome = self.harness().send("GET", "/", {"apikey": "secret"})
        self.assertEqual(
            outcome.removed_headers,
            {"x-consumer-custom-id", "x-anonymous-consumer", "x-authenticated-groups", "x-consumer-groups"},
        )
        self.assertEqual(outcome.upstream_headers["x-consumer-username"], "bob")

    def test_two_headers(self) -> None:
        """Two keys are one too many."""
        outcome = self.harness().send("GET", "/", [("apikey", "secret"), ("ApiKey", "secret")])
        assert outcome.answer is not None
        self.assertEqual((outcome.answer.status, outcome.answer.message), (401, "Duplicate API key found"))

    def test_order_of_places_and_names(self) -> None:
        """Header before query before body, and all places of a name before the next name."""
        harness = self.harness(key_names=["a", "b"], key_in_body=True)
        form = {"content-type": "application/x-www-form-urlencoded"}
        for target, headers, body, passes in (
            ("/?a=wrong", {"a": "secret"}, b"", True), ("/?a=secret", {"a": "wrong"}, b"", False),
            ("/?a=secret", form, b"a=wrong", True), ("/", {"b": "wrong"} | form, b"a=secret", True),
            ("/?b=secret", form, b"a=wrong", False),
        ):  # fmt: skip
            outcome = harness.send("POST", target, headers, body)
            self.assertEqual(outcome.answer is None, passes, (target, headers, body))

    def test_json_body_values(self) -> None:
        """A list of keys is a duplicate, a number is no key."""
        harness = self.harness(key_in_body=True)
        kind = {"content-type": "application/json"}
        for value, message in ((["secret", "b"], "Duplicate API key found"), (5, "No API key found in request")):
            outcome = harness.send("POST", "/", kind, json.dumps({"apikey": value}).encode())
            assert outcome.answer is not None
            self.assertEqual(outcome.answer.message, message)

    def test_names_with_underscores(self) -> None:
        """``_`` in a configured name finds ``-`` in a header's, and not the other way round; what was found is hidden."""
        harness = self.harness(key_names=["api_key"], hide_credentials=True)
        for name, hidden in (
            ("api-key", "api-key"),
            ("API-Key", "api-key"),
            ("api_key", "api_key"),
            ("Api_Key", "api_key"),
        ):
            outcome = harness.send("GET", "/", {name: "secret"})
            self.assertIsNone(outcome.answer, name)
            self.assertIn(hidden, outcome.removed_headers)
        both = harness.send("GET", "/", {"api_key": "secret", "api-key": "wrong"})
        self.assertIsNone(both.answer, "the name as it is comes first")
        dashed = self.harness(key_names=["api-key"])
        self.assertIsNotNone(dashed.send("GET", "/", {"api_key": "secret"}).answer)
        self.assertIsNone(dashed.send("GET", "/", {"api-key": "secret"}).answer)
        plain = self.harness(key_names=["api_key"])  # who was found before is remembered by the header's value
        for _ in range(2):
            self.assertIsNone(plain.send("GET", "/", {"api-key": "secret"}).answer)

    def test_body_too_large(self) -> None:
        """What cannot be held is not looked into; the key may still be in a header."""
        harness = self.harness(key_in_body=True)
        body = b"apikey=secret&pad=" + b"x" * 9000
        kind = {"content-type": "application/x-www-form-urlencoded"}
        outcome = harness.send("POST", "/", kind, body)
        assert outcome.answer is not None
        self.assertEqual(outcome.answer.message, "No API key found in request")
        self.assertIsNone(harness.send("POST", "/", kind | {"apikey": "secret"}, body).answer)

    def test_hidden_everywhere(self) -> None:
        """With hide_credentials the key leaves header, query and body, wherever it was found."""
        harness = self.harness(hide_credentials=True, key_in_body=True)
        boundary = {"content-type": "multipart/form-data; boundary=B", "apikey": "secret"}
        kept = b'--B\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'
        body = kept + b'--B\r\nContent-Disposition: form-data; name="apikey"\r\n\r\nsecret\r\n--B--\r\n'
        outcome = harness.send("POST", "/?apikey=secret&y=2", boundary, body)
        self.assertIsNone(outcome.answer)
        self.assertIn("apikey", outcome.removed_headers)
        self.assertEqual(outcome.upstream_query, "y=2")
        self.assertEqual(outcome.upstream_body, kept + b"--B--\r\n")

    def test_untouched_without_credentials_there(self) -> None:
        """Hiding changes neither a query nor a body without the key."""
        harness = self.harness(hide_credentials=True, key_in_body=True)
        form = {"content-type": "application/x-www-form-urlencoded", "apikey": "secret"}
        outcome = harness.send("POST", "/?q=%7e+1", form, b"z=%7e")
        self.assertIsNone(outcome.upstream_query)
        self.assertIsNone(outcome.upstream_body)

    def test_time_to_live(self) -> None:
        """A key is good until its seconds are over."""
        harness = self.harness()
        harness.store("keyauth_credentials", id="k2", key="brief", expires_at=NOW + 60, consumer={"id": "c1"})
        harness.now = NOW + 59
        self.assertIsNone(harness.send("GET", "/", {"apikey": "brief"}).answer)
        harness.now = NOW + 60
        self.assertIsNotNone(harness.send("GET", "/", {"apikey": "brief"}).answer)

    def test_the_same_key_at_other_places(self) -> None:
        """Who a key belongs to is remembered; where it came from is looked at each time."""
        harness = self.harness(key_names=["apikey", "other"])
        for _ in range(3):
            for path, headers, passes in (
                ("/?apikey=secret", {}, True), ("/", {"apikey": "secret"}, True), ("/", {"other": "secret"}, True),
                ("/?apikey=secret", {"apikey": "wrong"}, False), ("/", {"apikey": "wrong", "other": "secret"}, False),
                ("/?apikey=secret", {"apikey": ""}, False), ("/", {}, False),
            ):  # fmt: skip
                outcome = harness.send("GET", path, headers)
                self.assertEqual(outcome.answer is None, passes, (path, headers))
                self.assertEqual(outcome.exchange.consumer is not None, passes)

    def test_changed_rows_are_noticed(self) -> None:
        """What was prepared for a credential does not outlive its rows."""
        harness = self.harness()
        harness.send("GET", "/", {"apikey": "secret"})
        harness.store("consumers", id="c1", username="robert", custom_id="r")
        outcome = harness.send("GET", "/", {"apikey": "secret"})
        self.assertEqual(outcome.upstream_headers["x-consumer-username"], "robert")
        harness.store("keyauth_credentials", id="k1", key="secret", consumer={"id": "c2"})
        outcome = harness.send("GET", "/", {"apikey": "secret"})
        self.assertEqual(outcome.upstream_headers["x-consumer-username"], "anon")

    def test_changes_of_other_rows(self) -> None:
        """Who was found is remembered while other rows change, of other tables or of these; for all configurations."""
        harness = self.harness()
        asked: list[Any] = []
        look_up = harness.rows.by

        def by(*what: Any) -> Any:
            asked.append(what)
            return look_up(*what)

        self.patch(harness.rows, "by", by)
        for entity, row in (
            ("sessions", {"id": "s1"}), ("consumers", {"id": "c3", "username": "eve"}),
            ("keyauth_credentials", {"id": "k3", "key": "other", "consumer": {"id": "c3"}}),
        ):  # fmt: skip
            for headers in ({"apikey": "secret"}, {}):
                self.assertIsNone(harness.send("GET", "/" if headers else "/?apikey=secret", headers).answer)
            harness.store(entity, **row)
        self.assertEqual(len(asked), 1)

    def test_references_are_keys(self) -> None:
        """A key may not refer to a vault, as in Kong: what looks like a reference is what has to be sent."""
        harness = self.harness()
        reference = "{vault://env/my-key}"
        harness.store("keyauth_credentials", id="k3", key=reference, consumer={"id": "c1"})
        self.assertIsNone(harness.send("GET", "/", {"apikey": reference}).answer)

    def test_prepared_headers_are_not_shared(self) -> None:
        """What a later plugin changes in one request does not show in the next."""
        harness = self.harness()
        harness.send("GET", "/", {"apikey": "secret"}).exchange.set_upstream_header(b"x-consumer-username", b"evil")
        outcome = harness.send("GET", "/", {"apikey": "secret"})
        self.assertEqual(outcome.upstream_headers["x-consumer-username"], "bob")

    def test_consumer_gone(self) -> None:
        """A credential without its consumer lets nobody in."""
        harness = self.harness()
        del harness.rows.rows["consumers"]["c1"]
        outcome = harness.send("GET", "/", {"apikey": "secret"})
        assert outcome.answer is not None
        self.assertEqual(outcome.answer.status, 401)

    def test_anonymous_after_another_plugin(self) -> None:
        """Who is known already stays who it is."""
        harness = self.harness(anonymous="anon")
        exchange = harness.request()
        exchange.authenticate({"id": "c9", "username": "jim"}, {"id": "token"})
        self.assertEqual(harness.run(exchange).consumer, {"id": "c9", "username": "jim"})
        self.assertEqual(harness.send().consumer, {"id": "c2", "username": "anon"})


class RateLimitingTests(SynchronousTestCase):
    def left(self, harness: PluginHarness, **request: Any) -> dict[str, str]:
        """Headers of one request."""
        return harness.send(**request).response_headers

    def test_all_periods(self) -> None:
        """Each has its header; the draft's three speak of the one nearest its end, the longer one of equals."""
        harness = PluginHarness(RateLimiting, second=9, minute=9, hour=9, day=9, month=9, year=9)
        headers = self.left(harness)
        for period in ("second", "minute", "hour", "day", "month", "year"):
            self.assertEqual(headers[f"x-ratelimit-limit-{period}"], "9")
            self.assertEqual(headers[f"x-ratelimit-remaining-{period}"], "8")
        year = datetime.fromtimestamp(NOW, UTC) - datetime(2023, 1, 1, tzinfo=UTC)
        self.assertEqual(headers["ratelimit-reset"], str(31536000 - int(year.total_seconds())))

    def test_windows_turn_over(self) -> None:
        """At the calendar's boundaries, months of any length and leap years included."""
        for period, before, after in (
            ("second", "2024-02-29T10:20:30.999", "2024-02-29T10:20:31"),
            ("minute", "2024-02-29T10:20:59.9", "2024-02-29T10:21:00"),
            ("hour", "2024-02-29T10:59:59.9", "2024-02-29T11:00:00"),
            ("day", "2024-02-29T23:59:59.9", "2024-03-01T00:00:00"),
            ("month", "2024-02-29T23:59:59.9", "2024-03-01T00:00:00"),
            ("month", "2024-12-31T23:59:59.9", "2025-01-01T00:00:00"),
            ("year", "2024-12-31T23:59:59.9", "2025-01-01T00:00:00"),
        ):
            harness = PluginHarness(RateLimiting, **{period: 1})
            harness.now = datetime.fromisoformat(f"{before}+00:00").timestamp()
            self.assertIsNone(harness.send().answer)
            self.assertIsNotNone(harness.send().answer, period)
            harness.now = datetime.fromisoformat(f"{after}+00:00").timestamp()
            self.assertIsNone(harness.send().answer, period)

    def test_clock_set_back(self) -> None:
        """Windows are those of the request's time, not of the latest time seen."""
        harness = PluginHarness(RateLimiting, minute=1)
        harness.now = NOW + 3600
        self.assertIsNone(harness.send().answer)
        harness.now = NOW
        self.assertIsNone(harness.send().answer)
        self.assertIsNotNone(harness.send().answer)

    def test_who_is_counted(self) -> None:
        """Consumer, else credential, else address; services, headers, paths."""
        harness = PluginHarness(RateLimiting, minute=5)
        exchange = harness.request()
        exchange.authenticate({"id": "c1"}, {"id": "k1"})
        harness.run(exchange)
        anonymous = harness.request()
        anonymous.authenticate(None, {"id": "c1"})
        self.assertEqual(harness.run(anonymous).response_headers["ratelimit-remaining"], "3")
        self.assertEqual(self.left(harness)["ratelimit-remaining"], "4")
        self.assertEqual(self.left(harness, ip="10.9.9.9")["ratelimit-remaining"], "4")
        service = PluginHarness(RateLimiting, minute=5, limit_by="service")
        self.left(service, ip="10.0.0.8")
        self.assertEqual(self.left(service, ip="10.0.0.9")["ratelimit-remaining"], "3")
        credential = PluginHarness(RateLimiting, minute=5, limit_by="credential")
        for key in "ab":
            exchange = credential.request()
            exchange.authenticate({"id": "c1"}, {"id": key})
            self.assertEqual(credential.run(exchange).response_headers["ratelimit-remaining"], "4")

    def test_path(self) -> None:
        """The path counts for everybody together, others by address; in any spelling."""
        harness = PluginHarness(RateLimiting, minute=5, limit_by="path", path="/x")
        self.left(harness, target="/x?q=1", ip="10.0.0.8")
        self.assertEqual(self.left(harness, target="/y/../%78", ip="10.0.0.9")["ratelimit-remaining"], "3")
        self.assertEqual(self.left(harness, target="/y", ip="10.0.0.9")["ratelimit-remaining"], "4")

    def test_fractions(self) -> None:
        """Limits may be any number above nought, shown as Lua shows them."""
        harness = PluginHarness(RateLimiting, minute=1.5, hour=3000.0)
        headers = self.left(harness)
        self.assertEqual(headers["x-ratelimit-limit-minute"], "1.5")
        self.assertEqual(headers["x-ratelimit-remaining-minute"], "0.5")
        self.assertEqual(headers["x-ratelimit-limit-hour"], "3000")
        self.assertIsNone(harness.send().answer)
        self.assertIsNotNone(harness.send().answer)

    def test_counters_fail(self) -> None:
        """Fault tolerant: through, and said so; else the chain answers 500."""

        class Broken:
            def take(self, *_: Any) -> Any:
                raise OSError("no memory")

            read = add = take

        harness = PluginHarness(RateLimiting, minute=1)
        harness.counters.windows = Broken()
        self.assertIsNone(harness.send().answer)
        self.assertIn("no memory", harness.reports[0])
        strict = PluginHarness(RateLimiting, minute=1, fault_tolerant=False)
        strict.counters.windows = Broken()
        self.assertRaises(OSError, strict.send)


class IpRestrictionTests(SynchronousTestCase):
    def passes(self, ip: str, **config: Any) -> bool:
        harness = PluginHarness(IpRestriction, **config)
        first = harness.send(ip=ip).answer is None
        self.assertEqual(harness.send(ip=ip).answer is None, first, "the second request is told the same")
        return first

    def test_addresses(self) -> None:
        """IPv4 and IPv6, single and ranges, host bits set; deny before allow."""
        for ip, config, expected in (
            ("2001:db8::5", {"allow": ["2001:db8::/32"]}, True), ("2001:db9::5", {"allow": ["2001:db8::/32"]}, False),
            ("10.1.2.3", {"deny": ["10.1.2.9/24"]}, False), ("10.1.3.3", {"deny": ["10.1.2.9/24"]}, True),
            ("10.1.2.3", {"deny": ["::/0"]}, True), ("::1", {"allow": ["127.0.0.1", "::1"]}, True),
            ("::ffff:10.1.2.3", {"deny": ["10.0.0.0/8"]}, False), ("::ffff:10.1.2.3", {"allow": ["10.1.2.3"]}, True),
            ("unix:", {"deny": ["10.0.0.0/8"]}, False),
            ("10.1.2.3", {"allow": ["10.0.0.0/8"], "deny": ["10.1.2.3"]}, False),
        ):  # fmt: skip
            self.assertEqual(self.passes(ip, **config), expected, (ip, config))

    @settings(deadline=None)
    @given(
        st.lists(st.one_of(st.ip_addresses(), st.tuples(st.ip_addresses(v=4), st.integers(0, 32)))),
        st.lists(st.ip_addresses(), min_size=1, max_size=5),
    )
    def test_addresses_are_found_as_one_by_one(self, listed: list[Any], asked: list[Any]) -> None:
        """However many there are, in a look-up for each length of prefix; those listed are found themselves."""
        ranges = [f"{each[0]}/{each[1]}" if isinstance(each, tuple) else str(each) for each in listed]
        known = Networks(ranges)
        for address in (*asked, *(each[0] if isinstance(each, tuple) else each for each in listed)):
            expected = any(address in ip_network(each, strict=False) for each in ranges)
            self.assertEqual(address in known, expected, (ranges, address))
        self.assertLessEqual(len(known._prefixes), 33 + 1)

    def test_status_and_message(self) -> None:
        """Both can be chosen."""
        outcome = PluginHarness(IpRestriction, allow=["1.2.3.4"], status=451, message="go away").send()
        assert outcome.answer is not None
        self.assertEqual((outcome.answer.status, outcome.answer.message), (451, "go away"))


class CorrelationIdTests(SynchronousTestCase):
    def test_counter(self) -> None:
        """One uuid per worker, a number per request."""
        harness = PluginHarness(CorrelationId, echo_downstream=True)
        ids = [harness.respond(harness.send()).response_headers["kong-request-id"] for _ in range(2)]
        worker = ids[0].removesuffix("#1")
        self.assertEqual(ids, [f"{worker}#1", f"{worker}#2"])
        self.assertEqual(len(worker), 36)

    def test_echo(self) -> None:
        """Spelled as configured, the client's own too, also when another plugin answered before it came to its turn."""
        harness = PluginHarness(CorrelationId, header_name="X-Trace", generator="uuid", echo_downstream=True)
        outcome = harness.respond(harness.send("GET", "/", {"x-trace": "mine"}))
        assert outcome.exchange.response_changes is not None
        self.assertEqual(outcome.exchange.response_changes, [("set", b"X-Trace", b"mine")])
        self.assertNotIn("x-trace", outcome.upstream_headers)
        early = harness.request("GET", "/", {"x-trace": "mine"})
        harness.plugin.header_filter(early, harness.conf)
        self.assertEqual(early.response_changes, [("set", b"X-Trace", b"mine")])

    def test_names_with_underscores(self) -> None:
        """``-`` and ``_`` are the same on both sides."""
        for configured, sent in (("X-Trace", "x_trace"), ("X_Trace", "x-trace"), ("x_a-b", "x-a_b")):
            outcome = PluginHarness(CorrelationId, header_name=configured).send("GET", "/", {sent: "mine"})
            self.assertEqual(outcome.upstream_headers, {}, (configured, sent))

    def test_silent(self) -> None:
        """Without echo the client is told nothing."""
        harness = PluginHarness(CorrelationId)
        self.assertEqual(harness.respond(harness.send()).response_headers, {})


class RequestTerminationTests(SynchronousTestCase):
    def test_trigger_in_query(self) -> None:
        """A header or an argument of that name, with or without a value."""
        harness = PluginHarness(RequestTermination, trigger="X-Stop")
        self.assertIsNone(harness.send("GET", "/?stop=1").answer)
        self.assertIsNotNone(harness.send("GET", "/?X-Stop").answer)
        self.assertIsNotNone(harness.send("GET", "/", {"x-stop": ""}).answer)

    def test_trigger_with_underscores(self) -> None:
        """``_`` in the trigger finds ``-`` in a header's name, and not the other way round."""
        self.assertIsNotNone(
            PluginHarness(RequestTermination, trigger="x_stop").send("GET", "/", {"x-stop": "1"}).answer
        )
        self.assertIsNone(PluginHarness(RequestTermination, trigger="x-stop").send("GET", "/", {"x_stop": "1"}).answer)

    def test_echo_of_a_large_body(self) -> None:
        """What does not fit in memory is not shown."""
        harness = PluginHarness(RequestTermination, echo=True, status_code=200, message="seen")
        outcome = harness.send("POST", "/a%20b?x=1&x=2", [("x-a", "1"), ("X-A", "2")], b"y" * 9000)
        told = outcome.answer_json
        self.assertEqual(told["message"], "seen")
        self.assertEqual(told["request"]["raw_body"], "")
        self.assertEqual(told["request"]["headers"]["x-a"], ["1", "2"])
        self.assertEqual(told["request"]["query"], {"x": ["1", "2"]})
        self.assertEqual(told["request"]["path"], "/a%20b")

    def test_echo_of_captures(self) -> None:
        """Groups of a regex route by name and in order; empty fields of entities are left out."""
        harness = PluginHarness(RequestTermination, echo=True)
        exchange = harness.request()
        captures = {"0": b"/u/7/x", "1": b"7", "id": b"7", "2": None}
        exchange.match = type("Match", (), {"captures": captures})()
        exchange.route.row["hosts"] = None
        told = harness.run(exchange).answer_json
        self.assertEqual(told["request"]["uri_captures"], {"named": {"id": "7"}, "unnamed": ["7"]})
        self.assertEqual(told["matched_route"], {"id": "route-1", "name": "r"})
        harness.gateway.workspace_id = "w"
        told = harness.run(exchange).answer_json
        self.assertEqual((told["matched_route"]["ws_id"], told["matched_service"]["ws_id"]), ("w", "w"))
