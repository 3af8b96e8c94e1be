"""The bundled plugins against Kong's own: vectors made by its handlers, and answers recorded from a Kong 3.9.3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.plugins.basic_auth import password_digest
from kongtwist.testing import Outcome, PluginHarness
from tests.places import CONTRACT

PLUGINS = {name: type(plugin) for name, plugin in load_plugins(["bundled"]).items()}


def load(name: str) -> Any:
    return json.loads((CONTRACT / name).read_text())


def store(harness: PluginHarness, rows: dict[str, list[dict[str, Any]]]) -> None:
    for entity, found in rows.items():
        for row in found:
            ttl = row.get("ttl")
            harness.store(entity, **row | ({} if ttl is None else {"expires_at": harness.now + ttl}))


def pairs_of(headers: dict[str, Any]) -> list[tuple[str, str]]:
    """Headers as pairs; a list stands for a name that comes more than once."""
    return [(name, each) for name, value in headers.items() for each in (value if isinstance(value, list) else [value])]


DEFAULT_MESSAGES = {400: "Bad request", 401: "Unauthorized", 403: "Forbidden"}


class VectorTests(SynchronousTestCase):
    """Every vector of the plugins built so far."""

    maxDiff = None
    _previous: tuple[Any, PluginHarness] | None = None

    def test_all(self) -> None:
        """Config, request and stored rows to the answer or what goes upstream."""
        cases = load("vectors_plugins.json")["cases"]
        self.assertGreater(len(cases), 50)
        for number, case in enumerate(cases):
            harness = self.harness(case)
            request = case["request"]
            exchange = harness.request(
                request["method"], request["uri"], pairs_of(request["headers"]), request.get("body", "").encode(),
                request.get("ip", "10.0.0.1"),
            )  # fmt: skip
            exchange.authenticate(case.get("consumer"), case.get("credential"))
            exchange.authenticated_groups = case.get("authenticated_groups")
            outcome = harness.run(exchange)
            if outcome.answer is None and "response" in case:
                harness.respond(outcome, case["response"]["status"], case["response"]["headers"].items())
            self.assertEqual(self.seen(outcome, case), self.expected(case), f"case {number}: {json.dumps(case)}")

    def harness(self, case: dict[str, Any]) -> PluginHarness:
        """A fresh plugin; for windows that go on over cases the one of the case before."""
        kind: type[Plugin] = PLUGINS[case["plugin"]]
        identity = (case["plugin"], case["config"], case["request"].get("ip"))
        known = self._previous
        if case.get("same_config_as_previous") and known is not None and known[0] == identity:
            return known[1]
        harness = PluginHarness(kind, **case["config"])
        store(harness, case.get("db", {}))
        if case.get("same_config_as_previous"):
            # The case before it is not among ours: the request it made is made here.
            harness.send("GET", "/", ip=case["request"].get("ip", "10.0.0.1"))
        self._previous = (identity, harness)
        return harness

    @staticmethod
    def expected(case: dict[str, Any]) -> dict[str, Any]:
        expected: dict[str, Any] = case["result"]
        body = expected.get("answer", {}).get("body")
        if isinstance(body, dict) and "request" in body:
            # Lua has one empty table; the recorded answers show an empty list here.
            body["request"]["uri_captures"]["unnamed"] = []
        for name, value in expected.get("response_headers", {}).items():
            if isinstance(value, list):  # the upstream's values are among them; ours are those that the plugin adds
                (expected["response_headers"][name],) = (
                    each for each in value if each != case["response"]["headers"][name]
                )
        return expected

    @staticmethod
    def seen(outcome: Outcome, case: dict[str, Any]) -> dict[str, Any]:
        """What came out, in the vectors' form."""
        out: dict[str, Any] = {}
        expected = case["result"]
        if outcome.answer is not None:
            answer: dict[str, Any] = {"status": outcome.answer.status}
            out["answer"] = answer
            answer["kind"] = "exit" if outcome.answer.message is None else "error"
            if outcome.answer.message is not None:
                answer["message"] = outcome.answer.message
                if "message" not in expected["answer"]:  # Kong's own for the status
                    assert answer.pop("message") == DEFAULT_MESSAGES[answer["status"]]
            elif outcome.answer.body:
                raw = isinstance(expected["answer"].get("body"), str)
                answer["body"] = outcome.answer.body.decode() if raw else outcome.answer_json
                if not raw and "request" in answer["body"]:
                    answer["body"]["request"]["headers"].pop("content-length", None)
            headers = {n.decode(): v.decode() for n, v in outcome.answer.headers}
            if "headers" in expected["answer"]:
                if answer["kind"] == "exit" and "Content-Type" not in expected["answer"]["headers"]:
                    headers.pop("Content-Type", None)  # that of JSON; a handler need not give it
                answer["headers"] = headers
        if outcome.consumer is not None and (
            outcome.answer is None or "consumer" not in case
        ):  # a given one is not told
            out["consumer"] = outcome.consumer["username"]
        upstream: dict[str, Any] = {}
        if outcome.upstream_headers:
            upstream["headers_set"] = outcome.upstream_headers
        hidden = [
            name for name in expected.get("upstream", {}).get("headers_removed", ()) if name in outcome.removed_headers
        ]
        if hidden:
            upstream["headers_removed"] = hidden
        if outcome.upstream_query is not None:
            upstream["query"] = outcome.upstream_query
        if outcome.upstream_body is not None:
            upstream["body_json"] = json.loads(outcome.upstream_body)
        if upstream:
            out["upstream"] = upstream
        if outcome.response_headers:
            out["response_headers"] = outcome.response_headers
        return out


OURS = (
    "x-consumer-", "x-credential-", "x-anonymous-", "x-ratelimit-", "ratelimit-", "retry-after", "www-auth", "kong-",
    "x-t", "access-control-", "vary", "location",
)  # fmt: skip
"""Headers that plugins make; the others are the gateway's."""


def deviations() -> dict[str, str]:
    """Recorded cases that are wilfully answered otherwise: name -> status and message."""
    every = json.loads((CONTRACT / "deviations.json").read_text())
    pairs = [(each["case"].partition("/"), each["answer"]) for each in every]
    return {name: answer for (part, _, name), answer in pairs if part == "observed_plugins"}


def with_our_answer(case: dict[str, Any], wilful: dict[str, str]) -> dict[str, Any]:
    """A recorded case with our answer in place of Kong's, where that differs; it is taken out of ``wilful``."""
    ours = wilful.pop(case["name"], None)
    if ours is None:
        return case
    status, _, message = ours.partition(" ")
    headers = [
        ["Content-Type", "application/json; charset=utf-8"],
        ["WWW-Authenticate", 'Bearer error="invalid_token"'],
    ]
    return case | {"response": {"status": int(status), "headers": headers, "body": {"message": message}}}


def plugin_headers(pairs: list[list[str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in pairs if name.lower().startswith(OURS)}


class RecordedTests(SynchronousTestCase):
    """Recorded exchanges, with the plugins of their route in order."""

    maxDiff = None

    def test_all(self) -> None:
        """Status, message, body, and the headers to client and upstream."""
        recorded = load("observed_plugins.json")
        harnesses: dict[str, list[PluginHarness]] = {}
        count = 0
        wilful = deviations()
        for case in recorded["cases"]:
            chain = harnesses.get(case["route"])
            if chain is None:
                chain = [PluginHarness(PLUGINS[each["name"]], **each["config"]) for each in case["plugins"]]
                harnesses[case["route"]] = chain
                for harness in chain:
                    harness.now = 1795399835.0
                    store(harness, dict(rows_of(recorded["consumers"])))
            self.check(chain, with_our_answer(case, wilful))
            count += 1
        self.assertGreater(count, 90)
        self.assertEqual(wilful, {})

    def check(self, chain: list[PluginHarness], case: dict[str, Any]) -> None:
        request, response = case["request"], case["response"]
        body = (request["body"] or "").encode()
        exchange = chain[0].request(request["method"], request["path"], request["headers"], body, ip="127.0.0.1")
        outcome = Outcome(exchange)
        for harness in chain:
            outcome = harness.run(exchange)
            if outcome.answer is not None:
                break
        for harness in chain:
            harness.respond(outcome)
        told = plugin_headers(response["headers"])
        seen = {**outcome.response_headers, **outcome.answer_headers}
        seen = {name: value for name, value in seen.items() if name.startswith(OURS)}
        why = f"{case['name']} {json.dumps(request)}"
        self.assertEqual(without_ids(seen), without_ids(told), why)
        if "Via" in dict(response["headers"]):
            self.assertIsNone(outcome.answer, why)
            self.check_upstream(outcome, response["body"], request["body"] or "", why)
        else:
            assert outcome.answer is not None, why
            self.assertEqual(outcome.answer.status, response["status"], why)
            if response["body"] is not None and outcome.answer.message is not None:
                self.assertEqual(outcome.answer.message, response["body"]["message"], why)
            elif response["body"] is not None:
                self.assertEqual(sorted(outcome.answer_json), sorted(response["body"]), why)

    def check_upstream(self, outcome: Outcome, upstream: dict[str, Any], request_body: str, why: str) -> None:
        self.assertEqual(without_ids(upstream_headers(outcome)), without_ids(plugin_headers(upstream["headers"])), why)
        names = {name.lower() for name, _ in upstream["headers"]}
        self.assertEqual(names & outcome.removed_headers, set(), why)
        query = upstream["path"].partition("?")[2]
        sent = outcome.exchange.raw_query.decode()
        self.assertEqual(sent, query, why)
        if outcome.upstream_body is not None:
            self.assertEqual(outcome.upstream_body.decode(), upstream["body"], why)
        elif upstream["body"]:
            self.assertEqual(request_body, upstream["body"], why)


def upstream_headers(outcome: Outcome) -> dict[str, str]:
    """The plugins' headers as the upstream sees them: those set, and the client's own that stay."""
    kept = {name.decode().lower(): value.decode() for name, value in outcome.exchange.block.pairs}
    kept = {name: value for name, value in kept.items() if name.startswith(OURS)}
    return {n: v for n, v in {**kept, **outcome.upstream_headers}.items() if n not in outcome.removed_headers}


def without_ids(headers: dict[str, str]) -> dict[str, str]:
    """Headers with generated values replaced by their form."""
    out = dict(headers)
    for name, value in headers.items():
        if name in ("x-consumer-id", "x-credential-identifier"):
            out[name] = "an id"
        elif name.endswith("-reset") or name == "retry-after":
            out[name] = "seconds"  # the window's end depends on the recording's second
        elif name == "kong-request-id" and "#" in value:
            out[name] = f"{len(value.partition('#')[0])} characters, {value.partition('#')[2]}"
        elif name == "x-t":
            out[name] = f"{value.count('-')} dashes"
    return out


def rows_of(consumers: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The recorded gateway's consumers and keys as rows."""
    yield (
        "consumers",
        [
            {"id": f"id of {c['username']}", "custom_id": c.get("custom_id"), "username": c["username"]}
            for c in consumers
        ],
    )
    yield (
        "keyauth_credentials",
        [
            {"id": f"id of {key['key']}", "key": key["key"], "consumer": {"id": f"id of {c['username']}"}}
            for c in consumers
            for key in c["keyauth_credentials"]
        ],
    )
    for entity in ("jwt_secrets", "acls", "basicauth_credentials", "hmacauth_credentials"):
        rows = []
        for c in consumers:
            for number, each in enumerate(c.get(entity, ())):
                row = {"id": f"{entity} {c['username']} {number}", **each, "consumer": {"id": f"id of {c['username']}"}}
                if "password" in each:
                    row["password"] = password_digest(each["password"], row["consumer"]["id"])
                rows.append(row)
        yield entity, rows
