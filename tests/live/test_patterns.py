"""Routes with regular expressions that run wild: who sends them what they choke on stops nobody but himself."""

from __future__ import annotations

import contextlib
import socket
from threading import Event, Thread

from tests.live.support import PATIENCE, LiveTestCase, request

PATHS = {
    # path of the route, path of the request
    "~/" + "a?" * 40 + "a" * 40 + "$": b"/" + b"a" * 40,
    "~/(?:b|" + "b{0,500}" * 4 + "c)$": b"/" + b"b" * 2000,
    "~/(c+)+$": b"/" + b"c" * 60 + b"!",
    "~/[d-f]+[d-f]+[d-f]+$": b"/" + b"d" * 8000 + b"!",
}
HEADERS = {
    "x-a": ("~*" + "a?" * 40 + "a" * 40 + "$", b"a" * 40 + b"b"),
    "x-b": ("~*a{1,900}b", b"a" * 7000),
}


class BombTests(LiveTestCase):
    def bomb(self, port: int, head: bytes, over: Event) -> None:
        """Send one request again and again, several at once."""
        with contextlib.suppress(OSError):
            while not over.is_set():
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                    client.settimeout(PATIENCE)
                    client.sendall(head * 3)
                    while not over.is_set() and client.recv(65536):
                        pass

    def test_others_are_served(self) -> None:
        gateway = self.gateway({"proxy_access_log": "off"})
        upstream = f"http://127.0.0.1:{self.upstream('echo')}"
        gateway.route("/fine", upstream)
        service = gateway.create("/services", name="bombs", url=upstream)
        for path in PATHS:
            gateway.create(f"/services/{service['id']}/routes", paths=[path])
        for name, (pattern, _) in HEADERS.items():
            gateway.create(f"/services/{service['id']}/routes", headers={name: [pattern]})
        heads = [b"GET %b HTTP/1.1\r\nHost: x\r\n" % path for path in PATHS.values()]
        heads += [b"GET /h HTTP/1.1\r\nHost: x\r\n%b: %b\r\n" % (n.encode(), v) for n, (_, v) in HEADERS.items()]
        over = Event()
        clients = [
            Thread(target=self.bomb, args=(gateway.proxy_port, head + b"Connection: close\r\n\r\n", over), daemon=True)
            for head in heads * 3
        ]
        self.addCleanup(over.set)
        for client in clients:
            client.start()
        for number in range(30):
            self.assertEqual(gateway.get(f"/fine/{number}").status, 200)
        self.assertTrue(any(client.is_alive() for client in clients))
        over.set()
        for client in clients:
            client.join(PATIENCE)
        self.assertIn("patterns may take of a request", gateway.log())

    def test_patterns_that_are_refused(self) -> None:
        """The Admin API answers 400 with Kong's words, and goes on answering."""
        gateway = self.gateway()
        for pattern, words in (
            ("(" * 2000 + ")" * 2000, "parentheses are too deeply nested"),
            ("(" * 5000 + ")" * 5000, "regular expression is too large"),
            ("(?:" * 60 + "a" + "){1,2}" * 60, "regular expression is too large"),
            ("a{" + "9" * 5000 + "}", "number too big in {} quantifier"),
        ):
            answer = gateway.admin("POST", "/routes", json={"name": "bomb", "paths": ["~/" + pattern]})
            self.assertEqual((answer.status, answer.json["name"]), (400, "schema violation"))
            self.assertIn(f"pcre2_compile() failed: {words}", answer.json["fields"]["paths"][0])
        answer = gateway.admin("POST", "/routes", json={"name": "deep", "headers": {"x-a": ["~*" + "(" * 5000]}})
        self.assertEqual((answer.status, answer.json["name"]), (400, "schema violation"))
        # Kong's traditional router stores patterns of headers as they come; a route that can never match is told in the log.
        gateway = self.gateway({"router_flavor": "traditional"})
        gateway.create("/routes", name="deep", headers={"x-a": ["~*" + "(" * 5000]})
        self.assertEqual(request(gateway.proxy_port, "GET", "/", headers={"x-a": "1"}).status, 404)
        self.assertIn("cannot be used: pcre2_compile() failed", gateway.log())
