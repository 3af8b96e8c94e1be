"""The demo's upstreams and its overlay, without sockets."""

from __future__ import annotations

import json
import random
import re
from typing import Any, cast

from twisted.internet.error import CannotListenError, ProcessDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site
from twisted.web.test.requesthelper import DummyRequest

from kongtwist.demo import Demo, DemoPages, demo_overlay
from kongtwist.demo.analytics import small_broker
from kongtwist.demo.chat import HOST, ChatMember, ChatRoom
from kongtwist.demo.demo_process import PATIENCE
from kongtwist.demo.ports import USUAL, KeptPorts
from kongtwist.demo.ticker import KEPT, Market, TickerResource


class Listener:
    """A member of the room that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def tell(self, message: dict[str, Any]) -> None:
        self.told.append(message)

    def lines(self) -> list[tuple[str, str]]:
        return [(each["name"], each["text"]) for each in self.told if each["type"] == "message"]


class ChatRoomTests(SynchronousTestCase):
    """Who hears what."""

    def setUp(self) -> None:
        self.room = ChatRoom(lambda: 1000.0)

    def enter(self) -> Listener:
        listener = Listener()
        self.room.enter(cast(ChatMember, listener))
        return listener

    def test_everyone_hears(self) -> None:
        """A line goes to all, under the name of who said it."""
        ada, ben = self.enter(), self.enter()
        self.room.rename(cast(ChatMember, ada), "Ada")
        self.room.say("Ada", " hello ")
        self.assertEqual((ada.lines(), ben.lines()), ([("Ada", "hello")], [("Ada", "hello")]))

    def test_newcomer_sees_history(self) -> None:
        """Who comes later is shown what was said before, with ids to tell known lines by."""
        self.enter()
        self.room.say("Ada", "one")
        welcome = self.enter().told[0]
        self.assertEqual([(line["id"], line["text"]) for line in welcome["history"]], [(1, "one")])

    def test_names_are_unique(self) -> None:
        """Nobody can take another's name, nor the host's; an empty name changes nothing."""
        ada, ben = self.enter(), self.enter()
        taken = ((ada, "Ada", "Ada"), (ben, "Ada", "Ada 2"), (ben, HOST, f"{HOST} 2"), (ada, " ", "Ada"))
        for member, wanted, given in taken:
            self.room.rename(cast(ChatMember, member), wanted)
            self.assertEqual(self.room.members[cast(ChatMember, member)], given)

    def test_leaving(self) -> None:
        """Who left hears nothing more and is told of to the others."""
        ada, ben = self.enter(), self.enter()
        self.room.leave(cast(ChatMember, ada))
        self.room.say("x", "gone?")
        self.assertEqual(ada.lines(), [])
        self.assertIn({"type": "presence", "members": ["guest-2"]}, ben.told)

    def test_host_speaks_to_somebody_only(self) -> None:
        """The host keeps the room alive while somebody is there, and is silent otherwise."""
        self.room.host_says()
        self.assertEqual(list(self.room.history), [])
        ada = self.enter()
        self.room.host_says()
        self.assertEqual([name for name, _ in ada.lines()], [HOST])


class MarketTests(SynchronousTestCase):
    """What a client that comes back is given."""

    def setUp(self) -> None:
        self.market = Market(random.Random(1), lambda: 1000.0)

    def test_resume(self) -> None:
        """After an id come exactly the trades that followed it; after the newest come none."""
        ids = [self.market.trade().id for _ in range(10)]
        self.assertEqual([trade.id for trade in self.market.since(ids[3]) or []], ids[4:])
        self.assertEqual(self.market.since(ids[9]), [])

    def test_too_long_ago(self) -> None:
        """An id that is no longer known, or never was, cannot be resumed from."""
        first = self.market.trade().id
        for _ in range(KEPT + 1):
            self.market.trade()
        self.assertIsNone(self.market.since(first))
        self.assertIsNone(self.market.since(self.market.last_id + 1))

    def test_event(self) -> None:
        """A trade is an event with id, type and JSON data, ended by an empty line."""
        event = self.market.trade().event().decode()
        self.assertRegex(event, r"^id: 1000001\nevent: trade\ndata: \{.*\}\n\n$")


class StreamRequest(DummyRequest):
    """A request whose producer pushes by itself, as a transport's does."""

    producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None


class TickerResourceTests(SynchronousTestCase):
    """The stream as a client gets it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.market = Market(random.Random(1), lambda: 1000.0)
        self.ticker = TickerResource(self.clock, self.market)
        self.ticker.start()

    def request(self, path: bytes = b"/", headers: dict[bytes, bytes] | None = None, **args: bytes) -> Any:
        request: Any = StreamRequest([])
        request.path = path
        request.args = {name.encode(): [value] for name, value in args.items()}
        for name, value in (headers or {}).items():
            request.requestHeaders.setRawHeaders(name, [value])
        request.render(self.ticker)
        return request

    @staticmethod
    def ids(request: Any) -> list[int]:
        return [int(found) for found in re.findall(rb"^id: (\d+)", b"".join(request.written), re.MULTILINE)]

    def test_snapshot_then_trades(self) -> None:
        """A new client gets all prices and then each trade."""
        request = self.request()
        self.clock.pump([0.25] * 3)
        self.assertIn(b"event: snapshot", b"".join(request.written))
        self.assertEqual(self.ids(request), [1_000_000, 1_000_001, 1_000_002, 1_000_003])

    def test_last_event_id(self) -> None:
        """A client that comes back gets what it missed and no snapshot."""
        self.clock.pump([0.25] * 5)
        request = self.request(headers={b"Last-Event-ID": b"1000003"})
        self.assertEqual(self.ids(request), [1_000_004, 1_000_005])
        self.assertNotIn(b"snapshot", b"".join(request.written))

    def test_slow_reader_catches_up(self) -> None:
        """Nothing is written to a client that does not read; later it gets everything in order."""
        request = self.request()
        request.producer.pauseProducing()
        before = len(request.written)
        self.clock.pump([0.25] * 4)
        self.assertEqual(len(request.written), before)
        request.producer.resumeProducing()
        self.assertEqual(self.ids(request)[1:], [1_000_001, 1_000_002, 1_000_003, 1_000_004])

    def test_symbols(self) -> None:
        """A client may ask for some symbols only."""
        request = self.request(symbols=b"oak,nonesuch")
        self.clock.pump([0.25] * 40)
        seen = {json.loads(data)["symbol"] for data in re.findall(rb"trade\ndata: (.*)", b"".join(request.written))}
        self.assertEqual(seen, {"OAK"})

    def test_heartbeat(self) -> None:
        """A comment goes out every few seconds."""
        request = self.request()
        self.clock.advance(10)
        self.assertIn(b": heartbeat\n\n", request.written)

    def test_drop(self) -> None:
        """A client can have its own streams ended, and nobody else's."""
        mine, other = self.request(client=b"me"), self.request(client=b"you")
        request: Any = DummyRequest([])
        request.method, request.path, request.args = b"POST", b"/drop", {b"client": [b"me"]}
        request.render(self.ticker)
        self.assertEqual((mine.finished, other.finished), (1, 0))

    def test_closing(self) -> None:
        """When the market closes its streams end and no timer is left."""
        request = self.request()
        self.ticker.stop()
        self.assertEqual(request.finished, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Plain:
    """Takes rows as they are."""

    def insert(self, data: dict[str, Any], *, now: int, new_id: Any) -> dict[str, Any]:
        return {**data, "created_at": now}


class Asked:
    """A process's transport that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def closeStdin(self) -> None:
        self.asked.append("end of input")

    def signalProcess(self, name: str) -> None:
        self.asked.append(name)


class Spawning(MemoryReactorClock):
    """A reactor that notes which processes are started."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[tuple[Any, list[str]]] = []

    def spawnProcess(self, protocol: Any, program: str, words: list[str], **options: Any) -> None:
        protocol.transport = Asked()
        self.spawned.append((protocol, words))


class DemoTests(SynchronousTestCase):
    """What the demo adds to the gateway."""

    entities = {"services": Plain(), "routes": Plain(), "plugins": Plain()}

    def test_overlay(self) -> None:
        """Everything is tagged, lies under /demo, and points at the upstreams; ids are the same at every start."""
        urls = {"/demo": "http://127.0.0.1:1001", "/demo/chat": "ws://127.0.0.1:1002"}
        overlay = demo_overlay(urls, self.entities, 1000)
        self.assertEqual(overlay, demo_overlay(urls, self.entities, 1000))
        services, routes = overlay["services"], overlay["routes"]
        self.assertEqual(
            {row["paths"][0]: services[row["service"]["id"]]["port"] for row in routes.values()},
            {"/demo": 1001, "/demo/chat": 1002},
        )
        tags = {tuple(row["tags"]) for rows in overlay.values() for row in rows.values()}
        self.assertEqual(tags, {("kongtwist-demo",)})
        self.assertTrue(all(row["id"] == key for rows in overlay.values() for key, row in rows.items()))

    def test_sensors(self) -> None:
        """A gRPC upstream has two routes: one below /demo for pages, which the plugin grpc-web serves, and one for gRPC's own
        clients, whose paths are the service's."""
        overlay = demo_overlay({"/demo/sensors": "grpc://127.0.0.1:1003"}, self.entities, 1000)
        (service,) = overlay["services"].values()
        self.assertEqual((service["protocol"], service["port"]), ("grpc", 1003))
        routes = {row["paths"][0]: row for row in overlay["routes"].values()}
        self.assertEqual(routes["/sensor.DataService"]["protocols"], ["grpc", "grpcs"])
        (plugin,) = overlay["plugins"].values()
        self.assertEqual((plugin["name"], plugin["route"]["id"]), ("grpc-web", routes["/demo/sensors"]["id"]))
        self.assertEqual(plugin["config"], {"pass_stripped_path": True})

    def test_upstreams_on_loopback(self) -> None:
        """The upstreams listen on loopback ports only, the same at every start, and say where to look."""
        reactor = Spawning()
        demo = Demo(cast(Any, reactor), self.entities, proxy="localhost:8000", admin="localhost:8001")
        demo.startService()
        self.assertEqual(
            sorted((port, interface) for port, _, _, interface in reactor.tcpServers),
            [(port, "127.0.0.1") for port in sorted(USUAL.values())],
        )
        kafka, look, add, stop = demo.lines()
        self.assertIn(f"noida-db, a small broker for trying things, at 127.0.0.1:{USUAL['kafka']}", kafka)
        self.assertIn("http://localhost:8000/demo/", look)
        self.assertIn(f"http://localhost:8001/services/mine --data url=http://127.0.0.1:{USUAL['ticker']} &&", add)
        self.assertIn("Ctrl-C", stop)

    def test_processes(self) -> None:
        """Programs are told their ports, and to end with us; stopping waits for its end, and kills it when that takes
        too long; an end that nobody asked for is in the log, with its last line."""
        reactor = Spawning()
        demo = Demo(cast(Any, reactor), self.entities)
        demo.startService()
        (protocol, words), (broker, broker_words), (counter, counter_words) = reactor.spawned
        self.assertEqual(words[2:], [str(USUAL["sensors"]), "--bound"])
        self.assertEqual(broker_words[2:], [str(USUAL["kafka"])])
        self.assertEqual(counter_words[2:], [f"127.0.0.1:{USUAL['kafka']}", "--bound"])
        for each in (broker, counter):
            each.processEnded(Failure(ProcessDone(0)))
        self.assertEqual(demo.urls["/demo/sensors"], f"grpc://127.0.0.1:{USUAL['sensors']}")
        stopped = demo.stopService()
        self.assertEqual(protocol.transport.asked, ["end of input"])
        reactor.advance(PATIENCE)
        self.assertEqual(protocol.transport.asked, ["end of input", "KILL"])
        self.assertNoResult(stopped)
        protocol.processEnded(Failure(ProcessDone(0)))
        self.successResultOf(stopped)

        demo = Demo(cast(Any, reactor), self.entities, kafka=False)
        demo.startService()
        protocol = reactor.spawned[-1][0]
        with capturedLogs() as events:
            protocol.errReceived(b"a line\nno such module\n")
            protocol.processEnded(Failure(ProcessDone(1)))
        self.assertIn("no such module", str(formatEvent(events[0])))
        self.successResultOf(demo.stopService())

    def test_without_grpc(self) -> None:
        """A gateway that lacks the plugin has no sensors."""
        reactor = Spawning()
        demo = Demo(cast(Any, reactor), self.entities, grpc=False, kafka=False)
        demo.startService()
        self.assertEqual(reactor.spawned, [])
        self.assertNotIn("/demo/sensors", demo.urls)

    def test_kafka(self) -> None:
        """Events go into a topic and come back as counts by plugins on two routes, which need no service."""
        urls = dict.fromkeys(("/demo/analytics", "/demo/counts"), "kafka://127.0.0.1:1004")
        overlay = demo_overlay(urls, self.entities, 1000)
        self.assertEqual(overlay["services"], {})
        routes = {row["id"]: row["paths"] for row in overlay["routes"].values()}
        plugins = {row["name"]: row for row in overlay["plugins"].values()}
        self.assertEqual(
            {name: routes[row["route"]["id"]] for name, row in plugins.items()},
            {"kafka-upstream": ["/demo/analytics"], "kafka-consume": ["/demo/counts"]},
        )
        for row in plugins.values():
            self.assertEqual(row["config"]["bootstrap_servers"], [{"host": "127.0.0.1", "port": 1004}])

    def test_without_broker(self) -> None:
        """Where the small broker is not installed, or the gateway lacks the plugins, the demo starts without Kafka, and both the log and
        the page say so."""
        for plugins, said in ((True, "pip install noida-db"), (False, "the plugins kafka-upstream")):
            self.patch(small_broker, "PACKAGE", "no_such_package")
            reactor = Spawning()
            demo = Demo(cast(Any, reactor), self.entities, grpc=False, kafka=plugins)
            demo.startService()
            self.assertEqual(reactor.spawned, [])
            self.assertNotIn("/demo/counts", demo.urls)
            self.assertIn(said, demo.lines()[0])
            (page,) = [each[1].resource for each in reactor.tcpServers if isinstance(each[1], Site)][-1:]
            self.assertIsNone(json.loads(page._files[b"about.json"][0])["broker"])

    def test_process_ports(self) -> None:
        """Two demos that start at the same time have other ports for their processes, though none listens there yet."""
        taken: set[str] = set()

        class Machine(Spawning):
            def listenUNIX(self, address: str, *rest: Any, **more: Any) -> Any:
                if address in taken:
                    raise CannotListenError(None, address, OSError("in use"))
                taken.add(address)
                return super().listenUNIX(address, *rest, **more)

        first, second = (Demo(cast(Any, Machine()), self.entities, grpc=False) for _ in range(2))
        first.startService()
        second.startService()
        self.assertEqual(first.broker, f"127.0.0.1:{USUAL['kafka']}")
        self.assertNotEqual(first.broker, second.broker)

    def test_ports_are_kept(self) -> None:
        """Where the usual port is taken another one is used, and at the next start, too; what cannot be read is no fault."""
        path = self.mktemp()
        taken = {USUAL["chat"]}

        def listen(port: int) -> int:
            if port in taken:
                raise CannotListenError("127.0.0.1", port, OSError("in use"))
            return port or 40001

        def start() -> dict[str, int]:
            kept = KeptPorts(path)
            used = {name: kept.listen(name, listen) for name in USUAL}
            for name, port in used.items():
                kept.keep(name, port)
            kept.save()
            return used

        usual: dict[str, int] = dict(USUAL)
        self.assertEqual(start(), usual | {"chat": 40001})
        taken.clear()
        self.assertEqual(start(), usual | {"chat": 40001})
        taken.add(40001)
        self.assertEqual(start(), usual)
        taken.clear()
        self.assertEqual(start(), usual)
        for text in ("", "[]", '{"chat": "x", "page": 0, "other": 1}'):
            with open(path, "w") as file:
                file.write(text)
            self.assertEqual(start(), usual)
        KeptPorts(None).save()
        unwritable = KeptPorts("/proc/none/ports")
        unwritable.keep("chat", 40001)
        unwritable.save()

    def page(self, path: bytes, **headers: bytes) -> Any:
        request: Any = DummyRequest([])
        request.path = path
        for name, value in headers.items():
            request.requestHeaders.setRawHeaders(name.replace("_", "-").encode(), [value])
        request.redirect = lambda url: request.responseHeaders.setRawHeaders(b"location", [url])
        request.render(DemoPages())
        return request

    def test_page_needs_nothing_from_elsewhere(self) -> None:
        """All the page names is served here, and its policy forbids other sources."""
        page = self.page(b"/")
        html = b"".join(page.written).decode()
        named = re.findall(r'(?:href|src)="([^"#]+)"', html)
        for name in named:
            body = b"".join(self.page(b"/" + name.encode()).written).decode()
            self.assertTrue(body, name)
            named += re.findall(r'^import .* from "\./([^"]+)"', body, re.MULTILINE)  # the loop goes on with them
        self.assertIn("sensor_client.js", named)
        self.assertNotRegex(html, r"(?:https?:)?//")
        self.assertIn(b"default-src 'none'", page.responseHeaders.getRawHeaders(b"content-security-policy")[0])

    def test_folder(self) -> None:
        """Asked for without the slash, the page sends the browser to the folder its links start from."""
        request = self.page(b"/", X_Forwarded_Path=b"/api/demo")
        self.assertEqual(request.responseHeaders.getRawHeaders(b"location"), [b"demo/"])
        self.assertIsNone(self.page(b"/", X_Forwarded_Path=b"/demo/").responseHeaders.getRawHeaders(b"location"))

    def test_unknown_file(self) -> None:
        """There is nothing else to be had, the package's files least of all."""
        self.assertEqual(self.page(b"/../chat.py").responseCode, 404)
