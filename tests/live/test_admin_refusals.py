"""Refusals of the Admin API word for word as Kong 3.9.3's, as far as they depend on more than the entity's schema."""

from __future__ import annotations

import json

from tests.places import CONTRACT

from .support import LiveTestCase

CASES = json.loads((CONTRACT / "admin_refusals.json").read_text())["cases"]


class RefusalTests(LiveTestCase):
    maxDiff = None

    def test_word_for_word(self) -> None:
        """Status and whole answer; nothing is stored."""
        gateway = self.gateway()
        gateway.create("/upstreams", name="up")
        gateway.create("/upstreams/up/targets", target="127.0.0.1:1")
        for method, path, body, status, answer in CASES:
            found = gateway.admin(method, path, json=body)
            self.assertEqual((found.status, found.json), (status, answer), f"{method} {path} {body}")
        for kind, count in (("services", 0), ("routes", 0), ("plugins", 0), ("vaults", 0), ("upstreams", 1)):
            self.assertEqual(len(gateway.admin("GET", f"/{kind}").json["data"]), count, kind)
