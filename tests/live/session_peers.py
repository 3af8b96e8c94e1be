"""Servers for sessions of stream routes, run by the tests in processes of their own: ``python session_peers.py KIND PORT``.

- ``echo``: sends back what comes, ends when the client has ended; says its own name first where one is given.
- ``source``: sends a million bytes and resets.
- ``hold``: accepts, and reads nothing.
- ``dns``: a DNS server over UDP (twisted.names) that knows ``stream.test`` as 192.0.2.53.
- ``datagrams``: sends back each datagram with its name, and from which port it came.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time


def _echo(connection: socket.socket, name: bytes) -> None:
    with connection:
        if name:
            connection.sendall(name + b"\n")
        try:
            while data := connection.recv(1 << 16):
                connection.sendall(data)
        except OSError:
            pass


def _source(connection: socket.socket, name: bytes) -> None:
    with connection:
        connection.recv(1)
        connection.sendall(b"x" * 1_000_000)
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _hold(connection: socket.socket, name: bytes) -> None:
    with connection:
        time.sleep(600)


def _serve(kind: str, port: int, name: bytes) -> None:
    call = {"echo": _echo, "source": _source, "hold": _hold}[kind]
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=call, args=(connection, name), daemon=True).start()


def _datagrams(port: int, name: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
        while True:
            data, address = sock.recvfrom(65535)
            sock.sendto(b"%b %d %b" % (name, address[1], data), address)


def _dns(port: int) -> None:
    from twisted.internet import reactor
    from twisted.names import dns, server
    from twisted.names.common import ResolverBase

    class Names(ResolverBase):
        def _lookup(self, name, cls, type, timeout):  # type: ignore[no-untyped-def]
            from twisted.internet.defer import fail, succeed
            from twisted.names.error import DomainError

            if name == b"stream.test" and type == dns.A:
                answer = dns.RRHeader(name, dns.A, dns.IN, 60, dns.Record_A("192.0.2.53", 60))
                return succeed(([answer], [], []))
            return fail(DomainError(name))

    reactor.listenUDP(  # type: ignore[attr-defined]
        port, dns.DNSDatagramProtocol(server.DNSServerFactory(clients=[Names()])), interface="127.0.0.1"
    )
    reactor.run()


if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    name = sys.argv[3].encode() if len(sys.argv) > 3 else b""
    if kind == "dns":
        _dns(port)
    elif kind == "datagrams":
        _datagrams(port, name)
    else:
        _serve(kind, port, name)
