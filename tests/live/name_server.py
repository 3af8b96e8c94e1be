"""A name server that does what it is told: ``python -m tests.live.name_server ADDRESS PORT CONTROL``.

It answers over UDP and TCP at ADDRESS:PORT. On CONTROL it takes ``POST /zone`` (a table) and answers ``GET /asked`` with the questions
that came so far. The table has, for ``A a.test``, an object; names that are in it have no other kinds of records, others are not there
(NXDOMAIN). Its members, none of which is needed:

- ``records``, ``additional``: see `tests.dns_replies.reply_to`.
- ``code``: of the response.
- ``delay``: seconds it takes.
- ``drop``: no answer, always; over UDP only where it is ``udp``.
- ``truncated``: over UDP, nothing but the word that there is more.
- ``forged``: answers with other ids, and other addresses, come first.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from typing import Any

from tests.dns_replies import Query, read_query, reply_to


class NameServer(asyncio.DatagramProtocol):
    """What it knows, and what came."""

    def __init__(self) -> None:
        self.zone: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self.transport: Any = None

    def answers(self, query: Query, tcp: bool) -> tuple[list[bytes], float]:
        """What is sent, and seconds until then."""
        name = query.name.lower()
        found = self.zone.get(f"{query.kind} {name}")
        if found is None:
            known = any(each.partition(" ")[2] == name for each in self.zone)
            return [reply_to(query, code="NOERROR" if known else "NXDOMAIN")], 0
        drop = found.get("drop")
        if drop is True or (drop == "udp" and not tcp):
            return [], 0
        records, code = found.get("records", []), found.get("code", "NOERROR")
        answers = [reply_to(query, records, code, additional=found.get("additional", []))]
        if found.get("truncated") and not tcp:
            answers = [reply_to(query, truncated=True)]
        if found.get("forged"):
            forged = [[name, "A", 60, "127.0.0.66"]]
            answers = [reply_to(query, forged, number=(query.number + more) % 65536) for more in range(1, 20)] + answers
        return answers, found.get("delay", 0)

    def note(self, query: Query, tcp: bool, peer: Any) -> None:
        self.asked.append(
            {"question": f"{query.kind} {query.name.lower()}", "tcp": tcp, "port": peer[1], "id": query.number}
        )

    # -- UDP -----------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = read_query(data)
        self.note(query, False, addr)
        answers, delay = self.answers(query, False)
        for answer in answers:
            asyncio.get_running_loop().call_later(delay, self.transport.sendto, answer, addr)

    # -- TCP -----------------------------------------------------------------------------------------------------------

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = struct.unpack("!H", await reader.readexactly(2))[0]
                query = read_query(await reader.readexactly(size))
                self.note(query, True, writer.get_extra_info("peername"))
                answers, delay = self.answers(query, True)
                await asyncio.sleep(delay)
                for answer in answers[-1:]:
                    writer.write(struct.pack("!H", len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    # -- control -------------------------------------------------------------------------------------------------------

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.read(1)).decode()
        if not head:  # somebody looks whether we listen
            writer.close()
            return
        head += (await reader.readuntil(b"\r\n\r\n")).decode()
        if head.startswith("POST /zone"):
            length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length:"))
            self.zone = json.loads(await reader.readexactly(int(length.split(":")[1])))
            self.asked.clear()
        body = json.dumps(self.asked).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()


async def serve(address: str, port: int, control: int) -> None:
    server = NameServer()
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: server, (address, port))
    await asyncio.start_server(server.client, address, port)
    await asyncio.start_server(server.control, "127.0.0.1", control)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
