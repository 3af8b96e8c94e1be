"""An upstream that says where it was reached: ``python address_server.py ADDRESS PORT``.

It answers each request with its address, its port, and the Host header that came.
"""

from __future__ import annotations

import asyncio
import sys


async def serve(address: str, port: int) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                host = next((line[5:].strip() for line in head.split("\r\n") if line.lower().startswith("host:")), "")
                body = f"{address} {port} {host}".encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(client, address, port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
