"""An HTTP server that log plugins send to: ``python collector.py PORT FILE [MODE [CERTIFICATE KEY]]``.

Every request becomes a line of JSON in FILE: method, path, headers, body. MODE is a file whose text is looked at for each request:
``500`` refuses, ``slow`` answers after a minute, anything else takes what comes.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path

from aiohttp import web


def main(port: str, path: str, mode: str = "", certificate: str = "", key: str = "") -> None:
    """Serve until killed."""

    async def take(request: web.Request) -> web.Response:
        text = Path(mode).read_text(encoding="utf-8").strip() if mode and Path(mode).exists() else ""
        body = (await request.read()).decode()
        if text == "slow":
            await asyncio.sleep(60)
        if text == "500":
            return web.Response(status=500, text="not now")
        headers = {name.lower(): value for name, value in request.headers.items()}
        told = {"method": request.method, "path": request.path_qs, "headers": headers, "body": body}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
        return web.Response(status=204)

    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", take)
    web.run_app(application, host="127.0.0.1", port=int(port), print=None, ssl_context=context)


if __name__ == "__main__":
    main(*sys.argv[1:])
