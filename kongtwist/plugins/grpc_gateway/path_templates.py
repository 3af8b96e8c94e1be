"""Path templates of ``google.api.http``: which method a request's path is for, and what it holds (googleapis, http.proto).

    Template = "/" Segments [ Verb ] ;
    Segments = Segment { "/" Segment } ;
    Segment  = "*" | "**" | LITERAL | Variable ;
    Variable = "{" FieldPath [ "=" Segments ] "}" ;
    Verb     = ":" LITERAL ;

Where several fit a path the more particular one is taken, segment by segment: a literal before ``*`` before ``**``, one with a verb
before one without; of equal ones the first that was declared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

__all__ = ["BadTemplate", "PathTemplate", "TemplateIndex"]

T = TypeVar("T")

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*").fullmatch
_SLASHES = re.compile(rb"(%2[Ff])")
_NOT_IN_PATHS = re.compile(r"[?#\s]").search
_LITERAL, _ONE, _MANY = range(3)


class BadTemplate(ValueError):
    """A template that follows no rule; the text says where."""


class _Variable(NamedTuple):
    path: tuple[str, ...]  #: names of fields
    many: bool  #: it may span segments


class PathTemplate:
    """One template.

    Args:
        text: as declared.

    Attributes:
        text: the same.
        variables: paths of fields that the path gives.
        rank: templates in its order are tried one after the other.

    Raises:
        BadTemplate: it follows no rule.
    """

    __slots__ = ("_match", "_variables", "rank", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        parser = _Parser(text)
        pattern, self._variables, kinds, verb = parser.template()
        self._match = re.compile(pattern.encode()).fullmatch
        self.rank = (not verb, tuple(kinds))

    @property
    def variables(self) -> tuple[tuple[str, ...], ...]:
        return tuple(each.path for each in self._variables)

    def match(self, path: bytes) -> list[tuple[tuple[str, ...], str]] | None:
        """What a path gives.

        Args:
            path: escaped, without query.

        Returns:
            paths of fields with their values, decoded; of one that spans segments ``%2F`` stays. None: it does not fit.
        """
        found = self._match(path)
        if found is None:
            return None
        return [
            (variable.path, _decoded(value, variable.many))
            for variable, value in zip(self._variables, found.groups(), strict=True)
        ]


def _decoded(value: bytes, many: bool) -> str:
    if many:
        value = b"".join(part if at % 2 else unquote_to_bytes(part) for at, part in enumerate(_SLASHES.split(value)))
    else:
        value = unquote_to_bytes(value)
    return value.decode("utf-8", "replace")


class _Parser:
    """Reads one template from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._variables: list[_Variable] = []
        self._kinds: list[int] = []

    def template(self) -> tuple[str, tuple[_Variable, ...], list[int], str]:
        """A pattern for whole paths, its groups, the kinds of its segments, and the verb."""
        if not self._text.startswith("/"):
            raise self._wrong("it does not begin with /")
        never = _NOT_IN_PATHS(self._text)
        if never is not None:
            raise self._wrong(f"{never[0]!r} stands in no path")
        self._at = 1
        if self._text == "/":
            return "/", (), [], ""
        pattern = "/" + self._segments(in_variable=False)
        verb = ""
        if self._peek() == ":":
            verb = self._text[self._at + 1 :]
            if not verb or "/" in verb:
                raise self._wrong("a verb is one literal at its end")
            pattern += re.escape(":" + verb)
            self._at = len(self._text)
        if self._at != len(self._text):
            raise self._wrong(f"{self._text[self._at]!r} is not expected")
        if _MANY in self._kinds[:-1]:
            raise self._wrong("** is not its last segment")
        seen = [each.path for each in self._variables]
        if len(set(seen)) != len(seen):
            raise self._wrong("a field is named twice")
        return pattern, tuple(self._variables), self._kinds, verb

    def _segments(self, in_variable: bool) -> str:
        parts = [self._segment(in_variable)]
        while self._peek() == "/":
            self._at += 1
            if self._at == len(self._text):  # no segment (as the grammar has it), but Kong's examples have such
                self._kinds.append(_LITERAL)
                parts.append("")
                break
            parts.append(self._segment(in_variable))
        joined = "/".join(parts)
        # What "**" stands for may be no segment at all.
        return joined.removesuffix("/.*") + "(?:/.*)?" if joined.endswith("/.*") else joined

    def _segment(self, in_variable: bool) -> str:
        if self._peek() == "{":
            if in_variable:
                raise self._wrong("a variable in a variable")
            return self._variable()
        end = self._at
        while end < len(self._text) and self._text[end] not in "/{}:=":
            end += 1
        word, self._at = self._text[self._at : end], end
        if not word:
            raise self._wrong("an empty segment")
        if word == "**":
            self._kinds.append(_MANY)
            return ".*"
        if word == "*":
            self._kinds.append(_ONE)
            return "[^/]+"
        if "*" in word:
            raise self._wrong(f"{word!r} is neither a literal nor * nor **")
        self._kinds.append(_LITERAL)
        return _escaped_or_not(word)

    def _variable(self) -> str:
        end = self._text.find("}", self._at)
        if end < 0:
            raise self._wrong("a variable that does not end")
        name, equals, _ = self._text[self._at + 1 : end].partition("=")
        if _IDENTIFIER(name) is None:
            raise self._wrong(f"{name!r} is no name of a field")
        first = len(self._kinds)
        if equals:
            self._at += len(name) + 2
            pattern = self._segments(in_variable=True)
            if self._peek() != "}":
                raise self._wrong("a variable that does not end")
            self._at += 1
        else:
            self._at = end + 1
            self._kinds.append(_ONE)
            pattern = "[^/]+"
        kinds = self._kinds[first:]
        self._variables.append(_Variable(tuple(name.split(".")), len(kinds) > 1 or kinds[0] == _MANY))
        return f"({pattern})"

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _wrong(self, why: str) -> BadTemplate:
        return BadTemplate(f"the path template {self._text!r} is wrong: {why}")


def _escaped_or_not(word: str) -> str:
    """A pattern for a literal, whose characters a client may have percent-encoded."""
    parts = []
    for character in word:
        code = "".join(f"%{byte:02X}" for byte in character.encode())
        plain = re.escape(character) if character.isascii() else None
        if character.isascii() and (character.isalnum() or character in "-._~"):
            parts.append(str(plain))
        elif plain is None:
            parts.append(f"(?i:{code})")
        else:
            parts.append(f"(?:{plain}|(?i:{code}))")
    return "".join(parts)


class TemplateIndex(Generic[T]):
    """What templates lead to, by HTTP method.

    Args:
        entries: HTTP methods, templates, and what they lead to, in the order of their declaration. The method ``*`` is every one.
    """

    def __init__(self, entries: Iterable[tuple[str, PathTemplate, T]]) -> None:
        self._entries: dict[bytes, list[tuple[PathTemplate, T]]] = {}
        for method, template, target in entries:
            self._entries.setdefault(method.encode(), []).append((template, target))
        for found in self._entries.values():
            found.sort(key=lambda entry: entry[0].rank)

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def knows(self, method: bytes) -> bool:
        """Whether anything is there for an HTTP method."""
        return method in self._entries or b"*" in self._entries

    def find(self, method: bytes, path: bytes) -> tuple[T, list[tuple[tuple[str, ...], str]]] | None:
        """What a request is for, and what its path gives; None where nothing fits."""
        for key in (method, b"*"):
            for template, target in self._entries.get(key, ()):
                values = template.match(path)
                if values is not None:
                    return target, values
        return None
