"""The plugin ldap-auth without a server: messages, names, what is remembered, servers that answer oddly."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.plugins.ldap_auth import LDAPAuth
from kongtwist.plugins.ldap_auth.ldap_messages import (
    BIND,
    EXTENDED,
    Malformed,
    Result,
    bind_request,
    escaped,
    result_of,
    start_tls_request,
    whole,
)
from kongtwist.testing import Outcome, PluginHarness

BIND_ANN = bytes.fromhex("301502010160100201030405756964 3d61 8004 73336372".replace(" ", ""))
"""A simple bind of ``uid=a`` with ``s3cr``, message 1, written out by hand from RFC 4511 4.2."""


def answered(code: int, number: int = 1, text: bytes = b"", tag: int = 0x61) -> bytes:
    """A server's answer."""
    inner = bytes((0x0A, 1, code, 4, 0, 4, len(text))) + text
    operation = bytes((tag, len(inner))) + inner
    return bytes((0x30, 3 + len(operation), 2, 1, number)) + operation


class MessageTests(SynchronousTestCase):
    """RFC 4511, RFC 4514."""

    def test_bind(self) -> None:
        """Byte for byte; never without a password."""
        self.assertEqual(bind_request(1, "uid=a", b"s3cr"), BIND_ANN)
        self.assertRaises(ValueError, bind_request, 1, "uid=a", b"")
        long = bind_request(300, "x" * 500, b"y")
        self.assertEqual(whole(long), len(long))

    def test_names(self) -> None:
        """RFC 4514 4's own example, and what else could end a value."""
        self.assertEqual(escaped('James "Jim" Smith, III'), 'James \\"Jim\\" Smith\\, III')
        self.assertEqual(escaped("#a+b=c;<d>\\ "), "\\#a\\+b\\=c\\;\\<d\\>\\\\\\ ")
        self.assertEqual(escaped(" \0"), "\\ \\00")
        self.assertEqual((escaped(""), escaped("Lučić")), ("", "Lučić"))

    @given(st.text())
    def test_no_name_ends_a_value(self, name: str) -> None:
        """Outside of what is escaped there is no special character."""
        left = escaped(name)
        while (at := left.find("\\")) >= 0:
            left = left[:at] + left[at + 2 :]
        self.assertFalse(set(left) & set(',+"\\<>;=#\0'))

    def test_answers(self) -> None:
        """Whole ones are read; pieces are waited for; others are none."""
        answer = answered(49, 7, b"no")
        self.assertEqual(result_of(answer), Result(7, BIND, 49, "no"))
        self.assertEqual(result_of(answered(0, 1, tag=0x78)).operation, EXTENDED)
        self.assertEqual([whole(answer[:size]) for size in range(len(answer))], [None] * len(answer))
        self.assertEqual(whole(answer + b"more"), len(answer))
        for odd in (b"HTTP/1.1 400", b"\x30\x80", b"\x30\x85\1\1\1\1\1", b"\x30\x83\xff\xff\xff"):
            self.assertRaises(Malformed, whole, odd)
        for odd in (
            b"\x30\x00",
            answer[:5] + b"\x30" + answer[6:],
            b"\x30\x05\x02\x01\x01\x61\x00",
            start_tls_request(1),
        ):
            self.assertRaises(Malformed, result_of, odd)

    @given(st.binary(max_size=60))
    def test_anything(self, data: bytes) -> None:
        """Whatever a server sends is a result, is waited for, or is refused."""
        try:
            size = whole(b"\x30" + data)
            if size is not None:
                result_of((b"\x30" + data)[:size])
        except Malformed:
            pass


class LoginTests(SynchronousTestCase):
    """Requests."""

    def made(self, **config: Any) -> PluginHarness:
        return PluginHarness(LDAPAuth, **{"ldap_host": "h", "base_dn": "dc=x", "attribute": "uid", **config})

    @staticmethod
    def send(harness: PluginHarness, text: bytes = b"ann:pw", kind: str = "ldap", **more: str) -> Outcome:
        headers = {"authorization": f"{kind} {b64encode(text).decode()}", **more}
        return harness.send(headers=headers)

    def answer(self, harness: PluginHarness, code: int, number: int = 1) -> None:
        harness.host.connections[-1].feed(answered(code, number))

    def status(self, outcome: Outcome) -> int:
        return 200 if outcome.answer is None else outcome.answer.status

    def test_bind(self) -> None:
        """The name is made of attribute, user and base; who is let in is known by it, and by no password."""
        harness = self.made()
        outcome = self.send(harness)
        self.assertIn(b"uid=ann,dc=x", harness.host.connections[0].written)
        self.answer(harness, 0)
        self.assertIsNone(outcome.answer)
        assert outcome.credential is not None
        self.assertEqual((outcome.credential["username"], sorted(outcome.credential)), ("ann", ["id", "username"]))
        self.assertEqual(outcome.upstream_headers, {"x-credential-identifier": "ann"})
        self.assertIsNone(outcome.consumer)

    def test_nothing_to_bind_with(self) -> None:
        """No connection is made for these."""
        harness = self.made()
        for text in (b"ann", b"ann:", b":", b"", b"ann:\0", b"a\0:pw", b"ann:p\nw", b"\xff:pw"):
            self.assertEqual(self.status(self.send(harness, text)), 401, text)
        for value in ("ldap", "ldap !!!", "ldapx YTpi", "Basic YTpi", "YTpi"):
            self.assertEqual(self.status(harness.send(headers={"authorization": value})), 401, value)
        self.assertEqual(harness.host.connections, [])

    def test_padding(self) -> None:
        """Base64 needs none, as in Kong."""
        for value in ("ldap YW5uOnB3", "ldap YW5uOnB3cQ", "ldap YW5uOnB3cQ=", "ldap YW5uOnB3cQ=="):
            harness = self.made()
            outcome = harness.send(headers={"authorization": value})
            self.answer(harness, 0)
            self.assertIsNone(outcome.answer, value)

    def test_remembered(self) -> None:
        """Both verdicts, for cache_ttl seconds; another password is another question; no more than so many."""
        harness = self.made(cache_ttl=10)
        for text, code, status in ((b"ann:pw", 0, 200), (b"ann:no", 49, 401)):
            outcome = self.send(harness, text)
            self.answer(harness, code, 1 if code == 0 else 2)
            for _ in range(2):
                self.assertEqual(self.status(outcome), status)
                outcome = self.send(harness, text)
        harness.advance(11)
        self.asks_again(harness)
        harness = self.made(cache_ttl=0)
        self.send(harness)
        self.answer(harness, 0)
        self.asks_again(harness)

    def asks_again(self, harness: PluginHarness) -> None:
        outcome = self.send(harness)
        self.assertIsNotNone(outcome.waiting)
        harness.leave(outcome)

    def test_faults_of_the_server(self) -> None:
        """500 and a line in the log: nobody is let in, nobody is told to type the password again."""
        harness = self.made()
        harness.host.refused = "connection refused"
        self.assertEqual(self.status(self.send(harness)), 500)
        self.assertIn("connection refused", harness.reports[0])
        for odd in (b"HTTP/1.1 400\r\n", answered(0, 9), answered(0, 1, tag=0x78), answered(52), b""):
            harness = self.made()
            outcome = self.send(harness)
            harness.host.connections[0].feed(odd)
            self.assertEqual(self.status(outcome), 500, odd)
            self.assertNotIn("pw", "".join(harness.reports))

    def test_anonymous(self) -> None:
        """A wrong password makes a client anonymous; a server that is away does not."""
        harness = self.made(anonymous="nobody")
        harness.store("consumers", id="n", username="nobody")
        outcome = self.send(harness)
        self.answer(harness, 49)
        self.assertEqual(outcome.upstream_headers["x-anonymous-consumer"], "true")
        harness.host.refused = "connection refused"
        self.assertEqual(self.status(harness.send()), 200)
        harness.host.connections[0].cut()
        self.assertEqual(self.status(self.send(harness, b"bob:pw")), 500)

    def test_said_before_tls(self) -> None:
        """What comes with the answer to StartTLS was said by nobody in particular, and ends the connection."""
        harness = self.made(start_tls=True)
        outcome = self.send(harness)
        connection = harness.host.connections[0]
        self.assertNotIn(b"pw", connection.written)
        connection.feed(answered(0, 1, tag=0x78) + answered(0, 2))
        self.assertEqual(self.status(outcome), 500)
        self.assertIsNone(connection.tls)
        self.assertNotIn(b"pw", connection.written)
        harness = self.made(start_tls=True)
        outcome = self.send(harness)
        connection = harness.host.connections[0]
        connection.feed(answered(2, 1, tag=0x78))
        self.assertEqual(self.status(outcome), 500)
        self.assertNotIn(b"pw", connection.written)

    def test_many_at_once(self) -> None:
        """So many logins are under way at once; one more is refused."""
        harness = self.made()
        waiting = [self.send(harness, b"u%d:pw" % number) for number in range(64)]
        self.assertEqual(self.status(self.send(harness, b"late:pw")), 500)
        self.assertIn("plugin_ldap_binds", harness.reports[0])
        for connection in harness.host.connections:
            connection.feed(answered(0))
        self.assertEqual({self.status(each) for each in waiting}, {200})

    def test_client_that_leaves(self) -> None:
        """Its connection is ended: the answer is nobody else's."""
        harness = self.made(cache_ttl=0)
        gone = self.send(harness)
        harness.leave(gone)
        self.assertTrue(harness.host.connections[0].closed)
        outcome = self.send(harness, b"bob:pw")
        self.assertEqual(len(harness.host.connections), 2)
        self.answer(harness, 49)
        self.assertEqual(self.status(outcome), 401)
