"""What descriptors say of methods, and their messages as JSON: proto3 JSON, names in lowerCamelCase, as Connect has it.

Loaded when a configuration needs it: protobuf is megabytes. Nothing here waits.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.message import DecodeError

from .._descriptors import Descriptors

__all__ = ["MethodCodec", "Methods"]


class MethodCodec:
    """One method, and its messages.

    Args:
        declared: its MethodDescriptorProto.
        pool: knows all types.

    Attributes:
        client_streaming: the client may send any number of messages; else one.
        safe: it changes nothing (``idempotency_level`` NO_SIDE_EFFECTS), and may be called by GET.
    """

    def __init__(self, declared: Any, pool: Any) -> None:
        self._pool = pool
        self._input = declared.input_type.removeprefix(".")
        self._output = declared.output_type.removeprefix(".")
        self.client_streaming: bool = declared.client_streaming
        self.safe: bool = declared.options.idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS

    def request(self, message: bytes) -> bytes:
        """A request's message of JSON as protobuf. Raises ValueError, whose text is for the client."""
        made = self._class(self._input)()
        try:
            if message:
                json_format.Parse(message, made, ignore_unknown_fields=True, descriptor_pool=self._pool)
            serialised: bytes = made.SerializeToString()
        except (json_format.ParseError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"unmarshal message: {error}") from error
        except RecursionError as error:
            raise ValueError("unmarshal message: nested too deeply") from error
        return serialised

    def answer(self, message: bytes) -> bytes:
        """An answer's message as JSON. Raises ValueError: it is none of the method's."""
        try:
            made = self._class(self._output).FromString(message)
            found = json_format.MessageToDict(made, descriptor_pool=self._pool)
        except (DecodeError, TypeError, json_format.Error) as error:
            raise ValueError("the answer is no message of the method's type") from error
        return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")

    def _class(self, name: str) -> Any:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))


class Methods:
    """The methods of some files.

    Args:
        descriptors: a FileDescriptorSet.

    Attributes:
        faults: what is wrong with parts that were left out; nothing is.

    Raises:
        ValueError: the descriptors do not fit together.
    """

    def __init__(self, descriptors: bytes) -> None:
        found = Descriptors(descriptors)
        self.faults: list[str] = []
        self._methods = {path.encode(): MethodCodec(declared, found.pool) for path, declared in found.methods()}

    def find(self, path: bytes) -> MethodCodec | None:
        """The method with this path, ``/package.Service/Method``; None: there is none."""
        return self._methods.get(path)
