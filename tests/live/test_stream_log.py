"""``stream_log_interval``: lines about streams that last, and what the record of their request tells then."""

from __future__ import annotations

import json
import os
from typing import Any

from websockets.sync.client import connect

from tests.live.support import PATIENCE, EventStream, GatewayProcess, LiveTestCase, wait_until


class StreamLogTests(LiveTestCase):
    """A node whose streams are logged."""

    def node(self, **conf: object) -> GatewayProcess:
        gateway = self.gateway(conf)
        gateway.route("/chat", f"http://127.0.0.1:{self.upstream('websocket')}")
        gateway.route("/events", f"http://127.0.0.1:{self.upstream('events')}")
        self.records = os.path.join(self.folder(), "records.json")
        gateway.create("/plugins", name="file-log", config={"path": self.records})
        return gateway

    def lines(self, gateway: GatewayProcess, kind: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in gateway.log("streams.log").splitlines()]
        return [each for each in found if each["protocol"] == kind]

    def record(self) -> dict[str, Any]:
        """The only record that there is."""

        def found() -> list[str]:
            if not os.path.exists(self.records):
                return []
            with open(self.records, encoding="utf-8") as file:
                return [line for line in file if line.endswith("\n")]

        (line,) = wait_until(found, "a record")
        os.unlink(self.records)
        record: dict[str, Any] = json.loads(line)
        return record

    def test_websocket(self) -> None:
        """Open, again and again, close: with the code, messages and bytes; one record, which tells the same."""
        gateway = self.node(stream_log_interval=1)
        with connect(gateway.url("/chat", "ws"), proxy=None) as client:
            client.send("hello")
            client.recv(PATIENCE)
            wait_until(lambda: len(self.lines(gateway, "websocket")) > 2, "lines")
            request_id = client.response.headers["X-Kong-Request-Id"]  # type: ignore[union-attr]
            client.close(4001)
        wait_until(lambda: self.lines(gateway, "websocket")[-1]["event"] == "close", "the last line")
        lines = self.lines(gateway, "websocket")
        self.assertEqual([each["event"] for each in lines], ["open", *["interval"] * (len(lines) - 2), "close"])
        self.assertEqual({each["request_id"] for each in lines}, {request_id})
        last = lines[-1]
        self.assertEqual((last["messages_in"], last["messages_out"], last["close_code"]), (1, 1, 4001))
        self.assertEqual((last["cause"], last["route"] != "", last["service"]), ("closed", True, "s-chat"))
        self.assertGreater(last["bytes_out"], 5)
        self.assertIsNotNone(last["first_message_in"])
        self.assertIsNotNone(last["longest_gap_out"])
        record = self.record()
        self.assertEqual(record["request"]["id"], request_id)
        self.assertEqual((record["stream"]["event"], record["stream"]["close_code"]), ("close", 4001))

    def test_events(self) -> None:
        """An event stream: events are its messages."""
        gateway = self.node(stream_log_interval=1)
        stream = EventStream(gateway.proxy_port, "/events")
        for _ in range(3):
            next(stream)
        wait_until(lambda: len(self.lines(gateway, "sse")) > 1, "lines")
        stream.close()
        wait_until(lambda: self.lines(gateway, "sse")[-1]["event"] == "close", "the last line")
        lines = self.lines(gateway, "sse")
        self.assertEqual((lines[0]["event"], lines[1]["event"]), ("open", "interval"))
        self.assertGreaterEqual(lines[-1]["messages_out"], 3)
        self.assertIsNotNone(lines[-1]["first_message_out"])
        self.assertEqual(self.record()["stream"]["protocol"], "sse")

    def test_off(self) -> None:
        """By default nothing is written, and the record is Kong's."""
        gateway = self.node()
        with connect(gateway.url("/chat", "ws"), proxy=None) as client:
            client.send("hello")
            client.recv(PATIENCE)
        self.assertNotIn("stream", self.record())
        self.assertFalse(os.path.exists(os.path.join(gateway.prefix, "logs", "streams.log")))
