"""Which questions are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.dns.questions import plain_name, questions
from kongtwist.core.dns.records import AAAA, CNAME, LAST, SRV, A


def nothing(name: str, kind: int) -> bool:
    return False


class OrderTests(SynchronousTestCase):
    def asked(
        self,
        name: str,
        order: Sequence[int] = (LAST, SRV, A, CNAME),
        last: int | None = None,
        search: Sequence[str] = (),
        ndots: int = 1,
        given: Callable[[str, int], bool] = nothing,
    ) -> list[tuple[str, int]]:
        plain, whole = plain_name(name)
        return list(questions(plain, whole, order, last, search, ndots, given))

    def test_order(self) -> None:
        self.assertEqual(self.asked("a.test"), [("a.test", SRV), ("a.test", A), ("a.test", CNAME)])
        self.assertEqual(self.asked("a.test", (A, AAAA)), [("a.test", A), ("a.test", AAAA)])

    def test_last(self) -> None:
        """What it was found by last comes first, and is asked for once."""
        self.assertEqual(self.asked("a.test", last=A), [("a.test", A), ("a.test", SRV), ("a.test", CNAME)])
        self.assertEqual(self.asked("a.test", (A, LAST), last=A), [("a.test", A)])

    def test_search(self) -> None:
        """Few dots: with the domains first; many: as it is first. Each kind goes through all names (as in Kong)."""
        domains = ("one.example", "two")
        self.assertEqual(self.asked("a", (A,), search=domains), [("a.one.example", A), ("a.two", A), ("a", A)])
        self.assertEqual(self.asked("a.b", (A,), search=domains), [("a.b", A), ("a.b.one.example", A), ("a.b.two", A)])
        self.assertEqual(self.asked("a.b", (A,), search=domains, ndots=2)[-1], ("a.b", A))
        self.assertEqual([kind for _, kind in self.asked("a", (SRV, A), search=("x",))], [SRV, SRV, A, A])

    def test_whole_names(self) -> None:
        """Nothing is added behind a dot at the end."""
        self.assertEqual(self.asked("a.", (A,), search=("x",)), [("a", A)])

    def test_hosts_file(self) -> None:
        """A name that is in it is asked for as it is first."""
        self.assertEqual(self.asked("a", (A,), search=("x",), given=lambda name, kind: name == "a")[0], ("a", A))

    def test_too_long_with_a_domain(self) -> None:
        name = ".".join(["x" * 60] * 4)
        self.assertEqual(self.asked(name, (A,), search=("far.too.long.example",)), [(name, A)])


class NameTests(SynchronousTestCase):
    def test_good(self) -> None:
        for name, plain in (
            ("A.Test", ("a.test", False)),
            ("a.test.", ("a.test", True)),
            ("_http._tcp.a.test", ("_http._tcp.a.test", False)),
            ("bücher.example", ("xn--bcher-kva.example", False)),
            ("x" * 63, ("x" * 63, False)),
        ):
            self.assertEqual(plain_name(name), plain)

    def test_absurd(self) -> None:
        for name, why in (
            ("", "empty"),
            (".", "empty"),
            ("a..b", "a part of it is empty"),
            (".a", "a part of it is empty"),
            ("x" * 64, "longer than 63"),
            (".".join(["x" * 50] * 6), "longer than 253"),
            ("no-such-host.invalid", "RFC 6761"),
            ("invalid.", "RFC 6761"),
            ("a b", "blanks"),
            ("a\0b", "blanks"),
            ("a\n.b", "blanks"),
            ("\u2028.example", "internationalized"),
            ("ü" * 100, "internationalized"),
        ):
            self.assertIn(why, str(self.assertRaises(ValueError, plain_name, name)), name)
