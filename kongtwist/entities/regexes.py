"""Regular expressions that users configure: PCRE's syntax, within bounds, for the library ``regex``.

Kong's PCRE2 refuses patterns that would grow too large, or are nested too deeply, before it compiles them. ``regex`` does
not: it writes a repeated group out as often as it must occur, so ``(?:(?:(?:ab){9}){9}){9}`` and a few more take all
memory; its tables for a long literal cost the cube of its length. So a pattern is measured first, in one pass, and what
``regex`` reads otherwise than PCRE is written in its way.
"""

from __future__ import annotations

import re
from typing import Any

import regex

__all__ = ["NESTING", "SIZE", "PatternError", "bounded", "compile_bounded", "fault"]

SIZE = 8192
"""Bytes of the longest pattern: those of the longest request line."""

NESTING = 100
"""Groups inside one another (PCRE2: 250, which ``regex`` does not reach)."""

NODES = 20_000
"""Parts of a pattern with repeated groups written out: some 10 MB (PCRE2: 64 kB of its more compact code)."""

LARGEST_REPEAT = 65535
"""The largest number in a quantifier, PCRE2's."""

_RUN = 100
"""Literal characters in a row that ``regex`` is given as one."""

_OPEN = re.compile(
    rb"\((?:\?(?:#[^)]*\)|P?<[A-Za-z_]\w*>|'\w+'|P[=>]\w+|<[=!]|[A-Za-z^-]*[:)]?|[=!>|&]\w*)|\*[A-Za-z_:=\d]*)?"
)
_VERBOSE = re.compile(rb"\(\?[A-Za-z^-]*x")
_SET = re.compile(rb"\[\^?\]?(?:\[[:.=]\^?[A-Za-z]*[:.=]\]|\\.|[^\\\]])*\]?", re.DOTALL)
_ESCAPE = re.compile(
    rb"\\(?:[pPxgkoN]\{[^}]{0,64}\}|[gk](?:<\w{1,64}>|'\w{1,64}'|-?\d+)|x[0-9A-Fa-f]{0,2}|\d{1,3}|c.|.)?", re.DOTALL
)
_LARGE = re.compile(rb"\{|\)\+|\\Q").search
_QUOTED = re.compile(rb"\\Q(.*?)(?:\\E|\Z)", re.DOTALL)
_REPEAT = re.compile(rb"[*+?]|\{(?:(\d+)(,)?(\d*)|,(\d+))\}")

_WORDS = {
    "unterminated character set": ("missing terminating ] for character class", 0),
    "missing )": ("missing closing parenthesis", 0),
    "missing >": ("syntax error in subpattern name (missing terminator?)", 0),
    "unbalanced parenthesis": ("unmatched closing parenthesis", 0),
    "nothing to repeat": ("quantifier does not follow a repeatable item", 0),
    "multiple repeat": ("quantifier does not follow a repeatable item", 0),
    "bad escape (end of pattern)": ("\\ at end of pattern", 0),
    "bad character range": ("range out of order in character class", -1),
    "unknown extension": ("unrecognized character after (? or (?-", -2),
    "invalid group reference": ("reference to non-existent subpattern", -1),
}
"""What PCRE2 says of a fault, and how far from the place ``regex`` names its own is."""


class PatternError(ValueError):
    """A pattern that cannot be compiled, in the words of PCRE2 and nginx as Kong 3.9.3 prints them.

    Args:
        words: what is wrong.
        pattern: the pattern; not shown where it is too large to be read.
        at: bytes of it before the fault; what is left of it from there is shown.
    """

    def __init__(self, words: str, pattern: bytes = b"", at: int = 0) -> None:
        text = pattern.decode("utf-8", "replace")
        rest = pattern[max(0, at) :].decode("utf-8", "replace")
        shown = f' in "{text}"' if text else ""
        super().__init__(f"pcre2_compile() failed: {words}{shown}" + (f' at "{rest}"' if text and rest else ""))

    @classmethod
    def too_large(cls) -> PatternError:
        """It would take too much memory or time."""
        return cls("regular expression is too large")

    @classmethod
    def too_deep(cls) -> PatternError:
        """Its groups are nested too deeply."""
        return cls("parentheses are too deeply nested")


def fault(pattern: str) -> str | None:
    """What is wrong with a pattern, in PCRE2's words, or None."""
    try:
        compile_bounded(bounded(pattern.encode("utf-8", "surrogatepass")))
    except PatternError as error:
        return str(error)
    return None


def compile_bounded(pattern: bytes) -> regex.Pattern[bytes]:
    """Compile what `bounded` gave.

    Raises:
        PatternError: the pattern is broken.
    """
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise _in_words_of_pcre(error, pattern) from error
    except RecursionError as error:
        raise PatternError.too_deep() from error
    except (MemoryError, OverflowError, ValueError) as error:
        raise PatternError.too_large() from error


def _in_words_of_pcre(error: Any, pattern: bytes) -> PatternError:
    words, shift = _WORDS.get(str(error.msg), (str(error.msg), 0))
    return PatternError(words, pattern, len(pattern) if error.pos is None else error.pos + shift)


def bounded(pattern: bytes) -> bytes:
    """The pattern for ``regex``, if it is within the bounds.

    Args:
        pattern: the pattern's text, UTF-8.

    Raises:
        PatternError: it is too large or nested too deeply.
    """
    if len(pattern) > SIZE:
        raise PatternError.too_large()
    if len(pattern) <= _RUN and _LARGE(pattern) is None:
        return pattern  # the usual one: there is nothing in it that grows
    return _Measured(pattern).text


class _Measured:
    """One pass over a pattern.

    Attributes:
        text: the pattern, as ``regex`` is to read it.
    """

    def __init__(self, pattern: bytes) -> None:
        self._out: list[bytes] = []
        self._outer: list[int] = []  # sizes of the groups around, as far as they came
        self._size = 0
        self._group = 0  # size of the group that ended last, if nothing came behind it
        self._run = 0
        self._factor = 1
        self._verbose = False
        at = 0
        while at < len(pattern):
            at = self._step(pattern, at)
        size = sum(self._outer) + self._size
        if self._verbose:  # comments may hide brackets: as if all repeats were around each other
            size *= self._factor
        if size > NODES:
            raise PatternError.too_large()
        self.text = b"".join(self._out)

    def _step(self, pattern: bytes, at: int) -> int:
        """Read what begins at ``at``; where the next part begins."""
        char = pattern[at]
        if char == 0x28:  # (
            found = _match(_OPEN, pattern, at)
            self._open(found, at)
        elif char == 0x29:  # )
            found = b")"
            self._close()
        elif char == 0x5B:  # [
            found = _match(_SET, pattern, at)
            self._atom(found, 1 + len(found) // 8)
            self._run = 0
        elif char == 0x5C:  # backslash
            quoted = _QUOTED.match(pattern, at)
            if quoted is not None:
                for byte in quoted[1]:
                    self._atom(re.escape(bytes((byte,))))
                return quoted.end()
            found = _match(_ESCAPE, pattern, at)
            self._atom(found)
        elif char in b"*+?{":
            repeat = _REPEAT.match(pattern, at)
            if repeat is None:
                found = b"{"
                self._atom(
                    rb"\{"
                )  # a brace that is not part of a quantifier; the regex module could take it for a fuzzy match
            else:
                found = repeat[0]
                self._repeat(repeat, at)
        else:
            found = pattern[at : at + 1]
            self._atom(found)
        return at + len(found)

    def _atom(self, text: bytes, size: int = 1) -> None:
        self._run += 1
        if self._run > _RUN:
            self._run = 1
            self._out.append(b".{0}")  # nothing, but it ends what regex takes for one string
        self._out.append(text)
        self._size += size
        self._group = 0

    def _open(self, text: bytes, at: int) -> None:
        self._out.append(text)
        self._run = self._group = 0
        if _VERBOSE.match(text) is not None and text[-1] in b":)":
            self._verbose = True
        if text[-1:] == b")":  # flags, a comment
            return
        if len(self._outer) >= NESTING:
            raise PatternError.too_deep()
        self._outer.append(self._size)
        self._size = 0

    def _close(self) -> None:
        self._out.append(b")")
        self._run = 0
        self._group = self._size + 1
        self._size = self._group + (self._outer.pop() if self._outer else 0)

    def _repeat(self, found: re.Match[bytes], at: int) -> None:
        self._out.append(found[0])
        self._run = 0
        numbers = [each for each in found.group(1, 3, 4) if each]
        if any(len(each) > 5 or int(each) > LARGEST_REPEAT for each in numbers):
            raise PatternError("number too big in {} quantifier", found.string, at)
        least = int(found[1] or 0) if numbers else int(found[0] == b"+")
        if self._group and least and (found[2] or least > 1 or found[0] == b"+"):
            self._size += least * self._group
            self._factor *= least + 1
            if self._size > NODES or self._factor > NODES**2:
                raise PatternError.too_large()
        self._group = 0


def _match(kind: re.Pattern[bytes], pattern: bytes, at: int) -> bytes:
    found = kind.match(pattern, at)
    assert found is not None
    return found[0]
