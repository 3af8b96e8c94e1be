"""What a request's body gives as declarative configuration (Kong 3.9, ``kong/api/routes/config.lua``)."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from ...entities.json_text import parse_json
from ...entities.multipart import parts
from .text import read_tree, unreadable

__all__ = ["FORM", "JSON", "MULTIPART", "YAML", "BadGiven", "tree_in"]

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
YAML = ("application/yaml", "text/yaml")


class BadGiven(Exception):
    """A body that holds no configuration; the argument says so."""


def tree_in(raw: bytes, content_type: str) -> tuple[dict[str, Any], bool]:
    """The configuration's tree, and whether it was given as text (then Kong compares hashes of it).

    Args:
        raw: the body: JSON with a text in ``config`` or with the configuration itself, a form or multipart body with the
            text in ``config``, or the text.
        content_type: the header; a type that is none of the above means the text.

    Raises:
        EntityError: code 14; the configuration cannot be read.
        BadGiven: there is none.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if not raw:
        raise BadGiven("expected a declarative configuration")
    if kind == JSON:
        return _in_json(raw)
    if kind in (FORM, MULTIPART):
        text = _form_field(raw) if kind == FORM else _multipart_field(raw, content_type)
        if text is None:
            raise BadGiven("expected a declarative configuration")
        return read_tree(text), True
    return read_tree(raw), True


def _in_json(raw: bytes) -> tuple[dict[str, Any], bool]:
    try:
        found = parse_json(raw)
    except ValueError:
        raise BadGiven("Cannot parse JSON body") from None
    if not isinstance(found, dict):
        raise BadGiven("Cannot parse JSON body")
    text = found.get("config")
    if "_format_version" in found or text is None:
        return found, "_format_version" not in found
    if not isinstance(text, str):
        raise unreadable("expected a string in 'config'")
    return read_tree(text), True


def _form_field(raw: bytes) -> str | None:
    pairs = parse_qsl(raw.decode("utf-8", "surrogateescape"), keep_blank_values=True)
    return next((value for name, value in pairs if name == "config" and value), None)


def _multipart_field(raw: bytes, content_type: str) -> bytes | None:
    try:
        return next((part.data or None for part in parts(content_type, raw) if part.name == "config"), None)
    except ValueError:
        return None
