"""JSON and protobuf: what ``google.api.http`` says of a service's methods, and messages made from requests and shown in answers.

Messages are proto3 JSON: 64-bit numbers are strings, bytes base64, enums names, well-known types what the specification says. Names
of fields are those of the .proto file and fields without a value have their default, as from Kong; requests may use either name.

Loaded when a configuration needs it: protobuf is megabytes. Nothing here waits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from .._descriptors import Descriptors
from .path_templates import BadTemplate, PathTemplate, TemplateIndex

__all__ = ["BadRequest", "Binding", "Method", "Transcoder"]

Values = Sequence[tuple[tuple[str, ...], str]]
"""Paths of fields with their values as text."""

_DETAILS = error_details_pb2.DESCRIPTOR.name
"""Loaded so that the default pool knows the types of errors' details."""

_AS_TEXT = frozenset(
    f"google.protobuf.{name}"
    for name in (
        "Timestamp", "Duration", "FieldMask", "DoubleValue", "FloatValue", "Int64Value", "UInt64Value", "Int32Value", "UInt32Value",
        "BoolValue", "StringValue", "BytesValue", "Value",
    )
)  # fmt: skip
"""Messages whose JSON is one value: they may stand in a path or a query."""
_BOOLEANS = {"true": True, "1": True, "": True, "false": False, "0": False}
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]*={0,2}").fullmatch
_NUMBER = re.compile(r"-?[0-9]{1,10}").fullmatch
_HTTP_METHOD = re.compile(r"[A-Z_-]+|\*").fullmatch
_RAW = "google.api.HttpBody"


class BadRequest(ValueError):
    """A request that no message can be made of; the text says why."""


class Method(NamedTuple):
    """A method of a service."""

    path: str  #: ``/package.Service/Method``
    input: Any  #: message class
    output: Any
    client_streaming: bool
    server_streaming: bool


class Binding:
    """A method as one HTTP method and path reach it.

    Args:
        method: the method.
        rule: the ``google.api.HttpRule``.
        template: its path.
        pool: knows all types.

    Attributes:
        body: the field that the body is; ``*``: the whole message; "": there is none.

    Raises:
        BadRequest: the rule does not fit the method's messages.
    """

    def __init__(self, method: Method, rule: Any, template: PathTemplate, pool: Any) -> None:
        self.method = method
        self.body: str = rule.body
        self._response_body: str = rule.response_body
        self._pool = pool
        self._input = method.input.DESCRIPTOR
        for path in template.variables:
            field = _field_at(self._input, path)
            if field is None or field.is_repeated or not _is_value(field):
                raise BadRequest(f"{method.path}: {'.'.join(path)} of its path is no field with one value")
        if self.body not in ("", "*") and self.body not in self._input.fields_by_name:
            raise BadRequest(f"{method.path}: its body {self.body} is no field")
        output = method.output.DESCRIPTOR
        if self._response_body and self._response_body not in output.fields_by_name:
            raise BadRequest(f"{method.path}: its response_body {self._response_body} is no field")
        shown = output.fields_by_name[self._response_body].message_type if self._response_body else output
        self._raw_answer = shown is not None and shown.full_name == _RAW

    # -- requests --------------------------------------------------------------------------------------------------------

    def request(
        self, values: Values, query: Mapping[str, Sequence[str]], body: bytes = b"", content_type: str = ""
    ) -> bytes:
        """The message of a request.

        Args:
            values: what the path gives; it is stronger than the body.
            query: arguments; those that are no field are passed over.
            body: JSON; "" where there is none. Ignored where the rule names no body.
            content_type: of the body, for a field that takes it as it is (HttpBody).

        Raises:
            BadRequest: it does not fit.
        """
        if not self.body or not body:
            return self._message(values, query, None, body=False)
        if self.body != "*" and _is_raw(self._input.fields_by_name[self.body]):
            return self._with_raw(values, query, body, content_type)
        return self._message(values, query, _json(body), body=True)

    def message(self, values: Values, query: Mapping[str, Sequence[str]], text: str | bytes) -> bytes:
        """As `request` for one of many messages: JSON of the body's field, else of the whole message. Raises BadRequest."""
        return self._message(values, query, _json(text), body=True)

    def messages(self, values: Values, query: Mapping[str, Sequence[str]], body: bytes) -> list[bytes]:
        """As `message` for all of a body: JSON values one after the other, or one array of them. Raises BadRequest."""
        found = list(_values(body))
        if len(found) == 1 and isinstance(found[0], list):
            found = found[0]
        return [self._message(values, query, each, body=True) for each in found]

    def _message(self, values: Values, query: Mapping[str, Sequence[str]], given: Any, *, body: bool) -> bytes:
        message = self.method.input()
        if body:
            self._parse({self.body: given} if self.body not in ("", "*") else given, message)
        tree: dict[str, Any] = {}
        if self.body != "*":
            self._add_query(tree, query)
        for path, text in values:
            field = _field_at(self._input, path)
            assert field is not None
            _put(tree, self._names(path), _value(field, text))
        if tree:
            self._parse(tree, message)
        try:
            serialised: bytes = message.SerializeToString()
        except Exception as error:  # a required field of proto2
            raise BadRequest(str(error)) from error
        return serialised

    def _with_raw(self, values: Values, query: Mapping[str, Sequence[str]], body: bytes, content_type: str) -> bytes:
        message = self.method.input.FromString(self._message(values, query, None, body=False))
        raw = getattr(message, self.body)
        raw.data = body
        raw.content_type = content_type
        serialised: bytes = message.SerializeToString()
        return serialised

    def _add_query(self, tree: dict[str, Any], query: Mapping[str, Sequence[str]]) -> None:
        for name, texts in query.items():
            path = tuple(name.split("."))
            field = _field_at(self._input, path)
            if field is None or _is_map(field):
                continue
            if not _is_value(field):
                raise BadRequest(f"{name} is a message: give its fields, as {name}.field")
            made = [_value(field, text) for text in texts]
            _put(tree, self._names(path), made if field.is_repeated else made[-1])

    def _names(self, path: tuple[str, ...]) -> list[str]:
        """Names of the .proto file for a path, which may have those of JSON."""
        names, descriptor = [], self._input
        for name in path:
            field = _field_of(descriptor, name)
            assert field is not None
            names.append(field.name)
            descriptor = field.message_type
        return names

    def _parse(self, tree: Any, message: Any) -> None:
        try:
            json_format.ParseDict(tree, message, ignore_unknown_fields=True, descriptor_pool=self._pool)
        except (json_format.ParseError, TypeError, ValueError, AttributeError) as error:
            if not isinstance(tree, dict):
                raise BadRequest("body must be a table") from error
            raise BadRequest(f"decode json err: {error}") from error
        except RecursionError as error:
            raise BadRequest("decode json err: nested too deeply") from error

    # -- answers ---------------------------------------------------------------------------------------------------------

    def answer(self, message: bytes) -> tuple[str, bytes]:
        """Type and body that show a message.

        Raises:
            ValueError: the message is not of the method's type.
        """
        try:
            made = self.method.output.FromString(message)
        except DecodeError as error:
            raise ValueError(f"{self.method.path} sent what is no {self.method.output.DESCRIPTOR.full_name}") from error
        if self._raw_answer:
            raw = getattr(made, self._response_body) if self._response_body else made
            return raw.content_type or "application/octet-stream", raw.data
        shown = _shown(made, self._pool)
        if self._response_body:
            shown = shown.get(self._response_body)
        return "application/json", _text(shown)

    @property
    def raw(self) -> bool:
        """Messages are bodies of their own (HttpBody)."""
        return self._raw_answer


class Transcoder:
    """The methods of some files.

    Args:
        descriptors: a FileDescriptorSet.

    Attributes:
        index: HTTP method and path -> `Binding`.
        faults: what is wrong with rules that were left out.

    Raises:
        ValueError: the descriptors do not fit together.
    """

    def __init__(self, descriptors: bytes) -> None:
        found = Descriptors(descriptors)
        self._pool = found.pool
        self.faults: list[str] = []
        self.index: TemplateIndex[Binding] = TemplateIndex(
            entry for path, declared in found.methods() for entry in self._bindings(path, declared)
        )

    def _bindings(self, path: str, declared: Any) -> Iterator[tuple[str, PathTemplate, Binding]]:
        # Options of a private pool do not know the extension; read anew they do.
        options = descriptor_pb2.MethodOptions.FromString(declared.options.SerializeToString())
        if not options.HasExtension(annotations_pb2.http):
            return
        method = Method(
            path,
            self._class(declared.input_type),
            self._class(declared.output_type),
            declared.client_streaming,
            declared.server_streaming,
        )
        rule = options.Extensions[annotations_pb2.http]
        for each in (rule, *rule.additional_bindings):
            kind = each.WhichOneof("pattern")
            if kind is None:
                self.faults.append(f"{path}: a rule without a path")
                continue
            verb, text = (each.custom.kind, each.custom.path) if kind == "custom" else (kind, getattr(each, kind))
            try:
                if kind == "custom" and _HTTP_METHOD(verb) is None:
                    raise BadRequest(f"{path}: {verb!r} is no method of HTTP")
                template = PathTemplate(text)
                yield verb if kind == "custom" else verb.upper(), template, Binding(method, each, template, self._pool)
            except (BadTemplate, BadRequest) as wrong:
                self.faults.append(str(wrong))

    def _class(self, name: str) -> Any:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name.removeprefix(".")))

    def details(self, status: bytes) -> list[Any]:
        """What ``grpc-status-details-bin`` tells beside code and message, as JSON shows it; what nobody knows is left out."""
        try:
            told = status_pb2.Status.FromString(status).details
        except DecodeError:
            return []
        found = []
        for each in told:
            for pool in (self._pool, descriptor_pool.Default()):
                try:
                    found.append(_shown(each, pool))
                except (TypeError, KeyError, ValueError, json_format.SerializeToJsonError, DecodeError):
                    continue
                break
        return found


# -- values ----------------------------------------------------------------------------------------------------------------


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"decode json err: {error}") from error


def _values(body: bytes) -> Iterator[Any]:
    """JSON values one after the other."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"decode json err: {error}") from error
    decoder, at = json.JSONDecoder(), 0
    while True:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        if at >= len(text):
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"decode json err: {error}") from error
        yield value


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _shown(message: Any, pool: Any) -> Any:
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        descriptor_pool=pool,
    )


def _field_of(descriptor: Any, name: str) -> Any:
    """The field of a message by the name of the .proto file or of JSON; None: it has none."""
    if descriptor is None:
        return None
    return (
        descriptor.fields_by_name.get(name)
        or descriptor.fields_by_camelcase_name.get(name)
        or next((field for field in descriptor.fields if field.json_name == name), None)
    )


def _field_at(descriptor: Any, path: Sequence[str]) -> Any:
    """The field that a path leads to through single messages; None: none."""
    field = None
    for name in path:
        if field is not None and (field.is_repeated or field.message_type is None):
            return None
        field = _field_of(descriptor, name)
        if field is None:
            return None
        descriptor = field.message_type
    return field


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_raw(field: Any) -> bool:
    return field.message_type is not None and field.message_type.full_name == _RAW


def _is_value(field: Any) -> bool:
    """Whether one text can be its value."""
    return field.message_type is None or field.message_type.full_name in _AS_TEXT


def _value(field: Any, text: str) -> Any:
    """A text as the JSON of a field. Raises BadRequest."""
    boolean = field.message_type is not None and field.message_type.full_name == "google.protobuf.BoolValue"
    if boolean or field.type == FieldDescriptor.TYPE_BOOL:
        known = _BOOLEANS.get(text)
        if known is None:
            raise BadRequest(f"{field.name} is true or false, not {text!r}")
        return known
    if field.type == FieldDescriptor.TYPE_BYTES:
        text = text.replace(" ", "+")  # as "+" of base64 reads in a query
        if _BASE64(text) is None:
            raise BadRequest(f"{field.name} is base64, not {text!r}")
    elif field.enum_type is not None and text not in field.enum_type.values_by_name and _NUMBER(text) is None:
        raise BadRequest(f"{field.name} is none of the values of {field.enum_type.name}: {text!r}")
    return text


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value in a tree of objects."""
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise BadRequest(f"{name} is given as a whole and in parts")
    tree[path[-1]] = value
