"""Streams between two processes, with real clients and upstreams: what each side gets is what it would get if nothing had moved."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import threading
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import websockets
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

from tests.live.moving_kit import Child, MovingTestCase
from tests.live.support import PATIENCE, free_port, wait_until
from tests.unit.core.routing.router_rows import route_row, service_row

WEBSOCKETS = 400
EVENT_STREAMS = 100
MOVES = 10


def plugin(name: str, **config: Any) -> dict[str, Any]:
    """A plugin's row."""
    return {
        "id": name, "name": name, "created_at": 1, "updated_at": 1, "enabled": True, "instance_name": None, "config": config,
        "route": None, "service": None, "consumer": None, "protocols": ["http", "https"], "tags": None,
    }  # fmt: skip


class Traffic:
    """Upstreams and clients that count: messages have numbers, both ways. They live in a thread of their own.

    Attributes:
        faults: what went wrong, in words.
        heard: messages that clients have got, of all streams.
        ended: streams that have ended.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.heard = self.echoed = self.ended = 0
        self.stopping = False
        self.counts: dict[str, int] = {}
        self.ws_port, self.sse_port = free_port(), free_port()
        self._loop = asyncio.new_event_loop()
        self._tasks: list[Any] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.do(self._serve())

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the thread, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def close(self) -> None:
        """End everything."""

        async def cancel() -> None:
            for each in self._tasks:
                each.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._server.close()
            await self._runner.cleanup()

        self.do(cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _serve(self) -> None:
        self._server = await serve(self._echo, "127.0.0.1", self.ws_port, ping_interval=None, max_size=None)
        app = web.Application()
        app.router.add_get("/events", self._events)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.sse_port).start()

    async def _echo(self, connection: ServerConnection) -> None:
        """Check the order of what comes, and send it back with a number of our own."""
        expected = 0
        try:
            async for message in connection:
                number, _, rest = str(message).partition(" ")
                if int(number) != expected:
                    self.faults.append(f"the upstream got {number} in place of {expected}")
                await connection.send(f"{expected} {rest}")
                expected += 1
                self.echoed += 1
        except websockets.ConnectionClosed:
            pass

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        number = 0
        try:
            return await self._write_events(response, number)
        except ConnectionResetError:
            return response  # the client is gone

    async def _write_events(self, response: web.StreamResponse, number: int) -> web.StreamResponse:
        while not self.stopping:
            size = random.choice((0, 10, 3000))
            await response.write(f"id: {number}\ndata: {'x' * size}\n\n".encode())
            number += 1
            await asyncio.sleep(random.uniform(0.05, 0.4))
        await response.write(f"event: end\ndata: {number}\n\n".encode())
        return response

    def open(self, what: Callable[..., Any], count: int, url: str) -> None:
        """Open streams; something has come on each when this returns."""

        async def some(number: int) -> None:
            await asyncio.gather(*(self._begin(what, url) for _ in range(number)))

        while count > 0:
            self.do(some(min(count, 25)))
            count -= 25

    async def _begin(self, what: Callable[..., Any], url: str) -> None:
        opened: asyncio.Future[None] = self._loop.create_future()
        self._tasks.append(self._loop.create_task(self._watched(what(url, opened), opened)))
        await opened

    async def _watched(self, coroutine: Any, opened: asyncio.Future[None]) -> None:
        try:
            await coroutine
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the test looks at the faults
            self.faults.append(repr(error))
            if not opened.done():
                opened.set_exception(error)
        finally:
            self.ended += 1

    async def talk(self, url: str, opened: asyncio.Future[None]) -> None:
        """A WebSocket's client."""
        async with websockets.connect(
            url, ping_interval=None, proxy=None, max_size=None, open_timeout=PATIENCE
        ) as client:
            number = 0
            while not self.stopping:
                batch = random.randint(1, 4)
                sent = []
                for _ in range(batch):
                    body = "y" * random.choice((0, 5, 130, 4000, 70000 if random.random() < 0.1 else 9))
                    sent.append(body)
                    await client.send(f"{number + len(sent) - 1} {body}")
                for body in sent:
                    got = await client.recv()
                    if got != f"{number} {body}":
                        self.faults.append(f"the client got {got[:20]!r} in place of {number}")
                    number += 1
                    self.heard += 1
                if not opened.done():
                    opened.set_result(None)
                await asyncio.sleep(random.uniform(0.1, 0.8))
            self.counts["messages"] = self.counts.get("messages", 0) + number
            await client.close(1000, "done")
            self.counts[f"close {client.close_code}"] = self.counts.get(f"close {client.close_code}", 0) + 1

    async def listen(self, url: str, opened: asyncio.Future[None]) -> None:
        """An event stream's client."""
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            data, number = b"", 0
            async for piece in response.content.iter_any():
                data += piece
                *whole, data = data.split(b"\n\n")
                for event in whole:
                    if event.startswith(b":"):
                        continue  # a comment of the gateway's
                    if event.startswith(b"event: end"):
                        if event != b"event: end\ndata: %d" % number:
                            self.faults.append(f"the event stream ended with {event!r}, not {number}")
                        self.counts["ends"] = self.counts.get("ends", 0) + 1
                        continue
                    if not event.startswith(b"id: %d\n" % number):
                        self.faults.append(f"the client got {event[:20]!r} in place of {number}")
                    number += 1
                    self.heard += 1
                if not opened.done():
                    opened.set_result(None)
            if data:
                self.faults.append(f"half an event: {data[:40]!r}")
            # The connection serves the next request, in whichever process it is by now.
            async with session.get(url.replace("/events", "/echo")) as again:
                self.counts[f"again {again.status}"] = self.counts.get(f"again {again.status}", 0) + 1


class MovingTests(MovingTestCase):
    """Each with 500 streams, or as many as it needs."""

    def traffic(self) -> Traffic:
        """Upstreams and clients, to be ended with the test."""
        traffic = Traffic()
        self.addCleanup(traffic.close)
        return traffic

    def rows(self, traffic: Traffic, **more: dict[str, Any]) -> dict[str, Any]:
        """A dataset with an upstream for WebSockets, an event stream, and log plugins."""
        self.log = os.path.join(self.folder(), "records")
        return {
            "services": {
                "ws": service_row("ws", host="targets", port=80),
                "sse": service_row("sse", port=traffic.sse_port),
            },
            "upstreams": {"u": upstream_row("u", "targets")},
            "targets": {"t": {
                "id": "t", "created_at": 1.0, "updated_at": 1.0, "upstream": {"id": "u"}, "target": f"127.0.0.1:{traffic.ws_port}",
                "weight": 100, "tags": None,
            }},
            "routes": {
                "ws": route_row("ws", "ws", paths=["/ws"]),
                "sse": route_row("sse", "sse", paths=["/sse"]),
            },
            "plugins": {
                "file-log": plugin("file-log", path=self.log, reopen=True, custom_fields_by_lua=None),
                "stream-lifetime": plugin(
                    "stream-lifetime", ping_interval=None, ping_sides="both", comment_interval=1, max_stream_age=3600,
                    max_stream_age_jitter=0, close_code=1012, close_reason=None, retry=None,
                ),
            },
            **more,
        }  # fmt: skip

    def open(self, traffic: Traffic, child: Child, websockets: int, events: int) -> None:
        """Open streams."""
        traffic.open(traffic.talk, websockets, f"ws://127.0.0.1:{child.port}/ws")
        traffic.open(traffic.listen, events, f"http://127.0.0.1:{child.port}/sse/events")

    def flows(self, traffic: Traffic) -> None:
        """Messages come, of all streams together."""
        heard = traffic.heard
        wait_until(lambda: traffic.heard > heard + 50 or traffic.faults, "messages after a move")

    def test_back_and_forth(self) -> None:
        """500 streams go from one process to another and back, many times, under traffic: no message is lost, doubled or out of order,
        and when they end, each has one record with the counts of all its life; nothing is left open or counted."""
        traffic = self.traffic()
        one, two = self.children(self.rows(traffic))
        idle = [child.tell() for child in (one, two)]
        self.open(traffic, one, WEBSOCKETS, EVENT_STREAMS)
        number = WEBSOCKETS + EVENT_STREAMS
        here, there = one, two
        for turn in range(MOVES):
            self.flows(traffic)
            answer = here.move(there)
            self.assertEqual((traffic.faults, answer["moved"], answer["left"]), ([], number, 0), f"move {turn}")
            here, there = there, here
        self.flows(traffic)
        told, left = here.tell(), there.tell()
        self.assertEqual((told["streams"], left["streams"]), (number, 0))
        self.assertEqual((told["totals"]["websocket"], told["totals"]["sse"]), (WEBSOCKETS, EVENT_STREAMS))
        self.assertEqual((left["totals"]["websocket"], left["totals"]["sse"]), (0, 0))
        self.assertEqual(
            (told["active"], left["active"]),
            ({f"127.0.0.1:{traffic.ws_port}": WEBSOCKETS}, dict.fromkeys(told["active"], 0)),
        )
        self.assertEqual((left["connections"], left["totals"]["active"]), (0, 0))
        traffic.stopping = True
        wait_until(lambda: traffic.ended == number or traffic.faults, "all streams end")
        self.assertEqual(traffic.faults, [])
        self.assertEqual(traffic.counts["close 1000"], WEBSOCKETS)
        self.assertEqual((traffic.counts["ends"], traffic.counts["again 404"]), (EVENT_STREAMS, EVENT_STREAMS))
        wait_until(lambda: here.tell()["streams"] == 0, "nothing is open")
        self.check_end(traffic, (one, two), idle)

    def records(self) -> list[dict[str, Any]]:
        """What the log plugin has written of streams."""
        with open(self.log, "rb") as file:
            found = [json.loads(each) for each in file.read().splitlines()]
        return [each for each in found if each["response"]["status"] != 404]

    def lines(self, children: tuple[Child, Child], event: str) -> list[dict[str, Any]]:
        """What the logs of streams say of this event."""
        return [line for child in children for line in child.lines("streams.log") if line["event"] == event]

    def check_end(self, traffic: Traffic, children: tuple[Child, Child], idle: list[dict[str, Any]]) -> None:
        """Both processes are as they were, and what they tell together is told once."""
        for child, before in zip(children, idle, strict=True):
            wait_until(lambda child=child: child.tell()["totals"]["active"] == 0, "all connections are over")  # type: ignore[misc]
            now = child.tell()
            self.assertEqual((now["users"], now["sockets"]), (before["users"], before["sockets"] + now["idle"]), "left")
            self.assertEqual(set(now["active"].values()), {0})
        figures = [child.tell()["figures"] for child in children]
        self.assertEqual(figures[0].get("kongtwist_stream_open", 0) + figures[1].get("kongtwist_stream_open", 0), 0)
        number = WEBSOCKETS + EVENT_STREAMS
        wait_until(lambda: len(self.records()) >= number, "the records of all streams")
        found = self.records()
        self.assertEqual(len(found), number)
        self.assertEqual(len({each["request"]["id"] for each in found}), len(found))
        wait_until(
            lambda: len(self.lines(children, "close")) >= number, "the last lines of all streams"
        )  # written in batches
        opened, closed = (self.lines(children, event) for event in ("open", "close"))
        self.assertEqual((len(opened), len(closed)), (number, number))
        sums = sum(line["messages_in"] for line in closed)
        self.assertEqual(sums, traffic.counts["messages"])
        self.assertEqual({each["response"]["status"] for each in found}, {101, 200})
        self.assertEqual({each["source"] for each in found}, {"upstream"})

    def test_receiver_dies(self) -> None:
        """The receiving process is killed in the middle: each stream goes on in the sender, or is cut where both ends see it. None is
        silently changed."""
        traffic = self.traffic()
        for delay in (0.0, 0.005, 0.02):
            one, two = self.children(self.rows(traffic))
            self.open(traffic, one, 120, 30)
            ended = traffic.ended
            one.begin("move", to=two.streams, seconds=30)
            threading.Event().wait(delay)
            two.process.signal(signal.SIGKILL)
            answer = one.answer()
            told = one.tell()
            self.assertEqual(told["streams"], answer["left"])
            cut = 150 - answer["left"]
            wait_until(lambda cut=cut, ended=ended: traffic.ended - ended >= cut, "what was there is cut")  # type: ignore[misc]
            self.assertEqual(traffic.ended - ended, cut)
            order = [each for each in traffic.faults if "in place of" in each or "half" in each]
            self.assertEqual(order, [])
            if answer["left"]:
                self.flows_quiet(traffic)
            one.ask("stop")
            wait_until(lambda ended=ended: traffic.ended - ended == 150, "all end")  # type: ignore[misc]

    def flows_quiet(self, traffic: Traffic) -> None:
        """As `flows`, where other streams have been cut."""
        heard = traffic.heard
        wait_until(lambda: traffic.heard > heard + 20, "messages after a move")

    def test_sender_dies(self) -> None:
        """The sending process is killed in the middle: what the other one has goes on, all else is cut where both ends see it."""
        traffic = self.traffic()
        one, two = self.children(self.rows(traffic))
        self.open(traffic, one, 120, 30)
        one.begin("move", to=two.streams, seconds=30)
        threading.Event().wait(0.03)
        one.process.signal(signal.SIGKILL)
        one.process.wait()
        told = two.tell()
        self.assertEqual(told["streams"], told["adopted"])
        wait_until(lambda: traffic.ended >= 150 - told["streams"], "what was there is cut")
        self.assertEqual(traffic.ended, 150 - told["streams"])
        self.assertEqual([each for each in traffic.faults if "in place of" in each or "half" in each], [])
        self.assertEqual(two.tell()["sockets"] - 4, 2 * told["streams"])
        if told["streams"]:
            self.flows_quiet(traffic)

    def test_receiver_hangs(self) -> None:
        """A process that takes no more holds nothing up: what it has not acknowledged goes on in the sender; and when it wakes, it does
        not touch what is not its own."""
        traffic = self.traffic()
        one, two = self.children(self.rows(traffic))
        self.open(traffic, one, 20, 5)
        two.process.signal(signal.SIGSTOP)
        answer = one.move(two)
        self.assertEqual((answer["moved"], answer["left"]), (0, 25))
        two.process.signal(signal.SIGCONT)
        self.flows(traffic)
        wait_until(lambda: two.tell()["streams"] == 0, "the other one answers")
        self.assertEqual((traffic.faults, two.tell()["adopted"]), ([], 0))
        self.assertEqual(one.move(two)["moved"], 25)
        self.flows(traffic)
        self.assertEqual(traffic.faults, [])

    def test_gone_route(self) -> None:
        """A stream whose route or consumer the other process does not know ends politely: 1012 with a reason, and with its record."""
        traffic = self.traffic()
        rows = self.rows(traffic)
        fewer = {**rows, "routes": {"sse": rows["routes"]["sse"]}}
        one, two = self.children(rows, fewer)
        client = self.websocket(one)
        self.assertEqual(one.move(two)["moved"], 1)
        with self.assertRaises(websockets.ConnectionClosed) as raised:
            client.recv(PATIENCE)
        assert raised.exception.rcvd is not None
        self.assertEqual((raised.exception.rcvd.code, raised.exception.rcvd.reason), (1012, "its route is gone"))
        wait_until(lambda: two.tell()["streams"] == 0, "it is over")
        wait_until(lambda: os.path.exists(self.log) and os.path.getsize(self.log), "its record")

    def websocket(self, child: Child) -> Any:
        """One client, without a thread."""
        from websockets.sync.client import connect

        client = connect(f"ws://127.0.0.1:{child.port}/ws", proxy=None)
        self.addCleanup(client.close)
        return client


def upstream_row(upstream_id: str, name: str) -> dict[str, Any]:
    """An upstream's row, least connections."""
    return {
        "id": upstream_id, "name": name, "algorithm": "least-connections", "hash_on": "none", "hash_fallback": "none", "slots": 100,
        "host_header": None,
    }  # fmt: skip
