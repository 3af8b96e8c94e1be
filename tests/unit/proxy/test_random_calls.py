"""Calls whose two sides do what comes by chance: those relayed directly end as those that go the general way."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.grpc.grpc_messages import framed
from kongtwist.core.http2 import frames
from kongtwist.core.limits import Limits

from .http2_relay_kit import OK
from .test_direct_calls import Both, by_stream
from .test_formed_calls import TIMES, padded, web

Step = tuple[str, Any]

_CALLS = 80
_TRAILERS = b"\x00\x01a\x01b"


def pieces(chance: Random, sizes: list[int]) -> list[bytes]:
    """Messages, which may break off, in pieces."""
    body = b"".join(framed(bytes(chance.choice(sizes))) for _ in range(chance.choice([0, 1, 1, 2, 3])))
    if chance.random() < 0.25:
        body = body[: chance.randrange(len(body) + 1)]
    out = []
    while body:
        size = chance.choice([1, 2, 3, 5, 8, 20, len(body)])
        out.append(body[:size])
        body = body[size:]
    return out


def client_steps(chance: Random) -> list[Step]:
    """What the client does."""
    steps: list[Step] = [("data", piece) for piece in pieces(chance, [0, 1, 3, 20])]
    last = chance.choice(["last", "last", "end", "trailers", "padded", "leave", ""])
    if last == "last" and steps:
        steps[-1] = "end", steps[-1][1]
    elif last:
        steps.append((last.replace("last", "end"), b""))
    return steps


def server_steps(chance: Random) -> list[Step]:
    """What the upstream does."""
    steps: list[Step] = [("interim", None)] if chance.random() < 0.1 else []
    steps.append((chance.choice([*["head"] * 12, "only", "html", "reset"]), frames.ENHANCE_YOUR_CALM))
    steps += [("answer", piece) for piece in pieces(chance, [0, 1, 3, 20, 3000])[:30]]
    steps.append((chance.choice([*["done"] * 6, "whole", "reset", "lost"]), frames.INTERNAL_ERROR))
    return steps


def script(chance: Random) -> list[Step]:
    """What both do, in an order that comes by chance."""
    sides = [client_steps(chance), server_steps(chance)]
    out: list[Step] = []
    while any(sides):
        side = chance.choice([side for side in sides if side])
        out.append(side.pop(0))
        if chance.random() < 0.05:
            out.append(("wait", chance.choice([0.5, 3])))
    return [*out, ("wait", 9)]


def of_client(both: Both, what: str, with_: Any) -> None:
    """The client does something, if it has not been told that the call is over."""
    answered = both.client.streams.get(both.number)
    if answered is not None and answered.code is not None:
        return
    frame = {
        "data": lambda: both.piece(with_),
        "end": lambda: both.piece(with_, True),
        "trailers": lambda: frames.headers(both.number, _TRAILERS, True),
        "padded": lambda: padded(both.number, b""),
        "leave": lambda: frames.rst_stream(both.number, frames.CANCEL),
    }[what]
    both.client.send(frame())


def of_server(both: Both, what: str, with_: Any) -> None:
    """The upstream does something, if it has not been told that the call is over."""
    at, server = both.at, both.server
    if at not in server.connection.streams or server.connection.failed:
        return
    if what == "lost":
        server.wire.lose()
        return
    frame = {
        "interim": lambda: server.head(at, (":status", "103"), ("link", "x")),
        "head": lambda: server.head(at, *OK),
        "only": lambda: server.head(at, *OK, ("grpc-status", "7"), end=True),
        "html": lambda: server.head(at, (":status", "200"), ("content-type", "text/html")),
        "answer": lambda: server.data(at, with_),
        "done": lambda: server.head(at, ("grpc-status", "5"), ("x-a", "b"), end=True),
        "whole": lambda: server.data(at, b"", True),
        "reset": lambda: frames.rst_stream(at, with_),
    }[what]
    both.serve(frame())


class RandomCallsTests(SynchronousTestCase):
    """The seeds are the same each time."""

    def outcome(self, both: Both, direct: bool, steps: list[Step], fields: dict[str, str]) -> dict[str, Any]:
        """What came of a call that goes one way or the other."""
        if direct:
            both.answer()
        else:
            both.client.send(frames.rst_stream(1, frames.CANCEL))
            both.client.channel._direct = False
        counts, lines = both.gateway.context.calls.of(b"/a.B/C"), len(both.gateway.log.lines)
        counts.codes.clear()
        before = counts.messages_in, counts.bytes_in, counts.messages_out, counts.bytes_out
        both.begin(**fields)
        self.assertEqual(len(both.direct), int(direct))
        for what, with_ in steps:
            if what == "wait":
                both.wait(with_)
            elif what in ("data", "end", "trailers", "padded", "leave"):
                of_client(both, what, with_)
            else:
                of_server(both, what, with_)
        after = counts.messages_in, counts.bytes_in, counts.messages_out, counts.bytes_out
        ends = both.client.channel, both.server.connection
        return {
            "told": both.told(),
            "received": by_stream(both.received + both.server.received),
            "log": both.gateway.log.lines[lines:],
            "codes": dict(counts.codes),
            "counted": tuple(new - old for new, old in zip(after, before, strict=True)),
            "left": (counts.open, both.direct, [(list(each.streams), each.hot, each.held) for each in ends]),
        }

    def compare(self, both: Callable[[], Both]) -> None:
        """Have calls go both ways."""
        for seed in range(_CALLS):
            chance = Random(seed)
            steps = script(chance)
            length = sum(len(with_) for what, with_ in steps if what in ("data", "end")) + chance.choice([0, 0, 1, -1])
            fields = {"content_length": str(length)} if length > 0 and chance.random() < 0.3 else {}
            general, direct = (self.outcome(both(), way, steps, fields) for way in (False, True))
            self.assertEqual(direct, general, (seed, fields, steps))

    def test_grpc(self) -> None:
        self.compare(lambda: Both(Limits(), TIMES))

    def test_grpc_web(self) -> None:
        self.compare(web)
