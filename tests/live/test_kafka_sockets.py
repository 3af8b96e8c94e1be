"""kafka-consume over WebSocket in whole gateways, in front of Apache Kafka."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any

from kafka import TopicPartition
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.live.browser import Browser, chromium
from tests.live.support import GatewayProcess, wait_until
from tests.live.test_kafka_consume import PARTITIONS, _Topics


class SocketTests(_Topics):
    """Records that all clients get."""

    def configure(self, gateway: GatewayProcess, **config: Any) -> None:
        super().configure(gateway, **{"mode": "websocket", **config})

    def open(self, gateway: GatewayProcess, last: str | None = None, **options: Any) -> ClientConnection:
        """A client of the route."""
        query = f"?last_event_id={last}" if last else ""
        client: ClientConnection = connect(
            f"ws://127.0.0.1:{gateway.proxy_port}/events{query}", max_size=None, **options
        )
        self.addCleanup(client.close)
        return client

    def where(self, client: ClientConnection) -> str:
        """The position that a client is told first."""
        told = json.loads(client.recv(60))
        self.assertEqual(told["event"], "position")
        return str(told["id"])

    @staticmethod
    def messages(client: ClientConnection) -> Iterable[dict[str, Any]]:
        """Records, as the messages that are no signs of life."""
        while True:
            message = json.loads(client.recv(60))
            if message.get("event") != "position":
                yield message

    def assertNumbers(self, messages: Iterable[dict[str, Any]], numbers: Iterable[int]) -> None:
        events = ({"data": str(each["value"])} for each in messages)
        super().assertNumbers(events, numbers)

    def test_order_two_clients(self) -> None:
        gateway = self.begin()
        one, two = self.open(gateway), self.open(gateway)
        self.where(one), self.where(two)
        self.send(range(300))
        self.assertNumbers(self.messages(one), range(300))
        self.assertNumbers(self.messages(two), range(300))
        one.ping().wait(60)
        wait_until(lambda: self.connections(gateway) in range(1, 4), "one consumer")
        for each in (one, two):
            each.close()
        wait_until(lambda: self.connections(gateway) == 0, "no consumer")

    def test_resume_in_the_window_past_it_and_on_another_node(self) -> None:
        gateway = self.begin(window_records=40)
        client = self.open(gateway)
        start = self.where(client)
        self.send(range(50))
        early = list(islice(self.messages(client), 20))
        client.close()
        for node, last, count in ((gateway, early[-1]["id"], 30), (self.begin(), early[-1]["id"], 30)):
            again = list(islice(self.messages(self.open(node, last)), count))
            self.assertNumbers([*early, *again], range(50))
        header = self.open(gateway, additional_headers={"Last-Event-ID": start})
        self.assertNumbers(self.messages(header), range(50))

    def test_whole_records(self) -> None:
        gateway = self.begin(auto_offset_reset="earliest", event_data="record", message_deserializer="json")
        self.send([3], key=b"k")
        message = next(iter(self.messages(self.open(gateway))))
        message.pop("timestamp")
        self.assertRegex(message.pop("id"), rf"^{self.topic}@[\w-]{{8}}:1\.0\.0$")
        self.assertEqual(
            message,
            {"topic": self.topic, "partition": 0, "offset": 0, "key": "k", "value": 3,
             "headers": []},
        )  # fmt: skip

    def test_retention_has_taken_it(self) -> None:
        gateway = self.begin()
        client = self.open(gateway)
        start = self.where(client)
        self.send(range(30))
        self.assertNumbers(self.messages(client), range(30))
        self.delete_first(0, 4)
        again = self.messages(self.open(self.begin(), start))
        notice = next(iter(again))
        self.assertEqual((notice["event"], notice["reason"]), ("resync", "retention"))
        self.assertNumbers(again, [n for n in range(30) if n % 3 or n >= 12])

    def delete_first(self, partition: int, offset: int) -> None:
        """Delete the records before an offset."""
        self.admin.delete_records({TopicPartition(self.topic, partition): offset})

    def test_slow_client_is_disconnected(self) -> None:
        gateway = self.begin(window_bytes=1 << 20, slow_client="disconnect")
        slow, fast = self.open(gateway, max_queue=1), self.open(gateway)
        self.where(slow), self.where(fast)
        count = 400
        quick = iter(self.messages(fast))
        for at in range(0, count, 10):  # 16 MB, more than all buffers on the way
            self.send(range(at, at + 10), 40_000)
            self.assertNumbers(quick, range(at, at + 10))
        got: list[dict[str, Any]] = []
        with self.assertRaises(ConnectionClosed) as closed:
            for message in self.messages(slow):
                got.append(message)
        assert closed.exception.rcvd is not None
        self.assertEqual(closed.exception.rcvd.code, 1001)
        self.assertLess(len(got), count)
        rest = self.open(gateway, got[-1]["id"])
        self.assertNumbers([*got, *islice(self.messages(rest), count - len(got))], range(count))

    def test_refused_before_it_is_open(self) -> None:
        gateway = self.begin()
        self.assertEqual(gateway.get("/events").status, 426)
        with self.assertRaises(InvalidStatus) as refused:
            self.open(gateway, "x")
        self.assertEqual(refused.exception.response.status_code, 400)
        other = self.begin(topics=[{"name": "nowhere"}])
        with self.assertRaises(InvalidStatus) as refused:
            self.open(other)
        self.assertEqual(refused.exception.response.status_code, 404)

    def test_the_gateway_stops(self) -> None:
        gateway = self.begin()
        client = self.open(gateway)
        self.where(client)
        self.send(range(3))
        self.assertNumbers(self.messages(client), range(3))
        gateway.stop()
        with self.assertRaises(ConnectionClosed) as closed:
            client.recv(60)
        assert closed.exception.rcvd is not None
        self.assertEqual(closed.exception.rcvd.code, 1001)

    def test_over_http2(self) -> None:
        self.assertTrue(chromium(), "no Chromium on this machine")
        gateway = self.gateway({"nginx_worker_processes": 1}, tls=True, http2=True)
        self.configure(gateway)
        browser = Browser(flags=["--ignore-certificate-errors"])
        self.addCleanup(browser.close)
        browser.open(f"https://127.0.0.1:{gateway.tls_port}/")
        script = """(async () => {
          globalThis.ws = new WebSocket('wss://' + location.host + '/events'); globalThis.got = [];
          await new Promise((done, fail) => {
            ws.onerror = () => fail(new Error('refused'));
            ws.onmessage = event => { const told = JSON.parse(event.data); told.event ? done() : got.push(told.value) };
          });
          return true;
        })()"""
        self.assertTrue(browser.run(script))
        self.send(range(30))
        wait_until(lambda: browser.run("got.length") == 30, "all messages")
        values = [int(each) for each in browser.run("got")]
        for partition in range(PARTITIONS):
            self.assertEqual([n for n in values if n % PARTITIONS == partition], list(range(partition, 30, PARTITIONS)))
