"""Tests of who may talk to the Admin API (kongtwist/admin/access/browser_guard.py)."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin.access.browser_guard import Approach, Guard, exposure

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CONSOLE = "https://console.example:8445"
CURL = Approach("GET", host="localhost:8001", user_agent="curl/8.14.1")
BROWSER = replace(CURL, user_agent=FIREFOX)


class GuardCase(SynchronousTestCase):
    """With a loopback Admin API and a console elsewhere."""

    def setUp(self) -> None:
        self.guard = Guard(True, ["127.0.0.1", "admin.example"], [CONSOLE, "http://localhost:8002"])

    def passes(self, approach: Approach, guard: Guard | None = None) -> None:
        self.assertIsNone((guard or self.guard).refusal(approach))

    def refused(self, approach: Approach, *words: str, guard: Guard | None = None) -> None:
        sentence = (guard or self.guard).refusal(approach)
        self.assertIsNotNone(sentence)
        for word in words:
            self.assertIn(word, sentence or "")


class ProgramTests(GuardCase):
    """curl, decK and the like."""

    def test_tools_pass(self) -> None:
        """They send no Origin and name the address they connect to."""
        for host in ("localhost:8001", "127.0.0.1:8001", "[::1]:8001", "127.0.0.1", "admin.example:8001", None):
            self.passes(replace(CURL, method="POST", host=host))

    def test_a_name_of_another_machine(self) -> None:
        """A loopback Admin API answers to no other name, and says what to set."""
        for method in ("GET", "POST"):
            self.refused(replace(CURL, method=method, host="gateway.example"), "gateway.example", "admin_gui_api_url")

    def test_public_listener(self) -> None:
        """Where the operator lets the network in, programs may use any name."""
        self.passes(replace(CURL, method="POST", host="gateway.example:8001"), Guard(False))

    def test_reading_with_an_origin(self) -> None:
        """A program that sends Origin reads as from Kong, and does not write."""
        approach = replace(CURL, origin="http://x.example")
        self.passes(approach)
        self.passes(replace(approach, method="OPTIONS", wanted_method="POST"))
        self.refused(replace(approach, method="POST"), "admin_gui_url")


class PageTests(GuardCase):
    """Web pages in browsers."""

    def test_rebound_name(self) -> None:
        """A name that was bound to our address (DNS rebinding) gets nothing: its page would not even be foreign."""
        approach = replace(BROWSER, host="attacker.example:8001", origin="http://attacker.example:8001")
        for guard in (self.guard, Guard(False)):
            for method in ("GET", "POST"):
                self.refused(replace(approach, method=method), "attacker.example", "admin_gui_api_url", guard=guard)
                self.refused(replace(approach, method=method, origin=None), guard=guard)
                self.refused(replace(approach, method=method, host="attacker.example.:8001"), guard=guard)

    def test_names_on_a_public_listener(self) -> None:
        """A browser may use an address, a name that was set, and any name over TLS, where rebinding does not work."""
        guard = Guard(False, ["gateway.example"])
        for host in ("192.0.2.1:8001", "[2001:db8::1]:8001", "gateway.example:8001", "localhost:8001"):
            self.passes(replace(BROWSER, host=host, method="POST"), guard)
        self.passes(replace(BROWSER, host="other.example", secure=True), guard)
        self.refused(replace(BROWSER, host="other.example"), guard=guard)

    def test_foreign_page(self) -> None:
        """It can neither read nor write, whether its request is asked for first or is a form's, which browsers just send."""
        for origin, site, mode in (
            ("http://attacker.example", "cross-site", "cors"),
            ("http://attacker.example", None, None),
            ("http://localhost:3000", "same-site", "cors"),
            ("null", "cross-site", "cors"),
            ("null", None, None),
            (None, "cross-site", "no-cors"),
            (None, "same-site", "no-cors"),
        ):
            approach = replace(BROWSER, origin=origin, fetch_site=site, fetch_mode=mode)
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
                self.refused(replace(approach, method=method), "admin_gui_url")
                self.refused(replace(approach, method=method), "admin_gui_url", guard=Guard(True))
            if origin is not None:
                self.refused(replace(approach, method="OPTIONS", wanted_method="POST"), "admin_gui_url")

    def test_browser_that_hides(self) -> None:
        """Sec-Fetch-* alone tells a browser: scripts cannot take it away."""
        self.refused(replace(CURL, origin="http://attacker.example", fetch_site="cross-site", user_agent="curl/8"))
        self.refused(replace(CURL, fetch_site="cross-site", fetch_mode="no-cors", user_agent=None))

    def test_forms(self) -> None:
        """A foreign form navigates; that it opens a page of ours does not let it write."""
        form = replace(BROWSER, method="POST", origin="null", fetch_site="cross-site", fetch_mode="navigate")
        self.refused(form)
        self.refused(replace(form, origin=None))
        self.refused(replace(form, origin="http://attacker.example"))

    def test_links(self) -> None:
        """Following a link, a bookmark or the address bar is no reading by a page."""
        self.passes(replace(BROWSER, fetch_site="cross-site", fetch_mode="navigate"))
        self.passes(replace(BROWSER, fetch_site="none", fetch_mode="navigate"))

    def test_own_pages(self) -> None:
        """Pages of the Admin API's own origin and of admin_gui_url may read and write."""
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            own = replace(BROWSER, method=method, origin="http://localhost:8001", fetch_site="same-origin")
            self.passes(own)
            self.passes(own, Guard(True))
            for origin in (CONSOLE, CONSOLE.upper(), "http://localhost:8002"):
                self.passes(replace(BROWSER, method=method, origin=origin, fetch_site="cross-site", fetch_mode="cors"))
        self.passes(replace(BROWSER, host="console.example:8001"))

    def test_origins_alike(self) -> None:
        """Scheme, host and port must all be those of admin_gui_url."""
        for origin in (
            "http://console.example:8445",
            "https://console.example",
            "https://console.example:8445.evil.example",
        ):
            self.refused(replace(BROWSER, method="POST", origin=origin, fetch_site="cross-site"))


class AllowedOriginTests(SynchronousTestCase):
    """Access-Control-Allow-Origin."""

    def test_without_console(self) -> None:
        """Kong's rule for programs; no foreign page is let in."""
        guard = Guard(True)
        self.assertEqual(guard.allowed_origin(CURL), "*")
        self.assertEqual(guard.allowed_origin(replace(CURL, origin="http://x.example")), "http://x.example")
        own = replace(BROWSER, origin="http://localhost:8001")
        self.assertEqual(guard.allowed_origin(own), "http://localhost:8001")
        self.assertIsNone(guard.allowed_origin(replace(BROWSER, origin="http://x.example")))

    def test_with_console(self) -> None:
        """The page's origin if it is one of them, else the first of them."""
        guard = Guard(True, [], [CONSOLE, "http://localhost:8002"])
        for approach in (CURL, BROWSER):
            other = replace(approach, origin="http://localhost:8002")
            self.assertEqual(guard.allowed_origin(other), "http://localhost:8002")
            for origin in (None, "http://x.example"):
                self.assertEqual(guard.allowed_origin(replace(approach, origin=origin)), CONSOLE)


class ExposureTests(SynchronousTestCase):
    """What is said at the start about an Admin API that others can reach."""

    def test_nothing_to_say(self) -> None:
        """On this machine only, or guarded."""
        self.assertIsNone(exposure([], False, False))
        self.assertIsNone(exposure([("0.0.0.0:8444", True)], True, False))
        self.assertIsNone(exposure([("0.0.0.0:8444", True)], False, True))

    def test_open(self) -> None:
        """Without token and certificates the sentence names the addresses and the remedies."""
        for client_ca in (False, True):
            sentence = exposure([("0.0.0.0:8001", False), ("[::]:8001", False)], False, client_ca) or ""
            for word in ("0.0.0.0:8001, [::]:8001", "controls the gateway", "admin_api_token", "127.0.0.1"):
                self.assertIn(word, sentence)
        self.assertIn("controls", exposure([("0.0.0.0:8444", True)], False, False) or "")

    def test_readable_on_the_way(self) -> None:
        """With a token and without TLS it is a softer one."""
        sentence = exposure([("0.0.0.0:8001", False), ("0.0.0.0:8444", True)], True, False) or ""
        self.assertIn("without TLS on 0.0.0.0:8001", sentence)
        self.assertNotIn("controls", sentence)
