"""What JSON Schemas say of texts: patterns of ECMA 262 with the ``u`` flag for the rules of fields."""

from __future__ import annotations

import re

from . import typedefs as rule
from .lua_pattern import lua_pattern
from .schema import Check, String

__all__ = ["PATTERNS", "REFERENCE", "UUID_PATTERN", "patterns_of"]

UUID_PATTERN = "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"
_CHAR = "(?:[A-Za-z0-9._~:@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
_LABELS = r"[A-Za-z0-9_-]*[A-Za-z0-9_](?:\.[A-Za-z0-9_-]*[A-Za-z0-9_])*\.?"
_IPV6 = r"\[?[0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*\]?"
_PEM = "-----BEGIN"
REFERENCE = r"^\{vault://[\s\S]*\}$"
"""What a reference to a secret looks like (`kongtwist.entities.references`)."""

_TOKEN = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_ENDS = {r"\A": "^", r"\Z": "$", ".": r"[\s\S]"} | {
    f"\\{each}": f"\\x{ord(each):02x}" for each in " !\"#%&',-:;<=>@_`~"
}

PATTERNS: dict[Check, tuple[str, bool]] = {
    rule.path: (f"^(?:{_CHAR}|/)*$", True),
    rule.header_name: ("^[A-Za-z0-9_-]+$", True),
    rule.token: (r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", True),
    rule.header_value: (r"^[^\x00-\x08\x0a-\x1f\x7f]*$", True),
    rule.cookie_name: (r"^[!#-'*+.0-9A-Z^-z|~-]+$", True),
    rule.utf8_name: (r"^[^\x00-,/:-@\[-\^`{-}\x7f]*$", True),
    rule.tag: (r"^[^\x00-\x1f,/\x7f]+$", True),
    rule.sni: (f"^{_LABELS}$", False),
    rule.host: (f"^(?:{_LABELS}|{_IPV6})$", False),
    rule.host_with_optional_port: (rf"^(?:{_LABELS}(?::[0-9]+)?|\[?[0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*\]?(?::[0-9]+)?)$", False),
    rule.ip_or_cidr: ("^[0-9A-Fa-f.:]+(?:/[0-9]+)?$", False),
    rule.certificate: (_PEM, False),
    rule.key: (_PEM, False),
}  # fmt: skip
"""Rules on text: (what the text must match, whether that is all of the rule)."""

_PLAIN_PATH = f"^/(?:{_CHAR}+(?:/{_CHAR}+)*/?)?$"
"""`rule.path` that begins with a slash and has no empty segments."""


def patterns_of(field: String) -> tuple[list[str], list[str]]:
    """What a text must match, and must not."""
    attrs = field.attrs
    if rule.path in field.checks and attrs.get("starts_with") == "/" and attrs.get("match_none") == rule.SEGMENTS:
        return [_PLAIN_PATH], []
    always = [PATTERNS[check][0] for check in field.checks if check in PATTERNS]
    if "starts_with" in attrs:
        always.append(f"^{attrs['starts_with']}")
    if "match" in attrs:
        always.append(_ecma(attrs["match"]))
    always.extend(_ecma(each["pattern"]) for each in attrs.get("match_all", ()))
    if "match_any" in attrs:
        always.append("|".join(_ecma(each) for each in attrs["match_any"]["patterns"]))
    never = [_ecma(each["pattern"]) for each in attrs.get("match_none", ())]
    if "not_match" in attrs:
        never.append(_ecma(attrs["not_match"]))
    return always, never


def _ecma(pattern: str) -> str:
    """A Lua pattern for ECMA 262, which writes ends of text, any character and some escapes otherwise than Python."""
    return "".join(
        _ENDS.get(each, each) if each[0] != "[" else each for each in _TOKEN.findall(lua_pattern(pattern).pattern)
    )
