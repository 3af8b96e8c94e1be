"""What must not stand in a log: credentials, and characters that could forge or garble a line.

Query arguments are the usual leak: ``key-auth`` and ``jwt`` take credentials from them, OAuth puts tokens there. The
names below are hidden always; the gateway adds those that plugins are configured with (``key_names`` and the like).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_plus

__all__ = ["MASK", "SECRET_NAMES", "SecretMask", "configured_names", "escape", "escape_text"]

MASK = b"***"
"""What stands in place of a credential."""

SECRET_NAMES = frozenset(
    {
        "access_token", "api-key", "api_key", "apikey", "assertion", "auth", "authorization", "client_assertion",
        "client_secret", "code_verifier", "id_token", "jwt", "key", "passwd", "password", "private_key",
        "refresh_token", "secret", "session", "sig", "signature", "ticket", "token", "x-api-key",
    }
)  # fmt: skip
"""Query arguments whose values are credentials, lower case."""

_NAMING = ("key_names", "uri_param_names", "cookie_names", "header_names")
"""Fields of plugins that name arguments, cookies and headers with credentials."""

_OAUTH2_NAMES = ("code", "provision_key")
"""Those of an authorization server, that mean something else where there is none."""

_UNSAFE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_UNSAFE_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_USERINFO = re.compile(rb"(://)[^/?#&\s]*@")
_TEXT_USERINFO = re.compile(r"(://)[^/\s?#'\"]*@")
_AUTHORITY_END = re.compile(rb"[/?#\s]")
_FIELD = re.compile(rb"\s*([^\s:=?/]{1,64})[ \t]*:(?!//)")
_FIELDS = frozenset(("cookie", "set-cookie", "proxy-authorization"))
_SECRET_FIELD = re.compile(
    r"(?:^|[-_])(?:token|secret|passwo?r?d|api[-_]?key|authorization|credentials?|signature|session|assertion|ticket|jwt)$"
)
_TEXT_HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization|set-cookie|cookie|x-api-key|apikey)(['\"]?\s*:\s*|['\"],\s*)[^\r\n]+"
)


def escape(value: bytes) -> bytes:
    r"""``value`` as nginx writes variables into its logs: ``"``, ``\`` and all but printable ASCII as ``\xHH``."""
    if _UNSAFE.search(value) is None:
        return value
    return _UNSAFE.sub(lambda found: b"\\x%02X" % found[0][0], value)


def escape_text(text: str) -> str:
    r"""``text`` without control characters (line feed and tab excepted), which stand as ``\xHH``."""
    if _UNSAFE_TEXT.search(text) is None:
        return text
    return _UNSAFE_TEXT.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _without_userinfo(line: bytes) -> bytes:
    """A line without what may be userinfo: all from where an authority may begin to the last ``@``, or to the end of a
    line that ends in an authority."""
    end = line.rfind(b"@")
    scheme = line.find(b"://")
    if end < 0:
        unfinished = scheme >= 0 and _AUTHORITY_END.search(line, scheme + 3) is None
        return line[: scheme + 3] + MASK if unfinished else line
    if 0 <= scheme < end:
        start = scheme + 3
    else:
        words = line.split(None, 1)
        start = len(line) - len(words[-1])
        if len(words) < 2 or words[1].startswith(b"/") or start > end:
            return line
    return line[:start] + MASK + line[end:]


class SecretMask:
    """Hides the values of query arguments that are credentials.

    Args:
        names: further names to hide, beside `SECRET_NAMES`; compared without regard to case.
    """

    __slots__ = ("_names", "_suspect", "_text")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names: frozenset[str] = frozenset()
        self.hide(SECRET_NAMES.union(names))

    def hide(self, names: Iterable[str]) -> bool:
        """Hide these names from now on, too.

        Returns:
            whether there was a new one among them.
        """
        wanted = self._names | {name.lower() for name in names}
        if wanted == self._names:
            return False
        self._names = wanted
        alternatives = "|".join(sorted((re.escape(name) for name in self._names), key=len, reverse=True))
        # An argument is looked at when its name is one of ours, or may be one in disguise (apike%79). No name reaches over
        # the mark at which the next may begin, or a target of question marks alone would be read once for each of them.
        self._suspect = re.compile(rb"(?i)[?&;](?:(?:%s)=|[^=&;?]*[%%+])" % alternatives.encode())
        self._text = re.compile(rf"(?i)([?&;](?:{alternatives})=)[^&;\s'\"]+")
        return True

    def hides(self, name: str) -> bool:
        """Whether the value of a query argument, or of a cookie, of this name is a credential."""
        return name.lower() in self._names

    def hides_field(self, name: str) -> bool:
        """Whether the value of a header of this name (lower case) carries credentials."""
        return name in self._names or name in _FIELDS or _SECRET_FIELD.search(name) is not None

    def target(self, target: bytes) -> bytes:
        """A request target or URL with credentials in its query string, and userinfo of URLs, replaced by `MASK`."""
        if b"@" in target:
            target = _USERINFO.sub(rb"\1" + MASK + b"@", target)
        if b"?" not in target or self._suspect.search(target) is None:
            return target
        path, _, query = target.partition(b"?")
        return path + b"?" + b"".join(map(self._argument, re.split(rb"([&;])", query)))

    def line(self, line: bytes) -> bytes:
        """The first line of something that was refused, without credentials.

        It may be anything: a target with userinfo (spaces and slashes in it, or no end), a header or a form of a request
        before. So more is hidden than of a good target.
        """
        field = _FIELD.match(line)
        if field is not None:
            name = field[1].decode("latin-1").lower()
            if name in self._names or name in _FIELDS:
                return line[: field.end()] + b" " + MASK
        return b"".join(map(self._word, re.split(rb"(\s+)", _without_userinfo(line))))

    def _word(self, word: bytes) -> bytes:
        if b"?" in word:
            return self.target(word)
        return b"".join(map(self._argument, re.split(rb"([&;])", word))) if b"=" in word else word

    def _argument(self, piece: bytes) -> bytes:
        name, equals, value = piece.partition(b"=")
        if not value or unquote_plus(name.decode("latin-1")).lower() not in self._names:
            return piece
        return name + equals + MASK

    def text(self, text: str) -> str:
        """Free text (an error message) with credentials in URLs and in quoted header lines replaced by `MASK`."""
        mask = MASK.decode()
        text = self._text.sub(rf"\1{mask}", text)
        text = _TEXT_HEADER.sub(rf"\1\2{mask}", text)
        return _TEXT_USERINFO.sub(rf"\1{mask}@", text)


def configured_names(plugins: Iterable[Mapping[str, Any]]) -> set[str]:
    """Query arguments, cookies and headers that carry credentials, as the configuration names them.

    Args:
        plugins: rows.
    """
    names: set[str] = set()
    for row in plugins:
        config = row["config"]
        for field in _NAMING:
            names.update(config.get(field) or ())
        for field in ("cookie_name", "remember_cookie_name", "auth_header_name"):
            if isinstance(config.get(field), str):
                names.add(config[field])
        if row["name"] == "stream-ticket":
            names.add(config["query_name"])
        elif row["name"] == "oauth2":
            names.update(_OAUTH2_NAMES)
    return names
