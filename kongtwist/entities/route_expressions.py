"""Kong's language of route expressions (Kong 3.9: atc-router 1.6.2): read into a tree, and checked.

``&&`` binds less tightly than ``||``, and ``!`` stands before a bracket only: as there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from .regexes import PatternError, compile_bounded
from .regexes import bounded as bounded_pattern

__all__ = [
    "HTTP_FIELDS", "MOST_NESTED", "STREAM_FIELDS", "All", "AnyOf", "Expression", "ExpressionError", "Not", "Predicate", "Value",
    "check_expression", "field_type", "parse_expression", "predicates_of",
]  # fmt: skip

MOST_NESTED = 100
"""Brackets inside one another (Kong has no limit but the stack's)."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Value = str | int | Address | Network

STREAM_FIELDS: Mapping[str, str] = {
    "net.protocol": "String",
    "tls.sni": "String",
    "net.src.port": "Int",
    "net.dst.port": "Int",
    "net.src.ip": "IpAddr",
    "net.dst.ip": "IpAddr",
}
"""Types of the fields that expressions of stream routes may name."""

HTTP_FIELDS: Mapping[str, str] = {
    **STREAM_FIELDS,
    "http.method": "String",
    "http.host": "String",
    "http.path": "String",
    "http.path.segments.*": "String",
    "http.path.segments.len": "Int",
    "http.headers.*": "String",
    "http.queries.*": "String",
}
"""The same of http and grpc routes. A star stands for the last part of a name."""


class ExpressionError(ValueError):
    """An expression that cannot be used, in Kong's words."""


class Predicate(NamedTuple):
    """A field compared with a value. ``lower``: its text in lower case; ``some``: one of several values is enough."""

    field: str
    lower: bool
    some: bool
    op: str
    value: Value


@dataclass(frozen=True, slots=True)
class Not:
    """What must not be so. As `All` and `AnyOf` no tuple: `a && b` and `a || b` would be equal."""

    inner: Expression


@dataclass(frozen=True, slots=True)
class All:
    """What must be so together, looked at in this order."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Of what one must be so, looked at in this order."""

    choices: tuple[Expression, ...]


Expression = Predicate | Not | All | AnyOf

_SPACE = re.compile(r"[ \t\r\n]*")
_IDENT = re.compile(r"[A-Za-z][A-Za-z0-9_.]*")
_OPERATOR = re.compile(r"==|!=|~|\^=|=\^|>=|>|<=|<|in|not[ \t\r\n]*in|contains")
_TEXT = re.compile(r'"((?:\\["\\nrt]|[^"\\])*)"', re.DOTALL)
_TEXT_PART = re.compile(r'"(?:\\["\\nrt]|[^"\\])*', re.DOTALL)
_RAW = re.compile(r'r#"(.*?)"#', re.DOTALL)
_RAW_PART = re.compile(r'r#".*', re.DOTALL)
_V4 = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_V6 = r"(?::|[0-9A-Fa-f]{1,4}):(?:[0-9A-Fa-f]{1,4}|:)*"
_ADDRESS = re.compile(rf"({_V4}/[0-9]{{1,2}})|({_V6}/[0-9]{{1,3}})|({_V4})|({_V6})")
_NUMBER = re.compile(r"(-?)(?:(0[0-7]+)|0x([0-9A-Fa-f]+)|([0-9]+))")
_ESCAPES = {'\\"': '"', "\\\\": "\\", "\\n": "\n", "\\r": "\r", "\\t": "\t"}
_ESCAPE = re.compile(r'\\["\\nrt]')
_LOOKS_AROUND = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\\\]])*\]|(\(\?<?[=!])|(\\[1-9])", re.DOTALL)
_LARGEST = (1 << 63) - 1


class _Reader:
    """One pass over an expression's text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> Expression:
        found = self._expression()
        self._skip()
        if self._at < len(self._text):
            raise self._expected("EOI, and_op, or or_op")
        return found

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _takes(self, mark: str) -> bool:
        self._skip()
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        return True

    def _expected(self, what: str) -> ExpressionError:
        return ExpressionError(_pointed(self._text, self._at, None, f"expected {what}"))

    def _wrong(self, begin: int, end: int, words: str) -> ExpressionError:
        return ExpressionError(_pointed(self._text, begin, end, words))

    def _expression(self) -> Expression:
        parts = [self._choice()]
        while self._operator_follows("&&"):
            parts.append(self._choice())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _choice(self) -> Expression:
        choices = [self._term()]
        while self._operator_follows("||"):
            choices.append(self._term())
        return choices[0] if len(choices) == 1 else AnyOf(tuple(choices))

    def _operator_follows(self, mark: str) -> bool:
        before = self._at
        if self._takes(mark):
            return True
        self._at = before
        return False

    def _term(self) -> Expression:
        self._skip()
        begin = self._at
        if _IDENT.match(self._text, begin) is not None:
            return self._predicate()
        negated = self._takes("!")
        if not self._takes("("):
            self._at = begin
            raise self._expected("term")
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise self._wrong(begin, begin + 1, f"brackets are nested more than {MOST_NESTED} deep")
        inner = self._expression()
        if not self._takes(")"):
            raise self._expected("and_op or or_op")
        self._depth -= 1
        return Not(inner) if negated else inner

    def _predicate(self) -> Predicate:
        field, functions = self._left()
        self._skip()
        found = _OPERATOR.match(self._text, self._at)
        if found is None:
            raise self._expected("binary_operator")
        self._at = found.end()
        op = "not in" if found[0].startswith("not") else found[0]
        self._skip()
        begin = self._at
        value = self._right()
        if op == "~":
            if not isinstance(value, str):
                raise self._wrong(begin, self._at, "regex operator can only be used with String operands")
            fault = _pattern_fault(value)
            if fault is not None:
                raise self._wrong(begin, self._at, fault)
        return Predicate(field, "lower" in functions, "any" in functions, op, value)

    def _left(self) -> tuple[str, list[str]]:
        """A field's name and the functions around it."""
        functions: list[str] = []
        opened: list[tuple[str, int]] = []
        while True:
            self._skip()
            found = _IDENT.match(self._text, self._at)
            if found is None:
                raise self._expected("lhs")
            begin, self._at = self._at, found.end()
            if not self._takes("("):
                break
            opened.append((found[0], begin))
        self._at = found.end()
        for name, begin in reversed(opened):
            if not self._takes(")"):
                self._at = begin + len(name)
                raise self._expected("binary_operator")
            if name not in ("lower", "any"):
                raise self._wrong(begin, self._at, f"unknown transformation function: {name}")
            functions.append(name)
        return found[0], functions

    def _right(self) -> Value:
        text, at = self._text, self._at
        if text.startswith('"', at):
            found = _TEXT.match(text, at)
            if found is None:
                part = _TEXT_PART.match(text, at)
                assert part is not None
                self._at = part.end()
                raise self._expected("str_char or str_esc")
            self._at = found.end()
            return _ESCAPE.sub(lambda escape: _ESCAPES[escape[0]], found[1])
        if text.startswith('r#"', at):
            found = _RAW.match(text, at)
            if found is None:
                self._at = len(text)
                raise self._expected("rawstr_char")
            self._at = found.end()
            return found[1]
        found = _ADDRESS.match(text, at)
        if found is not None:
            self._at = found.end()
            return self._address(found)
        found = _NUMBER.match(text, at)
        if found is None:
            raise self._expected("rhs")
        self._at = found.end()
        sign, octal, hexadecimal, decimal = found.groups()
        number = int(octal, 8) if octal else int(hexadecimal, 16) if hexadecimal else int(decimal)
        if number > _LARGEST:
            raise self._wrong(at + len(sign), self._at, "number too large to fit in target type")
        return -number if sign else number

    def _address(self, found: re.Match[str]) -> Value:
        begin, end = found.span()
        version = 4 if found[1] or found[3] else 6
        address, mark, length = found[0].partition("/")
        try:
            plain = ip_address(address)
        except ValueError:
            raise self._wrong(begin, end, f"invalid IPv{version} address syntax") from None
        if not mark:
            return plain
        most = 32 if version == 4 else 128
        if int(length) > most:
            words = f"invalid length for network: Network length {int(length)} is too long for Ipv{version} (maximum: {most})"
            raise self._wrong(begin, end, words)
        try:
            return ip_network((plain, int(length)))
        except ValueError:
            raise self._wrong(begin, end, "host part of address was not zero") from None


def _pointed(text: str, begin: int, end: int | None, words: str) -> str:
    """A message with the line it is about and a mark below it, as Kong's parser prints it."""
    start = text.rfind("\n", 0, begin) + 1
    stop = text.find("\n", begin)
    line = text[start : len(text) if stop < 0 else stop]
    number = str(text.count("\n", 0, begin) + 1)
    column = begin - start
    if end is None:
        mark = "^---"
    else:
        size = min(end - begin, max(len(line) - column, 1))
        mark = "^" if size < 2 else "^" + "-" * (size - 2) + "^"
    pad = " " * len(number)
    return f"{pad}--> {number}:{column + 1}\n{pad} |\n{number} | {line}\n{pad} | {' ' * column}{mark}\n{pad} |\n{pad} = {words}"


def _pattern_fault(pattern: str) -> str | None:
    """What is wrong with a regular expression, in the form of Kong's library, or None."""
    for found in _LOOKS_AROUND.finditer(pattern):
        if found[1] or re.fullmatch(r"\\[1-9]", found[0]):
            what = "look-around, including look-ahead and look-behind, is" if found[1] else "backreferences are"
            mark = " " * found.start() + "^" * len(found[0])
            return f"regex parse error:\n    {pattern}\n    {mark}\nerror: {what} not supported"
    try:
        compile_bounded(bounded_pattern(pattern.encode("utf-8", "surrogatepass")))
    except PatternError as error:
        words = str(error).removeprefix("pcre2_compile() failed: ").partition(" in ")[0]
        return f"regex parse error:\n    {pattern}\nerror: {words}"
    return None


def parse_expression(text: str) -> Expression:
    """The tree of an expression.

    Raises:
        ExpressionError: it is not of the language; the text shows where.
    """
    return _Reader(text).whole()


def predicates_of(expression: Expression) -> Iterator[Predicate]:
    """All comparisons of an expression, in order."""
    if isinstance(expression, Predicate):
        yield expression
    elif isinstance(expression, Not):
        yield from predicates_of(expression.inner)
    else:
        for each in expression.parts if isinstance(expression, All) else expression.choices:
            yield from predicates_of(each)


def field_type(field: str, fields: Mapping[str, str]) -> str | None:
    """``String``, ``Int`` or ``IpAddr``; None for a field there is not."""
    found = fields.get(field)
    if found is None:
        before, dot, _ = field.rpartition(".")
        found = fields.get(f"{before}.*") if dot else None
    return found


def check_expression(expression: Expression, fields: Mapping[str, str]) -> None:
    """See whether fields, operators and values fit together.

    Args:
        expression: the tree.
        fields: `HTTP_FIELDS` or `STREAM_FIELDS`.

    Raises:
        ExpressionError: they do not.
    """
    for each in predicates_of(expression):
        words = _misfit(each, field_type(each.field, fields))
        if words is not None:
            raise ExpressionError(words)
    for each in predicates_of(expression):
        if each.field.startswith("http.path.segments.") and not _segments(each.field[19:]):
            raise ExpressionError("illformed http.path.segments.* field")


_SEGMENTS = re.compile(r"(0|[1-9][0-9]*)(?:_([1-9][0-9]*))?")


def _segments(part: str) -> bool:
    if part == "len":
        return True
    found = _SEGMENTS.fullmatch(part)
    return found is not None and (not found[2] or _smaller(found[1], found[2]))


def _smaller(first: str, second: str) -> bool:
    return (len(first), first) < (len(second), second)


def _misfit(predicate: Predicate, kind: str | None) -> str | None:
    value, op = predicate.value, predicate.op
    if kind is None:
        return "Unknown LHS field"
    if isinstance(value, str):
        given = "String"
    elif isinstance(value, int):
        given = "Int"
    else:
        given = "IpAddr" if isinstance(value, IPv4Address | IPv6Address) else "IpCidr"
    if op not in ("~", "in", "not in") and given != kind:
        return "Type mismatch between the LHS and RHS values of predicate"
    if predicate.lower and kind != "String":
        return "lower-case transformation function only supported with String type fields"
    if op == "~":
        return None if kind == "String" else "Regex operators only supports string operands"
    if op in ("^=", "=^"):
        return None if given == "String" else "Prefix/Postfix operators only supports string operands"
    if op in (">", ">=", "<", "<="):
        words = "Greater/GreaterOrEqual/Lesser/LesserOrEqual operators only supports integer operands"
        return None if given == "Int" else words
    if op in ("in", "not in"):
        return None if (kind, given) == ("IpAddr", "IpCidr") else "In/NotIn operators only supports IP in CIDR"
    if op == "contains":
        return None if given == "String" else "Contains operator only supports string operands"
    return None
