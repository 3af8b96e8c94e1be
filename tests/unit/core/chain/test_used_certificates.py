"""Configurations that use certificates are opened with what these are in the configuration that is built, and anew when they change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kongtwist.core.chain.host import Scope
from kongtwist.core.exchange import Row
from kongtwist.core.storage_contract import Change
from kongtwist.entities.schema import String

from .test_chain import row
from .test_lifetimes import LifeTests, Opened, Opening


class Certified(Opening):
    """Uses a certificate, and cannot do without it."""

    name = "certified"
    config = {"tag": String(), "certificate": String()}

    def certificates(self, conf: Row) -> Iterable[str]:
        return (conf["certificate"],)

    def open(self, conf: Any, plugin: Row, host: Scope) -> Opened:
        if conf["certificate"] not in host.certificates:
            raise ValueError("there is no such certificate")
        self.shown = host.certificates[conf["certificate"]]["cert"]
        return super().open(conf, plugin, host)


class CertificateTests(LifeTests):
    def setUp(self) -> None:
        super().setUp()
        self.plugin = Certified()
        self.plugins["certified"] = self.plugin
        self.configured = {**row("certified"), "config": {"tag": "a", "certificate": "c-1"}}

    def change(self, *changes: tuple[str, Row | None, Row | None]) -> None:
        self.snapshot = self.snapshot.apply(
            [
                Change("create" if old is None else "delete" if new is None else "update", entity, new, old)
                for entity, new, old in changes
            ]
        )
        self.lifetimes.built()
        self.lifetimes.served()

    def test_built_together(self) -> None:
        """At the start nothing has been served that could be asked."""
        self.change(
            ("plugins", self.configured, None), ("certificates", {"id": "c-1", "cert": "one", "key": "k"}, None)
        )
        self.assertEqual((self.plugin.shown, self.snapshot.faults), ("one", []))

    def test_renewed(self) -> None:
        """A changed certificate has those that use it opened anew, and no others; what it was before is closed."""
        first = {"id": "c-1", "cert": "one", "key": "k"}
        self.change(("plugins", self.configured, None), ("certificates", first, None))
        self.change(("certificates", {"id": "c-2", "cert": "other", "key": "k"}, None))
        self.assertEqual(len(self.plugin.all), 1)
        second = {**first, "cert": "two"}
        self.change(("certificates", second, first))
        self.assertEqual(self.plugin.shown, "two")
        self.assertEqual([each.closes for each in self.plugin.all], [1, 0])
        self.change(("certificates", None, second))
        self.assertIn("there is no such certificate", self.snapshot.faults[0])
        self.assertEqual([each.closes for each in self.plugin.all], [1, 1])
        self.change(("certificates", first, None))
        self.assertEqual((self.plugin.shown, self.snapshot.faults), ("one", []))
