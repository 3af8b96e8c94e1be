"""kafka-upstream with Apache Kafka: WebSockets and NDJSON whose every record is answered, and keys that have records sent once."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
from typing import Any
from unittest import SkipTest

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.live.browser import Browser, chromium
from tests.live.http2_peer import DATA, HEADERS, HTTP2Peer
from tests.live.kafka_kit import create_topic, kafka_route, topic_records, topic_values
from tests.live.kafka_server import KafkaCluster, shared_cluster
from tests.live.stand_in import Answering, served
from tests.live.support import PATIENCE, Answer, GatewayProcess, LiveTestCase, free_port, request, wait_until
from tests.live.valkey_server import ValkeyServer

NDJSON = {"Content-Type": "application/x-ndjson"}
SENT = {"message": "Bad Gateway", "error": "could not send message to topic"}


class Lines:
    """A POST of NDJSON over HTTP/1.1 that goes on while its answer is read."""

    def __init__(self, case: LiveTestCase, port: int, path: str = "/events", **headers: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        case.addCleanup(self.sock.close)
        fields = {"Host": "example.com", **NDJSON, "Transfer-Encoding": "chunked", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.sock.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode())
        self.answer: http.client.HTTPResponse | None = None

    def send(self, data: bytes) -> None:
        """Send a chunk; an empty one ends the body."""
        self.sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def read(self) -> Any:
        """The next line of the answer; None at its end."""
        if self.answer is None:
            self.answer = http.client.HTTPResponse(self.sock, method="POST")
            self.answer.begin()
        line = self.answer.readline()
        return json.loads(line) if line else None


class _Streams(LiveTestCase):
    def setUp(self) -> None:
        self.cluster: KafkaCluster = shared_cluster()
        self.topic = create_topic(self.cluster)

    def begin(self, servers: str | None = None, **config: Any) -> GatewayProcess:
        """A gateway with the routes /events and /socket."""
        port = free_port()
        gateway = self.gateway({"proxy_listen": f"127.0.0.1:{port} http2"})
        gateway.proxy_port = port
        wanted = {
            "topic": self.topic,
            "allow_ndjson": True,
            "allow_websocket": True,
            "producer_async": True,
            "timeout": 60000,
        }
        kafka_route(gateway, servers or self.cluster.servers, **{**wanted, **config})
        gateway.create("/services/events/routes", name="socket", paths=["/socket"])
        gateway.create("/routes", name="after", paths=["/after"])
        gateway.create("/routes/after/plugins", name="request-termination", config={"status_code": 204})
        wait_until(lambda: gateway.get("/after").status == 204, "the routes")
        return gateway

    def told(self, offset: int) -> dict[str, Any]:
        return {"message": "message sent", "topic": self.topic, "partition": 0, "offset": offset}


class LineTests(_Streams):
    def test_http1(self) -> None:
        """Each line is answered before the next is sent; a bad one, in its place."""
        gateway = self.begin(key_template="{body.user}")
        lines = Lines(self, gateway.proxy_port)
        for number in range(5):
            lines.send(b'{"user":"u-%d"}\n' % number)
            self.assertEqual(lines.read(), self.told(number))
        assert lines.answer is not None
        self.assertEqual(lines.answer.headers["Content-Type"], "application/x-ndjson")
        lines.send(b"{\n1\n")
        self.assertEqual(lines.read(), {"message": "Bad Request", "error": "a line is no JSON"})
        self.assertEqual(lines.read(), self.told(5))
        lines.send(b'{"last":1}')
        lines.send(b"")
        self.assertEqual(lines.read(), self.told(6))
        self.assertIsNone(lines.read())
        lines.sock.sendall(b"GET /after HTTP/1.1\r\nHost: example.com\r\n\r\n")
        self.assertTrue(lines.sock.recv(1000).startswith(b"HTTP/1.1 204 "))
        records = topic_records(self.cluster, self.topic)
        self.assertEqual([each.key for each in records], [b"u-%d" % number for number in range(5)] + [None] * 2)

    def test_http2(self) -> None:
        gateway = self.begin()
        peer = HTTP2Peer.connect(gateway.proxy_port)
        self.addCleanup(peer.close)
        fields = {":method": "POST", ":scheme": "http", ":authority": "example.com", ":path": "/events"}
        stream = peer.open([*fields.items(), ("content-type", "application/x-ndjson")])
        self.assertEqual(peer.expect(HEADERS, stream=stream).fields[":status"], "200")
        for number in range(5):
            peer.data(stream, b'{"n":%d}\n' % number)
            self.assertEqual(json.loads(peer.expect(DATA, stream=stream).payload), self.told(number))
        peer.data(stream, b'{"n":5}', end=True)
        body = peer.answer(stream)[1]
        self.assertEqual(json.loads(body), self.told(5))
        self.assertEqual([each["body_args"]["n"] for each in topic_values(self.cluster, self.topic)], list(range(6)))

    def test_many(self) -> None:
        """Lines all at once, over both versions: each is where its answer says, in order."""
        gateway = self.begin(message_format="body", stream_max_in_flight=50)
        count = 3000
        body = b"".join(b"%d\n" % number for number in range(count))

        def lines(data: bytes) -> list[Any]:
            return [json.loads(line) for line in data.splitlines()]

        answer = request(gateway.proxy_port, "POST", "/events", headers=NDJSON, body=body)
        self.assertEqual(lines(answer.body), [self.told(number) for number in range(count)])
        peer = HTTP2Peer.connect(gateway.proxy_port, [(4, 1 << 20)])
        self.addCleanup(peer.close)
        peer.send(8, 0, 0, (1 << 20).to_bytes(4))
        fields = {":method": "POST", ":scheme": "http", ":authority": "example.com", ":path": "/events"}
        stream = peer.open([*fields.items(), ("content-type", "application/x-ndjson")])
        peer.data(stream, body, end=True)
        self.assertEqual(lines(peer.answer(stream)[1]), [self.told(number) for number in range(count, 2 * count)])
        values = [int(each.value) for each in topic_records(self.cluster, self.topic)]
        self.assertEqual(values, [*range(count), *range(count)])

    def test_held_back(self) -> None:
        """While no broker is there the client is read no more; then what was taken is answered, and the answer ends."""
        gateway = self.begin(f"127.0.0.1:{free_port()}", stream_max_in_flight=10, timeout=3000)
        lines = Lines(self, gateway.proxy_port)
        self.assertIsNone(self._filled(lines))
        told = list(iter(lines.read, None))
        self.assertEqual(told, [SENT] * len(told))
        self.assertIn(len(told), range(1, 11))

    @staticmethod
    def _filled(lines: Lines) -> None:
        """Send until nothing more is taken; fails where all is."""
        lines.sock.settimeout(0.5)
        line = b'"%b"\n' % (b"x" * 1000)
        try:
            for _ in range(200_000):
                lines.send(line)
        except TimeoutError:
            lines.sock.settimeout(PATIENCE)
            return
        raise AssertionError("all of 200 MB is taken")


class WebSocketTests(_Streams):
    def socket(self, gateway: GatewayProcess, **options: Any) -> ClientConnection:
        client: ClientConnection = connect(f"ws://127.0.0.1:{gateway.proxy_port}/socket", **options)
        self.addCleanup(client.close)
        return client

    def test_in_order(self) -> None:
        gateway = self.begin(stream_max_in_flight=20, stream_max_message_bytes=1000)
        client = self.socket(gateway)
        count = 500

        def send() -> None:
            for number in range(count):
                client.send(f'{{"n":{number}}}')

        sender = threading.Thread(target=send)
        sender.start()
        answers = [json.loads(client.recv(PATIENCE)) for _ in range(count)]
        sender.join()
        self.assertEqual(answers, [self.told(number) for number in range(count)])
        client.send(b"\x00")
        self.assertEqual(json.loads(client.recv(PATIENCE)), self.told(count))
        client.send("x" * 1001)
        self.assertRaises(ConnectionClosed, client.recv, PATIENCE)
        assert client.close_code is not None
        self.assertEqual(client.close_code, 1009)
        values = topic_values(self.cluster, self.topic)
        self.assertEqual([each["body_args"] for each in values[:count]], [{"n": number} for number in range(count)])

    def test_no_broker(self) -> None:
        """Messages are answered with errors, and the client is told to come again."""
        gateway = self.begin(f"127.0.0.1:{free_port()}", timeout=1000)
        client = self.socket(gateway)
        client.send("1")
        self.assertEqual(json.loads(client.recv(PATIENCE)), SENT)
        self.assertRaises(ConnectionClosed, client.recv, PATIENCE)
        self.assertEqual(client.close_code, 1013)

    def test_browser(self) -> None:
        """A page that is allowed sends events and reads where they are; another one's is refused."""
        if chromium() is None:
            raise SkipTest("needs Chromium")
        good, evil = (f"http://localhost:{served(self, _Page)}" for _ in range(2))
        gateway = self.begin(websocket_origins=[good])
        url = f"ws://127.0.0.1:{gateway.proxy_port}/socket"
        script = f"""new Promise(done => {{
            const told = [], socket = new WebSocket({json.dumps(url)});
            socket.onopen = () => {{ for (const n of [0, 1, 2]) socket.send(JSON.stringify({{n}})); }};
            socket.onmessage = event => {{ if (told.push(JSON.parse(event.data).offset) === 3) done(told); }};
            socket.onerror = () => done("error");
        }})"""
        for origin, found in ((evil, "error"), (good, [0, 1, 2])):
            browser = Browser()
            self.addCleanup(browser.close)
            browser.open(f"{origin}/page")
            browser.wait(f"location.origin === {json.dumps(origin)} && document.readyState === 'complete'")
            self.assertEqual(browser.run(script), found)
        self.assertEqual([each["body_args"]["n"] for each in topic_values(self.cluster, self.topic)], [0, 1, 2])
        with self.assertRaises(InvalidStatus) as refused:
            self.socket(gateway, origin=evil)
        self.assertEqual(refused.exception.response.status_code, 403)


class _Page(Answering):
    def do_GET(self) -> None:
        self.answer(200, "text/html", b"<!doctype html><title>page</title><body></body>")


class KeyTests(LiveTestCase):
    """Two nodes, one Valkey server."""

    def nodes(self, cluster: KafkaCluster, topic: str, **config: Any) -> list[GatewayProcess]:
        self.valkey = ValkeyServer(self.folder()).start()
        self.addCleanup(self.valkey.kill)
        redis = {"host": "127.0.0.1", "port": self.valkey.port, "timeout": 20000}
        found = [self.gateway(), self.gateway()]
        for each in found:
            kafka_route(each, cluster.servers, topic=topic, idempotency={"redis": redis}, **config)
        return found

    @staticmethod
    def post(gateway: GatewayProcess, key: str, body: bytes = b"{}") -> Answer:
        headers = {"Content-Type": "application/json", "Idempotency-Key": f'"{key}"'}
        return request(gateway.proxy_port, "POST", "/events", headers=headers, body=body)

    def test_once_on_all_nodes(self) -> None:
        """Many at once and later, here and there: one record, and everybody is told where it is."""
        cluster = shared_cluster()
        topic = create_topic(cluster)
        nodes = self.nodes(cluster, topic, timeout=60000)
        answers: list[Answer] = []
        threads = [
            threading.Thread(target=lambda number=number: answers.append(self.post(nodes[number % 2], "k")))
            for number in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        answers += [self.post(each, "k") for each in nodes]
        told = {"message": "message sent", "topic": topic, "partition": 0, "offset": 0}
        self.assertEqual([(each.status, each.json) for each in answers], [(200, told)] * 18)
        self.assertEqual([self.post(each, "k", b"[]").status for each in nodes], [422, 422])
        self.assertEqual(len(topic_records(cluster, topic)), 1)
        self.valkey.kill()
        answer = self.post(nodes[0], "k")
        self.assertEqual((answer.status, answer.headers["Retry-After"]), (503, "1"))
        self.assertEqual(len(topic_records(cluster, topic)), 1)

    def test_broker_that_hangs(self) -> None:
        """A record that may be in the topic is not sent again, wherever its client tries; once it is known all are told."""
        cluster = KafkaCluster(self.folder())
        self.addCleanup(cluster.kill_all)
        cluster.start()
        topic = create_topic(cluster)
        nodes = self.nodes(cluster, topic, timeout=2000, error_handling={"return_error_message": True})
        for number, each in enumerate(nodes):
            key = f"first-{number}"
            wait_until(lambda each=each, key=key: self.post(each, key).status == 200, "an acknowledgement", 60)  # type: ignore[misc]
        cluster.signal(signal.SIGSTOP)

        def sent() -> bool:  # on a busy machine it may be late before it is sent, and certainly is not there then
            answer = self.post(nodes[0], "k")
            self.assertEqual(answer.status, 500)
            return "it may be in the topic all the same" in answer.json["error"]

        wait_until(sent, "a record that may be in the topic")
        self.assertEqual(self.post(nodes[0], "k").status, 500)
        wait_until(lambda: self.post(nodes[1], "k").status == 409, "a key that is taken")
        cluster.signal(signal.SIGCONT)
        wait_until(lambda: self.post(nodes[1], "k").status == 200, "an acknowledgement", 60)
        places = [self.post(each, "k").json for each in nodes]
        self.assertEqual(places[0], places[1])
        self.assertEqual([each.offset for each in topic_records(cluster, topic)], [0, 1, 2])
        self.assertEqual(places[0]["offset"], 2)
