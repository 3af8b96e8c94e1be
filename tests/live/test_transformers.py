"""request-transformer, response-transformer and request-size-limiting in a whole gateway."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import socket
from contextlib import closing
from typing import Any

from tests.places import CONTRACT
from tests.unit.plugins.test_transformer_vectors import text_of
from tests.upstream_cases import Case

from .raw_upstream import RawUpstream
from .support import PATIENCE, GatewayProcess, LiveTestCase, request

JSON = {"Content-Type": "application/json"}


class TransformerTests(LiveTestCase):
    maxDiff = None

    def route(self, gateway: GatewayProcess, url: str, path: str, *plugins: dict[str, Any]) -> None:
        route = gateway.route(path, url)
        for plugin in plugins:
            gateway.create(f"/routes/{route['id']}/plugins", **plugin)

    def test_recorded(self) -> None:
        """Exchanges recorded from a Kong 3.9.3."""
        gateway, echo = self.gateway(), self.upstream("echo")
        gateway.create("/services", name="echo", url=f"http://127.0.0.1:{echo}")
        known: set[str] = set()
        count = 0
        for case in json.loads((CONTRACT / "observed_transformers.json").read_text())["cases"]:
            (plugin,) = case["plugins"]
            count += 1
            if case["route"] not in known:
                known.add(case["route"])
                route = gateway.create("/services/echo/routes", paths=[case["route"]])
                gateway.create(f"/routes/{route['id']}/plugins", name=plugin["name"], config=plugin["config"])
            asked, told = case["request"], case["response"]
            body = text_of(asked["body"]).encode() if asked["body"] is not None else None
            path = asked["path"] if case["route"] != "/sz" else "/sz"
            answer = request(gateway.proxy_port, asked["method"], path, body=body, headers=asked["headers"])
            self.assertEqual(answer.status, told["status"], case["name"])
            if told["status"] != 200:
                self.assertEqual(answer.json["message"], told["body"]["message"])
                continue
            seen = answer.json
            self.assertEqual(seen["method"], told["body"]["method"])
            self.assertEqual(seen["target"].partition("?")[2], told["body"]["path"].partition("?")[2], case["name"])
            theirs = {name.lower() for name, _ in told["body"]["headers"]} - {"host"}
            ours = {name.lower() for name, _ in seen["headers"]} - {"host"}
            self.assertEqual(ours, theirs, case["name"])
            sent = text_of(told["body"]["body"])
            if sent.startswith("{"):
                self.assertEqual(json.loads(seen["body"]), json.loads(sent))
            else:
                self.assertEqual(seen["body"], sent)
        self.assertGreater(count, 8)

    def test_everything_of_a_request(self) -> None:
        """Method, path, Host, headers of several values, body and query arrive; the body's length fits."""
        gateway = self.gateway()
        config = {
            "http_method": "PUT", "replace": {"uri": "/new path", "headers": ["Host:other.example"]},
            "append": {"headers": ["x-a:1", "x-a:2"], "querystring": ["q:2"], "body": ["l:x"]},
        }  # fmt: skip
        self.route(
            gateway,
            f"http://127.0.0.1:{self.upstream('echo')}",
            "/r",
            {"name": "request-transformer", "config": config},
        )
        answer = request(gateway.proxy_port, "POST", "/r?q=1", body=b'{"l":[]}', headers=JSON)
        seen = answer.json
        headers = [(name.lower(), value) for name, value in seen["headers"]]
        self.assertEqual((seen["method"], seen["target"]), ("PUT", "/new%20path?q=1&q=2"))
        self.assertEqual([value for name, value in headers if name == "x-a"], ["1", "2"])
        self.assertEqual(dict(headers)["host"], "other.example")
        self.assertEqual((seen["body"], dict(headers)["content-length"]), ('{"l":["x"]}', "11"))

    def test_head_in_either_direction(self) -> None:
        """Asked for HEAD in place of GET the client gets nothing, and its connection goes on; so it does the other way round."""
        gateway, echo = self.gateway(), self.upstream("echo")
        url = f"http://127.0.0.1:{echo}"
        self.route(gateway, url, "/head", {"name": "request-transformer", "config": {"http_method": "HEAD"}})
        self.route(gateway, url, "/get", {"name": "request-transformer", "config": {"http_method": "GET"}})
        connection = http.client.HTTPConnection("127.0.0.1", gateway.proxy_port, timeout=PATIENCE)
        with closing(connection):
            for _ in range(3):
                for method, path in (("GET", "/head"), ("HEAD", "/get?bytes=300000"), ("GET", "/get")):
                    connection.request(method, path)
                    answer = connection.getresponse()
                    body = answer.read()
                    self.assertEqual(answer.status, 200)
                    if path == "/get":
                        self.assertEqual(json.loads(body)["method"], "GET")
                    else:
                        self.assertEqual(body, b"")

    def test_json_answers(self) -> None:
        """The upstream's and the gateway's own; large ones, compressed ones, HEAD; lengths fit and connections go on."""
        gateway = self.gateway()
        config = {"add": {"json": ["extra:1"], "json_types": ["number"]}, "remove": {"json": ["secret"]}}
        rule = {"name": "response-transformer", "config": config}
        big = json.dumps({"secret": "x", "a": "y" * 3_000_000})
        served = (
            "location /big { default_type application/json; root %(folder)s; } "
            "location /zip { default_type application/json; add_header Content-Encoding gzip; root %(folder)s; } "
            "location /none { return 204; }"
        )
        folder = self.folder()
        os.chmod(folder, 0o755)  # nginx's workers are another user
        for name, content in (("big", big.encode()), ("zip", gzip.compress(b'{"secret":1}'))):
            with open(f"{folder}/{name}", "wb") as file:
                file.write(content)
        nginx = self.nginx(served % {"folder": folder})
        self.route(gateway, f"http://127.0.0.1:{nginx}", "/up", rule)
        stop = {"name": "request-termination", "config": {"status_code": 418, "message": "tea"}}
        self.route(gateway, f"http://127.0.0.1:{nginx}", "/own", rule, stop)
        connection = http.client.HTTPConnection("127.0.0.1", gateway.proxy_port, timeout=PATIENCE)

        def ask(method: str, path: str) -> tuple[http.client.HTTPResponse, bytes]:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer, answer.read()

        with closing(connection):
            answer, body = ask("GET", "/up/big")
            self.assertEqual(json.loads(body), {"a": "y" * 3_000_000, "extra": 1})
            self.assertEqual(answer.headers["Content-Length"], str(len(body)))
            answer, body = ask("HEAD", "/up/big")
            self.assertEqual((body, answer.headers["Content-Length"]), (b"", None))
            answer, body = ask("GET", "/up/zip")
            self.assertEqual(gzip.decompress(body), b'{"secret":1}')
            self.assertEqual(answer.headers["Content-Length"], str(len(body)))
            answer, body = ask("GET", "/up/none")
            self.assertEqual((answer.status, body), (204, b""))
            answer, body = ask("GET", "/own")
            self.assertEqual((answer.status, json.loads(body)), (418, {"message": "tea", "extra": 1}))

    def test_texts_that_are_not_utf_8(self) -> None:
        """What is to be removed is removed; a 304 promises no length, as that of the changed body is not known."""
        gateway, upstream = self.gateway(), RawUpstream()
        self.addCleanup(upstream.close)
        rule = {"name": "response-transformer", "config": {"remove": {"json": ["secret"]}}}
        self.route(gateway, f"http://127.0.0.1:{upstream.port}", "/up", rule)
        body = b'{"secret": 1, "a": "\xe9"}'
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        upstream.play(Case((head % (b"200 OK", len(body)) + body,)))
        self.assertEqual(gateway.get("/up").body, b'{"a":"\xe9"}')
        upstream.play(Case((head % (b"304 Not Modified", len(body)),)))
        answer = gateway.get("/up")
        self.assertEqual((answer.status, answer.headers["Content-Length"]), (304, None))

    def test_sizes(self) -> None:
        """Refused at the head, or when it becomes too much; what is allowed passes, a stream of chunks at its own pace."""
        gateway = self.gateway({"client_body_buffer_size": "1k", "nginx_http_client_body_buffer_size": "1k"})
        rule = {"name": "request-size-limiting", "config": {"allowed_payload_size": 64, "size_unit": "kilobytes"}}
        self.route(gateway, f"http://127.0.0.1:{self.upstream('echo')}", "/s", rule)
        answer = request(gateway.proxy_port, "POST", "/s", body=b"x" * 65536)
        self.assertEqual((answer.status, len(answer.json["body"])), (200, 65536))
        answer = request(gateway.proxy_port, "POST", "/s", body=b"x" * 65537)
        self.assertEqual((answer.status, answer.json["message"]), (413, "Request size limit exceeded"))
        for chunks, expected in ((16, b"200"), (17, b"413")):
            with closing(socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE)) as client:
                client.sendall(b"POST /s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(chunks):
                    client.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                client.sendall(b"0\r\n\r\n")
                self.assertEqual(client.recv(65536).split(b" ")[1], expected, chunks)
        with closing(socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE)) as client:
            client.sendall(b"POST /s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n")
            self.assertEqual(client.recv(65536).split(b" ")[1], b"417", "the body is never asked for")
