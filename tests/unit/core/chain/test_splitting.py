"""No configured text and no plugin can make more of a head than one line for each of its fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.authentication import identity_headers
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.chain.secrets import Secrets, Unusable
from kongtwist.core.exchange import Answer, Exchange, Row
from kongtwist.core.http.headers import PreparedChanges, encoded
from kongtwist.entities import registry
from kongtwist.entities.entity import Entity
from kongtwist.entities.errors import EntityError
from kongtwist.entities.plugin_rows import config_of
from kongtwist.entities.schema import Array, Field, Map, Record, Set, String
from kongtwist.entities.typedefs import header_value, token
from kongtwist.plugins.correlation_id import CorrelationId
from kongtwist.plugins.ip_restriction import IpRestriction
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.plugins.rate_limiting import RateLimiting
from kongtwist.plugins.request_termination import RequestTermination

from ...proxy.relay_kit import Gateway, plugin_row
from ..routing.router_rows import exchange

EVIL = "a\r\nX-Evil: 1"
BREAKING = (b"1\r\nX-Evil: 1", b"1\nX-Evil: 1", b"1\rX", b"1\0")
GET = b"GET /st/x HTTP/1.1\r\nHost: x\r\nAuthorization: a\r\n\r\n"
PLUGINS: dict[str, Plugin] = {
    each.name: each() for each in (CorrelationId, IpRestriction, KeyAuth, RateLimiting, RequestTermination)
}


def texts(field: Field) -> Iterator[Any]:
    """Values of a field in which all is text that is to break a head; as many as there are places for it."""
    if isinstance(field, String):
        yield EVIL
    elif isinstance(field, Array | Set):
        yield from ([each] for each in texts(field.elements))
    elif isinstance(field, Map):
        yield from ({"x-a": each} for each in texts(field.values))
        yield {EVIL: next(texts(field.values), "a")}
    elif isinstance(field, Record):
        yield from ({name: each} for name, inner in field.fields.items() for each in texts(inner))


def heads(data: bytes) -> bytes:
    """The heads of messages with Content-Length or without a body."""
    found = b""
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        found += head + b"\r\n"
        lengths = [line[16:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")]
        data = data[int(lengths[0]) :] if lengths else data
    return found


class ConfigurationTests(SynchronousTestCase):
    """Every text of every entity and of every bundled plugin."""

    def entity(self, name: str) -> Entity:
        return registry(PLUGINS)[name]

    def inserted(self, entity: str, row: Row) -> Row | None:
        """The row as it would be stored; None where it is refused."""
        try:
            return self.entity(entity).insert(row, now=1.0, new_id=lambda: "00000000-0000-4000-8000-000000000001")
        except EntityError as error:
            self.assertEqual(error.status, 400)
            return None

    def test_plugins(self) -> None:
        tried = 0
        for name, plugin in PLUGINS.items():
            for field, kind in config_of(plugin).fields.items():
                for value in texts(kind):
                    config = dict(plugin.example) | {field: value}
                    if field == "content_type":
                        config = {"content_type": value, "body": "b"}
                    row = self.inserted("plugins", {"name": name, "config": config})
                    tried += 1
                    if row is not None:
                        self.harmless(plugin_row(name, config=row["config"]), f"{name} {field}")
        self.assertGreater(tried, 15)

    def harmless(self, row: Row, what: str) -> None:
        gateway = Gateway(plugins=PLUGINS, plugin_rows=[row])
        client = gateway.client()
        client.send(GET)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 "), what)
        seen = heads(client.received) + b"".join(heads(each.wire.sent) for each in gateway.upstreams)
        for line in seen.replace(b"\r", b"\n").split(b"\n"):
            self.assertFalse(line.lower().startswith(b"x-evil"), (what, seen))

    def test_fields_that_are_refused(self) -> None:
        """With the field's name, and what is wrong in words."""
        for name, config, wrong in (
            ("key-auth", {"realm": EVIL}, {"realm": "invalid character U+000D at position 2: it cannot be sent in a header"}),
            ("key-auth", {"key_names": [EVIL]}, {"key_names": [
                f"bad header name '{EVIL}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
            ]}),
            ("request-termination", {"content_type": "a\0", "body": "b"}, {
                "content_type": "invalid character U+0000 at position 2: it cannot be sent in a header"
            }),
            ("correlation-id", {"header_name": "X-A\n"}, {
                "header_name": "bad header name 'X-A\n', allowed characters are letters, digits and !#$%&'*+-.^_`|~"
            }),
        ):  # fmt: skip
            error = self.assertRaises(
                EntityError,
                self.entity("plugins").insert,
                {"name": name, "config": config},
                now=1.0,
                new_id=lambda: "x",
            )
            self.assertEqual((error.status, error.name, error.fields["config"]), (400, "schema violation", wrong))

    def test_services_routes_and_upstreams(self) -> None:
        """What of them goes into a head is a name, an address or a path, and none of these may hold a line's end."""
        goods: dict[str, Row] = {
            "services": {"name": "s", "host": "a.com", "path": "/p"},
            "upstreams": {"name": "u.com", "host_header": "a.com"},
            "targets": {"target": "a.com:80", "upstream": {"id": "00000000-0000-4000-8000-000000000002"}},
        }
        for entity, fields in (
            ("services", ("host", "path", "name", "url", "protocol")),
            ("upstreams", ("name", "host_header", "hash_on_cookie", "hash_on_cookie_path", "hash_on_header")),
            ("targets", ("target",)),
        ):
            self.assertIsNotNone(self.inserted(entity, goods[entity]))
            for field in fields:
                for value in (
                    EVIL,
                    f"/{EVIL}",
                    "a\n",
                    "a.com\n",
                    "/a\n",
                    "a.com:80\n",
                    "http://a.com\n",
                    f"http://a.com/{EVIL}",
                ):
                    row = self.inserted(entity, goods[entity] | {field: value})
                    shown = (
                        {}
                        if row is None
                        else {name: row[name] for name in ("host", "path", "name", "target") if name in row}
                    )
                    self.assertNotIn("\n", "".join(map(str, shown.values())), (entity, field, value))
                    if field != "url":
                        self.assertIsNone(row, (entity, field, value))
        for headers in ({"x-a": [EVIL]}, {EVIL: ["a"]}):
            self.assertIsNone(
                self.inserted("upstreams", goods["upstreams"] | {"healthchecks": {"active": {"headers": headers}}})
            )
        self.assertIsNone(self.inserted("routes", {"hosts": ["a.com\n"]}))
        self.assertIsNone(self.inserted("routes", {"paths": ["/"], "methods": ["GET\n"]}))

    def test_names_of_consumers(self) -> None:
        """They are Kong's to hold anything; what is not for a header is written out, as Kong does."""
        for name in (EVIL, "a\n", "\0", "\x7f\x1b"):
            row = self.inserted("consumers", {"username": name, "custom_id": name})
            assert row is not None
            changes = PreparedChanges(identity_headers(row, "c"))
            self.assertEqual(changes.lines.count(b"\r\n"), 4)
            self.assertEqual(changes[b"x-consumer-username"], changes[b"x-consumer-custom-id"])
        self.assertEqual(encoded(b"a\r\nX-Evil: 1"), b"a%0D%0AX-Evil: 1")
        self.assertEqual(encoded(b"J\xc3\xb6 \t~%0A"), b"J\xc3\xb6 \t~%0A")
        self.assertEqual(
            identity_headers({"id": 1, "username": "\ud800"}, None)[b"x-consumer-username"], b"\xed\xa0\x80"
        )


class Realm(Plugin):
    """Has a text for a header that may be a secret."""

    name = "realm"
    priority = 11
    config = {"realm": String(referenceable=True, checks=(header_value,))}


class ReferenceTests(SynchronousTestCase):
    def test_values_of_references(self) -> None:
        """A reference is looked at when it is looked up: a plugin whose value cannot be sent cannot be used."""
        row = plugin_row("realm", config={"realm": "{vault://env/realm}"})
        for value, usable in (("good", True), (EVIL, False), ("a\0", False), ("a\n", False)):
            secrets = Secrets((), {"realm": Realm()}, {"REALM": value})
            if usable:
                self.assertEqual(secrets.resolved("plugins", row)[0]["config"]["realm"], value)
            else:
                error = self.assertRaises(Unusable, secrets.resolved, "plugins", row)
                self.assertNotIn(value, str(error))


class Sets(Plugin):
    """Does what it is told in a phase."""

    name = "sets"
    priority = 10

    def __init__(self, phase: str, call: Callable[[Exchange], Any]) -> None:
        self._phase, self._call = phase, call

    def access(self, exchange: Exchange, conf: Any) -> Answer | None:
        return self._call(exchange) if self._phase == "access" else None

    def header_filter(self, exchange: Exchange, conf: Any) -> None:
        if self._phase == "header_filter":
            self._call(exchange)


class PluginTests(SynchronousTestCase):
    """A plugin that passes on what it did not look at."""

    def test_fails_closed(self) -> None:
        """The request is answered 500 and nothing of the value goes anywhere; it is not in the log either."""
        for value in BREAKING:
            for phase, call in (
                ("access", lambda x, v=value: x.set_upstream_header(b"x-a", v)),
                ("access", lambda x, v=value: x.set_upstream_header(b"x-" + v, b"a")),
                ("access", lambda x, v=value: x.set_response_header(b"X-A", v)),
                ("access", lambda x, v=value: x.add_response_header(b"X-A", v)),
                ("access", lambda x, v=value: x.exit(200, b"b", [(b"X-A", v)])),
                ("access", lambda x, v=value: x.exit(200, b"b", [(b"X-" + v, b"a")])),
                ("access", lambda x, v=value: x.error(401, "no", [(b"WWW-Authenticate", v)])),
                ("header_filter", lambda x, v=value: x.set_response_header(b"X-A", v)),
                ("header_filter", lambda x, v=value: x.add_response_header(b"X-" + v, b"a")),
            ):
                gateway = Gateway(plugins={"sets": Sets(phase, call)}, plugin_rows=[plugin_row("sets")])
                client = gateway.client()
                client.send(GET)
                self.assertTrue(client.received.startswith(b"HTTP/1.1 500 "), (phase, value, client.received))
                sent = client.received + b"".join(each.wire.sent for each in gateway.upstreams)
                self.assertNotIn(b"X-Evil", sent)
                self.assertIn("cannot be sent", gateway.reports[0])

    def test_lines(self) -> None:
        made = exchange()
        made.set_response_lines(frozenset((b"x-a", b"x-b")), b"X-A: 1\r\nX-B: 2\r\n")
        for lines in (
            b"X-A: 1\r\nX-Evil: 1\r\nX-B: 2\r\n",
            b"X-A: 1\nX-B: 2\r\n",
            b"X-A: 1\r\nX-B: 2\r\r\n",
            b"X-A: 1\r\n",
        ):
            self.assertRaises(ValueError, made.set_response_lines, frozenset((b"x-a", b"x-b")), lines)

    def test_answers_changed_afterwards(self) -> None:
        """The last line: even a list that is changed behind its answer's back gives no second line."""

        def call(made: Exchange) -> Answer:
            answer = made.exit(200, b"b", [(b"X-A", b"1")])
            answer.headers.append((b"X-B", b"1\r\nX-Evil: 1"))
            return answer

        client = Gateway(plugins={"sets": Sets("access", call)}, plugin_rows=[plugin_row("sets")]).client()
        client.send(GET)
        self.assertIn(b"\r\nX-B: 1X-Evil: 1\r\n", client.received)


class RuleTests(SynchronousTestCase):
    @given(st.text(max_size=20))
    def test_header_value(self, text: str) -> None:
        """What is taken has no byte that RFC 9110 5.5 does not allow in a value."""
        if header_value(text) is None:
            self.assertEqual(encoded(text.encode()), text.encode())
        else:
            self.assertTrue(any(ord(each) < 32 or ord(each) == 127 or "\ud800" <= each <= "\udfff" for each in text))

    def test_token(self) -> None:
        for text in ("X-A", "x.y_z~", "1"):
            self.assertIsNone(token(text))
        for text in ("", "a b", "a:", "a\n", "\u00e4", "a\0"):
            self.assertIsNotNone(token(text))
