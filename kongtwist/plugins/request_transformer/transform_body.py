"""request-transformer's rules on bodies: JSON objects, forms and multipart forms (RFC 7578), each in its own encoding."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...core.http.pairs import ABSENT, is_truthy, json_text, object_of, pairs_of, set_members
from ...core.http.query import Arguments, join_arguments, parse_arguments

__all__ = ["Rules", "body_transformer", "transform_arguments"]

_BOUNDARY = re.compile(rb'boundary="?([^";,\s]{1,70})"?', re.IGNORECASE)
_DISPOSITION = re.compile(rb'^(content-disposition:[^\r\n]*?;\s*name=")([^"\r\n]*)(")', re.IGNORECASE | re.MULTILINE)


class Rules(NamedTuple):
    """What is done with the members of a body, or with arguments, in this order."""

    remove: list[str]
    rename: list[tuple[str, str]]
    replace: list[tuple[str, str]]  #: where the member is there
    add: list[tuple[str, str]]  #: where it is not
    append: list[tuple[str, str]]

    @classmethod
    def of(cls, conf: Mapping[str, Any], place: str) -> Rules:
        """The rules of a configuration for ``body`` or ``querystring``."""
        steps = ("rename", "replace", "add", "append")
        return cls([name for name, _ in pairs_of(conf["remove"][place])], *(pairs_of(conf[s][place]) for s in steps))

    @property
    def empty(self) -> bool:
        """There is nothing to do."""
        return not any(self)


def body_transformer(content_type: bytes | None) -> Callable[[Rules, bytes, bytes], bytes | None] | None:
    """What transforms a body of this type; None for types that are left alone."""
    kind = (content_type or b"").lower()
    if b"application/json" in kind:
        return _transform_json
    if b"multipart/form-data" in kind:
        return _transform_multipart
    if b"application/x-www-form-urlencoded" in kind:
        return _transform_form
    return None


# -- JSON ----------------------------------------------------------------------------------------------------------------


def _transform_json(rules: Rules, raw: bytes, content_type: bytes) -> bytes | None:
    """The object with the rules applied; None where nothing was changed or the body is no object. An empty body counts
    as an empty object for what is added and appended."""
    body: dict[str, Any] | None = object_of(raw) if raw else {}
    if body is None:
        return None
    changed = False
    if raw:
        changed = bool(rules.remove)
        for name in rules.remove:
            body.pop(name, None)
        for old, new in rules.rename:
            if old != new and is_truthy(body.get(old, ABSENT)):
                body[new] = body.pop(old)
                changed = True
    changed |= set_members(body, rules.replace if raw else (), rules.add, rules.append)
    return json_text(body, raw) if changed else None


# -- forms and query strings ---------------------------------------------------------------------------------------------


def transform_arguments(rules: Rules, arguments: Arguments, filled: bool = True) -> bool:
    """Apply rules to arguments in place.

    Args:
        rules: the rules.
        arguments: decoded.
        filled: False for an empty body, of which nothing can be removed, renamed or replaced.

    Returns:
        whether there was anything to do.
    """
    changed = False
    if filled:
        changed = bool(rules.remove)
        for name in rules.remove:
            arguments.pop(_bytes(name), None)
        for old, new in rules.rename:
            if old != new and (values := arguments.pop(_bytes(old), None)) is not None:
                arguments[_bytes(new)] = values
                changed = True
        for name, value in rules.replace:
            if _bytes(name) in arguments:
                arguments[_bytes(name)] = [_bytes(value)]
                changed = True
    for name, value in rules.add:
        if _bytes(name) not in arguments:
            arguments[_bytes(name)] = [_bytes(value)]
            changed = True
    for name, value in rules.append:
        # An argument without "=" has no value to keep.
        kept = [each for each in arguments.get(_bytes(name), ()) if each is not None]
        arguments[_bytes(name)] = [*kept, _bytes(value)]
        changed = True
    return changed


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # what a template has found need not be UTF-8
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _transform_form(rules: Rules, raw: bytes, content_type: bytes) -> bytes | None:
    arguments = parse_arguments(raw)
    return join_arguments(arguments) if transform_arguments(rules, arguments, bool(raw)) else None


# -- multipart -------------------------------------------------------------------------------------------------------------


def _transform_multipart(rules: Rules, raw: bytes, content_type: bytes) -> bytes | None:
    """The form with the rules applied, but for ``append``, which Kong does not have here. Parts that stay are kept byte
    for byte; one that is renamed keeps its other fields and its content."""
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return None
    delimiter = b"\r\n--" + boundary[1]
    # A delimiter is at the start of a line (RFC 2046 5.1.1); the first may be the very beginning.
    preamble, *parts = (b"\r\n" + raw).split(delimiter) if raw else [b""]
    if raw and not (parts and parts[-1].startswith(b"--")):
        return None  # the end is missing: what is not whole is not written anew
    tail = parts.pop() if parts else b"--\r\n"
    changed = False
    if raw:
        for old, new in rules.rename:
            if old != new and any(_part_name(part) == _bytes(old) for part in parts):
                parts = [part for part in parts if _part_name(part) != _bytes(new)]
                parts = [_renamed(part, _bytes(old), _bytes(new)) for part in parts]
                changed = True
        changed = changed or bool(rules.remove)
        gone = {_bytes(name) for name in rules.remove}
        parts = [part for part in parts if _part_name(part) not in gone]
        for name, value in rules.replace:
            if any(_part_name(part) == _bytes(name) for part in parts):
                parts = [part for part in parts if _part_name(part) != _bytes(name)] + [_part(name, value)]
                changed = True
    for name, value in rules.add:
        if not any(_part_name(part) == _bytes(name) for part in parts):
            parts.append(_part(name, value))
            changed = True
    return delimiter.join([preamble, *parts, tail])[2:] if changed else None


def _part_name(part: bytes) -> bytes | None:
    head, separator, _ = part.partition(b"\r\n\r\n")
    found = _DISPOSITION.search(head) if separator else None
    return found[2] if found else None


def _renamed(part: bytes, old: bytes, new: bytes) -> bytes:
    if _part_name(part) != old:
        return part
    return _DISPOSITION.sub(lambda found: found[1] + _quotable(new) + found[3], part, count=1)


def _part(name: str, value: str) -> bytes:
    return b'\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b' % (_quotable(_bytes(name)), _bytes(value))


def _quotable(name: bytes) -> bytes:
    """A name as it stands between quotes (WHATWG HTML, multipart/form-data)."""
    return name.replace(b'"', b"%22").replace(b"\r", b"%0D").replace(b"\n", b"%0A")
