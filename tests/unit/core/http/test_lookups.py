"""Request headers by configured names: where ``_`` stands for ``-``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.balancing.hashing import HashInput
from kongtwist.core.http.head import HeaderBlock
from kongtwist.core.http.lookups import named, variable
from kongtwist.core.routing.router import Router

from ..routing.router_rows import compiled, exchange, route_row, service_row


def block(*names: str) -> HeaderBlock:
    """A block with these fields; each has its own name as its value."""
    return HeaderBlock.from_pairs([(b"Host", b"h"), *((name.encode(), name.encode()) for name in names)])


class LookupTests(SynchronousTestCase):
    def test_as_a_table(self) -> None:
        """The name itself, then the one with dashes."""
        self.assertEqual(named(block("X_A", "X-A"), b"x_a"), [b"X_A"])
        self.assertEqual(named(block("X-A", "x-a"), b"x_a"), [b"X-A", b"x-a"])
        self.assertEqual(named(block("X-a_b"), b"x_a_b"), [])
        self.assertEqual(named(block("X_A"), b"x-a"), [])
        self.assertEqual(named(block(), b"x_a"), [])

    def test_as_a_variable(self) -> None:
        """Dashes and underscores are one."""
        for sent in ("X-A-B", "X_A_B", "x_a-b"):
            for name in (b"x-a-b", b"x_a_b", b"x-a_b"):
                self.assertEqual(variable(block("y_z", sent), name), [sent.encode()])
        self.assertEqual(variable(block("x_a-c"), b"x-a-b"), [])
        self.assertEqual(variable(block("xa"), b"x"), [])

    def test_routes(self) -> None:
        """A route's header rule looks its name up as in a table."""
        rows = [route_row("r", headers={"X_Kind": ["a"]}), route_row("s", headers={"x-other": ["a"]})]
        router = Router.build(compiled(row, service_row()) for row in rows)
        sent = {b"x-kind": "r", b"x_kind": "r", b"x-other": "s", b"x_other": None}
        for name, wanted in sent.items():
            found = router.find(exchange(headers=[(b"Host", b"a.com"), (name, b"a")]))
            self.assertEqual(None if found is None else found.route.id, wanted, name)
            found = router.match("GET", "a.com", "/", {name.decode(): "a"})
            self.assertEqual(None if found is None else found.route.id, wanted, name)

    def test_hashing(self) -> None:
        """A header to hash is found as nginx finds it."""
        upstream = {"hash_on": "header", "hash_on_header": "X_User", "hash_fallback": "none"}
        value = HashInput(cast(Any, upstream)).value
        self.assertEqual(value(cast(Any, SimpleNamespace(block=block("x-user")))), b"x-user")
        self.assertEqual(value(cast(Any, SimpleNamespace(block=block("x_user")))), b"x_user")
