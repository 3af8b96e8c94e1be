"""Records of Kafka as clients get them, and which of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ...core.chain.host_reading import FetchedPartition, TopicRecord
from ...core.rows import Row
from ...entities.json_text import parse_finite

__all__ = ["Filter", "batch", "event_encoder", "fault_of", "message_encoder", "pointer_fault"]

_MISSING = object()


def pointer_fault(text: str) -> str | None:
    """What is wrong with a JSON pointer (RFC 6901)."""
    if text and not text.startswith("/"):
        return "a JSON pointer begins with a slash"
    if any(each[:1] not in ("0", "1") for each in text.split("~")[1:]):
        return "~ is written as ~0, / inside a name as ~1"
    return None


class Filter:
    """What a record's value, JSON, has to have at one place.

    Args:
        conf: of ``config.filters``.
    """

    __slots__ = ("_equals", "_path", "_prefix")

    def __init__(self, conf: Row) -> None:
        self._path = [each.replace("~1", "/").replace("~0", "~") for each in conf["pointer"].split("/")[1:]]
        self._equals: str | None = conf.get("equals")
        self._prefix: str | None = conf.get("prefix")

    def passes(self, value: Any) -> bool:
        """Whether it has. Numbers, true, false and null are compared as JSON writes them."""
        for name in self._path:
            value = _member(value, name)
            if value is _MISSING:
                return False
        if isinstance(value, dict | list):
            return False
        text = value if isinstance(value, str) else json.dumps(value)
        return (self._equals is None or text == self._equals) and (
            self._prefix is None or text.startswith(self._prefix)
        )  # fmt: skip


def _member(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name, _MISSING)
    if isinstance(value, list) and name.isdigit() and name.isascii() and (name == "0" or name[0] != "0"):
        return value[int(name)] if len(name) < 10 and int(name) < len(value) else _MISSING
    return _MISSING


def _passes(filters: Sequence[Filter], record: TopicRecord) -> bool:
    if not filters:
        return True
    if record.error:
        return False
    try:
        value = parse_finite(record.value or b"null")
    except ValueError:
        return False
    return all(each.passes(value) for each in filters)


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "replace")


def _record(record: TopicRecord, is_json: bool) -> Row:
    """A record as JSON shows it."""
    given = None if record.error else record.value
    value: Any = _text(given)
    shown: Row = {"timestamp": record.timestamp, "offset": record.offset, "key": _text(record.key)}
    if is_json and given is not None:
        try:
            value = parse_finite(given)
        except ValueError:
            shown["error"] = "the value is no JSON"
    if record.error:
        shown["error"] = record.error
    return {**shown, "value": value, "headers": [[name, _text(each)] for name, each in record.headers]}


def fault_of(record: TopicRecord) -> str | None:
    """Why a record's value cannot be shown as JSON."""
    if record.value is not None:
        try:
            parse_finite(record.value)
        except ValueError:
            return "the value is no JSON"
    return None


def _placed(record: TopicRecord, is_json: bool) -> Row:
    return {"topic": record.topic, "partition": record.partition, **_record(record, is_json)}


def event_encoder(
    filters: Sequence[Filter], is_json: bool, whole: bool
) -> Callable[[TopicRecord], bytes | None]:  # fmt: skip
    """What makes events of records (WHATWG HTML 9.2).

    Args:
        filters: all have to pass.
        is_json: values are JSON, and stand in the record as such.
        whole: an event's data is the whole record as JSON, not its value alone.
    """

    def encode(record: TopicRecord) -> bytes | None:
        if not _passes(filters, record):
            return None
        if whole:
            return b"data: %b\n\n" % _json(_placed(record, is_json))
        if record.error:
            told = {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "error": record.error,
            }
            return b"event: unreadable\ndata: %b\n\n" % _json(told)
        value = record.value
        if value is None:
            return b"data: null\n\n"
        if not value.isascii():
            value = value.decode("utf-8", "replace").encode()
        if b"\n" not in value and b"\r" not in value:
            return b"data: %b\n\n" % value
        lines = value.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        return b"".join([b"data: %b\n" % line for line in lines]) + b"\n"

    return encode


def message_encoder(
    filters: Sequence[Filter], is_json: bool, whole: bool
) -> Callable[[TopicRecord], bytes | None]:  # fmt: skip
    """What makes messages of a WebSocket of records, each the members of a JSON object that follow its ``id``. Arguments as of
    `event_encoder`."""

    def encode(record: TopicRecord) -> bytes | None:
        if not _passes(filters, record):
            return None
        shown = _placed(record, is_json)
        return _json(shown if whole else {name: shown[name] for name in ("value", "error") if name in shown})[1:]

    return encode


def batch(partitions: Sequence[FetchedPartition], filters: Sequence[Filter], is_json: bool) -> bytes:
    """Records of one answer, by topic and partition."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for each in partitions:
        records = [_record(record, is_json) for record in each.records if _passes(filters, record)]
        end = {"high_watermark": each.end} if each.end >= 0 else {}
        shown: Row = {"errcode": 0, **end, "records": records}
        found.setdefault(each.topic, {"partitions": {}})["partitions"][str(each.partition)] = shown
    return _json(found)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
