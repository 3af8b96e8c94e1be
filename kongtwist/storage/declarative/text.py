"""The text of a declarative file as a tree of what JSON knows: YAML by libyaml's parser, JSON by Python's.

The tree is made from libyaml's events at once, without the tree of nodes that PyYAML's loaders make in between: half the
time and a third of the memory. Scalars without quotes mean what they mean to Kong's and decK's readers (YAML 1.1 with the
numbers of 1.2): dates stay text, and so do ``1:30`` and ``08``.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import yaml

from ...entities import EntityError

__all__ = ["MAX_DEPTH", "plain_scalar", "read_tree", "unreadable"]

MAX_DEPTH = 200
"""Levels of lists and records inside each other."""

LEAST_VALUES = 100_000
"""Values that a file may come to by its aliases (``*name``), however short it is; a longer file may come to as many as it
has bytes. Without a bound a few lines of aliases of aliases would fill all memory."""

MOST_DIGITS = 1000
"""Digits of the longest integer; a longer one stays text."""

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_NUMERIC = frozenset("+-.0123456789")
_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_TAG = "tag:yaml.org,2002:"
_CONTAINER_TAGS = frozenset(_TAG + name for name in ("map", "seq", "set", "omap", "pairs"))
_MERGE: Any = object()
"""The name of what is merged into a record: ``<<`` without quotes."""

_OPEN: Any = object()
"""Stands for what an anchor names while that is not complete."""


def read_tree(text: str | bytes) -> dict[str, Any]:
    """A file's tree.

    Args:
        text: YAML or JSON, UTF-8 when bytes.

    Raises:
        EntityError: code 14, with the place of the fault where there is one.
    """
    try:
        if text[:1] in ("{", b"{") or text.lstrip()[:1] in ("{", b"{"):
            try:
                found = json.loads(text)
                if isinstance(found, dict):
                    return found
            except ValueError:
                pass  # YAML may begin with a brace too, and its faults are told with their place
        data = _from_yaml(text)
    except yaml.MarkedYAMLError as error:
        raise unreadable(_placed(error, text)) from error
    except (ValueError, OverflowError, yaml.YAMLError) as error:
        raise unreadable(" ".join(str(error).split())) from error
    except RecursionError:
        raise unreadable("nested too deeply") from None
    if not isinstance(data, dict):
        raise unreadable("expected an object")
    return data


def _placed(error: yaml.MarkedYAMLError, text: str | bytes) -> str:
    """A fault with its place: line and column from 1; for what is missing at the end, those of the last character."""
    mark = error.problem_mark
    if mark is None:
        return str(error)
    lines = text.splitlines() or [""]
    line, column = (mark.line + 1, mark.column + 1) if mark.line < len(lines) else (len(lines), len(lines[-1]))
    return f"{line}:{column}: {error.problem}"


def unreadable(why: str) -> EntityError:
    """The refusal of a text that is no tree."""
    return EntityError.declarative({"error": f"failed parsing declarative configuration: {why}"})


def plain_scalar(value: str) -> Any:
    """What a scalar without quotes means."""
    if value in _WORDS:
        return _WORDS[value]
    if value[0] not in _NUMERIC:
        return value
    try:
        if _INTEGER.match(value):
            return _integer(value.replace("_", ""))
        if _FLOAT.match(value):
            return float(value)
    except ValueError:
        return value  # more digits than are read
    return float(value.replace(".", "")) if _SPECIAL.match(value) else value


def _integer(value: str) -> int:
    """Raises ValueError for one that could be read, but not written: the bound on digits in ``int`` is for decimal ones alone."""
    digits = value.lstrip("+-")
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"more than {MOST_DIGITS} digits")
    if digits[:2] in ("0b", "0o", "0x") or len(digits) == 1 or digits[0] != "0":
        return int(value, 0)
    return int(value, 8)


class _Builder:
    """Builds the tree from events.

    Attributes:
        values: how many values the tree has so far, those of aliases counted each time.
        most: how many it may have.
    """

    def __init__(self, most: int) -> None:
        self.most, self.values = most, 0
        self.root: Any = None
        self._stack: list[tuple[Any, str | None, str | None, int]] = []
        self._here: Any = None
        self._name: str | None = None
        self._anchors: dict[str, tuple[Any, int]] = {}

    def put(self, value: Any) -> None:
        """A value of the list or record that is open."""
        here = self._here
        self.values += 1
        if here.__class__ is dict:
            here[self._name] = value
            self._name = None
        elif here is None:
            self.root = value
        else:
            here.append(value)

    def scalar(self, event: Any) -> None:
        if self._name is None and self._here.__class__ is dict:
            self._key(event)
            return
        tag = event.tag
        if tag is None:
            value = plain_scalar(event.value) if event.implicit[0] else event.value
        elif tag == "!":
            value = event.value
        else:
            value = _tagged(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        self.put(value)

    def _key(self, event: Any) -> None:
        self._name = _MERGE if event.value == "<<" and event.implicit[0] else event.value
        if event.anchor is not None:
            self._anchors[event.anchor] = (event.value, 1)

    def begin(self, event: Any, container: Any) -> None:
        """A list or record opens."""
        if self._name is None and self._here.__class__ is dict:
            raise _fault(event, "a list or record cannot be the name of a member")
        if event.tag is not None and event.tag != "!" and event.tag not in _CONTAINER_TAGS:
            raise _fault(event, f"could not determine a constructor for the tag {event.tag!r}")
        if len(self._stack) >= MAX_DEPTH:
            raise _fault(event, "nested too deeply")
        self.put(container)
        self._stack.append((self._here, self._name, event.anchor, self.values))
        self._here, self._name = container, None
        if event.anchor is not None:
            self._anchors[event.anchor] = (_OPEN, 0)

    def end(self, event: Any) -> None:
        """It closes."""
        container = self._here
        self._here, self._name, anchor, before = self._stack.pop()
        if container.__class__ is dict and _MERGE in container:
            self._merge(event, container)
        if anchor is not None:
            self._anchors[anchor] = (container, self.values - before + 1)

    def _merge(self, event: Any, container: dict[str, Any]) -> None:
        """Members of ``<<`` for those that the record does not have itself."""
        sources = container.pop(_MERGE)
        for source in sources if isinstance(sources, list) else [sources]:
            if not isinstance(source, dict):
                raise _fault(event, "expected a record, or a list of records, for merging")
            for name, value in source.items():
                container.setdefault(name, value)

    def alias(self, event: Any) -> None:
        found = self._anchors.get(event.anchor)
        if found is None:
            raise _fault(event, f"found undefined alias {event.anchor!r}")
        value, size = found
        if value is _OPEN:
            raise _fault(event, "nested too deeply: an alias inside of what it stands for")
        if self._name is None and self._here.__class__ is dict:
            if not isinstance(value, str):
                raise _fault(event, "a list or record cannot be the name of a member")
            self._name = value
            return
        self.values += size - 1
        if self.values > self.most:
            raise _fault(event, f"its aliases come to more than {self.most} values")
        self.put(value)


def _from_yaml(text: str | bytes) -> Any:
    loader = getattr(yaml, "CSafeLoader", None)
    if loader is None:  # the pure Python parser takes a minute where this one takes two seconds
        raise unreadable("PyYAML was installed without libyaml; install a build of it that has CSafeLoader")
    source = loader(text)
    builder = _Builder(max(LEAST_VALUES, len(text)))
    next_event = source.get_event
    act: dict[type, Callable[[Any], None]] = {
        yaml.ScalarEvent: builder.scalar,
        yaml.AliasEvent: builder.alias,
        yaml.MappingStartEvent: lambda event: builder.begin(event, {}),
        yaml.SequenceStartEvent: lambda event: builder.begin(event, []),
        yaml.MappingEndEvent: builder.end,
        yaml.SequenceEndEvent: builder.end,
    }
    documents = 0
    try:
        while (event := next_event()) is not None:
            kind = event.__class__
            if kind in act:
                act[kind](event)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise _fault(event, "expected a single document, found another one")
            elif kind is yaml.StreamEndEvent:
                break
    finally:
        source.dispose()
    return builder.root


def _tagged(event: Any) -> Any:
    """A scalar whose type is written (``!!str 1``)."""
    tag, value = event.tag, event.value
    kind = tag.removeprefix(_TAG)
    if kind in ("str", "timestamp", "value"):
        return value
    if kind == "binary":
        try:
            return b64decode("".join(value.split()), validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            raise _fault(event, "failed to decode base64 data") from None
    if kind in ("null", "bool", "int", "float"):
        found = plain_scalar(value)
        wanted: Any = {"null": type(None), "bool": bool, "int": int, "float": (int, float)}[kind]
        if isinstance(found, wanted) and (kind == "bool" or not isinstance(found, bool)):
            return float(found) if kind == "float" else found
        raise _fault(event, f"expected a value of type {kind}")
    raise _fault(event, f"could not determine a constructor for the tag {tag!r}")


def _fault(event: Any, why: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=why, problem_mark=event.start_mark)
