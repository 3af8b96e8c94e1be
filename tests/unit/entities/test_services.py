"""Services that say no host."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities.errors import EntityError
from kongtwist.entities.services import SERVICES


class HostTests(SynchronousTestCase):
    def made(self, **given: Any) -> Any:
        return SERVICES.insert(given, now=1700000000, new_id=lambda: "3b9c1a5e-0d6a-4c5e-9d9b-6f1d2a3b4c5d")

    def test_named(self) -> None:
        """The name is the host then."""
        self.assertEqual(self.made(name="analytics-service")["host"], "analytics-service")
        self.assertEqual(self.made(name="analytics", url="http://there:80")["host"], "there")

    def test_no_host(self) -> None:
        """A name that is none, and a host that is taken away."""
        for given in ({}, {"name": "a~b"}, {"name": "a", "host": None}, {"protocol": "http"}):
            self.assertRaises(EntityError, self.made, **given)

    def test_more_is_wrong(self) -> None:
        """Then Kong's error stands: the host is named too."""
        error = self.assertRaises(EntityError, self.made, name="orders", port=-1)
        self.assertEqual(sorted(error.fields), ["host", "port"])
