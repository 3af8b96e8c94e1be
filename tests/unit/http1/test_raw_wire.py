"""What Kong answers to raw bytes (recorded), whole and cut in two at every position."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Answer, Exchange
from tests.places import CONTRACT

from ..proxy.relay_kit import Gateway, plugin_row

RECORDED: dict[str, Any] = {case["name"]: case for case in json.loads((CONTRACT / "07-raw-wire.json").read_text())}

ELSEWHERE = {
    "h2-preface": "HTTP/2 is not built yet",
    "ws-handshake": "tests of WebSocket routes",
    "plain-to-tls-port": "a TLS listener's answer (tests/live)",
    "admin-bad-line": "the Admin API's listener (tests/live/test_admin_door.py)",
    "admin-long-uri": "the Admin API's listener (tests/live/test_admin_door.py)",
}
DEVIATIONS = {
    case["case"].removeprefix("raw-wire/")
    for case in json.loads((CONTRACT / "deviations.json").read_text())
    if case["case"].startswith("raw-wire/")
}
LONG = {
    # The recordings were cut off; these are the bytes that were sent.
    "long-uri": b"GET /st/" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "long-hdr": b"GET /st/x HTTP/1.1\r\nHost: x\r\nX-L: " + b"a" * 9000 + b"\r\n\r\n",
    "hdrs-40k": b"GET /st/x HTTP/1.1\r\nHost: x\r\n"
    + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 4000) for n in range(10)) + b"\r\n",
    "hdrs-1500": b"GET /st/x HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(1500)) + b"\r\n",
}  # fmt: skip

_VARYING = {"date", "x-kong-upstream-latency", "x-kong-proxy-latency", "x-kong-response-latency"}


class Unauthorized(Plugin):
    """Refuses as key-auth does."""

    name = "key-auth"
    priority = 1250

    def access(self, exchange: Exchange, conf: Any) -> Answer:
        return exchange.error(401, "No API key found in request", [(b"WWW-Authenticate", b"Key")])


def sse(request: Any) -> bytes:
    events = b"".join(b"14\r\nid: %d\ndata: tick %d\n\n\r\n" % (n, n) for n in range(2))
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        b"Transfer-Encoding: chunked\r\nDate: x\r\nServer: Python/3.11 aiohttp/3.14.5\r\n\r\n" + events + b"0\r\n\r\n"
    )


def gateway() -> Gateway:
    made = Gateway(
        routes={
            "strip": {"paths": ["/st"]},
            "host": {"hosts": ["only.example"]},
            "ka": {"paths": ["/ka"]},
            "sse": {"paths": ["/sse"], "strip_path": False},
            "nobuf": {"paths": ["/nobuf"], "request_buffering": False},
        },
        plugins={"key-auth": Unauthorized()},
        plugin_rows=[plugin_row("key-auth", route={"id": "ka"})],
    )
    made.answers[b"/sse?n=2&gap=0.2"] = sse
    return made


def sent(name: str) -> bytes:
    return LONG.get(name) or RECORDED[name]["sent"].encode("latin-1")


def answers(data: bytes) -> list[tuple[str, list[tuple[str, str]], Any]]:
    """Split what a client received into answers, varying parts masked."""
    text = re.sub(r"\b[0-9a-f]{32}\b", "i" * 32, data.decode("latin-1"))
    found = []
    while text:
        head, _, rest = text.partition("\r\n\r\n")
        line, *fields = head.split("\r\n")
        pairs = [(name.lower(), value) for name, _, value in (field.partition(": ") for field in fields)]
        length = dict(pairs).get("content-length")
        size = int(length) if length else len(rest) if " 1" not in line[:11] else 0
        body, text = rest[:size], rest[size:]
        shown = sorted((name, "*" if name in _VARYING else value) for name, value in pairs)
        found.append((line, shown, _body(body)))
    return found


def _body(body: str) -> Any:
    try:
        value = json.loads(body)
    except ValueError:
        return body
    if isinstance(value, dict) and "headers" in value:
        value["headers"] = sorted(map(tuple, value["headers"]))
    return value


def run(data: bytes, cut: int = 0) -> tuple[bytes, bool]:
    """What a client that sends ``data`` (in two pieces, if ``cut``) receives, and whether the connection is closed."""
    client = gateway().client()
    for piece in (data[:cut], data[cut:]) if cut else (data,):
        client.send(piece)
    return client.received, client.closed


class RawWireTests(SynchronousTestCase):
    """Every recorded case, against what Kong answered."""

    def compare(self, name: str) -> None:
        received, closed = run(sent(name))
        expected = RECORDED[name]["received"]
        eof = expected.endswith("<<EOF>>")
        theirs = answers(re.sub(r"<<[A-Za-z ]+>>$", "", expected).encode("latin-1"))
        ours = answers(received)
        self.assertEqual(_without_length(ours), _without_length(theirs), name)
        self.assertEqual(closed, eof, name)

    def test_kong_answers(self) -> None:
        for name in RECORDED:
            if name not in ELSEWHERE and name not in DEVIATIONS:
                self.compare(name)

    def test_deviations_still_deviate(self) -> None:
        for name in DEVIATIONS:
            with self.assertRaises(self.failureException, msg=name):
                self.compare(name)

    def test_deviating_answers(self) -> None:
        """Bare LF and lines without a colon are refused; a streamed body arrives whole all the same."""
        for name in ("lf-only", "no-colon", "chunked-bad"):
            received, closed = run(sent(name))
            self.assertTrue(received.startswith(b"HTTP/1.1 400 Bad Request\r\n"), name)
            self.assertTrue(closed)
        received, closed = run(sent("chunked-nobuf"))
        echo = json.loads(received.partition(b"\r\n\r\n")[2])
        self.assertEqual(echo["body"], "abc")
        self.assertFalse(closed)
        # The framing is all that differs: not a trailer more reaches the upstream than from Kong.
        recorded = RECORDED["chunked-nobuf"]["received"]
        theirs = json.loads(re.sub(r"<<[A-Za-z ]+>>$", "", recorded).partition("\r\n\r\n")[2])
        framing = {"transfer-encoding", "content-length"}
        names = [{key.lower() for key, _ in each["headers"]} - framing for each in (echo, theirs)]
        self.assertEqual(names[0], names[1])

    def test_every_split(self) -> None:
        """Wherever the bytes are cut, the client receives the same."""
        for name in RECORDED:
            data = sent(name)
            if name in LONG or name == "ws-handshake" or len(data) > 2000:
                continue
            whole = run(data)
            for cut in range(1, len(data)):
                if run(data, cut) != whole:
                    self.assertEqual(answers(run(data, cut)[0]), answers(whole[0]), f"{name} cut at {cut}")
                    self.assertEqual(run(data, cut)[1], whole[1], f"{name} cut at {cut}")


def _without_length(found: list[Any]) -> list[Any]:
    """The length of the echo depends on how many digits a port has; bodies are compared whole."""
    return [(line, [pair for pair in pairs if pair[0] != "content-length"], body) for line, pairs, body in found]
