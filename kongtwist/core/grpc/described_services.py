"""What a FileDescriptorSet says of services, as JSON shows it."""

from __future__ import annotations

from typing import Any

__all__ = ["described_services"]

_KINDS = {
    (False, False): "unary",
    (False, True): "server_stream",
    (True, False): "client_stream",
    (True, True): "bidi_stream",
}
"""Whether the client, and whether the server, sends many messages."""


def described_services(descriptors: bytes) -> list[dict[str, Any]]:
    """The services that are described, by name.

    Args:
        descriptors: a ``google.protobuf.FileDescriptorSet``.

    Raises:
        ValueError: they are none.
    """
    from google.protobuf.descriptor_pb2 import FileDescriptorSet  # megabytes, for who asks
    from google.protobuf.message import DecodeError

    try:
        files = FileDescriptorSet.FromString(descriptors).file
    except DecodeError as error:
        raise ValueError("these are no descriptors") from error
    found = []
    for file in files:
        for service in file.service:
            name = f"{file.package}.{service.name}" if file.package else service.name
            found.append({"name": name, "methods": [_method(name, each) for each in service.method]})
    return sorted(found, key=lambda service: str(service["name"]))


def _method(service: str, method: Any) -> dict[str, Any]:
    return {
        "name": method.name,
        "path": f"/{service}/{method.name}",
        "request": method.input_type.removeprefix("."),
        "response": method.output_type.removeprefix("."),
        "kind": _KINDS[method.client_streaming, method.server_streaming],
        "client_streaming": method.client_streaming,
        "server_streaming": method.server_streaming,
    }
