"""What must not stand in a log: credentials, and characters that could forge or garble a line.

Query arguments are the usual leak: ``key-auth`` and ``jwt`` take credentials from them, OAuth puts tokens there. The
names below are hidden always; the gateway adds those that plugins are configured with (``key_names`` and the like).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_plus

__all__ = ["MASK", "SECRET_NAMES", "SecretMask", "escape", "escape_text"]

MASK = b"***"
"""What stands in place of a credential."""

SECRET_NAMES = frozenset(
    {
        "access_token", "api-key", "api_key", "apikey", "assertion", "auth", "authorization", "client_assertion",
        "client_secret", "code_verifier", "id_token", "jwt", "key", "passwd", "password", "private_key",
        "refresh_token", "secret", "session", "sig", "signature", "token", "x-api-key",
    }
)  # fmt: skip
"""Query arguments whose values are credentials, lower case."""

_UNSAFE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_UNSAFE_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_USERINFO = re.compile(rb"^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#@]*@")
_TEXT_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s?#@'\"]*:[^/\s?#@'\"]*@", re.IGNORECASE)
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
        # An argument is looked at when its name is one of ours, or may be one in disguise (apike%79).
        self._suspect = re.compile(rb"(?i)[?&;](?:(?:%s)=|[^=&;]*[%%+])" % alternatives.encode())
        self._text = re.compile(rf"(?i)([?&;](?:{alternatives})=)[^&;\s'\"]+")
        return True

    def target(self, target: bytes) -> bytes:
        """A request target or URL with credentials in its query string and userinfo replaced by `MASK`."""
        if b"@" in target:
            target = _USERINFO.sub(rb"\1" + MASK + b"@", target)
        if b"?" not in target or self._suspect.search(target) is None:
            return target
        path, _, query = target.partition(b"?")
        return path + b"?" + b"".join(map(self._argument, re.split(rb"([&;])", query)))

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
