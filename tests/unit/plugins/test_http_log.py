"""http-log: what it sends, how and through which queue. Nothing is sent anywhere."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host import HostError, HTTPAnswer, QueueSettings, Scope
from kongtwist.entities.errors import EntityError
from kongtwist.observability.shared_counters import LocalCounters
from kongtwist.plugins.http_log import HttpLog
from kongtwist.testing import NOW, PluginHarness, finished

ENDPOINT = "http://logs.example:9200/in"


class _Queue:
    def __init__(self) -> None:
        self.entries: list[Any] = []

    def add(self, entry: Any) -> None:
        self.entries.append(entry)


class _Server:
    """Stands where HTTP is."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[bytes, bytes], bytes, dict[str, Any]]] = []
        self.answer = HTTPAnswer(200, [], b"")

    async def request(
        self, method: str, url: str, *, headers: Sequence[tuple[bytes, bytes]] = (), body: bytes = b"", **rest: Any
    ) -> HTTPAnswer:
        self.asked.append((method, url, dict(headers), body, rest))
        return self.answer


class _Scope(Scope):
    """A host that keeps what is asked of it."""

    def __init__(self, reports: list[str]) -> None:
        super().__init__(counters=LocalCounters(), now=lambda: NOW, report=reports.append)
        self.http = self.server = _Server()
        self.queues: list[tuple[str, QueueSettings, Callable[[list[Any]], Awaitable[object]]]] = []

    def queue(self, key: str, settings: QueueSettings, send: Callable[[list[Any]], Awaitable[object]]) -> Any:
        self.queues.append((key, settings, send))
        return _Queue()


class HttpLogTests(SynchronousTestCase):
    maxDiff = None

    def opened(self, **config: Any) -> Any:
        """What the phases get, with its host in `self.scope`."""
        config.setdefault("http_endpoint", ENDPOINT)
        self.harness = PluginHarness(HttpLog, **config)
        self.reports: list[str] = []
        self.scope = _Scope(self.reports)
        compiled = self.harness.plugin.compile(self.harness.row["config"], self.harness.row)
        return self.harness.plugin.open(compiled, self.harness.row, self.scope)

    def key(self, **config: Any) -> str:
        self.opened(**config)
        return self.scope.queues[0][0]

    def sent(self, entries: list[bytes], **config: Any) -> tuple[str, str, dict[bytes, bytes], bytes, dict[str, Any]]:
        sender = self.opened(**config)
        finished(sender.send(entries))
        return self.scope.server.asked[0]

    def test_a_request_is_a_record_in_the_queue(self) -> None:
        """The log phase puts JSON into the queue and waits for nothing."""
        sender = self.opened()
        exchange = self.harness.request("GET", "/x?a=1")
        exchange.status = 404
        self.harness.plugin.log(exchange, sender)
        (entry,) = sender.queue.entries
        record = json.loads(entry)
        self.assertEqual((record["request"]["uri"], record["response"]["status"]), ("/x?a=1", 404))

    def test_alone(self) -> None:
        """One record to a request is the record itself."""
        method, url, headers, body, rest = self.sent([b'{"a":1}'])
        self.assertEqual((method, url, body), ("POST", ENDPOINT, b'{"a":1}'))
        self.assertEqual(headers, {b"Content-Type": b"application/json"})
        self.assertEqual(rest, {"timeout": 10.0, "keepalive": 60.0, "ssl_verify": False})

    def test_batches(self) -> None:
        """Where more may come together, it is a list even of one."""
        rules: dict[str, Any] = {"queue": {"max_batch_size": 5}}
        self.assertEqual(self.sent([b"{}", b'{"a":1}'], **rules)[3], b'[{},{"a":1}]')
        self.assertEqual(self.sent([b"{}"], **rules)[3], b"[{}]")

    def test_settings(self) -> None:
        """Everything else that can be set."""
        method, url, headers, _, rest = self.sent(
            [b"{}"], http_endpoint="https://u%20:p@Logs.Example/a/b?token=1", method="PUT", timeout=500, keepalive=1500,
            content_type="application/json; charset=utf-8", headers={"X-A": "b"},
        )  # fmt: skip
        self.assertEqual((method, url), ("PUT", "https://logs.example:443/a/b"))
        self.assertEqual(
            headers,
            {
                b"Content-Type": b"application/json; charset=utf-8",
                b"Authorization": b"Basic " + b64encode(b"u%20:p"),
                b"X-A": b"b",
            },
        )
        self.assertEqual(rest, {"timeout": 0.5, "keepalive": 1.5, "ssl_verify": False})

    def test_no_timeout(self) -> None:
        """0 is that of Kong's sockets, not a time in which no answer can come."""
        for timeout in (0, -1):
            self.assertEqual(self.sent([b"{}"], timeout=timeout)[4]["timeout"], 60.0)

    def test_addresses(self) -> None:
        """Ports by scheme, a path where there is none, IPv6 in brackets."""
        for endpoint, expected in (
            ("http://h", "http://h:80/"),
            ("https://h", "https://h:443/"),
            ("http://[::1]:99/x", "http://[::1]:99/x"),
        ):
            self.assertEqual(self.sent([b"{}"], http_endpoint=endpoint)[1], expected)

    def test_refused(self) -> None:
        """An answer of 300 and more is a failure; its words are cut."""
        sender = self.opened()
        self.scope.server.answer = HTTPAnswer(299, [], b"")
        finished(sender.send([b"{}"]))
        self.scope.server.answer = HTTPAnswer(500, [], b"no" * 2000)
        with self.assertRaises(ValueError) as caught:
            finished(sender.send([b"{}"]))
        text = str(caught.exception)
        self.assertIn("request to logs.example:9200 returned status code 500 and body nono", text)
        self.assertLess(len(text), 700)

    def test_no_answer(self) -> None:
        """Why there is none follows behind the server that was asked."""
        sender = self.opened()

        async def away(*args: Any, **kwargs: Any) -> HTTPAnswer:
            raise HostError("no whole answer within 10 s")

        self.scope.server.request = away  # type: ignore[method-assign]
        with self.assertRaises(ValueError) as caught:
            finished(sender.send([b"{}"]))
        self.assertEqual(str(caught.exception), "failed request to logs.example:9200: no whole answer within 10 s")

    def test_who_shares_a_queue(self) -> None:
        """Equal targets do, whatever their queue's settings and headers; the key tells no credentials."""
        one = self.key()
        self.assertEqual(one, self.key(queue={"max_batch_size": 9}, headers={"a": "b"}))
        others = {
            self.key(http_endpoint=ENDPOINT + "2"), self.key(method="PUT"), self.key(timeout=1), self.key(keepalive=1),
            self.key(content_type="application/json; charset=utf-8"), self.key(retry_count=3),
            self.key(http_endpoint="http://bob:secret@logs.example:9200/in"),
            self.key(http_endpoint="http://bob:other@logs.example:9200/in"),
        }  # fmt: skip
        self.assertEqual(len(others - {one}), 8)
        self.assertEqual([key for key in others if "secret" in key or "bob" in key], [])

    def test_queue(self) -> None:
        """Settings reach the queue, with defaults; the deprecated fields stand for theirs, and the log says so."""
        self.opened(queue={"max_entries": 7, "max_bytes": 100, "concurrency_limit": -1})
        self.assertEqual(self.scope.queues[0][1], QueueSettings(max_entries=7, max_bytes=100, concurrency_limit=-1))
        self.assertEqual(self.reports, [])
        self.opened(queue_size=4, flush_timeout=3, retry_count=5)
        self.assertEqual(self.scope.queues[0][1], QueueSettings(max_batch_size=4, max_coalescing_delay=3))
        self.assertEqual(len(self.reports), 3)
        self.opened(queue_size=1, flush_timeout=2, retry_count=10)
        self.assertEqual((self.scope.queues[0][1], self.reports), (QueueSettings(), []))

    def test_refusals(self) -> None:
        """What cannot be configured, and the words for it."""
        for config, expected in (
            ({"http_endpoint": None}, {"http_endpoint": "required field missing"}),
            ({"http_endpoint": "//h"}, {"http_endpoint": "missing scheme in url"}),
            ({"http_endpoint": "h:80"}, {"http_endpoint": "missing host in url"}),
            ({"http_endpoint": "http://:80/"}, {"http_endpoint": "missing host in url"}),
            ({"headers": {"hOST": "x"}}, {"headers": "cannot contain 'Host' header"}),
            ({"headers": {"Content-Length": "1"}}, {"headers": "cannot contain 'Content-Length' header"}),
            ({"headers": {"content-type": "x"}}, {"headers": "cannot contain 'Content-Type' header"}),
            (
                {"http_endpoint": "http://a:b@h", "headers": {"AuthoRization": "x"}},
                {
                    "@entity": [
                        "specifying both an 'Authorization' header and user info in 'http_endpoint' is not allowed"
                    ]
                },
            ),
        ):
            with self.assertRaises(EntityError) as caught:
                self.opened(**config)
            found = caught.exception.fields["config"]
            self.assertEqual(found, expected if "@entity" not in expected else expected["@entity"][0], config)
