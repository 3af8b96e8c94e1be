"""Tests of who may talk to the Admin API (kongtwist/admin/guard.py)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin.guard import Guard


class GuardTests(SynchronousTestCase):
    """Requests as curl, decK and browsers send them."""

    def setUp(self) -> None:
        self.guard = Guard(True, ["127.0.0.1"], ["https://console.example:8002"])

    def ask(
        self,
        method: str = "GET",
        host: str | None = "localhost:8001",
        origin: str | None = None,
        site: str | None = None,
    ) -> str | None:
        return self.guard.refusal(method, host, origin, site)

    def test_tools_pass(self) -> None:
        """curl and decK send no Origin and name the address they connect to."""
        for host in ("localhost:8001", "127.0.0.1:8001", "[::1]:8001", "127.0.0.1", None):
            self.assertIsNone(self.ask("POST", host), host)

    def test_rebound_name(self) -> None:
        """A name that was bound to this machine (DNS rebinding) is refused, reading too, and the answer says what to do."""
        for method in ("GET", "POST"):
            refusal = self.ask(method, "attacker.example:8001")
            self.assertIn("attacker.example", refusal or "")
            self.assertIn("admin_gui_url", refusal or "")

    def test_foreign_page(self) -> None:
        """A page of another site cannot write: neither by fetch nor by a form, which browsers send unasked."""
        self.assertIsNotNone(self.ask("POST", origin="http://attacker.example"))
        self.assertIsNotNone(self.ask("POST", origin="null"))
        self.assertIsNotNone(self.ask("DELETE", site="cross-site"))
        self.assertIsNotNone(self.ask("PATCH", site="same-site"))

    def test_reading_by_pages(self) -> None:
        """Reading is the browser's to allow, by CORS."""
        self.assertIsNone(self.ask("GET", origin="http://attacker.example", site="cross-site"))

    def test_own_pages(self) -> None:
        """Pages of the Admin API's own origin and of admin_gui_url may write."""
        self.assertIsNone(self.ask("POST", origin="http://localhost:8001", site="same-origin"))
        self.assertIsNone(self.ask("POST", origin="https://console.example:8002", site="cross-site"))
        self.assertIsNone(self.ask("GET", host="console.example:8001"))

    def test_another_port_of_this_machine(self) -> None:
        """Another program's page on this machine is a foreign page."""
        self.assertIsNotNone(self.ask("POST", origin="http://localhost:3000", site="same-site"))

    def test_public_listener(self) -> None:
        """Where the operator lets the network in, any name is answered; foreign pages still cannot write."""
        guard = Guard(False)
        self.assertIsNone(guard.refusal("POST", "gateway.example:8001", None, None))
        self.assertIsNotNone(guard.refusal("POST", "gateway.example:8001", "http://attacker.example", None))
