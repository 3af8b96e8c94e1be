"""Regular expressions that users configure: none runs wild, whatever it is and whatever it looks at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from time import thread_time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.routing import pattern_cost as pattern_work
from kongtwist.core.routing.patterns import (
    LEAST_TIME,
    TIME_LIMIT,
    BoundedPattern,
    HeaderPattern,
    PathPattern,
    PatternClock,
    PatternError,
)
from kongtwist.entities.lua_pattern import lua_pattern, occurs
from kongtwist.entities.regexes import NESTING, SIZE, bounded, compile_bounded, fault

A = b"a"
BOMBS = (
    # pattern of a path (without its ~), path
    ("/" + "a?" * 40 + "a" * 40 + "$", b"/" + A * 40),
    ("/(?:x|" + "a{0,40}" * 8 + "b)$", b"/" + A * 40),
    ("/" + "a{0,500}" * 4 + "b$", b"/" + A * 2000),
    ("/" + "(a|a)" * 40 + "b$", b"/" + A * 40),
    ("/" + "(?:a|aa)?" * 60 + "b$", b"/" + A * 100),
    ("/(a+)+$", b"/" + A * 60 + b"!"),
    ("/(?:(?:a*)*)*b", b"/" + A * 5000),
    ("/.*.*.*.*.*=$", b"/" + A * 3000),
    ("/.*?.*?.*?.*?[b-d]$", b"/" + A * 8000),
    ("/[a-z]+[a-z]+$", b"/" + A * 8000 + b"!"),
    (r"/(\w+\s?)*$", b"/" + A * 60 + b"!"),
    (r"/(?i)(?:A|B|AB|BA)*c", b"/" + b"ab" * 4000),
    (r"/(?=(a+)+b)a", b"/" + A * 60),
    (r"/(?<x>a+)+(?P=x)b", b"/" + A * 60),
    ("/(?:" + "|".join(A.decode() * n for n in range(1, 100)) + ")*b", b"/" + A * 8000),
    ("/" + "A" * 4096, b"/" + A * 8000),
    ("/" + r"\x41" * 2000, b"/" + A * 8000),
    ("/" + "ab" * 2000 + "(?:c|d)*e", b"/" + b"ab" * 4000),
    ("/a{e}", b"/" + A * 8000),
)


class Left(PatternClock):
    """A clock that says what it is told to."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def left(self) -> float:
        if self._seconds <= 0:
            raise TimeoutError
        return self._seconds


def ended(call: Any) -> bool:
    """Whether a call ends by itself or is stopped, within a time that is long but no lifetime."""
    began = thread_time()
    try:
        call()
    except TimeoutError:
        pass
    return thread_time() - began < 2


class BombTests(SynchronousTestCase):
    """Patterns and subjects for which a backtracking matcher takes more time than there is."""

    def test_paths(self) -> None:
        for text, path in BOMBS:
            made = PathPattern("~" + text)
            self.assertTrue(ended(lambda made=made, path=path: made.match(path, PatternClock())), text[:40])

    def test_headers(self) -> None:
        for text, value in (
            *((text.removeprefix("/"), path[1:]) for text, path in BOMBS),
            ("a{1,900}b", A * 8000), ("[a-z]*!", A * 8000), (r"\s+$", b" " * 8000 + b"x"), (".*,.*,.*;", b"," * 8000),
        ):  # fmt: skip
            made = HeaderPattern("~*" + text)
            self.assertTrue(ended(lambda made=made, value=value: made.found_in(value, PatternClock())), text[:40])

    def test_what_is_refused(self) -> None:
        """Compiling takes no more than matching: what would is refused, in PCRE2's words, and quickly."""
        for text, words in (
            ("(" * 5000 + "a" + ")" * 5000, "regular expression is too large"),
            ("(" * 3000 + "a" + ")" * 3000, "parentheses are too deeply nested"),
            ("(?:a|" * 150 + "a" + ")" * 150, "parentheses are too deeply nested"),
            ("(?:" * 60 + "a" + "){1,2}" * 60, "regular expression is too large"),
            ("(?:" * 60 + "a" + ")+" * 60, "regular expression is too large"),
            ("(((a{100}){100}){100})", "regular expression is too large"),
            ("(?:(?:(?:ab){1000}){1000}){1000}", "regular expression is too large"),
            ("(?x)" + "(?: # )\n" * 12 + "a" + "){9}" * 12, "regular expression is too large"),
            ("a" * (SIZE + 1), "regular expression is too large"),
            ("a{65536}", "number too big in {} quantifier"),
            ("a{0," + "9" * 5000 + "}", "number too big in {} quantifier"),
            ("(?:a){99999999999999999999}", "number too big in {} quantifier"),
        ):
            began = thread_time()
            self.assertIn(f"pcre2_compile() failed: {words}", fault(text) or "", text[:40])
            self.assertLess(thread_time() - began, 2)
            self.assertRaises(PatternError, PathPattern, "~/" + text)
            self.assertRaises(PatternError, HeaderPattern, "~*" + text)

    def test_what_is_taken(self) -> None:
        """Patterns as people write them, also large ones."""
        for text in (
            "", "/", "/a{e<=1}", "/{id}", r"/\Qa.b{(\E", "/(?<ext>x+){1,9}", "/" + "[a-z]{1,9}" * 200, "(" * NESTING + ")" * NESTING,
            "/(?:" + "|".join(f"name-{n}" for n in range(700)) + ")$", r"/(?:[a-z0-9-]{1,63}\.){1,9}[a-z]{2,}", r"/(?x) a # b" "\n c",
            "/[[:alpha:]]+[^]]", r"/\p{L}\x41\101", "/(?#c({0})a", "/(?i:a)(?-i)b(?>c)(?=d)(?!e)(?<=f)(?<!g)(?:h)(?|i|j)",
        ):  # fmt: skip
            self.assertIsNone(fault(text), text[:40])
            PathPattern("~" + text)

    def test_braces_are_themselves(self) -> None:
        """What is no quantifier is text; to ``regex`` it might be a fuzzy match."""
        for text, path, found in (
            ("/a{e}+", b"/a{e}}", True), ("/a{e<=1}?x", b"/a{e<=1x", True), ("/(?:a){e}+", b"/b", False),
        ):  # fmt: skip
            self.assertIs(PathPattern("~" + text).match(path, PatternClock()) is not None, found, text)

    def test_long_literals_are_found(self) -> None:
        """A long text is given to ``regex`` in pieces; it is the same text."""
        for text in (b"ab" * 2000, rb"\x41b" * 1000, b"a[b]c" * 500, b"ab?" * 500):
            plain = text.replace(rb"\x41", b"A").replace(b"[b]", b"b").replace(b"?", b"")
            made = compile_bounded(bounded(text + b"(?>c)"))
            self.assertEqual(made.match(plain + b"cd")[0], plain + b"c")  # type: ignore[index]
            self.assertIsNone(made.match(plain[:-1] + b"xc"))


class TimeTests(SynchronousTestCase):
    """Who watches which match."""

    def made(self, text: bytes) -> tuple[BoundedPattern, list[float]]:
        """A pattern of the watched kind, and the time limits its matches got; matches of an ``x`` take too long."""
        made = BoundedPattern(text)
        limits: list[float] = []

        def watched(subject: bytes, timeout: float) -> None:
            limits.append(timeout)
            if subject == b"x":
                raise TimeoutError

        made._watched = watched
        return made, limits

    def test_ordinary_patterns_are_not_watched(self) -> None:
        """Nobody looks at a clock for them, so they cost what ``re`` costs."""
        self.patch(PatternClock, "left", lambda clock: self.fail("asked for the time"))
        path = b"/users/" + b"7" * 20 + b"/orders/" + b"a-b" * 20
        for text in (
            r"/users/\d+/orders/[^/]+$", r"/(?<a>[a-z]+)/(\d+)/", "/users(/.*)?$", r"/.*\.png$", r"/api/v[0-9]+/.*", "/(?:users|x)/",
            r"/\w+/\d{1,20}/",
        ):  # fmt: skip
            PathPattern("~" + text).match(path, PatternClock())
        for text in ("^application/json", "^[a-z]+$", "curl"):
            HeaderPattern("~*" + text).found_in(b"application/xml", PatternClock())

    def test_long_subjects_are(self) -> None:
        """The same pattern is stopped where it could take long."""
        made = PathPattern(r"~/[a-z]+[a-z]+$")
        self.assertIsNotNone(made.match(b"/abc", Left(0)))
        self.assertRaises(TimeoutError, made.match, b"/" + A * 8000 + b"!", PatternClock())

    def test_no_time_left(self) -> None:
        made, limits = self.made(b"(a+)+b")
        self.assertRaises(TimeoutError, made.find, b"a", Left(0))
        self.assertRaises(TimeoutError, made.find, b"a", Left(-1))
        self.assertEqual(limits, [])

    def test_less_time_for_a_pattern_that_ran_into_the_limit(self) -> None:
        """So that a flood of such requests leaves time for the others; it gets it back bit by bit."""
        made, limits = self.made(b"(a+)+b")
        for _ in range(20):
            self.assertRaises(TimeoutError, made.find, b"x", PatternClock())
        self.assertEqual(limits[:2], [TIME_LIMIT, TIME_LIMIT / 2])
        self.assertEqual(limits[-1], LEAST_TIME)
        for _ in range(200):
            made.find(b"a", PatternClock())
        self.assertEqual(limits[-1], TIME_LIMIT)
        made.find(b"a", Left(0.0002))
        self.assertEqual(limits[-1], 0.0002)

    def test_ordinary_matches_need_a_fraction_of_the_least_time(self) -> None:
        made = PathPattern(r"~/(?:[a-z0-9-]+/)*(?<id>\d++)$")
        made._limit = LEAST_TIME
        found = made.match(b"/a-b/c/d/17", PatternClock())
        self.assertEqual(made.captures(found), {"0": b"/a-b/c/d/17", "1": b"17", "id": b"17"})


# -- the bound on steps against a matcher that counts -------------------------------------------------------------------

ATOMS = st.sampled_from([b"a", b"b", b".", b"[ab]", b"[^a]", rb"\w", b"/", b"ab", b"$"])
REPEATS = st.sampled_from([b"", b"", b"*", b"+", b"?", b"{1,2}", b"{0,3}", b"{2}", b"*?", b"+?", b"??"])
PLAIN = st.builds(lambda atom, repeat: atom if atom in (b"$", b"ab") else atom + repeat, ATOMS, REPEATS)


def _group(branches: list[list[bytes]], optional: bytes) -> bytes:
    return b"(" + b"|".join(b"".join(branch) for branch in branches) + b")" + optional


PARTS = st.one_of(
    PLAIN, st.builds(_group, st.lists(st.lists(PLAIN, max_size=3), max_size=3), st.sampled_from([b"", b"?"]))
)
PATTERNS = st.lists(PARTS, max_size=6).map(b"".join)
SUBJECTS = st.text(alphabet="ab/\n", max_size=10).map(str.encode)


class Counting:
    """The textbook's backtracking matcher; counts each part that it looks at and each place where one may stop."""

    def __init__(self, subject: bytes) -> None:
        self.subject = subject
        self.steps = 0

    def ends(self, parts: list[Any], at: int) -> Iterator[int]:
        """Where parts may end that begin at ``at``."""
        if not parts:
            yield at
            return
        self.steps += 1
        part, rest = parts[0], parts[1:]
        if part is None:
            yield from self.ends(rest, at)
        elif isinstance(part, pattern_work._Span):
            if not part.most:
                if self.subject[at:] in (b"", b"\n"):
                    yield from self.ends(rest, at)
                return
            most = at
            while most < len(self.subject) and most - at < part.most and part.bits >> self.subject[most] & 1:
                most += 1
                self.steps += 1
            for end in range(most, at + part.least - 1, -1):
                yield from self.ends(rest, end)
        else:
            for branch in (*part.branches, *([[]] if part.optional else [])):
                for end in self.ends(branch, at):
                    yield from self.ends(rest, end)


class WorkTests(SynchronousTestCase):
    """`pattern_work` never says less than what a matcher does."""

    @settings(max_examples=1500)
    @given(PATTERNS, SUBJECTS)
    def test_bound(self, text: bytes, subject: bytes) -> None:
        branches, _ = pattern_work._branches(text, 0, 0)
        counting = Counting(subject)
        next((end for branch in branches for end in counting.ends(branch, 0)), None)
        bound, _ = pattern_work._work([pattern_work._Choice(branches)], 0, len(subject))
        self.assertLessEqual(counting.steps, 4 * bound + 4, (text, subject))

    @settings(max_examples=1000)
    @given(PATTERNS, SUBJECTS)
    def test_both_libraries_agree(self, text: bytes, subject: bytes) -> None:
        """Which of them looks at a subject depends on its length, so they must find the same."""
        one = re.compile(text).match(subject)
        other = compile_bounded(bounded(text)).match(subject)
        self.assertEqual(one and (one.span(), one.groups()), other and (other.span(), other.groups()), (text, subject))

    def test_kinds(self) -> None:
        limits = (10_000, 200_000)
        for text, free in (
            (rb"/users/\d+", 8192), (rb"/users/(?P<id>\d+)/orders/[^/]+$", 1024), (b"/a/.*x$", 1024), (b"/[a-z]+[a-z]+$", 64),
            (b"/" + b"a?" * 28 + b"a" * 28, 0), (b"/" + b"a{0,500}" * 4 + b"b", 0), (b"/(?:" + b"a|" * 30 + b"b)c", 32768),
        ):  # fmt: skip
            self.assertEqual(pattern_work.longest_within(text, limits, search=False)[0], free, text)
        for text in (
            b"(a+)+",
            b"(?:a|b)*",
            b"(a){2}",
            b"a{2",
            b"[a",
            b"(a",
            b"a)",
            b"a" * 600,
            b"(" * 20 + b")" * 20,
            b"a++",
            b"*a",
        ):
            self.assertEqual(pattern_work.longest_within(text, limits, search=False), [], text)

    def test_bound_is_quick(self) -> None:
        for text in (
            b"(?:a|" * 90 + b"b" + b")" * 90,
            b"(a)" * 170,
            b"a?" * 256,
            b"[a-z]" * 100,
            b"(?:a?|b?)" * 56,
            b"(" * 500,
        ):
            self.assertTrue(ended(lambda text=text: pattern_work.longest_within(text, (10, 20), search=True)))


class LuaPatternTests(SynchronousTestCase):
    def test_long_values(self) -> None:
        """The patterns of schemas look at what users send; a long value gets an answer in time, the strict one."""
        value = "a" * 200_000 + "**"
        self.assertFalse(occurs("^[^*]*%*?[^*]*%*?$", value + "*", unsure=False))
        self.assertTrue(occurs("^[^*]*%*?[^*]*%*?$", value + "*", unsure=True))
        self.assertTrue(occurs("//", "a" * 5000 + "//", unsure=False))
        self.assertFalse(occurs("//", "a" * 5000, unsure=True))

    @given(st.text(alphabet="*ab\n", max_size=8))
    def test_at_most_one_star(self, value: str) -> None:
        """What is said otherwise means the same."""
        pattern = "^[^*]*%*?[^*]*$"
        self.assertIs(occurs(pattern, value, unsure=False), lua_pattern(pattern).search(value) is not None)
        self.assertFalse(occurs(pattern, "a" * 200_000 + "**", unsure=True))
