"""Whatever an upstream sends, a client over HTTP/2 is told what docs/upstreams.md says, as one over HTTP/1.1 is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.upstream_cases import CASES, TRIES, Case

from ..docs.test_docs_upstreams import rows
from ..proxy.relay_kit import Gateway
from .http2_door import Answered, HTTP2Client


def told(answer: Answered, method: bytes) -> str:
    """As `tests.upstream_cases.told`."""
    status = str(answer.status)
    if status in ("204", "304", "502", "504") or method == b"HEAD":
        return status
    text = answer.body.decode("latin-1").replace("\r\n", " ")
    return f"{status} `{text}`" + ("" if answer.ended else ", cut")


class Played:
    """A case, played on every connection that the gateway makes for one request.

    Attributes:
        answer: what came on the stream.
        asked: connections that were made.
    """

    def __init__(self, case: Case, method: bytes, retries: int) -> None:
        service = {"host": "127.0.0.1", "port": 18100, "retries": retries, "read_timeout": 1000}
        self.gateway = gateway = Gateway(services={"s": service})
        gateway.automatic = False
        self.client = client = HTTP2Client(gateway)
        self.asked = 0
        client.send(client.head(method.decode()))
        while gateway.connects():
            self.asked += 1
            upstream = gateway.accept()
            for piece in case.pieces:
                upstream.answer(piece)
                client.read()
            if case.end == "keep":
                gateway.work(1.5)
            else:
                upstream.wire.lose(clean=case.end == "close")
            client.read()
        self.answer = client.streams.setdefault(1, Answered())


class OverHTTP2Tests(SynchronousTestCase):
    """The tables, once more."""

    def test_what_is_taken(self) -> None:
        """The same status and body; what is cut there is reset here, and the connection goes on."""
        table = rows("What is taken, and what is refused")
        for name, case in CASES.items():
            played = Played(case, case.method, 0)
            said, found = table[name][1], told(played.answer, case.method)
            if said == "200, cut":
                found = found.partition(" ")[0] + found[-5:]
            self.assertEqual(found, said, name)
            self.assertEqual(played.answer.code, 2 if said.endswith(", cut") else None, name)
            self.assertEqual(played.gateway.log.lines, [(int(said[:3]), "/st/x")], name)
            self.assertEqual((played.client.channel.streams, played.client.goaways()), ({}, []), name)

    def test_what_is_tried_again(self) -> None:
        """As often."""
        table = rows("What is tried again")
        for name, case in TRIES.items():
            _, repeated, once, answer, _ = table[name]
            for method, times in ((b"GET", repeated), (b"POST", once)):
                played = Played(case, method, 2)
                self.assertEqual((played.asked, told(played.answer, method)), (int(times), answer), (name, method))
