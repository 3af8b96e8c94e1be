"""Formats of access logs: nginx's ``log_format``, read once and made into what writes a line (nginx 1.22, ``ngx_http_log_module``).

    log_format NAME [escape=default|json|none] STRING ...

A format is pieces of text and variables. `LineWriter` makes one function of it, in which the usual variables are expressions and the
others calls. No credential is written, whatever a format asks for: see `masking` and `log_variables`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.error_lines import row_name
from .log_expressions import EXPRESSIONS, NAMES
from .log_variables import basic_user, getter_of, wants_notes
from .masking import SecretMask, escape

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from ..core.rows import Row
    from .log_variables import Getter, Seen

__all__ = ["BUILT_IN", "DEFAULT", "FormatError", "LineWriter", "LogFormat", "Times", "parse_formats"]

DEFAULT = "kong_log_format"
"""The format of a log that names none (Kong 3.9, ``nginx_kong.lua``)."""

REMEMBERED = 2048
"""Values kept in the form they are written in."""

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_TOKEN = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(;)|([^\s;'"]+))""", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+)|)")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_JSON_UNSAFE = re.compile(rb'[\x00-\x1f"\\]')
_JSON_ESCAPES = {
    b'"': b'\\"',
    b"\\": b"\\\\",
    b"\n": b"\\n",
    b"\r": b"\\r",
    b"\t": b"\\t",
    b"\b": b"\\b",
    b"\f": b"\\f",
}


class FormatError(ValueError):
    """A format that cannot be used; its text is the end of a sentence that begins with the property's name."""


class LogFormat(NamedTuple):
    """A format as it was written."""

    name: str
    escape: str  #: ``default``, ``json`` or ``none``
    parts: tuple[tuple[str, str], ...]  #: ("text", what stands there) or ("variable", its name), in order

    @property
    def variables(self) -> list[str]:
        """The names of its variables."""
        return [value for kind, value in self.parts if kind == "variable"]


def _parts(text: str) -> tuple[tuple[str, str], ...]:
    parts: list[tuple[str, str]] = []
    at = 0
    for match in _VARIABLE.finditer(text):
        if at < match.start():
            parts.append(("text", text[at : match.start()]))
        name = match[1] or match[2]
        if not name:
            raise FormatError(f"has a $ without the name of a variable: '{text[match.start() :][:20]}'")
        parts.append(("variable", name))
        at = match.end()
    if at < len(text):
        parts.append(("text", text[at:]))
    return tuple(parts)


def parse_formats(text: str) -> dict[str, LogFormat]:
    """The formats in a value of ``nginx_http_log_format``.

    Args:
        text: ``NAME [escape=MODE] STRING ...``; further ones follow as nginx would read them, behind ``; log_format``.

    Raises:
        FormatError: it is none.
    """
    found: dict[str, LogFormat] = {}
    for number, words in enumerate(_directives(text)):
        if number or (words and words[0] == ("log_format", False)):
            if words[0] != ("log_format", False):
                raise FormatError(f"has something else than log_format behind a semicolon: '{words[0][0]}'")
            words = words[1:]
        if len(words) < 2 or words[0][1]:
            raise FormatError("must be of the form: <name> [escape=default|json|none] '<format>'")
        name, mode = words[0][0], "default"
        if not _NAME.fullmatch(name):
            raise FormatError(f"has a name that is none: '{name}'")
        if name in found:
            raise FormatError(f"has two formats with the name '{name}'")
        rest = words[1:]
        if rest[0][0].startswith("escape=") and not rest[0][1]:
            mode = rest[0][0].removeprefix("escape=")
            if mode not in ("default", "json", "none"):
                raise FormatError(f"has an unknown way of escaping: '{mode}' (default, json or none)")
            rest = rest[1:]
        if not rest:
            raise FormatError(f"has nothing to write in format '{name}'")
        found[name] = LogFormat(name, mode, _parts("".join(word for word, _ in rest)))
    return found


def _directives(text: str) -> list[list[tuple[str, bool]]]:
    """The words of each directive, and whether they were quoted."""
    directives: list[list[tuple[str, bool]]] = [[]]
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise FormatError(f"has a quote that does not end: '{text[at:].strip()[:20]}'")
        at = match.end()
        single, double, semicolon, word = match.groups()
        if semicolon:
            directives.append([])
        elif word is not None:
            directives[-1].append((word, False))
        else:
            quoted = single if single is not None else double
            directives[-1].append((_ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), quoted), True))
    return [each for each in directives if each]


_JSON_FIELDS = (
    ("time", "$time_iso8601"), ("request_id", "$kong_request_id"), ("client_ip", "$remote_addr"),
    ("user", "$remote_user"), ("method", "$request_method"), ("uri", "$request_uri"), ("protocol", "$server_protocol"),
    ("host", "$host"), ("scheme", "$scheme"), ("status", "=$status"), ("request_length", "=$request_length"),
    ("body_bytes_sent", "=$body_bytes_sent"), ("request_time", "=$request_time"), ("referer", "$http_referer"),
    ("user_agent", "$http_user_agent"), ("route", "$kong_route"), ("service", "$kong_service"),
    ("consumer", "$kong_consumer"), ("upstream_addr", "$upstream_addr"), ("upstream_status", "$upstream_status"),
    ("upstream_response_time", "$upstream_response_time"), ("ssl_protocol", "$ssl_protocol"),
)  # fmt: skip
"""Fields of the format ``json``: numbers have a ``=``."""

JSON_FIELDS = tuple(name for name, _ in _JSON_FIELDS)

_JSON = "{" + ",".join(
    f'"{name}":{value[1:]}' if value[0] == "=" else f'"{name}":"{value}"' for name, value in _JSON_FIELDS
) + "}"  # fmt: skip

_COMBINED = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"'
)

BUILT_IN = {
    "json": LogFormat("json", "json", _parts(_JSON)),
    "combined": LogFormat("combined", "default", _parts(_COMBINED)),
    DEFAULT: LogFormat(DEFAULT, "default", _parts(f'{_COMBINED} kong_request_id: "$kong_request_id"')),
}
"""Formats that need no declaration: nginx's, Kong's, and our own ``json``."""


class Times:
    """The moment of a line, in the forms that logs have it.

    Args:
        wall: epoch seconds.

    Attributes:
        at: epoch seconds of the line that is being written.
        local, iso: nginx's ``$time_local`` and ``$time_iso8601`` of it.
    """

    __slots__ = ("_second", "_wall", "at", "iso", "local")

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self.at = 0.0
        self._second = -1
        self.local = self.iso = b""

    def now(self) -> bytes:
        """Look at the clock, and give ``$time_local``; what is made of a second is made once."""
        self.at = at = self._wall()
        if int(at) != self._second:
            self._make()
        return self.local

    def _make(self) -> None:
        self._second = second = int(self.at)
        at = time.localtime(second)
        minutes = (at.tm_gmtoff or 0) // 60
        sign, hours, rest = b"-" if minutes < 0 else b"+", abs(minutes) // 60, abs(minutes) % 60
        self.local = b"%02d/%b/%d:%02d:%02d:%02d %b%02d%02d" % (
            at.tm_mday, _MONTHS[at.tm_mon - 1], at.tm_year, at.tm_hour, at.tm_min, at.tm_sec, sign, hours, rest,
        )  # fmt: skip
        self.iso = b"%d-%02d-%02dT%02d:%02d:%02d%b%02d:%02d" % (
            at.tm_year, at.tm_mon, at.tm_mday, at.tm_hour, at.tm_min, at.tm_sec, sign, hours, rest,
        )  # fmt: skip


def json_escape(value: bytes) -> bytes:
    r"""``value`` as nginx writes it with ``escape=json``; what is no UTF-8 stands as ``\ufffd``, for a line has to be JSON."""
    if _JSON_UNSAFE.search(value) is not None:
        value = _JSON_UNSAFE.sub(lambda found: _JSON_ESCAPES.get(found[0]) or b"\\u%04X" % found[0][0], value)
    if not value.isascii():
        return value.decode("utf-8", "replace").encode()
    return value


def _unescaped(value: bytes) -> bytes:
    """Only what would end the line is taken out: no client may write lines of its own."""
    return value.replace(b"\r", b"").replace(b"\n", b"") if b"\n" in value or b"\r" in value else value


_ESCAPING: dict[str, Callable[[bytes], bytes]] = {"default": escape, "json": json_escape, "none": _unescaped}


class LineWriter:
    """Writes lines of one format.

    Args:
        form: the format.
        mask: hides credentials.
        times: the log's.

    Attributes:
        absent: what stands for a variable without a value.
        escape: escapes a value for this format.
        wants_notes: a variable tells what is only noted where somebody asks for it: tries, and the answer's head.
        line: gives the line of an exchange.

    Raises:
        FormatError: it has an unknown variable.
    """

    line: Callable[[Exchange], bytes]

    def __init__(self, form: LogFormat, mask: SecretMask, times: Times) -> None:
        self.mask, self.times = mask, times
        self.absent = b"-" if form.escape == "default" else b""
        self.escape = _ESCAPING[form.escape]
        self._values: dict[bytes, bytes] = {}
        self._rows: dict[str, tuple[Row, bytes]] = {}
        self.wants_notes = any(map(wants_notes, form.variables))
        self._getters: list[Getter] = []
        slow, fast, expressions = list[bytes](), list[bytes](), list[str]()
        for kind, value in form.parts:
            if kind == "text":
                text = value.encode().replace(b"%", b"%%")
                slow.append(text)
                fast.append(text)
                continue
            getter = getter_of(value, self)
            if getter is None:
                raise FormatError(
                    f"has a variable that is unknown here: '${value}' in format '{form.name}';"
                    " take it out, or see docs/logs.md for those there are"
                )
            conversion, expression = EXPRESSIONS.get(value) or (b"%b", f"G[{len(self._getters)}](x)")
            slow.append(b"%b")
            fast.append(conversion)
            expressions.append(expression)
            self._getters.append(getter)
        self._form = b"".join(slow) + b"\n"
        self.line = self._compiled(b"".join(fast) + b"\n", expressions)

    def _compiled(self, form: bytes, expressions: list[str]) -> Callable[[Exchange], bytes]:
        """One function for the whole line: a call for each variable would be most of its cost. Of the format itself there is nothing
        in its source but a literal."""
        wanted = " ".join(expressions)
        steps = ["now()"] if "T." in wanted or "G[" in wanted else []
        if "first(" in wanted:
            steps.append("first = x.block.first")
        body = "\n    ".join([*steps, f"return F % ({''.join(each + ', ' for each in expressions)})"])
        names: dict[str, Any] = {
            **NAMES,
            "A": self.absent,
            "F": form,
            "G": tuple(self._getters),
            "T": self.times,
            "V": self._values.get,
            "named": self.named,
            "now": self.times.now,
            "text": self.text,
            "user": self.user,
        }
        exec(compile(f"def line(x):\n    {body}\n", "<log_format>", "exec"), names)
        line: Callable[[Exchange], bytes] = names["line"]
        return line

    def line_of(self, seen: Seen) -> bytes:
        """The line of a request of which less is known."""
        self.times.now()
        return self._form % tuple([getter(seen) for getter in self._getters])

    def text(self, value: bytes) -> bytes:
        """A target or header value as it may be written; remembered, for clients repeat themselves."""
        written = self._values.get(value)
        if written is None:
            written = self.escape(self.mask.target(value))
            if written == value and len(value) < 512:  # what was masked is not kept
                if len(self._values) >= REMEMBERED:
                    self._values.clear()
                self._values[value] = written
        return written

    def named(self, row: Row) -> bytes:
        """The name of an entity, which is made once for each row."""
        known = self._rows.get(row["id"])
        if known is None or known[0] is not row:
            if len(self._rows) >= REMEMBERED:
                self._rows.clear()
            known = self._rows[row["id"]] = (row, self.text(row_name(row).encode()))
        return known[1]

    def user(self, authorization: bytes) -> bytes:
        """The user of Basic credentials as it may be written."""
        name = basic_user(authorization)
        if name is None:
            return self.absent
        written = self.escape(name)
        return written.replace(b" ", b"\\x20") if self.absent else written

    def forget(self) -> None:
        """More is to be masked from now on."""
        self._values.clear()
