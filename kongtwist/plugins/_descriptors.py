"""Descriptors of protobuf as plugins load them: a pool that knows all types, and the methods that are declared.

Loaded when a configuration needs it: protobuf is megabytes. Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError

__all__ = ["Descriptors"]


class Descriptors:
    """Some files.

    Args:
        serialised: a FileDescriptorSet, files after those that they import.

    Attributes:
        pool: a DescriptorPool of its own, that knows their types.

    Raises:
        ValueError: these are none, or they do not fit together.
    """

    def __init__(self, serialised: bytes) -> None:
        try:
            self._files = descriptor_pb2.FileDescriptorSet.FromString(serialised).file
        except DecodeError as error:
            raise ValueError("these are no descriptors") from error
        self.pool: Any = descriptor_pool.DescriptorPool()
        try:
            for file in self._files:
                self.pool.Add(file)
        except TypeError as error:
            raise ValueError(f"its descriptors do not fit together: {error}") from error

    def methods(self) -> Iterator[tuple[str, Any]]:
        """(``/package.Service/Method``, its MethodDescriptorProto) each, in the order of the files."""
        for file in self._files:
            for service in file.service:
                name = f"{file.package}.{service.name}" if file.package else service.name
                for method in service.method:
                    yield f"/{name}/{method.name}", method
