"""A "server" for the Connect conformance suite that is a gateway in front of one: ``connectconformance --mode server ... --
python conformance_server.py ADMIN_PORT PROXY_PORT SERVER``.

The suite writes a ``ServerCompatRequest`` to standard input, 4 bytes of length before it, and reads a ``ServerCompatResponse`` with host
and port (connectrpc/conformance/v1/server_compat.proto). We pass the request on to SERVER, have the gateway's service
``conformance`` point at the port that it tells, and tell the gateway's.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.live.support import request

HOST, PORT = 1, 2
"""Numbers of the fields of a ServerCompatResponse."""


AS_GRPC = b"\x08\x02\x10\x02"
"""Added to a ServerCompatRequest: protocol gRPC, HTTP/2. Of a field that comes twice the last one counts: whatever the suite speaks,
the server hears gRPC."""


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a message's fields, of those that are numbers, text or bytes."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(message):
        key = number()
        size = number()
        if key & 7:
            yield key >> 3, message[place : place + size]
            place += size
        else:
            yield key >> 3, size


def framed(message: bytes) -> bytes:
    """A message with its length before it."""
    return struct.pack(">I", len(message)) + message


def main(admin: int, proxy: int, server: str) -> None:
    """Stand between the suite and the server until the suite ends us."""
    (size,) = struct.unpack(">I", sys.stdin.buffer.read(4))
    asked = sys.stdin.buffer.read(size) + AS_GRPC
    with subprocess.Popen([server], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as behind:
        assert behind.stdin is not None and behind.stdout is not None
        try:
            behind.stdin.write(framed(asked))
            behind.stdin.flush()
            (size,) = struct.unpack(">I", behind.stdout.read(4))
            told = dict(fields(behind.stdout.read(size)))
            answer = request(admin, "PATCH", "/services/conformance", json={"port": told[PORT]})
            if answer.status != 200:
                raise SystemExit(f"the Admin API refused: {answer}")
            host = b"127.0.0.1"
            sys.stdout.buffer.write(
                framed(bytes((HOST << 3 | 2, len(host))) + host + bytes((PORT << 3,)) + varint(proxy))
            )
            sys.stdout.buffer.flush()
            behind.wait()
        finally:
            behind.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
