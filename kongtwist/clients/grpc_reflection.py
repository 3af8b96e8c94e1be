"""Server reflection: a server tells its services and types (grpc.reflection.v1 and v1alpha).

Both versions are alike on the wire; the newer one is asked first. Called in a thread: the calls block.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2 as messages

from ..core.chain.host import GRPCFailed
from ..core.grpc.grpc_status import DEADLINE_EXCEEDED, INTERNAL, NOT_FOUND, UNIMPLEMENTED
from .grpc_channels import library

__all__ = ["described", "in_order"]

_VERSIONS = ("v1", "v1alpha")
_MOST_FILES = 10_000
_MOST_BYTES = 64 * 1024 * 1024
"""Of what a server tells of itself."""
_TOO_MUCH = "the server tells too much of itself"


def described(channel: Any, timeout: float) -> bytes:
    """Everything that a server tells.

    Args:
        channel: the library's.
        timeout: seconds for all of it.

    Returns:
        a FileDescriptorSet, files after those that they import.

    Raises:
        GRPCFailed: it tells something that does not fit.
        grpc.RpcError: a call failed; UNIMPLEMENTED: it does not tell.
    """
    until = time.monotonic() + timeout
    for version in _VERSIONS:
        try:
            return _Asking(channel, version, until).all_files()
        except library().RpcError as error:
            failed: Any = error
            if failed.code() is not library().StatusCode.UNIMPLEMENTED or version == _VERSIONS[-1]:
                raise
    raise GRPCFailed(UNIMPLEMENTED, "the server does not offer reflection")


class _Asking:
    """Questions to one server by one version of the service."""

    def __init__(self, channel: Any, version: str, until: float) -> None:
        self._call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            messages.ServerReflectionRequest.SerializeToString,
            messages.ServerReflectionResponse.FromString,
        )
        self._until = until
        self._files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        self._bytes = 0

    def all_files(self) -> bytes:
        """The files of all services, with what they import."""
        names = [
            each.name
            for answer in self._ask([messages.ServerReflectionRequest(list_services="")])
            for each in answer.list_services_response.service
        ]
        self._take(messages.ServerReflectionRequest(file_containing_symbol=name) for name in names)
        while missing := self._missing():
            known = len(self._files)
            self._take(messages.ServerReflectionRequest(file_by_filename=name) for name in missing)
            if len(self._files) == known:
                raise GRPCFailed(INTERNAL, f"the server imports {missing[0]} and does not tell what is in it")
        served = set(names)
        for file in self._files.values():  # a file may hold services of others
            kept = [each for each in file.service if f"{file.package}.{each.name}".lstrip(".") in served]
            del file.service[:]
            file.service.extend(kept)
        found = descriptor_pb2.FileDescriptorSet(file=in_order(self._files))
        serialised: bytes = found.SerializeToString()
        return serialised

    def _missing(self) -> list[str]:
        needed = {name for file in self._files.values() for name in file.dependency}
        return sorted(needed - set(self._files))

    def _take(self, questions: Iterable[Any]) -> None:
        for answer in self._ask(list(questions)):
            for raw in answer.file_descriptor_response.file_descriptor_proto:
                try:
                    file = descriptor_pb2.FileDescriptorProto.FromString(raw)
                except DecodeError as error:
                    raise GRPCFailed(INTERNAL, "the server tells what is no descriptor") from error
                self._files.setdefault(file.name, file)
                if len(self._files) > _MOST_FILES:
                    raise GRPCFailed(INTERNAL, _TOO_MUCH)

    def _ask(self, questions: list[Any]) -> list[Any]:
        """The answers to these questions, one each. A symbol that the server lists and does not know is passed over."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise GRPCFailed(DEADLINE_EXCEEDED, "the server took too long to tell its services")
        answers = []
        count = 0
        for answer in self._call(iter(questions), timeout=left):
            count += 1
            self._bytes += answer.ByteSize()
            if count > len(questions) or self._bytes > _MOST_BYTES:
                raise GRPCFailed(INTERNAL, _TOO_MUCH)
            if answer.HasField("error_response"):
                error = answer.error_response
                if error.error_code == NOT_FOUND:
                    continue
                raise GRPCFailed(error.error_code or INTERNAL, error.error_message)
            answers.append(answer)
        if count < len(questions):
            raise GRPCFailed(INTERNAL, "the server does not answer all that it is asked")
        return answers


def in_order(files: dict[str, descriptor_pb2.FileDescriptorProto]) -> list[descriptor_pb2.FileDescriptorProto]:
    """Files after those that they import.

    Raises:
        GRPCFailed: files import each other.
    """
    ordered: list[descriptor_pb2.FileDescriptorProto] = []
    done: set[str] = set()
    under_way: set[str] = set()
    for first in files:
        pending = [first]
        while pending:
            name = pending[-1]
            if name in done or name not in files:
                pending.pop()
                continue
            ahead = [each for each in files[name].dependency if each in files and each not in done]
            if ahead and name in under_way and any(each in under_way for each in ahead):
                raise GRPCFailed(INTERNAL, f"{name} and {ahead[0]} import each other")
            if ahead:
                under_way.add(name)
                pending.extend(ahead)
            else:
                pending.pop()
                under_way.discard(name)
                done.add(name)
                ordered.append(files[name])
    return ordered
