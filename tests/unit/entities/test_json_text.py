"""What somebody else wrote: nesting, numbers and ports that are larger than what they are read with."""

from __future__ import annotations

import json
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import partial
from operator import eq
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin.endpoints.runtime import _seconds
from kongtwist.core.http.bodies import decode_body
from kongtwist.core.http.head import parse_request_block
from kongtwist.core.http.real_ip import RealIP
from kongtwist.entities import registry
from kongtwist.entities.errors import EntityError
from kongtwist.entities.json_text import NESTING, check_nesting, parse_json
from kongtwist.entities.keys import jwk_error
from kongtwist.entities.references import parse_reference
from kongtwist.entities.typedefs import host, host_with_optional_port, ip_or_cidr
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.storage.declarative.posted import BadGiven, _in_json
from kongtwist.storage.declarative.text import read_tree
from kongtwist.storage.row_store import _offset_id

DEPTHS = (NESTING + 1, 900, *range(950, 1000, 7), 5000, 100_000)


def nested(depth: int) -> list[str]:
    """Texts of so many arrays and objects inside one another."""
    half = depth // 2
    mixed = '[{"a":' * half + ("[]" if depth % 2 else "1") + "}]" * half
    return ["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, mixed]


def deeper(call: Callable[[], Any], frames: int) -> Any:
    """Call with so many frames more on the stack."""
    return call() if not frames else deeper(call, frames - 1)


class ParseTests(SynchronousTestCase):
    def test_bound(self) -> None:
        """Up to the bound a text is read, and can be compared and written again by who stands deeper in the stack."""
        for text in nested(NESTING):
            found, other = parse_json(text), parse_json(text.encode())
            self.assertTrue(deeper(partial(eq, found, other), 200))
            self.assertEqual(deeper(partial(json.dumps, found, separators=(",", ":")), 200), text)
        for depth in DEPTHS:
            for text in nested(depth):
                self.assertRaises(ValueError, parse_json, text)

    def test_wide_is_not_deep(self) -> None:
        text = json.dumps([{"a": [[n]]} for n in range(2 * NESTING)])
        self.assertEqual(len(parse_json(text)), 2 * NESTING)
        self.assertEqual(parse_json(json.dumps("[" * 2 * NESTING)), "[" * 2 * NESTING)

    @given(
        st.recursive(
            st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
        )
    )
    def test_as_json(self, value: Any) -> None:
        self.assertEqual(parse_json(json.dumps(value)), value)
        check_nesting(value)

    def test_digits(self) -> None:
        self.assertRaises(ValueError, parse_json, "9" * 5000)


class ReaderTests(SynchronousTestCase):
    """Everybody who reads what a client sent refuses in his own words."""

    def test_nesting(self) -> None:
        for depth in DEPTHS:
            for text in nested(depth):
                offset = urlsafe_b64encode(text.encode()).decode()
                error = self.assertRaises(EntityError, _offset_id, offset)
                self.assertEqual((error.status, error.name), (400, "invalid offset"))
                self.assertIsNone(decode_body(b"application/json", f'{{"a": {text}}}'.encode()))
                self.assertEqual(jwk_error(f'{{"kid": {text}}}', None), "could not json decode jwk string")
                self.assertRaises(BadGiven, _in_json, f'{{"a": {text}}}'.encode())

    def test_numbers_beyond_a_double(self) -> None:
        for digits in (400, 5000):
            error = self.assertRaises(EntityError, read_tree, f"a: !!float {'9' * digits}")
            self.assertEqual((error.status, error.code), (400, 14))
        self.assertIsNone(_seconds(10**400))
        self.assertIsNone(_seconds("1e400"))
        self.assertRaises(ValueError, parse_reference, "{vault://env/a#" + "9" * 5000 + "}")
        self.assertRaises(ValueError, parse_reference, "{vault://env/a#\u00b2}")

    def test_time_to_live(self) -> None:
        entity = registry({"key-auth": KeyAuth()})["keyauth_credentials"]
        consumer = {"id": "00000000-0000-4000-8000-000000000001"}
        for ttl in (float("inf"), float("-inf"), float("nan"), 10**400, sys.float_info.max, 1.5, -1, True, "1"):
            error = self.assertRaises(
                EntityError, entity.insert, {"consumer": consumer, "ttl": ttl}, now=1.0, new_id=lambda: consumer["id"]
            )
            self.assertEqual(error.status, 400, ttl)


class AddressTests(SynchronousTestCase):
    def test_ports(self) -> None:
        """A port is ASCII digits, and few."""
        for name in ("a", "1.2.3.4", "[::1]"):
            self.assertIsNone(host_with_optional_port(f"{name}:080"))
            for port in ("\u00b2", "\u0663", "9" * 5000, "65536", "-1", "+1", "1 ", "1\n"):
                self.assertIsNotNone(host_with_optional_port(f"{name}:{port}"), (name, port))
                self.assertIsNotNone(host(f"{name}:{port}"), (name, port))

    def test_urls(self) -> None:
        entity = registry({})["services"]
        for port in ("9" * 5000, "99999", "0" * 4999 + "1"):
            try:
                row = entity.insert(
                    {"url": f"http://a:{port}/"}, now=1.0, new_id=lambda: "00000000-0000-4000-8000-000000000001"
                )
                self.assertEqual(row["port"], 1)
            except EntityError as error:
                self.assertEqual(error.fields["port"], "value should be between 0 and 65535")

    def test_zones(self) -> None:
        """``%eth0`` is no part of an address here: it could be any text."""
        for text in ("fe80::1%eth0", "[::1%25eth0]", "::1%"):
            self.assertIsNotNone(host_with_optional_port(text))
            self.assertIsNotNone(ip_or_cidr(text.strip("[]")))
        real = RealIP(["127.0.0.1"])
        for field in (b'fe80::1%a"b', b"[fe80::1%a b]:80", b"::1%\xff"):
            self.assertEqual(
                real.client_of("127.0.0.1", parse_request_block(b"X-Real-IP: %b\r\n" % field)), "127.0.0.1"
            )
