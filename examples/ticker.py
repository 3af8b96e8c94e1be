"""A market ticker that streams Server-Sent Events: the kind of server one puts behind a gateway. It knows nothing of
the gateway.

Run it and listen, directly or through a gateway whose service points at it::

    python examples/ticker.py          # listens on 127.0.0.1:9200
    curl -N http://127.0.0.1:9200/
    curl -N 'http://127.0.0.1:9200/?symbols=OAK,ELM'
    curl http://127.0.0.1:9200/quotes
    curl -X POST http://127.0.0.1:9200/drop?client=NAME   # ends streams opened with ?client=NAME

The stream begins with one ``snapshot`` event (all prices) and goes on with one ``trade`` event per trade. Events have
ids. A client that lost its connection comes back with ``Last-Event-ID`` (browsers do so by themselves) and gets what it
missed, or a new ``snapshot`` when that is too long ago. A comment line every few seconds keeps idle connections open
and lets dead ones be noticed (WHATWG HTML 9.2, Server-sent events). ``at`` is in milliseconds since the epoch.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall, react
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

__all__ = ["Market", "Stream", "TickerResource", "TickerSite", "Trade", "ticker_factory"]

TRADE_EVERY = 0.25
"""Seconds between two trades."""
HEARTBEAT_EVERY = 10.0
"""Seconds between two comment lines."""
KEPT = 2000
"""Trades kept for clients that come back."""
RETRY = 1500
"""Milliseconds after which a client should come back (the ``retry`` field)."""
OPENING = {"ASH": 87.2, "ELM": 42.5, "FIR": 133.0, "OAK": 251.8, "YEW": 18.9}
"""Symbols and opening prices of an invented market."""


class Trade(NamedTuple):
    """One price of one symbol."""

    id: int
    symbol: str
    price: float
    change: float  #: per cent since the opening
    at: float  #: milliseconds since the epoch

    def event(self) -> bytes:
        """The trade as an event of the stream."""
        data = json.dumps({"symbol": self.symbol, "price": self.price, "change": self.change, "at": self.at})
        return f"id: {self.id}\nevent: trade\ndata: {data}\n\n".encode()


class Market:
    """Prices on a random walk, and the last trades.

    Args:
        chance: where chance comes from.
        now: epoch seconds.
    """

    def __init__(self, chance: random.Random, now: Callable[[], float] = time.time) -> None:
        self._chance = chance
        self._now = now
        self.prices = dict(OPENING)
        # Ids go on from the clock, so that one from before a restart is not taken for a new one.
        self.last_id = int(now() * 1000)
        self._trades: deque[Trade] = deque(maxlen=KEPT)

    def trade(self) -> Trade:
        """Let a symbol change its price."""
        symbol = self._chance.choice(list(self.prices))
        step = self._chance.gauss(0, 0.004)
        # A pull back to the opening price keeps the walk in sight for days.
        pull = (OPENING[symbol] / self.prices[symbol] - 1) * 0.01
        price = self.prices[symbol] = round(self.prices[symbol] * (1 + step + pull), 2)
        self.last_id += 1
        change = round((price / OPENING[symbol] - 1) * 100, 2)
        trade = Trade(self.last_id, symbol, price, change, round(self._now() * 1000, 1))
        self._trades.append(trade)
        return trade

    def since(self, last_id: int) -> list[Trade] | None:
        """The trades after ``last_id``, or None when they are no longer known and a snapshot is needed."""
        if last_id > self.last_id or (self._trades and last_id < self._trades[0].id - 1):
            return None
        if not self._trades and last_id != self.last_id:
            return None
        return [trade for trade in self._trades if trade.id > last_id]

    def quotes(self) -> dict[str, Any]:
        """All prices of now."""
        changes = {symbol: round((price / OPENING[symbol] - 1) * 100, 2) for symbol, price in self.prices.items()}
        quotes = [{"symbol": symbol, "price": self.prices[symbol], "change": changes[symbol]} for symbol in self.prices]
        return {"quotes": quotes, "at": round(self._now() * 1000, 1)}

    def snapshot_event(self) -> bytes:
        """All prices of now as an event of the stream."""
        return f"id: {self.last_id}\nevent: snapshot\ndata: {json.dumps(self.quotes())}\n\n".encode()


@implementer(IPushProducer)
class Stream:
    """One client's stream. A client that reads slowly is given no more until it has caught up.

    Args:
        request: the client's request, its answer not begun.
        market: what is streamed.
        symbols: symbols the client wants; empty for all.
        client: what the client calls itself; may be empty.
    """

    def __init__(self, request: Request, market: Market, symbols: frozenset[str], client: bytes) -> None:
        self.client = client
        self._request = request
        self._market = market
        self._symbols = symbols
        self._sent = 0
        self._paused = False
        request.registerProducer(self, True)

    def begin(self, last_id: int | None) -> None:
        """Send what the client missed since ``last_id``, or a snapshot."""
        self._request.write(f"retry: {RETRY}\n\n".encode())
        if last_id is None or self._market.since(last_id) is None:
            self._send_snapshot()
        else:
            self._sent = last_id
            self.catch_up()

    def _send_snapshot(self) -> None:
        self._sent = self._market.last_id
        self._request.write(self._market.snapshot_event())

    def catch_up(self) -> None:
        """Send all trades not sent yet, unless the client is behind."""
        if self._paused:
            return
        trades = self._market.since(self._sent)
        if trades is None:
            self._send_snapshot()
            return
        self._sent = self._market.last_id
        wanted = [trade.event() for trade in trades if not self._symbols or trade.symbol in self._symbols]
        if wanted:
            self._request.write(b"".join(wanted))

    def heartbeat(self) -> None:
        """Send a comment, which clients ignore."""
        if not self._paused:
            self._request.write(b": heartbeat\n\n")

    def end(self) -> None:
        """End the stream; the client will come back."""
        self._request.unregisterProducer()
        self._request.finish()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self.catch_up()

    def stopProducing(self) -> None:
        self._paused = True


class TickerResource(Resource):
    """The stream, at every path but ``/quotes``: the prices of now as JSON."""

    isLeaf = True

    def __init__(self, reactor: Any, market: Market) -> None:
        super().__init__()
        self._market = market
        self._streams: set[Stream] = set()
        self._clocks = [LoopingCall(self._trade), LoopingCall(self._heartbeat)]
        for clock in self._clocks:
            clock.clock = reactor

    def start(self) -> None:
        """Open the market."""
        intervals = (TRADE_EVERY, HEARTBEAT_EVERY)
        self._running = [clock.start(every, now=False) for clock, every in zip(self._clocks, intervals, strict=True)]

    def stop(self) -> None:
        """Close the market and end all streams."""
        for clock in self._clocks:
            if clock.running:
                clock.stop()
        for stream in list(self._streams):
            stream.end()

    def render_GET(self, request: Request) -> Any:
        request.setHeader(b"Access-Control-Allow-Origin", b"*")
        request.setHeader(b"Cache-Control", b"no-store")
        if request.path.rstrip(b"/").endswith(b"/quotes"):
            request.setHeader(b"Content-Type", b"application/json")
            return json.dumps(self._market.quotes()).encode() + b"\n"
        request.setHeader(b"Content-Type", b"text/event-stream")
        if request.method == b"HEAD":
            return b""
        wanted = b",".join(request.args.get(b"symbols", [])).decode("ascii", "replace").upper()
        client = request.args.get(b"client", [b""])[0]
        stream = Stream(request, self._market, frozenset(wanted.split(",")) & OPENING.keys(), client)
        self._streams.add(stream)
        _ = request.notifyFinish().addBoth(lambda _: self._streams.discard(stream))
        last_id = request.getHeader(b"Last-Event-ID")
        stream.begin(int(last_id) if last_id is not None and last_id.isdigit() else None)
        return NOT_DONE_YET

    def render_POST(self, request: Request) -> bytes:
        """``/drop``: end streams, to see their client come back."""
        client = request.args.get(b"client", [b""])[0]
        dropped = [stream for stream in self._streams if client and stream.client == client]
        for stream in dropped:
            stream.end()
        request.setHeader(b"Content-Type", b"application/json")
        return json.dumps({"dropped": len(dropped)}).encode() + b"\n"

    def _trade(self) -> None:
        self._market.trade()
        for stream in list(self._streams):
            stream.catch_up()

    def _heartbeat(self) -> None:
        for stream in list(self._streams):
            stream.heartbeat()


class TickerSite(Site):
    """The ticker as a site: its market opens with the port and closes with it."""

    def __init__(self, reactor: Any) -> None:
        self._ticker = TickerResource(reactor, Market(random.Random()))
        super().__init__(self._ticker, reactor=reactor)

    def startFactory(self) -> None:
        super().startFactory()
        self._ticker.start()

    def stopFactory(self) -> None:
        self._ticker.stop()
        super().stopFactory()


def ticker_factory(reactor: Any) -> TickerSite:
    """A factory to listen with: ``reactor.listenTCP(9200, ticker_factory(reactor))``."""
    return TickerSite(reactor)


def main(reactor: Any, port: str = "9200") -> Deferred[None]:
    """Serve until interrupted."""
    try:
        reactor.listenTCP(int(port), ticker_factory(reactor), interface="127.0.0.1")
    except CannotListenError as error:
        raise SystemExit(f"ticker.py: {error} Name another port: python examples/ticker.py PORT") from None
    print(f"market ticker at http://127.0.0.1:{port}", flush=True)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
