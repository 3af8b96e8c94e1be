"""Tests of the Admin API's tokens (kongtwist/admin/access/tokens.py, kongtwist/config/admin_properties.py)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin.access.tokens import RefusalReport, Tokens, given_tokens
from kongtwist.config.admin_properties import origin_of
from kongtwist.config.load import Conf, ConfError, load
from kongtwist.config.shown import shown as shown_conf

OLD, NEW = "0123456789abcdef", "fedcba9876543210"


class TokensTests(SynchronousTestCase):
    """Who is let in."""

    def test_none_needed(self) -> None:
        """Without tokens everybody is let in."""
        self.assertTrue(Tokens().admit([]))
        self.assertFalse(Tokens().required)

    def test_rotation(self) -> None:
        """Each of several tokens is right; after a replacement only the new ones are."""
        tokens = Tokens([OLD, NEW])
        self.assertTrue(tokens.required)
        for given in ([OLD], [NEW], ["wrong", NEW]):
            self.assertTrue(tokens.admit(given), given)
        tokens.replace([NEW])
        self.assertFalse(tokens.admit([OLD]))
        self.assertTrue(tokens.admit([NEW]))

    def test_wrong(self) -> None:
        """Nothing, an empty one, parts and other cases are wrong."""
        tokens = Tokens([OLD])
        for given in ([], [""], [OLD[:-1]], [OLD + "0"], [OLD.upper()], [f" {OLD}"], ["\udcff"]):
            self.assertFalse(tokens.admit(given), given)

    def test_kept_as_digests(self) -> None:
        """The tokens themselves are in no attribute, so in no dump of one."""
        self.assertNotIn(OLD, repr(vars(Tokens([OLD]))))


class GivenTests(SynchronousTestCase):
    """How a request brings a token."""

    def test_either_header(self) -> None:
        """Kong-Admin-Token, or Authorization with Bearer in any case."""
        self.assertEqual(given_tokens([OLD], []), [OLD])
        for scheme in ("Bearer", "bearer", "BEARER"):
            self.assertEqual(given_tokens([], [f"{scheme} {OLD}"]), [OLD])
        self.assertEqual(given_tokens(["a"], ["Bearer b"]), ["a", "b"])

    def test_none(self) -> None:
        """Other schemes bring none, nor does a field given twice."""
        for direct, authorization in (
            ([], []),
            ([], [f"Basic {OLD}"]),
            ([], [OLD]),
            ([OLD, OLD], []),
            ([], [f"Bearer {OLD}", f"Bearer {OLD}"]),
        ):
            self.assertEqual(given_tokens(direct, authorization), [])


class RefusalReportTests(SynchronousTestCase):
    """Few lines for many refusals."""

    def test_lines(self) -> None:
        """The first at once, then one in ten seconds with their number."""
        report = RefusalReport()
        self.assertEqual(report.note("192.0.2.1", 100.0), "1 request from 192.0.2.1")
        for at in range(50):
            self.assertIsNone(report.note(f"192.0.2.{at % 3}", 100.0 + at / 10))
        self.assertEqual(report.note("192.0.2.9", 110.0), "51 requests from 192.0.2.0, 192.0.2.1, 192.0.2.2, 192.0.2.9")
        self.assertIsNone(report.note("192.0.2.1", 119.9))

    def test_many_addresses(self) -> None:
        """It keeps and names a few addresses only."""
        report = RefusalReport()
        report.note("first", 0.0)
        for at in range(1000):
            report.note(f"a{at}", 1.0)
        self.assertEqual(report.note("last", 20.0), "1001 requests from a0, a1, a2, a3, a4 and others")
        self.assertLess(len(vars(report)["_addresses"]), 10)


class PropertiesTests(SynchronousTestCase):
    """The properties of the Admin API's door."""

    def refusal(self, **texts: str) -> str:
        with self.assertRaises(ConfError) as caught:
            Conf(texts)
        return str(caught.exception)

    def test_tokens(self) -> None:
        """A list; too short ones and ones that no header can carry are refused without being shown."""
        self.assertEqual(Conf({"admin_api_token": f"{OLD}, {NEW}"}).admin_api_token, [OLD, NEW])
        for bad in ("tooshort", f"{OLD}, 123456789012345", "sixteen letters and blanks", "schlüsselschlüssel"):
            sentence = self.refusal(admin_api_token=bad)
            self.assertTrue(sentence.startswith("admin_api_token has a token"), sentence)
            for part in bad.split(", "):
                self.assertNotIn(part, sentence)
        self.assertIn("openssl rand -hex 32", self.refusal(admin_api_token="short"))

    def test_masked(self) -> None:
        """GET / shows none."""
        shown = shown_conf(Conf({"admin_api_token": f"{OLD},{NEW}"}))
        self.assertEqual(shown["admin_api_token"], "******")
        self.assertNotIn(OLD, repr(shown))

    def test_from_environment(self) -> None:
        """As a property, and by references, in a list too."""
        environ = {"KONG_ADMIN_API_TOKEN": OLD, "TOKEN_A": OLD, "TOKEN_B": NEW}
        self.assertEqual(load(environ=environ, searched=()).admin_api_token, [OLD])
        text = "{vault://env/token-a}, {vault://env/token-b}"
        self.assertEqual(
            load(environ=environ, overrides={"admin_api_token": text}, searched=()).admin_api_token, [OLD, NEW]
        )

    def test_missing_reference(self) -> None:
        """A reference that leads nowhere stops the start: without it there would be no token."""
        for text in ("{vault://env/NOWHERE}", f"{OLD}, {{vault://env/NOWHERE}}", "{vault://env/EMPTY}"):
            with self.assertRaises(ConfError) as caught:
                load(environ={"EMPTY": ""}, overrides={"admin_api_token": text}, searched=())
            self.assertIn("admin_api_token", str(caught.exception))
            self.assertNotIn(OLD, str(caught.exception))

    def test_origins(self) -> None:
        """admin_gui_origin is what browsers send for a page of admin_gui_url."""
        for url, origin in (
            ("http://localhost:8002", "http://localhost:8002"),
            ("https://Console.Example:443/manager/", "https://console.example"),
            ("http://[::1]:8002/", "http://[::1]:8002"),
        ):
            self.assertEqual(origin_of(url), origin)
        conf = Conf({"admin_gui_url": "http://localhost:8002/a, http://localhost:8002/b, https://c.example"})
        self.assertEqual(conf.admin_gui_origin, ["http://localhost:8002", "https://c.example"])
        for bad in ("console.example", "ftp://x", "http://", "https://*.example", "http://a b"):
            self.assertIn("admin_gui_url is not the address", self.refusal(admin_gui_url=bad))

    def test_client_ca(self) -> None:
        """Client certificates must be able to guard every address that others can reach."""
        ca = "ca.pem"
        wide = "127.0.0.1:8444 ssl, 0.0.0.0:8001"
        self.assertIn("would not guard 0.0.0.0:8001", self.refusal(admin_ssl_client_ca=ca, admin_listen=wide))
        self.assertIn("needs an address", self.refusal(admin_ssl_client_ca=ca, admin_listen="127.0.0.1:8001"))
        for listen in ("0.0.0.0:8444 ssl", "0.0.0.0:8444 ssl, 127.0.0.1:8001, unix:/tmp/a.sock", "off"):
            self.assertEqual(Conf({"admin_ssl_client_ca": ca, "admin_listen": listen}).admin_ssl_client_ca, [ca])
