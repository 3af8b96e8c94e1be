"""Every vector of Kong's plugin handlers, made again through a whole gateway, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
from base64 import b64decode
from email.message import Message as HeaderMap
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl
from uuid import NAMESPACE_URL, uuid5

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.plugins.basic_auth import password_digest
from tests.places import CONTRACT
from tests.unit.core.chain.test_plugin_contract import OURS, pairs_of
from tests.unit.plugins import test_oauth2

from .http2_peer import DATA, HEADERS, HTTP2Peer
from .support import PATIENCE, GatewayProcess, LiveTestCase, wait_until
from .vector_credentials import NOW, renewed

FILES = {"vectors_plugins.json": 169, "vectors_oauth2.json": 40, "vectors_transformers.json": 41}
"""How many vectors there are in each."""
UNREACHABLE = "Could not find consumer for 'iss=lost'"
"""The answer of the one vector whose state no storage has: a credential of a consumer that is not there."""
PATHS = {
    "consumers": "/consumers", "keyauth_credentials": "key-auth", "jwt_secrets": "jwt", "acls": "acls",
    "basicauth_credentials": "basic-auth", "hmacauth_credentials": "hmac-auth", "oauth2_credentials": "oauth2",
}  # fmt: skip
ANY_ID = re.compile(r"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def uuid_of(name: str) -> str:
    return str(uuid5(NAMESPACE_URL, name))


def is_unreachable(case: dict[str, Any]) -> bool:
    return UNREACHABLE in json.dumps(case["result"])


def is_template(case: dict[str, Any]) -> bool:
    """Whether its configuration has a template, which no gateway takes yet (the plugins' own tests hold that)."""
    return "$(" in json.dumps(case["config"])


class _Upstream(ThreadingHTTPServer):
    """Answers as it is told to, and keeps what it was asked last."""

    daemon_threads = True

    def __init__(self) -> None:
        self.told: tuple[int, list[tuple[str, str]], bytes] = (200, [], b"")
        self.asked: tuple[str, str, HeaderMap, bytes] | None = None
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Upstream

    def parse_request(self) -> bool:
        """Serve any method in one way."""
        if not super().parse_request():
            return False
        setattr(self, f"do_{self.command}", self.serve)
        return True

    def serve(self) -> None:
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while (size := int(self.rfile.readline(), 16)) > 0:
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked = (self.command, self.path, self.headers, body)
        status, pairs, content = self.server.told
        self.send_response(status)
        for name, value in pairs:
            if name != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Vectors:
    """The vectors; subclasses say how they are sent."""

    http_version: str
    gateway: Any
    addCleanup: Any
    assertEqual: Any
    assertIn: Any
    assertNotIn: Any
    assertRegex: Any
    assertIsNone: Any
    assertIsNotNone: Any
    assertLessEqual: Any
    assertTrue: Any

    def setUp(self) -> None:
        self.echo = _Upstream()
        self.addCleanup(self.echo.close)
        conf = {"plugins": "bundled,tests.live.given_plugin:Given", "trusted_ips": "127.0.0.1/32"}
        self.at: GatewayProcess = self.gateway(conf, tls=True, http2=True)
        self.at.create("/services", name="other", url="http://127.0.0.1:9", id=uuid_of("service-2"))
        self._rows = ""
        self._previous: Any = None
        self._hosts = 0
        self._ids: set[str] = set()

    def ask(self, secure: bool, host: str, sent: dict[str, Any]) -> Any:
        """One request; its answer with ``status``, ``headers``, ``body``."""
        raise NotImplementedError

    def test_every_vector(self) -> None:
        """Config, rows and request to the answer, or to what goes upstream and what comes back. None is left out."""
        for file, wanted in FILES.items():
            cases = json.loads((CONTRACT / file).read_text())["cases"]
            run = [self.one(case, f"{file} {number}: {json.dumps(case)}") for number, case in enumerate(cases)]
            left_out = [case for case, was_run in zip(cases, run, strict=True) if not was_run]
            self.assertEqual((len(cases), len(left_out)), (wanted, file != "vectors_oauth2.json"))
            for case in left_out:
                self.assertTrue(is_unreachable(case) or is_template(case))

    def one(self, case: dict[str, Any], why: str) -> bool:
        """Run one; returns whether it could be."""
        if is_unreachable(case) or is_template(case):
            return False
        self._ids = {row["id"] for rows in case.get("db", {}).values() for row in rows}
        host = self.host_of(case)
        self.echo.asked = None
        told = case.get("response", {"status": 200, "headers": {}, "body": ""})
        self.echo.told = (told["status"], pairs_of(told["headers"]), told["body"].encode())
        sent = renewed(case["request"], self.http_version)
        if "content-length" in sent["headers"]:
            sent["body"] = sent.get("body", "").ljust(int(sent["headers"].pop("content-length")), "x")
        sent["headers"] = {**sent["headers"], "x-real-ip": sent.get("ip", "10.0.0.1")}
        answer = self.ask(sent.get("scheme") == "https", host, sent)
        self.check(case, told, answer, why)
        return True

    # -- what is there before the request ----------------------------------------------------------------------------

    def host_of(self, case: dict[str, Any]) -> str:
        """The host of a route with the plugin; for windows that go on over vectors that of the one before."""
        identity = (case["plugin"], json.dumps(case["config"]), case["request"].get("ip"))
        if case["plugin"] == "rate-limiting" and time.time() % 60 > 45:
            time.sleep(60 - time.time() % 60)  # a series must not fall into two windows
        goes_on = case.get("same_config_as_previous")
        if goes_on and self._previous is not None and self._previous[0] == identity:
            return str(self._previous[1])
        self._hosts += 1
        host = f"v{self._hosts}.test"
        name = f"vector-{self._hosts}"
        port = self.echo.server_address[1]
        service = self.at.create("/services", name=name, url=f"http://127.0.0.1:{port}", id=uuid_of(name))
        self.at.create(f"/services/{name}/routes", name=name, hosts=[host], preserve_host=True)
        self.store(case, service["id"])
        config = {key: uuid_of(value) if str(value) in self._ids else value for key, value in case["config"].items()}
        self.at.create(f"/services/{name}/plugins", name=case["plugin"], config=config)
        given = self.given(case)
        if given:
            self.at.create(f"/services/{name}/plugins", name="given", config=given)
        if goes_on:  # the vector before it is not among ours: the request it made is made here
            self.ask(False, host, {"method": "GET", "uri": "/", "headers": {"x-real-ip": identity[2] or "10.0.0.1"}})
        self._previous = (identity, host)
        return host

    @staticmethod
    def given(case: dict[str, Any]) -> dict[str, Any]:
        """Who is authenticated already."""
        who, credential = case.get("consumer"), case.get("credential")
        out: dict[str, Any] = {} if credential is None else {"credential": uuid_of(credential["id"])}
        if who is not None:
            out |= {"consumer": uuid_of(who["id"]), "username": who["username"]}
        if "authenticated_groups" in case:
            out["groups"] = case["authenticated_groups"]
        return out

    def store(self, case: dict[str, Any], service: str) -> None:
        """The rows of a vector in place of those of the one before, where they differ."""
        tables = case.get("db", {})
        state = json.dumps(tables)
        if state == self._rows and "oauth2_tokens" not in tables:
            return
        self._rows = state
        for row in self.at.admin("GET", "/consumers").json["data"]:
            self.at.admin("DELETE", f"/consumers/{row['id']}")
        for row in tables.get("consumers", ()):
            self.at.create("/consumers", **row | {"id": uuid_of(row["id"])})
        for table, rows in tables.items():
            for row in rows if table != "consumers" else ():
                self.store_row(table, row, case, service)
        expired = [row for row in tables.get("keyauth_credentials", ()) if row.get("ttl") == 0]
        for row in expired:
            wait_until(lambda: self.at.admin("GET", f"/key-auths/{row['key']}").status == 404, "its end")  # noqa: B023

    def store_row(self, table: str, row: dict[str, Any], case: dict[str, Any], service: str) -> None:
        fields = {name: value for name, value in row.items() if name != "consumer"} | {"id": uuid_of(row["id"])}
        if "ttl" in fields:
            fields["ttl"] = 1
        if table == "basicauth_credentials":
            fields["password"] = self.password(row["password"])
        if table == "oauth2_tokens":
            fields["credential"] = {"id": uuid_of(row["credential"]["id"])}
            fields["created_at"] = int(row["created_at"] - NOW + time.time())
            if "service" in row:
                own = row["service"]["id"] == "service-1"
                fields["service"] = {"id": service if own else uuid_of("service-2")}
            self.at.create("/oauth2_tokens", **fields)
            return
        if table == "oauth2_credentials" and fields["client_secret"] == "":
            del fields["client_secret"]  # the Admin API makes one
        owner = uuid_of(row["consumer"]["id"])
        if self.at.admin("GET", f"/consumers/{owner}").status == 200:
            self.at.create(f"/consumers/{owner}/{PATHS[table]}", **fields)

    def password(self, digest: str) -> str:
        """The password that was kept as ``digest``, as some request says it."""
        for case in json.loads((CONTRACT / "vectors_plugins.json").read_text())["cases"]:
            found = re.match(r"[Bb]asic (\S+)", str(case["request"]["headers"].get("authorization")))
            if found is not None:
                word = b64decode(found[1] + "==").decode("latin-1").partition(":")[2]
                if password_digest(word, "c1") == digest:
                    return word
        raise AssertionError(f"no request has the password of {digest}")

    # -- what came of it ---------------------------------------------------------------------------------------------

    def check(self, case: dict[str, Any], told: dict[str, Any], answer: Any, why: str) -> None:
        result = case["result"]
        why = f"{why}\n{answer.status} {answer.headers.items()} {answer.body!r}"
        expected: dict[str, Any] = {}
        if "answer" in result:
            self.assertIsNone(self.echo.asked, why)
            self.assertEqual(answer.status, result["answer"]["status"], why)
            self.check_body(case, result["answer"], answer, why)
            expected |= result["answer"].get("headers", {})
        else:
            self.assertIsNotNone(self.echo.asked, why)
            self.assertEqual(answer.status, told["status"], why)
            if "response_body" in result:
                self.assertEqual(answer.json, json.loads(result["response_body"]), why)
            else:
                self.assertEqual(answer.body, told["body"].encode(), why)
            self.check_upstream(result, why)
        expected |= result.get("response_headers", {})
        upstreams = {name.lower() for name in told["headers"]} - {"content-length"}
        self.assertLessEqual(
            {name.lower() for name in answer.headers if name.lower().startswith(OURS)} - upstreams,
            {name.lower() for name in expected},
            why,
        )
        if case["plugin"] == "response-transformer":
            self.assertEqual({name for name in upstreams if name in answer.headers}, upstreams & set(expected), why)
        for name, value in expected.items():
            seen = answer.headers.get_all(name)
            if name.endswith("-reset") or name == "retry-after":
                self.assertRegex(seen[0], r"\A\d+\Z", why)  # the window's end depends on the second
            elif name == "Content-Type":
                self.assertEqual(seen[0].partition(";")[0], value.partition(";")[0], why)  # nginx adds the charset
            else:
                self.assertEqual(seen, value if isinstance(value, list) else [value], f"{name} {why}")

    def check_body(self, case: dict[str, Any], wanted: dict[str, Any], answer: Any, why: str) -> None:
        if "message" in wanted:
            self.assertEqual(answer.json["message"], wanted["message"], why)
        if "body" not in wanted:
            return
        if isinstance(wanted["body"], str):
            self.assertEqual(answer.body.decode(), wanted["body"], why)
            return
        seen = {name: value for name, value in answer.json.items() if name != "request_id"}
        told = dict(wanted["body"])
        if "request" in told:  # an echo: what is the gateway's own differs
            echo, theirs = seen.pop("request"), told.pop("request")
            self.assertEqual(sorted(echo), sorted(theirs), why)
            for name in ("path", "raw_body", "scheme", "query", "method"):
                self.assertEqual(echo[name], theirs[name], why)
            for name in ("kong", "matched_route", "matched_service"):
                self.assertLessEqual(set(told.pop(name)), set(seen.pop(name)), why)
        if case["plugin"] == "oauth2":
            reader = test_oauth2.VectorTests()
            random = {name for name in test_oauth2.RANDOM if name in told}
            for name in random:
                self.assertRegex(seen[name], r"\A[A-Za-z0-9]{32}\Z", why)
            seen, told = (reader.decoded(each | dict.fromkeys(random, "<random>")) for each in (seen, told))
        self.assertEqual(seen, told, why)

    def check_upstream(self, result: dict[str, Any], why: str) -> None:
        assert self.echo.asked is not None
        method, target, headers, body = self.echo.asked
        why = f"{why}\n{target} {headers.items()} {body!r}"
        wanted = result.get("upstream", {})
        if "consumer" in result and wanted.get("headers_set"):
            self.assertIn("headers_set", wanted, why)
        if "method" in wanted:
            self.assertEqual(method, wanted["method"], why)
        if "path" in wanted:
            self.assertEqual(target.partition("?")[0], wanted["path"], why)
        if "body" in wanted and wanted["body"].startswith("{"):
            self.assertEqual(json.loads(body), json.loads(wanted["body"]), why)
        elif "body" in wanted:
            self.assertEqual(body.decode(), wanted["body"], why)
        for name, value in wanted.get("headers_set", {}).items():
            seen = headers.get_all(name)
            if isinstance(value, list) or name == "content-length":
                told = [str(len(body))] if name == "content-length" else value
                self.assertEqual(seen, told, f"{name} {why}")
                continue
            assert seen is not None, f"{name} {why}"
            if re.fullmatch(r"00000000-0000-4000-8000-000000000000(#\d+)?", value) or value == "<random>":
                self.assertRegex(seen[0].partition("#")[0], ANY_ID, why)
            elif value in self._ids:
                self.assertEqual(seen, [uuid_of(value)], why)
            else:
                self.assertEqual(seen, [value], f"{name} {why}")
        for name in wanted.get("headers_removed", ()):
            self.assertNotIn(name, headers, why)
        if "query" in wanted:
            self.assertEqual(sorted(parse_qsl(target.partition("?")[2])), sorted(parse_qsl(wanted["query"])), why)
        if "body_json" in wanted:
            self.assertEqual(json.loads(body), wanted["body_json"], why)


class HTTP1Tests(_Vectors, LiveTestCase):
    """Over HTTP/1.1."""

    http_version = "1.1"

    def ask(self, secure: bool, host: str, sent: dict[str, Any]) -> Any:
        context = ssl._create_unverified_context()
        port = self.at.tls_port if secure else self.at.proxy_port
        made: http.client.HTTPConnection = (
            http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
            if secure
            else http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        )
        try:
            made.putrequest(sent["method"], sent["uri"], skip_host=True, skip_accept_encoding=True)
            made.putheader("Host", host)
            for name, value in pairs_of(sent["headers"]):
                made.putheader(name, value)
            body = sent.get("body", "").encode()
            if sent["headers"].get("transfer-encoding") == "chunked":
                made.endheaders(iter([body]), encode_chunked=True)
            else:
                if body:
                    made.putheader("Content-Length", str(len(body)))
                # Who asks whether it may send a body sends none to a gateway that says no.
                made.endheaders(None if "expect" in sent["headers"] else body or None)
            answer = made.getresponse()
            return _Answer(answer.status, answer.headers, answer.read())
        finally:
            made.close()


class HTTP2Tests(_Vectors, LiveTestCase):
    """Over HTTP/2."""

    http_version = "2.0"

    def ask(self, secure: bool, host: str, sent: dict[str, Any]) -> Any:
        peer = self.over_tls() if secure else HTTP2Peer.connect(self.at.proxy_port)
        try:
            scheme = "https" if secure else "http"
            fields = [(":method", sent["method"]), (":scheme", scheme), (":path", sent["uri"]), (":authority", host)]
            pairs = [(name.lower(), value) for name, value in pairs_of(sent["headers"])]
            fields += [pair for pair in pairs if pair[0] != "transfer-encoding"]  # RFC 9113, 8.2.2
            body = sent.get("body", "").encode()
            stream = peer.open(fields, end=not body)
            if body:
                peer.data(stream, body, end=True)
            frame = peer.expect(HEADERS, stream=stream)
            while frame.fields[":status"].startswith("1"):
                frame = peer.expect(HEADERS, stream=stream)
            headers, content = HeaderMap(), b""
            for name, value in frame.pairs:
                headers[name] = value
            while not frame.ends:
                frame = peer.expect(DATA, stream=stream)
                content += frame.payload
        finally:
            peer.close()
        return _Answer(int(headers[":status"]), headers, content)

    def over_tls(self) -> HTTP2Peer:
        context = ssl._create_unverified_context()
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", self.at.tls_port), PATIENCE)
        return HTTP2Peer(context.wrap_socket(plain), client=True)


class _Answer:
    """Status, headers and body."""

    def __init__(self, status: int, headers: HeaderMap, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class CompleteTests(SynchronousTestCase):
    """Nothing that Kong's handlers said is left aside."""

    def test_files(self) -> None:
        """Each file of vectors that plugins were run for is one that is made again here, with as many vectors as are counted."""
        found = {path.name: json.loads(path.read_text()) for path in CONTRACT.glob("vectors_*.json")}
        lists = {name: content["cases"] for name, content in found.items() if "cases" in content}
        plugins = {name: cases for name, cases in lists.items() if all("plugin" in case for case in cases)}
        self.assertEqual({name: len(cases) for name, cases in plugins.items()}, FILES)
        self.assertEqual(sum(FILES.values()), 250)
