"""response-transformer: change answers' headers and JSON bodies before the client gets them. Kong 3.9 `response-transformer`.

Order of work: headers, then the body; in each of them remove, rename, replace, add, append. Only the members of the outermost
object are looked at; a name with dots is one name. A body that is no JSON object, or is compressed, passes as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..core.chain.phases import WholeBody
from ..core.chain.plugin import Plugin
from ..core.exchange import Answer, Exchange, Row
from ..core.grpc.grpc_text import is_grpc
from ..core.http.pairs import ABSENT, BodyBomb, json_text, object_of, pairs_of, set_members, split_pair
from ..entities.entity import Config
from ..entities.schema import Array, Record, String
from ..entities.typedefs import header_name, header_value
from ._once import Once

__all__ = ["LARGEST", "ResponseTransformer", "is_json"]

LARGEST = 8 * 1024 * 1024
"""Bytes of the longest JSON body that is transformed; what is longer is not let through, for it would be sent with what is to
be removed."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(
    rf'({_TOKEN})/({_TOKEN})(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"(?:[^"\\\x00-\x1f\x7f]|\\[\x00-\x7f])*"))*\Z'
)
_DECIMAL = re.compile(r"[ \t]*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t]*\Z")
_HEX = re.compile(r"[ \t]*[+-]?0[xX][0-9A-Fa-f]+[ \t]*\Z")

_PAIR = "^[^:]+:.*$"
_NOTHING_TO_SEND = frozenset((204, 205))  # a 304 has the length of the body that is not sent, which changes


_INVALID = "An invalid response was received from the upstream server"


def _untouched(status: int, kind: bytes, coding: bytes) -> str | None:
    """What an answer is whose body no rule for JSON touches, though somebody may expect that; None for others."""
    if status == 101:
        return "WebSockets"
    if kind[:17].lower() == b"text/event-stream":
        return "event streams"
    if is_grpc(kind):
        return "gRPC"
    if coding not in (b"", b"identity") and is_json(kind):
        return "compressed answers"
    return None


def is_json(content_type: bytes | None) -> bool:
    """Whether a Content-Type, which may be a list, says JSON: ``application/json`` or ``application/*+json``."""
    for each in (content_type or b"").decode("latin-1").split(","):
        found = _MEDIA_TYPE.match(each.strip())
        if found is None:
            continue
        kind, subtype = found[1].lower(), found[2].lower()
        if kind == "application" and (subtype == "json" or subtype.endswith("+json")):
            return True
    return False


def _value(text: str, kind: str | None) -> Any:
    """What a configured value becomes in JSON; `ABSENT`: nothing, the rule is skipped."""
    # Kong writes the text as JSON and takes quotes and escaped slashes away again.
    written = json.dumps(text, ensure_ascii=False).replace("/", "\\/")[1:-1] if text else "null"
    plain = written.replace('\\"', '"').replace("\\/", "/")
    if kind == "number":
        return _number(plain)
    if kind == "boolean":
        return plain == "true"
    return plain


def _number(text: str) -> Any:
    if _HEX.match(text):
        return int(text, 16)
    if not _DECIMAL.match(text):
        return ABSENT
    number = float(text)
    if number.is_integer() and abs(number) < 1e15:
        return int(number)
    return number if abs(number) != float("inf") else ABSENT


class JsonRules(NamedTuple):
    """What is done with the members of a body, in this order."""

    remove: list[str]
    rename: list[tuple[str, str]]
    replace: list[tuple[str, Any]]  #: where the member is there
    add: list[tuple[str, Any]]  #: where it is not
    append: list[tuple[str, Any]]

    @classmethod
    def of(cls, conf: Mapping[str, Any]) -> JsonRules:
        """The rules of a configuration."""
        return cls(
            [name for name, _ in pairs_of(conf["remove"]["json"])],
            [(old, new) for old, new in pairs_of(conf["rename"]["json"]) if new],
            *(_typed(conf[step]) for step in ("replace", "add", "append")),
        )

    @property
    def empty(self) -> bool:
        """There is nothing to do."""
        return not any(self)

    def transformed(self, raw: bytes) -> bytes | None:
        """A body with the rules applied; None where it is no JSON object."""
        body = object_of(raw)
        if body is None:
            return None
        for name in self.remove:
            body.pop(name, None)
        for old, new in self.rename:
            if old in body:
                value = body[old]
                body[new] = value
                del body[old]
        set_members(body, self.replace, self.add, self.append)
        return json_text(body, raw)


def _typed(step: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names and values of a step; ``json_types`` belong to them by their place."""
    kinds: list[str | None] = [*step["json_types"], *[None] * len(step["json"])]
    found = [
        (name, _value(value, kind)) for (name, value), kind in zip(map(split_pair, step["json"]), kinds, strict=False)
    ]
    return [(name, value) for name, value in found if name and value is not ABSENT]


class HeaderRules(NamedTuple):
    """What is done with fields, in this order. ``_`` in a name stands for ``-``, as in Kong."""

    remove: list[bytes]
    rename: list[tuple[bytes, bytes]]
    replace: list[tuple[bytes, bytes]]  #: where the field is there
    add: list[tuple[bytes, bytes]]  #: where it is not
    append: list[tuple[bytes, bytes]]

    @classmethod
    def of(cls, conf: Mapping[str, Any]) -> HeaderRules:
        """The rules of a configuration. A pair without a value does nothing."""
        return cls(
            [_name(name) for name, _ in pairs_of(conf["remove"]["headers"])],
            [(_name(old), _name(new)) for old, new in pairs_of(conf["rename"]["headers"]) if new],
            *(
                [(_name(name), value.encode()) for name, value in pairs_of(conf[step]["headers"]) if value]
                for step in ("replace", "add", "append")
            ),
        )

    def apply(self, exchange: Exchange, fields: Mapping[bytes, tuple[bytes, ...]]) -> None:
        """Change the answer's fields.

        Args:
            exchange: the request.
            fields: the answer's as they came, names in lower case.
        """
        for name in self.remove:
            exchange.clear_response_header(name)
        for old, new in self.rename:
            values = fields.get(old.lower())
            if values:
                _set(exchange, new, values)
                exchange.clear_response_header(old)
        for name, value in self.replace:
            if name.lower() in fields:
                exchange.set_response_header(name, value)
        for name, value in self.add:
            if name.lower() not in fields:
                exchange.set_response_header(name, value)
        for name, value in self.append:
            exchange.add_response_header(name, value)


def _name(text: str) -> bytes:
    return text.replace("_", "-").encode()


def _set(exchange: Exchange, name: bytes, values: Iterable[bytes]) -> None:
    first, *more = values
    exchange.set_response_header(name, first)
    for value in more:
        exchange.add_response_header(name, value)


def _header(pair: str) -> str | None:
    name, value = split_pair(pair)
    if header_name(name) is not None:
        return f"'{name}' is not a valid header"
    return header_value(value)


def _two_headers(pair: str) -> str | None:
    wrong = [name for name in split_pair(pair) if header_name(name) is not None]
    return f"'{wrong[0]}' is not a valid header" if wrong else None


def _strings(element: String, text: str) -> Array:
    return Array(element, required=True, default=[], text=text)


def _pairs(what: str) -> Record:
    return Record(
        {
            "json": _strings(String(match=_PAIR), f"Members of a JSON body {what}, each as name:value."),
            "json_types": _strings(
                String(one_of=["boolean", "number", "string"]),
                "Types of the values in json, by their place; without one a value is a string.",
            ),
            "headers": _strings(String(match=_PAIR, checks=(_header,)), f"Headers {what}, each as name:value."),
        },
        text=f"What is {what}.",
    )


class Transformation:
    """A configuration, ready for answers."""

    __slots__ = ("first", "headers", "json")

    def __init__(self, conf: Row) -> None:
        self.first = Once()
        self.headers = HeaderRules.of(conf)
        self.json = JsonRules.of(conf)


class ResponseTransformer(Plugin):
    """Change headers and JSON bodies of answers, the gateway's own included."""

    name = "response-transformer"
    priority = 800
    example = {"remove": {"headers": ["Server"]}, "add": {"json": ["served:true"], "json_types": ["boolean"]}}
    config = Config(
        {
            "remove": Record(
                {
                    "json": _strings(String(), "Names of members of a JSON body that are removed."),
                    "headers": _strings(String(), "Names of headers that are removed."),
                },
                text="What is removed.",
            ),
            "rename": Record(
                {
                    "json": _strings(String(match=_PAIR), "Members of a JSON body that are renamed, each as old:new."),
                    "headers": _strings(
                        String(match=_PAIR, checks=(_two_headers,)), "Headers that are renamed, each as old:new."
                    ),
                },
                text="What is renamed.",
            ),
            "replace": _pairs("replaced where they are there"),
            "add": _pairs("added where they are missing"),
            "append": _pairs("appended to what is there"),
        }
    )

    def compile(self, conf: Row, plugin: Row) -> Transformation:
        return Transformation(conf)

    def header_filter(self, exchange: Exchange, conf: Transformation) -> WholeBody | None:
        fields = exchange.answer_fields()
        conf.headers.apply(exchange, fields)
        if conf.json.empty or exchange.status in _NOTHING_TO_SEND:
            return None
        kind = b",".join(fields.get(b"content-type", ()))
        coding = b",".join(fields.get(b"content-encoding", ())).strip().lower()
        passes = _untouched(exchange.status, kind, coding)
        if passes is not None:
            if conf.first(passes):
                exchange.report(
                    f"plugin {self.name} has rules for JSON and lets the bodies of {passes} pass as they are; this is said once"
                )
            return None
        if exchange.status < 200 or not is_json(kind):
            return None
        if not is_json(b",".join(exchange.answer_fields().get(b"content-type", ()))):
            return None  # the rules above took the type away, and Kong looks again

        def transform(raw: bytes) -> bytes | Answer:
            try:
                body = conf.json.transformed(raw)
            except BodyBomb as error:
                exchange.report(f"plugin {self.name} does not let a JSON body pass that it cannot transform: {error}")
                return Answer.error(502, _INVALID)
            if body is None:
                exchange.report(f"plugin {self.name}: body transform failed: failed parsing json body")
                return raw
            return body

        def too_large() -> Answer:
            exchange.report(
                f"plugin {self.name}: the answer's body is longer than {LARGEST} bytes and cannot be transformed"
            )
            return Answer.error(502, _INVALID)

        return WholeBody(LARGEST, transform, too_large)
