"""Many clients of an event stream or of a WebSocket, which read and count: ``event_readers.py PORT PATH CLIENTS [ws]``.

Prints ``open`` when all have had their first event, which only tells where they stand. A line with a number on standard input asks whether
each has had so many further ones: ``all``, or how many have not after ten seconds.
"""

from __future__ import annotations

import select
import socket
import sys
import time

PATIENCE = 120.0
MISSING = 10.0


EVENTS = "Accept: text/event-stream\r\n"
HANDSHAKE = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


def main(port: int, path: str, clients: int, websockets: bool) -> None:
    """See the module."""
    mark = b'"value":' if websockets else b"\ndata:"
    fields = HANDSHAKE if websockets else EVENTS
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    counts: dict[int, int] = {}
    begun: set[int] = set()
    asking = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n".encode()

    def read(seconds: float) -> None:
        for fd, _ in poll.poll(seconds):
            data = sockets[fd].recv(262_144)
            if not data:
                raise SystemExit("a stream has ended")
            counts[fd] += data.count(mark)
            if b"\nid:" in data or data.startswith(b"id:") or b'{"id":' in data:
                begun.add(fd)

    until = time.monotonic() + PATIENCE
    for number in range(clients):
        client = socket.create_connection(("127.0.0.1", port), 30)
        sockets[client.fileno()] = client
        counts[client.fileno()] = 0
        poll.register(client.fileno(), select.EPOLLIN)
        client.sendall(asking)
        if number % 50 == 0:
            read(0)
    while len(begun) < clients:
        if time.monotonic() > until:
            raise SystemExit(f"{clients - len(begun)} streams have not begun")
        read(0.1)
    print("open", flush=True)
    questions = select.poll()
    questions.register(sys.stdin, select.POLLIN)
    while not questions.poll(0):
        read(0.05)
    wanted = int(sys.stdin.readline())
    until = time.monotonic() + MISSING
    while (missing := sum(count < wanted for count in counts.values())) and time.monotonic() < until:
        read(0.1)
    print(missing or "all", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:] == ["ws"])
