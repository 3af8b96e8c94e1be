"""The session plugin's decisions: encryption, cookies, and when a session begins, is renewed, and ends."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http.cookies import read_cookies
from kongtwist.plugins.session.client_session import ClientSession, Settings, Write
from kongtwist.plugins.session.sealing import Sealer, base64url, unbase64url
from kongtwist.plugins.session.session_cookies import LARGEST, MOST, joined, split
from kongtwist.plugins.session.session_fields import CONFIG

NOW = 1_700_000_000


class SealingTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """What was sealed opens, small and large."""
        sealer = Sealer("secret")
        for text in (b"", b"x", b"abc" * 5000):
            self.assertEqual(sealer.open(b"use", b"id", sealer.seal(b"use", b"id", text)), text)
        self.assertLess(len(sealer.seal(b"use", b"id", b"abc" * 5000)), 500, "large texts are deflated")

    def test_nothing_else_opens(self) -> None:
        """Another secret, use or session, and a change of any byte."""
        sealer = Sealer("secret")
        sealed = sealer.seal(b"use", b"id", b"text")
        self.assertIsNone(Sealer("Secret").open(b"use", b"id", sealed))
        self.assertIsNone(sealer.open(b"row", b"id", sealed))
        self.assertIsNone(sealer.open(b"use", b"ie", sealed))
        for at in range(len(sealed)):
            changed = bytearray(sealed)
            changed[at] ^= 1
            self.assertIsNone(sealer.open(b"use", b"id", bytes(changed)), at)
            self.assertIsNone(sealer.open(b"use", b"id", sealed[:at]), at)

    def test_never_the_same_twice(self) -> None:
        """Equal texts do not look equal."""
        sealer = Sealer("secret")
        self.assertNotEqual(sealer.seal(b"use", b"id", b"text"), sealer.seal(b"use", b"id", b"text"))

    @given(st.binary(max_size=50))
    def test_base64url(self, data: bytes) -> None:
        """There and back; nothing that is not in its one form."""
        self.assertEqual(unbase64url(base64url(data)), data)
        self.assertIsNone(unbase64url(base64url(data) + "="))
        self.assertIsNone(unbase64url(base64url(data) + "é"))


class CookieTests(SynchronousTestCase):
    def test_read(self) -> None:
        """Cookies of several fields; the first of a name; blanks around them."""
        found = read_cookies([b"a=1;  b=2;c", b"b=3; d=x=y "])
        self.assertEqual(found, {b"a": b"1", b"b": b"2", b"d": b"x=y"})

    @given(st.integers(0, 3 * LARGEST))
    def test_split(self, size: int) -> None:
        """Each cookie is as large as a browser takes, and together they are the value."""
        value = bytes(0x41 + at % 26 for at in range(size)) or b"x"
        pieces = split(b"session", value)
        for name, piece in pieces:
            self.assertLessEqual(len(name) + 1 + len(piece), LARGEST)
        self.assertEqual(joined(b"session", dict(pieces)), (value, len(pieces)))

    def test_too_large(self) -> None:
        """More than nine are refused."""
        self.assertEqual(len(split(b"s", b"x" * (LARGEST - 3) * MOST)), MOST)
        with self.assertRaises(ValueError):
            split(b"s", b"x" * ((LARGEST - 3) * MOST + 1))

    def test_not_whole(self) -> None:
        """A missing piece, or no number of pieces, is no value; pieces that were left over do not count."""
        pieces = dict(split(b"s", b"x" * 9000))
        self.assertEqual(len(pieces), 3)
        self.assertIsNone(joined(b"s", {name: each for name, each in pieces.items() if name != b"s2"}))
        self.assertEqual(joined(b"s", {b"s": b"1abc", b"s2": b"old"}), (b"abc", 1))
        for first in (b"", b"0abc", b"xabc"):
            self.assertIsNone(joined(b"s", {b"s": first}))


class Browser:
    """A client with its cookies, and the database behind."""

    def __init__(self, **config: Any) -> None:
        self.settings = Settings(CONFIG.filled({"secret": "s3cret", **config}))
        self.cookies: dict[bytes, bytes] = {}
        self.rows: dict[str, str] = {}
        self.writes: list[Write] = []
        self.lines: dict[bytes, bytes] = {}

    def open(self, now: int, keep: bool = True) -> ClientSession:
        session = ClientSession(self.settings, dict(self.cookies), now, self.rows.get)
        if keep:
            self.take(session)
        return session

    def take(self, session: ClientSession) -> None:
        """Keep its cookies; make its changes of rows."""
        self.lines = session.cookies
        for name, line in session.cookies.items():
            value = line.partition(b"=")[2].partition(b";")[0]
            if b"Max-Age=0" in line:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        self.writes = list(session.writes)
        for each in session.writes:
            if each.what == "insert":
                self.rows[each.session_id] = each.data
            elif each.what == "delete":
                self.rows.pop(each.session_id, None)
        session.writes.clear()
        session.cookies = {}

    def begin(self, now: int = NOW, data: Any = ("c1", "k1", None)) -> ClientSession:
        session = self.open(now)
        session.set(list(data), "bob")
        session.save()
        self.take(session)
        return session


class LifeTests(SynchronousTestCase):
    def test_begin_and_use(self) -> None:
        """What was saved is there again, in either storage; the cookie says nothing of it."""
        for storage in ("cookie", "kong"):
            browser = Browser(storage=storage)
            self.assertFalse(browser.open(NOW).exists)
            browser.begin()
            again = browser.open(NOW + 5)
            self.assertTrue(again.exists)
            self.assertEqual(again.data, ["c1", "k1", None])
            self.assertEqual(again.word("subject"), "bob")
            self.assertEqual(len(browser.rows), storage == "kong")
            self.assertNotIn(b"bob", b"".join(map(unbase64_or_nothing, browser.cookies.values())))

    def test_attributes(self) -> None:
        """In Kong's order; the domain is left out where there is none; None makes it Secure."""
        for config, attributes in (
            ({}, b"; Path=/; SameSite=Strict; Secure; HttpOnly"),
            (
                {"cookie_domain": "example.com", "cookie_path": "/api"},
                b"; Domain=example.com; Path=/api; SameSite=Strict; Secure; HttpOnly",
            ),
            (
                {"cookie_domain": "localhost", "cookie_secure": False, "cookie_same_site": "Lax"},
                b"; Path=/; SameSite=Lax; HttpOnly",
            ),
            (
                {"cookie_secure": False, "cookie_same_site": "None", "cookie_http_only": False},
                b"; Path=/; SameSite=None; Secure",
            ),
            ({"cookie_same_site": "Default"}, b"; Path=/; SameSite=Default; Secure; HttpOnly"),
        ):
            browser = Browser(**config)
            browser.begin()
            line = browser.lines[b"session"]
            self.assertEqual(line[line.index(b";") :], attributes)

    def test_time_outs(self) -> None:
        """Idle, not renewed, or too old: over; 0 switches each off."""
        for config, last in (
            ({}, 900), ({"idling_timeout": 0}, 3600), ({"idling_timeout": 0, "rolling_timeout": 0}, 86400),
            ({"idling_timeout": 5000}, 3600), ({"idling_timeout": 0, "absolute_timeout": 50}, 50),
        ):  # fmt: skip
            browser = Browser(**config)
            browser.begin()
            self.assertTrue(browser.open(NOW + last, keep=False).exists, config)
            self.assertFalse(browser.open(NOW + last + 1, keep=False).exists, config)
        for_ever = Browser(idling_timeout=0, rolling_timeout=0, absolute_timeout=0)
        for_ever.begin()
        self.assertTrue(for_ever.open(NOW + 10**9, keep=False).exists)

    def test_use_is_noted(self) -> None:
        """After a minute without a request the next one counts as life; not before, to spare cookies."""
        browser = Browser()
        browser.begin()
        session = browser.open(NOW + 60)
        session.refresh()
        self.assertEqual(session.cookies, {})
        session = browser.open(NOW + 61)
        session.refresh()
        self.assertEqual(list(session.cookies), [b"session"])
        self.assertEqual(session.word("idling-timeout"), "900")
        browser.take(session)
        self.assertTrue(browser.open(NOW + 961, keep=False).exists)
        self.assertFalse(browser.open(NOW + 962, keep=False).exists)

    def test_renewal(self) -> None:
        """After three quarters it gets a new id; what was stored under the old one ends shortly."""
        for storage in ("cookie", "kong"):
            browser = Browser(storage=storage, idling_timeout=0, stale_ttl=7)
            first = browser.begin().word("id")
            session = browser.open(NOW + 2700)
            session.refresh()
            self.assertEqual(session.cookies, {})
            session = browser.open(NOW + 2701)
            session.refresh()
            browser.take(session)
            self.assertNotEqual(session.word("id"), first)
            self.assertTrue(browser.open(NOW + 2701 + 3600, keep=False).exists)
            self.assertFalse(browser.open(NOW + 2701 + 3601, keep=False).exists)
            self.assertEqual(session.word("absolute-timeout"), str(86400 - 2701))
            if storage == "kong":
                insert, old = browser.writes
                self.assertEqual((insert.what, insert.session_id, insert.ttl), ("insert", session.word("id"), 3600))
                self.assertEqual((old.what, old.session_id, old.ttl), ("expire", first, 7))

    def test_words(self) -> None:
        """What headers tell; the time that is left is the least of the three."""
        browser = Browser(audience="app")
        browser.begin()
        session = browser.open(NOW + 100)
        self.assertEqual([session.word(each) for each in ("audience", "subject", "timeout")], ["app", "bob", "800"])
        self.assertEqual(
            [session.word(f"{each}-timeout") for each in ("idling", "rolling", "absolute")], ["800", "3500", "86300"]
        )
        unlimited = Browser(idling_timeout=0, rolling_timeout=0, absolute_timeout=0)
        unlimited.begin()
        self.assertIsNone(unlimited.open(NOW).word("timeout"))
        self.assertIsNone(unlimited.open(NOW).word("rolling-timeout"))

    def test_logout(self) -> None:
        """Cookie and row go; a copy of the cookie is worth nothing where there are rows."""
        for storage in ("cookie", "kong"):
            browser = Browser(storage=storage)
            browser.begin()
            copy = dict(browser.cookies)
            session = browser.open(NOW + 1)
            session.logout()
            browser.take(session)
            self.assertEqual(
                browser.lines[b"session"],
                b"session=; Path=/; SameSite=Strict; Secure; HttpOnly; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0",
            )
            self.assertEqual((browser.cookies, browser.rows), ({}, {}))
            browser.cookies = copy
            self.assertEqual(browser.open(NOW + 2).exists, storage == "cookie")

    def test_audiences(self) -> None:
        """One cookie for several; one that logs out leaves the others."""
        browser = Browser(audience="one")
        browser.begin()
        one, two = browser.settings, Browser(audience="two").settings
        browser.settings = two
        session = browser.open(NOW + 1)
        self.assertFalse(session.exists)
        session.set(["c2", "k2", None], "jim")
        session.save()
        browser.take(session)
        self.assertEqual(browser.open(NOW + 2).data, ["c2", "k2", None])
        browser.settings = one
        session = browser.open(NOW + 2)
        self.assertEqual(session.data, ["c1", "k1", None])
        session.logout()
        browser.take(session)
        self.assertFalse(browser.open(NOW + 3).exists)
        browser.settings = two
        self.assertTrue(browser.open(NOW + 3).exists)

    def test_large(self) -> None:
        """What does not fit into one cookie; what is left over when it has become smaller is taken back."""
        browser = Browser()
        groups = [f"{at:x}{at * 7919:x}{at * 104729:x}" for at in range(2000)]
        session = browser.begin(data=("c1", "k1", groups))
        self.assertGreater(len(browser.cookies), 2)
        self.assertEqual(browser.open(NOW + 1).data, ["c1", "k1", groups])
        session = browser.open(NOW + 1)
        session.set(["c1", "k1", None], "bob")
        session.save()
        browser.take(session)
        self.assertEqual(list(browser.cookies), [b"session"])
        session = browser.open(NOW + 1)
        session.set(["c1", "k1", [f"{at**5:x}" for at in range(90000)]], "bob")
        with self.assertRaises(ValueError):
            session.save()

    def test_remembered(self) -> None:
        """The second cookie makes a new session of one that is over, and is made anew itself; a logout takes both."""
        for storage in ("cookie", "kong"):
            browser = Browser(storage=storage, remember=True)
            first = browser.begin()
            self.assertEqual(sorted(browser.cookies), [b"remember", b"session"])
            self.assertIn(b"; Expires=Tue, 21 Nov 2023 22:13:20 GMT; Max-Age=604800", browser.lines[b"remember"])
            later = NOW + 86400 * 2
            session = browser.open(later, keep=False)
            self.assertTrue(session.exists)
            self.assertEqual(session.data, ["c1", "k1", None])
            self.assertEqual(session.word("absolute-timeout"), "86400")
            self.assertNotEqual(session.word("id"), first.word("id"))
            whats = [each.what for each in session.writes]
            self.assertEqual(whats, ["insert", "delete", "insert"] if storage == "kong" else [])
            browser.take(session)
            self.assertFalse(browser.open(NOW + 2592001, keep=False).exists, "not for ever")
            session = browser.open(later + 1)
            session.logout()
            browser.take(session)
            self.assertEqual(browser.cookies, {})
        off = Browser(remember=True)
        off.begin()
        off.settings = Browser().settings
        self.assertFalse(off.open(NOW + 86400).exists, "only where it is switched on")

    def test_cookies_do_not_stand_for_one_another(self) -> None:
        """A cookie that outlives the browser is no session, and one of another storage is none either."""
        browser = Browser(remember=True)
        browser.begin()
        browser.cookies = {b"session": browser.cookies[b"remember"]}
        self.assertFalse(browser.open(NOW + 1).exists)
        stored = Browser(storage="kong")
        stored.begin()
        plain = Browser()
        plain.begin()
        for one, other in ((stored, plain), (plain, stored)):
            mixed = Browser()
            mixed.settings, mixed.cookies, mixed.rows = one.settings, other.cookies, stored.rows
            self.assertFalse(mixed.open(NOW + 1).exists)

    @given(st.binary(max_size=200))
    def test_anything_in_a_cookie(self, value: bytes) -> None:
        """What clients make up is no session, and no failure."""
        for storage in ("cookie", "kong"):
            browser = Browser(storage=storage)
            browser.cookies = {b"session": value}
            self.assertFalse(browser.open(NOW).exists)

    def test_secret(self) -> None:
        """Without one nothing is set up; one that is not given is made, the same for every configuration of a start."""
        with self.assertRaises(ValueError):
            Settings({**CONFIG.filled({}), "secret": None})
        made = {CONFIG.filled(given)["secret"] for given in ({}, {"secret": None})}
        self.assertEqual(len(made), 1)
        self.assertGreaterEqual(len(made.pop()), 44)
        self.assertEqual(CONFIG.filled({"secret": "mine"})["secret"], "mine")


def unbase64_or_nothing(value: bytes) -> bytes:
    return unbase64url(value[1:]) or b""
