"""docs/upstreams.md is true, row by row."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.places import ROOT
from tests.upstream_cases import CASES, NOT_REPEATED, REPEATED, TRIES, Case, told

from ..proxy.relay_kit import Client, Gateway, Upstream

DOCUMENT = ROOT / "docs" / "upstreams.md"


def rows(heading: str) -> dict[str, list[str]]:
    """The table under a heading: the first cell of each row to the others."""
    section = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]
    return {first: rest for first, *rest in table}


class Played:
    """A case, played on every connection the gateway makes for one request."""

    def __init__(self, case: Case, method: bytes, retries: int, refuse: bool = False) -> None:
        service = {"host": "127.0.0.1", "port": 18100, "retries": retries, "read_timeout": 1000}
        self.gateway = gateway = Gateway(services={"s": service})
        gateway.automatic = False
        self.asked = 0
        client = gateway.client()
        client.send(b"%b /st/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % method)
        while gateway.connects():
            self.asked += 1
            if refuse:
                gateway.fail()
            else:
                self._play(gateway.accept(), case)
        self.told = told(client.received, client.closed, method)
        self.client = client

    def _play(self, upstream: Upstream, case: Case) -> None:
        for piece in case.pieces:
            upstream.answer(piece)
            self.gateway.work()
        if case.end == "keep":
            self.gateway.work(1.5)
        else:
            upstream.wire.lose(clean=case.end == "close")
        self.gateway.work()


class TableTests(SynchronousTestCase):
    def test_what_is_taken(self) -> None:
        """Every case has its row; the client gets what that says, and the upstream was asked once, whatever it sent."""
        table = rows("What is taken, and what is refused")
        self.assertEqual(list(table), list(CASES))
        for name, case in CASES.items():
            for retries in (0, 5):
                played = Played(case, case.method, retries)
                said = table[name][1]
                if said == "200, cut":
                    self.assertEqual(played.told.partition(" ")[0] + played.told[-5:], said, name)
                else:
                    self.assertEqual(played.told, said, name)
                self.assertEqual(played.asked, 1, name)
                self.assertEqual(played.gateway.log.lines, [(int(played.told[:3]), "/st/x")], name)

    def test_nobody_waits(self) -> None:
        """What will never be an answer is refused with the bytes that say so, not when the time is over."""
        for name, case in (CASES | TRIES).items():
            if case.pieces and name not in (
                "closed within the head",
                "silent within the head",
                "closed behind a 100",
                "no status line",
            ):
                client, _ = self.begin(case)
                self.assertNotEqual(client.received, b"", name)

    def begin(self, case: Case) -> tuple[Client, Upstream]:
        gateway = Gateway()
        gateway.automatic = False
        client = gateway.client()
        client.send(b"GET /st/x HTTP/1.1\r\nHost: x\r\n\r\n")
        upstream = gateway.accept()
        for piece in case.pieces:
            upstream.answer(piece)
        return client, upstream

    def test_every_split(self) -> None:
        """Cut anywhere, an answer is the same answer."""
        for name, case in CASES.items():
            whole = b"".join(case.pieces)
            if len(whole) > 2000 or len(case.pieces) > 1 or name == "size of letters":
                continue  # large, or another answer when the head has been sent
            outcome = Played(case, case.method, 0).told
            for cut in range(1, len(whole)):
                found = Played(Case((whole[:cut], whole[cut:]), case.end), case.method, 0).told
                self.assertEqual(found, outcome, (name, cut))

    def test_what_is_tried_again(self) -> None:
        table = rows("What is tried again")
        self.assertEqual(list(table), ["refused", *TRIES])
        for name, (_, repeated, once, answer, _) in table.items():
            for methods, times in ((REPEATED, repeated), (NOT_REPEATED, once)):
                for method in methods:
                    played = Played(TRIES.get(name, Case(())), method, 2, refuse=name == "refused")
                    if method == b"HEAD" and name == "bad chunk":
                        continue  # no body, no chunks
                    said = answer if method != b"HEAD" else answer[:3]
                    self.assertEqual((played.asked, played.told), (int(times), said), (name, method))

    def test_hidden_fields(self) -> None:
        """They are named in the document, and none of them reaches the client."""
        names = (
            "X-Pad",
            "X-Accel-Expires",
            "X-Accel-Redirect",
            "X-Accel-Limit-Rate",
            "X-Accel-Buffering",
            "X-Accel-Charset",
        )
        text = DOCUMENT.read_text(encoding="utf-8")
        lines = "".join(f"{name}: 1\r\n" for name in (*names, "X-Accel-Other", "X-Padded")).encode()
        client, _ = self.begin(Case((b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 2\r\n\r\nhi",)))
        for name in names:
            self.assertIn(f"`{name}`", text)
            self.assertNotIn(name.encode() + b":", client.received)
        self.assertIn(b"\r\nX-Accel-Other: 1\r\nX-Padded: 1\r\n", client.received)

    def test_what_is_passed_on_is_as_it_should_be(self) -> None:
        """Whatever the upstream sends, the client's own lines end with CRLF, and names come with a colon."""
        for name, case in CASES.items():
            received = Played(case, case.method, 0).client.received
            head = received.partition(b"\r\n\r\n")[0]
            for line in head.split(b"\r\n")[1:]:
                self.assertNotIn(b"\n", line, name)
                self.assertNotIn(b"\r", line, name)
                self.assertIn(b":", line, name)

    def test_kept_connections(self) -> None:
        """The next request goes over the same connection only where nothing was left over, and nobody said otherwise."""
        kept = {
            name: self._is_kept(case)
            for name, case in CASES.items()
            if case.end == "keep" and name != "HEAD with a body"
        }
        for name in ("more than its length", "204 with a body", "more behind the last chunk", "version 1.0"):
            self.assertFalse(kept[name], name)
        for name in (
            "usual",
            "LF head",
            "mixed ends of lines",
            "LF in chunks",
            "blanks behind a size",
            "odd name",
            "HEAD, chunked",
        ):
            self.assertTrue(kept[name], name)

    def _is_kept(self, case: Case) -> bool:
        gateway = Gateway()
        gateway.answers[b"/x"] = b"".join(case.pieces)
        gateway.client().send(b"%b /st/x HTTP/1.1\r\nHost: x\r\n\r\n" % case.method)
        gateway.work()
        return gateway.upstreams[0].wire.end is None
