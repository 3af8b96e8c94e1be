"""Restarts and reloads below clients of Kafka: nothing that was acknowledged is lost or written twice, and readers miss nothing."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.live.kafka_kit import JSON, create_topic, topic_values
from tests.live.kafka_server import KafkaCluster, shared_cluster
from tests.live.restart_kit import Clients, RestartCase
from tests.live.support import PATIENCE, wait_until


def number_of(record: dict[str, Any]) -> int:
    """The number in a record, which has the body of its request as text."""
    found: int = json.loads(record["body"])["n"]
    return found


class Posts:
    """Threads that send numbered events, on connections that are kept until an answer says that they end."""

    def __init__(self, port: int, path: str, number: int = 3) -> None:
        self.port, self.path = port, path
        self.acknowledged: list[int] = []
        self._numbers = count()
        self._local = threading.local()
        self.clients = Clients(self._post, number)

    def _post(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        number = next(self._numbers)
        try:
            connection.request("POST", self.path, json.dumps({"n": number}), JSON)
            answer = connection.getresponse()
            body = answer.read()
        except Exception:
            self._local.connection = None
            connection.close()
            raise
        if answer.will_close:
            self._local.connection = None
            connection.close()
        if answer.status not in (200, 202):
            raise AssertionError(f"{number}: {answer.status} {body!r}")
        self.acknowledged.append(number)


class Readers:
    """Clients of a topic that come back behind what they have got last, as browsers do."""

    def __init__(self, port: int, paths: dict[str, str]) -> None:
        self.port, self.over = port, False
        self.got: dict[str, list[int]] = {name: [] for name in paths}
        self.ready: set[str] = set()
        self.ends: Counter[str] = Counter()
        self.wrong: list[str] = []
        works: dict[str, Callable[[str, str, str], str]] = {"events": self._events, "messages": self._messages}
        self._threads = [
            threading.Thread(target=self._run, args=(name, path, works[name]), daemon=True)
            for name, path in paths.items()
        ]
        for each in self._threads:
            each.start()

    def _run(self, name: str, path: str, work: Callable[[str, str, str], str]) -> None:
        last = ""
        while not self.over:
            try:
                last = work(name, path, last)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.wrong.append(f"{name}: {type(error).__name__} {error}")

    def _events(self, name: str, path: str, last: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request("GET", path, headers={"Last-Event-ID": last} if last else {})
        answer = connection.getresponse()
        if answer.status != 200:
            raise AssertionError(f"{answer.status} {answer.read()!r}")
        self.ready.add(name)
        told, event = "", ""
        for line in answer:  # ends without an error behind the last chunk only
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "id":
                told = value
            elif field == "event":
                event = value
            elif field == "data" and not event:
                self.got[name].append(number_of(json.loads(value)))
            elif field == "retry":
                self.ends["retry"] += 1
            elif not field:
                last, event = told or last, ""
            if self.over:
                break
        connection.close()
        return last

    def _messages(self, name: str, path: str, last: str) -> str:
        query = f"?last_event_id={last}" if last else ""
        with connect(f"ws://127.0.0.1:{self.port}{path}{query}", max_size=None) as client:
            self.ready.add(name)
            try:
                while not self.over:
                    told = json.loads(client.recv(PATIENCE))
                    last = told["id"]
                    if "value" in told:
                        self.got[name].append(number_of(json.loads(told["value"])))
            except ConnectionClosed as closed:
                self.ends[str(closed.rcvd.code if closed.rcvd else None)] += 1
        return last


class KafkaTests(RestartCase):
    def setUp(self) -> None:
        super().setUp()
        self.cluster: KafkaCluster = shared_cluster()

    def writes(self, path: str, **config: Any) -> str:
        """A route that puts requests into a topic; returns the topic."""
        topic = create_topic(self.cluster)
        name = path.strip("/")
        fields = {"bootstrap_servers": self.cluster.servers, "topic": topic, **config}
        self.assertEqual(self.admin("POST", "/services", name=name).status, 201)
        self.assertEqual(
            self.admin("POST", f"/services/{name}/plugins", name="kafka-upstream", config=fields).status, 201
        )
        self.assertEqual(self.admin("POST", f"/services/{name}/routes", paths=[path], name=name).status, 201)
        return topic

    def reads(self, path: str, topic: str, mode: str) -> None:
        """A route on which a topic is read."""
        name = path.strip("/")
        config = {
            "bootstrap_servers": self.cluster.servers, "topics": [{"name": topic}], "mode": mode, "auto_offset_reset": "earliest",
        }  # fmt: skip
        self.assertEqual(self.admin("POST", "/routes", paths=[path], name=name).status, 201)
        made = self.admin("POST", f"/routes/{name}/plugins", name="kafka-consume", config=config)
        self.assertEqual(made.status, 201, made.body)

    def test_writers_and_readers(self) -> None:
        """Two restarts with a reload in between."""
        self.node(goodbye_deadline="10s")
        topics = [self.writes("/sync", producer_async=False), self.writes("/async", producer_async=True)]
        self.reads("/events", topics[0], "server-sent-events")
        self.reads("/messages", topics[0], "websocket")
        wait_until(lambda: self.get("/none").status == 404, "the node")
        wait_until(lambda: all(self.serves_post(each) for each in ("/sync", "/async")), "the routes")
        readers = Readers(self.proxy_port, {"events": "/events", "messages": "/messages"})
        wait_until(lambda: len(readers.ready) == 2, "readers")
        posts = [Posts(self.proxy_port, each) for each in ("/sync", "/async")]
        for change in (self.restart, self.reload, self.restart):
            for each in posts:
                each.clients.some(50)
            change()
        for each in posts:
            each.clients.some(50)
            each.clients.stop()
        self.settled()
        for each, topic in zip(posts, topics, strict=True):
            self.assertEqual(each.clients.failures, [])
            wanted = set(each.acknowledged)  # what was answered 202 is written in a moment
            wait_until(lambda: wanted <= set(self.numbers(topic)), f"all that was acknowledged for {each.path}")  # noqa: B023
            written = Counter(self.numbers(topic))
            self.assertEqual({n: written[n] for n in each.acknowledged if written[n] != 1}, {})
        records = self.numbers(topics[0])
        wait_until(lambda: all(len(each) >= len(records) for each in readers.got.values()), "all records")
        readers.over = True
        self.assertEqual(readers.wrong, [])
        for name, got in readers.got.items():
            self.assertEqual(got, records, name)
        self.assertEqual(readers.ends["1012"], 2)
        self.assertEqual(readers.ends["None"], 0)

    def numbers(self, topic: str) -> list[int]:
        return [number_of(each) for each in topic_values(self.cluster, topic)]

    def serves_post(self, path: str) -> bool:
        with socket.create_connection(("127.0.0.1", self.proxy_port), PATIENCE) as client:
            client.sendall(
                b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
                b'{"n": -1}' % path.encode()
            )
            return client.recv(100)[9:12] in (b"200", b"202")


class KafkaWorkerTests(KafkaTests):
    workers = 2
