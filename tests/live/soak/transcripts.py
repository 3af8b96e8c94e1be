"""What misbehaving clients do, drawn from a seed: a list of steps each, without I/O (`wild` carries them out).

Equal seeds and numbers give equal transcripts. What the gateway makes of it depends on timing too, so a seed finds a
fault again rather than reproducing it to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.live.soak.behaviours import frame

__all__ = ["KINDS", "Transcript", "draw"]

Step = tuple[Any, ...]
"""A word and its arguments:

``send`` bytes; ``drip`` bytes, size, seconds between two pieces; ``raw`` bytes below TLS; ``pause`` seconds; ``read`` most
bytes; ``drain`` seconds at most; ``sip`` seconds; ``reader``: everything is read from now on beside the other steps;
``half_close``; ``notify`` (close_notify); ``hold`` seconds: nothing at all; ``reset`` and ``close``: the end.
"""

ANSWERS = (
    "echo", "echo", "big?n=100000", "big?n=3000000", "slow?ms=100", "slow?ms=1000", "trickle", "chunks", "chunks?n=200",
    "until_close", "until_close?n=100", "half_close", "reset_head", "reset_at_once", "reset_body", "reset_chunks", "never", "deaf",
    "early", "early_kept", "informs", "empty", "garbage", "bad_chunk", "huge_head", "drop", "drop_reset", "chatter",
)  # fmt: skip
EVENTS = (
    "events", "events?n=5000&ms=5", "events?n=60000&ms=1", "events?ms=700", "events_end", "events_end?count=100", "events_cut",
)  # fmt: skip
SOCKETS = (
    "ws_echo", "ws_echo", "ws_echo", "ws_push", "ws_push?n=60000&ms=1", "ws_push?ms=500", "ws_sink", "ws_deaf", "ws_reset", "ws_half",
    "ws_close", "ws_notify", "ws_refuse", "ws_bad", "ws_slow", "echo",
)  # fmt: skip
ROUTES = ("least", "least", "secure", "secure", "direct", "named", "kept-host")
"""Routes to upstreams that behave; ``least``: by least connections, with targets that cannot be reached."""
OWN = ("keyed", "answered", "nowhere")
"""Routes with an answer of the gateway's own."""
APIS = ("admin", "status")
"""Doors of the Admin and the Status API begin so; only transcripts of the kind ``api`` go there."""
METHODS = (b"GET", b"GET", b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH")
HOSTS = (b"soak.test",) * 8 + (b"a.b:80", b"x" * 300, b"[::1]:5", b"%41", b"under_score")
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


@dataclass
class Transcript:
    """One client's life.

    Attributes:
        kind: what it is about (`KINDS`).
        door: which of the gateway's listeners it goes to.
        window: SO_RCVBUF, or None.
        old: TLS 1.2 at most.
        steps: what it does.
    """

    kind: str
    door: str
    window: int | None = None
    old: bool = False
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.kind} at {self.door}: {' '.join(_brief(step) for step in self.steps)}"


def _brief(step: Step) -> str:
    shown = [f"{each[:50]!r}[{len(each)}]" if isinstance(each, bytes) else str(each) for each in step[1:]]
    return f"{step[0]}({', '.join(shown)})"


def draw(seed: str, number: int, doors: tuple[str, ...], kinds: tuple[str, ...] = ()) -> Transcript:
    """The transcript of this number.

    Args:
        seed: of the whole soak.
        number: of the client.
        doors: names of listeners to choose from.
        kinds: only these of `KINDS`; all if none.
    """
    random = Random(f"{seed}/{number}")
    proxies = tuple(door for door in doors if not door.startswith(APIS))
    apis = tuple(door for door in doors if door.startswith(APIS))
    kind = random.choice([kind for kind in kinds or KINDS if kind != "api" or apis])
    made = Transcript(kind, random.choice(apis if kind == "api" else proxies))
    made.window = random.choice((None, None, 4096, 16384))
    made.old = random.random() < 0.2
    made.steps = KINDS[kind](random)
    if made.door.startswith("site"):
        # A Site answers without end on one connection; what is pipelined here must not be minutes of work.
        made.steps = [(step[0], step[1][:20_000], *step[2:]) if _floods(step) else step for step in made.steps]
    return made


def _floods(step: Step) -> bool:
    """Whether requests are pipelined by the thousand."""
    return step[0] == "send" and bool(step[1].count(b" HTTP/1.", 0, 100_000) > 100)


# -- requests ----------------------------------------------------------------------------------------------------------


def _head(random: Random, method: bytes, path: str, lines: bytes = b"") -> bytes:
    host = random.choice(HOSTS)
    version = b"1.0" if random.random() < 0.05 else b"1.1"
    more = random.choice(
        (b"",) * 6 + (b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"X-Pad: %b\r\n" % (b"p" * 3000))
    )
    return b"%b /%b HTTP/%b\r\nHost: %b\r\n%b%b\r\n" % (method, path.encode(), version, host, more, lines)


def _path(random: Random) -> str:
    if random.random() < 0.1:
        return f"{random.choice(OWN)}/echo"
    return f"{random.choice(ROUTES)}/{random.choice(ANSWERS)}"


def _get(random: Random, path: str | None = None) -> bytes:
    return _head(random, random.choice(METHODS), path or _path(random))


def _post(random: Random, path: str | None = None) -> bytes:
    """A request with a body: sized or in chunks, right or wrong, with or without Expect."""
    size = random.choice((0, 1, 100, 9000, 70_000, 400_000))
    lines = b"Expect: 100-continue\r\n" if random.random() < 0.2 else b""
    body = b"b" * size
    if random.random() < 0.5:
        announced = size + random.choice((0,) * 8 + (5, 3_000_000))
        lines += b"Content-Length: %d\r\n" % announced
    else:
        lines += b"Transfer-Encoding: chunked\r\n"
        step = random.choice((1000, 20_000))
        pieces = [b"%x\r\n%b\r\n" % (len(body[at : at + step]), body[at : at + step]) for at in range(0, size, step)]
        end = random.choice((b"0\r\n\r\n",) * 6 + (b"0\r\nX-Trailer: t\r\n\r\n", b"", b"zz\r\n", b"5\r\nabcdeXX"))
        body = b"".join(pieces) + end
    return _head(random, random.choice((b"POST", b"PUT")), path or _path(random), lines) + body


def _handshake(random: Random, path: str | None = None) -> bytes:
    key = (
        KEY
        if random.random() < 0.9
        else random.choice((b"short", b"", b"a" * 400, KEY + b"\r\nSec-WebSocket-Key: " + KEY))
    )
    version = b"13" if random.random() < 0.95 else random.choice((b"8", b"x", b"13\r\nSec-WebSocket-Version: 13"))
    more = random.choice((b"",) * 8 + (
        b"Sec-WebSocket-Protocol: chat\r\n", b"Sec-WebSocket-Extensions: permessage-deflate\r\n", b"Origin: null\r\n",
        b"Origin: http://a b\r\n", b"Sec-WebSocket-Protocol: chat, chat\r\n",
    ))  # fmt: skip
    return (
        b"GET /%b HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: %b\r\n"
        b"Sec-WebSocket-Key: %b\r\n%b\r\n"
        % (
            (path or f"{random.choice(ROUTES)}/{random.choice(SOCKETS)}").encode(),
            random.choice(HOSTS),
            version,
            key,
            more,
        )
    )


def _frames(random: Random) -> bytes:
    """Client frames: small and large, pings, a Close, what is no frame."""
    made = []
    for _ in range(random.choice((1, 1, 3, 20))):
        mask = random.randbytes(4)
        made.append(random.choice((
            lambda m: frame(1, b"hello", m), lambda m: frame(2, b"m" * 2000, m), lambda m: frame(9, b"ping", m),
            lambda m: frame(2, b"l" * 300_000, m), lambda m: frame(8, b"\x03\xe8", m), lambda m: frame(1, b"bare"),
            lambda m: m * 30, lambda m: frame(10, b"", m),
        ))(mask))  # fmt: skip
    return b"".join(made)


# -- pieces of lives ---------------------------------------------------------------------------------------------------


def _cut(random: Random, data: bytes) -> bytes:
    """A beginning of ``data``."""
    return data[: random.randrange(1, len(data) + 1)]


def _sent(random: Random, data: bytes) -> list[Step]:
    """``data``, at once or in pieces."""
    way = random.random()
    if way < 0.6 or len(data) > 20_000:
        return [("send", data)]
    if way < 0.8:
        at = random.randrange(len(data))
        return [("send", data[:at]), ("pause", random.choice((0.0, 0.02, 0.3))), ("send", data[at:])]
    return [("drip", data, max(1, len(data) // 10), 0.01)]


def _read(random: Random) -> list[Step]:
    """What is read before the end: nothing, some, all."""
    return random.choice((
        [], [], [("pause", random.choice((0.001, 0.01, 0.1)))], [("read", 1)], [("read", 200)], [("read", 65536)], [("sip", 0.3)],
        [("drain", 0.1)], [("drain", 1.0)], [("drain", 3.0)],
    ))  # fmt: skip


def _end(random: Random) -> list[Step]:
    """How it ends."""
    return random.choice((
        [("reset",)], [("reset",)], [("reset",)], [("close",)], [("close",)],
        [("half_close",), ("drain", 2.0), ("close",)],
        [("half_close",), ("hold", 1.0), ("reset",)],
        [("half_close",), ("reset",)],
        [("hold", 0.5), ("reset",)],
        [("hold", 5.0), ("reset",)],
        [("drain", 10.0), ("close",)],
        [("drain", 8.0), ("hold", 20.0), ("reset",)],  # the gateway's close is never answered
        [("notify",), ("close",)],
        [("notify",), ("hold", 6.0), ("reset",)],
        [("notify",), ("drain", 3.0), ("close",)],
        [("notify",), ("send", b"after"), ("raw", b"after"), ("hold", 0.2), ("reset",)],
        [("raw", b"\x17\x03\x03\x00\x05wrong"), ("drain", 0.5), ("close",)],
        [("raw", b"\x15\x03\x03\x00\x02\x02\x28"), ("hold", 0.5), ("reset",)],
        [("send", random.randbytes(500)), ("drain", 0.5), ("close",)],
        [("send", b"g" * 100_000), ("reset",)],
    ))  # fmt: skip


# -- lives -------------------------------------------------------------------------------------------------------------


def _partly(random: Random) -> list[Step]:
    """A part of a request, and the end."""
    request = random.choice((_get, _post, _handshake))(random)
    return [*_sent(random, _cut(random, request)), *_read(random), *_end(random)]


def _one(random: Random) -> list[Step]:
    """A request, some of its answer, and the end."""
    return [*_sent(random, random.choice((_get, _post))(random)), *_read(random), *_end(random)]


def _several(random: Random) -> list[Step]:
    """One request after the other on one connection."""
    steps: list[Step] = []
    for _ in range(random.randrange(2, 6)):
        steps += [*_sent(random, random.choice((_get, _get, _post))(random)), *_read(random)]
    return [*steps, *_end(random)]


def _pipelined(random: Random) -> list[Step]:
    """Many requests at once, behind one that may take long; with or without a reader."""
    first = _get(random, f"{random.choice(ROUTES)}/{random.choice(ANSWERS)}")
    small = _head(random, b"GET", random.choice(("least/echo", "direct/echo", "answered/x", "least/big?n=100000")))
    steps: list[Step] = [("reader",)] if random.random() < 0.5 else []
    if random.random() < 0.1:  # as much as is taken, for a while
        steps += [("send", small * 5000)] * 20
    steps.append(("send", first + small * random.choice((1, 10, 100, 1000, 4000))))
    if random.random() < 0.3:
        steps += [("pause", 0.2), ("send", _post(random) + small * 50)]
    return [*steps, *_read(random), *_end(random)]


def _upload(random: Random) -> list[Step]:
    """A large body to somebody who may not read it, left in the middle."""
    path = f"{random.choice(ROUTES)}/{random.choice(('echo', 'deaf', 'never', 'early', 'early_kept', 'reset_at_once', 'slow'))}"
    head = _head(random, b"POST", path, b"Content-Length: 10000000\r\n")
    size = random.choice((1000, 20_000, 300_000, 3_000_000))
    reader: list[Step] = [("reader",)] if random.random() < 0.3 else []
    return [("send", head), *reader, ("send", b"u" * size), *_read(random), *_end(random)]


def _download(random: Random) -> list[Step]:
    """A large answer, read slowly or not at all, and more requests behind it."""
    path = f"{random.choice(ROUTES)}/{random.choice(('big?n=10000000', 'until_close?n=500', 'chunks?n=2000'))}"
    steps: list[Step] = [("send", _head(random, b"GET", path))]
    if random.random() < 0.5:
        steps += [("pause", 0.05), ("send", _get(random) * random.choice((1, 300)))]
    return [*steps, random.choice((("hold", 0.3), ("sip", 1.0), ("read", 100), ("hold", 6.0))), *_end(random)]


def _events(random: Random) -> list[Step]:
    """An event stream."""
    request = _head(random, b"GET", f"{random.choice(ROUTES)}/{random.choice(EVENTS)}")
    return [
        *_sent(random, request),
        random.choice((("drain", 0.5), ("hold", 0.5), ("sip", 1.0), ("read", 1))),
        *_end(random),
    ]


def _socket(random: Random) -> list[Step]:
    """A WebSocket: the handshake, frames, and the end anywhere."""
    handshake, frames = _handshake(random), _frames(random)
    steps: list[Step] = [("reader",)] if random.random() < 0.3 else []
    if random.random() < 0.2:
        steps.append(("send", handshake + _cut(random, frames)))
    else:
        steps += [*_sent(random, handshake), ("read", 65536), *_read(random), ("send", _cut(random, frames))]
    return [*steps, *_read(random), *_end(random)]


def _flood(random: Random) -> list[Step]:
    """A WebSocket with much to say, to somebody who may not listen, while much comes."""
    path = f"{random.choice(ROUTES)}/{random.choice(('ws_echo', 'ws_push?n=60000&ms=1', 'ws_deaf', 'ws_sink', 'ws_half', 'ws_reset'))}"
    steps: list[Step] = [("send", _handshake(random, path)), ("read", 65536)]
    if random.random() < 0.5:
        steps.append(("reader",))
    big = frame(2, b"f" * random.choice((2000, 100_000, 1_000_000)), b"abcd")
    steps += [("send", big)] * random.choice((1, 3, 10))
    return [*steps, *_read(random), *_end(random)]


def _noise(random: Random) -> list[Step]:
    """What is no HTTP, no TLS, or nothing."""
    return [
        *random.choice((
            [], [("raw", b"GET / HTTP/1.1\r\nHost: plain\r\n\r\n")], [("send", random.randbytes(200))], [("send", b"\r\n" * 20)],
            [("send", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")], [("send", b"GET /" + b"a" * 20_000)], [("raw", b"\x16\x03\x01\x02\x00\x01")],
            [("send", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3000)], [("send", b"CONNECT least/echo HTTP/1.1\r\nHost: a\r\n\r\n")],
        )),
        *_read(random), *_end(random),
    ]  # fmt: skip


def _bare(random: Random) -> list[Step]:
    """Bytes to a TLS listener before, in and in place of a handshake (`wild` does none for this kind)."""
    hello = b"\x16\x03\x01\x00\xf1\x01\x00\x00\xed\x03\x03" + random.randbytes(32)
    sent = random.choice((b"", hello[:3], hello, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x80", random.randbytes(100)))
    return [*([("raw", sent)] if sent else []), *_read(random), *_end(random)]


def _api(random: Random) -> list[Step]:
    """Requests to the Admin or the Status API: large answers, bodies good and bad, many at once, left anywhere."""
    reads = (
        "services?size=1000",
        "",
        "status",
        "metrics",
        "schemas/services",
        "nothing",
        "services?size=x",
        "endpoints",
    )
    steps: list[Step] = [("reader",)] if random.random() < 0.2 else []
    for _ in range(random.choice((1, 1, 2, 4))):
        body = random.choice((b"{}", b'{"name": "x"', b'{"url": 5}', b"a=b&c=d", b"x" * 100_000))
        lines = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % (len(body) + random.choice((0, 0, 0, 50)))
        get = _head(random, b"GET", random.choice(reads)) * random.choice((1, 1, 1, 30, 300))
        post = _head(
            random,
            random.choice((b"POST", b"PUT")),
            random.choice(("services/aside/routes", "config", "upstreams")),
            lines,
        )
        data = random.choice((get, get, get, post + body))
        data = data.replace(b"Host: soak.test", b"Host: localhost")
        steps += [*_sent(random, data if random.random() < 0.8 else _cut(random, data)), *_read(random)]
    return [*steps, *_end(random)]


KINDS = {
    "partly": _partly, "one": _one, "several": _several, "pipelined": _pipelined, "upload": _upload, "download": _download,
    "events": _events, "socket": _socket, "flood": _flood, "noise": _noise, "bare": _bare, "api": _api,
}  # fmt: skip
"""What transcripts are about, and what draws them."""
