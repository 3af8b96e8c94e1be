"""The Admin API as people type at it: curl with every way it has to send a body, and clients that keep their connection."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any
from unittest import SkipTest

from tests.live.pki import authority
from tests.live.support import PATIENCE, GatewayProcess, LiveTestCase, free_port

TOO_LARGE = 200_000
"""Bytes; more than the limit that the tests set, and more than what is read to its end all the same."""


def curl_program() -> str:
    """curl's path; without it tests are skipped, except in CI."""
    path = shutil.which("curl")
    if path is None:
        raise AssertionError("curl is not installed") if os.environ.get("CI") else SkipTest("no curl")
    return path


def has_ipv6() -> bool:
    """Whether this machine has the IPv6 loopback address."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class Shown:
    """What ``curl -i`` printed: the heads of all answers, and the body of the last."""

    def __init__(self, output: bytes) -> None:
        self.heads: list[tuple[int, dict[str, str]]] = []
        while output.startswith(b"HTTP/"):
            head, _, output = output.partition(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").split("\r\n")
            pairs = (field.partition(":") for field in fields)
            self.heads.append((int(line.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}))
        self.body = output
        self.status, self.fields = self.heads[-1]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<Shown {self.heads} {self.body[:500]!r}>"


class CurlCase(LiveTestCase):
    """A gateway and a curl."""

    def setUp(self) -> None:
        self.curl_path = curl_program()
        self.at = self.gateway()

    def curl(self, path: str, *words: str, stdin: bytes | None = None) -> Shown:
        """One curl command on a path (or a whole URL) of the Admin API."""
        url = path if "://" in path else f"http://127.0.0.1:{self.at.admin_port}{path}"
        command = [self.curl_path, "-q", "-sS", "-i", "-g", "--noproxy", "*", "-m", str(int(PATIENCE)), *words, url]
        done = subprocess.run(command, input=stdin or b"", capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, f"{command}: {done.stderr.decode()}")
        return Shown(done.stdout)

    def made(self, path: str, *words: str, stdin: bytes | None = None) -> Any:
        """The entity that a curl command made."""
        shown = self.curl(path, *words, stdin=stdin)
        self.assertEqual(shown.status, 201, f"{words}: {shown}")
        return shown.json


class FormTests(CurlCase):
    """``-d`` and its relatives."""

    def test_fields(self) -> None:
        """Numbers, booleans, nothing, and text with spaces, signs and letters of all alphabets."""
        service = self.made(
            "/services", "-d", "name=one", "-d", "host=one.example", "-d", "port=0x50", "-d", "enabled=false",
            "-d", "retries=7", "-d", "path=", "--data-urlencode", "tags=a b&c=d+e%20\u4e16",
        )  # fmt: skip
        self.assertEqual((service["port"], service["enabled"], service["retries"]), (80, False, 7))
        self.assertEqual((service["path"], service["tags"]), (None, ["a b&c=d+e%20\u4e16"]))

    def test_data_from_files(self) -> None:
        """``-d @file``, ``--data-urlencode name@file`` and standard input."""
        folder = Path(self.folder())
        (folder / "form").write_text("username=from-file\n&custom_id=\n")  # -d drops the line ends
        self.assertEqual(self.made("/consumers", "-d", f"@{folder}/form")["username"], "from-file")
        (folder / "value").write_text("a=b&c")
        self.assertEqual(
            self.made("/consumers", "--data-urlencode", f"username@{folder}/value")["username"], "a=b&c"
        )  # fmt: skip
        self.assertEqual(self.made("/consumers", "-d", "@-", stdin=b"username=stdin")["username"], "stdin")

    def test_arrays_as_json(self) -> None:
        """An array of JSON is that list; what a shell leaves of it without quotes is refused with what to write."""
        self.made("/routes", "-d", "name=grpc-stream-route", "-d", "paths=/grpc")
        path = "/routes/grpc-stream-route/plugins"
        plugin = self.made(
            path, "--data", "name=ip-restriction", "--data", 'config.allow=["192.168.1.0/24", "10.0.0.0/8"]'
        )
        self.assertEqual(plugin["config"]["allow"], ["192.168.1.0/24", "10.0.0.0/8"])
        shown = self.curl(path, "--data", "name=ip-restriction", "--data", "config.allow=[192.168.1.0/24,")
        self.assertEqual(shown.status, 400, shown)
        self.assertEqual((shown.json["name"], shown.json["code"]), ("schema violation", 2))
        self.assertIn("single quotes", shown.json["fields"]["config"]["allow"])
        route = self.made("/routes", "-F", 'hosts=["a.example", "b.example"]')
        self.assertEqual(route["hosts"], ["a.example", "b.example"])

    def test_arrays(self) -> None:
        """Every spelling of an array gives the same array."""
        spellings = [
            ["paths[]=/a", "paths[]=/b"], ["paths[1]=/a", "paths[2]=/b"], ["paths=/a", "paths=/b"],
            ["paths%5B%5D=/a", "paths%5B%5D=/b"], ["paths%5B1%5D=%2Fa", "paths%5B2%5D=%2Fb"],
        ]  # fmt: skip
        for spelling in spellings:
            words = [word for pair in spelling for word in ("-d", pair)]
            self.assertEqual(self.made("/routes", *words)["paths"], ["/a", "/b"], spelling)
        self.assertEqual(self.made("/routes", "-d", "paths=/one")["paths"], ["/one"])
        both = self.made("/routes", "-d", "paths=/p", "-d", "protocols=http,https")  # as Kong's own examples write it
        self.assertEqual(both["protocols"], ["http", "https"])

    def test_nested(self) -> None:
        """Records, maps and references: with dots and with brackets; a plugin's own configuration too."""
        self.made("/services", "-d", "name=s", "-d", "url=http://h.example:81/p")
        route = self.made(
            "/routes", "-d", "service.name=s", "-d", "headers.x-one[]=a", "-d", "headers[x-one][]=b",
            "-d", "paths[]=/n",
        )  # fmt: skip
        self.assertEqual(route["headers"], {"x-one": ["a", "b"]})
        self.assertEqual(self.curl("/routes/" + route["id"] + "/service").json["name"], "s")
        limit = self.made(
            "/services/s/plugins", "-d", "name=rate-limiting", "-d", "config.minute=5", "-d", "config.policy=local",
            "-d", "config.redis.port=1234", "-d", "config.hide_client_headers=true",
        )  # fmt: skip
        config = limit["config"]
        self.assertEqual((config["minute"], config["policy"], config["redis"]["port"]), (5, "local", 1234))
        self.assertIs(config["hide_client_headers"], True)
        keys = self.made("/plugins", "-d", "name=key-auth", "-d", "config.key_names=k1", "-d", "config.key_names=k2")
        self.assertEqual(keys["config"]["key_names"], ["k1", "k2"])
        upstream = self.made(
            "/upstreams", "-d", "name=u", "-d", "healthchecks.active.healthy.http_statuses[1]=200",
            "-d", "healthchecks.active.healthy.http_statuses[2]=299", "-d", "healthchecks.threshold=12.5",
        )  # fmt: skip
        self.assertEqual(upstream["healthchecks"]["active"]["healthy"]["http_statuses"], [200, 299])
        self.assertEqual(upstream["healthchecks"]["threshold"], 12.5)

    def test_changes(self) -> None:
        """PUT, PATCH (the stored plugin's name tells what its form means) and DELETE."""
        put = self.curl("/services/put", "-X", "PUT", "-d", "url=http://h.example")
        self.assertEqual((put.status, put.json["name"]), (200, "put"))
        plugin = self.made("/services/put/plugins", "-d", "name=rate-limiting", "-d", "config.minute=5")
        patched = self.curl(f"/plugins/{plugin['id']}", "-X", "PATCH", "-d", "config.hour=100")
        self.assertEqual(
            (patched.status, patched.json["config"]["minute"], patched.json["config"]["hour"]), (200, 5, 100)
        )
        emptied = self.curl(f"/plugins/{plugin['id']}", "-X", "PATCH", "-d", "config.minute=")
        self.assertIsNone(emptied.json["config"]["minute"])
        for _ in range(2):  # the second time there is nothing to delete
            gone = self.curl(f"/plugins/{plugin['id']}", "-X", "DELETE")
            self.assertEqual((gone.status, gone.body), (204, b""))
        self.assertEqual(self.curl(f"/plugins/{plugin['id']}").status, 404)

    def test_faults(self) -> None:
        """A fault names its field, in the same words as for JSON."""
        by_form = self.curl("/services", "-d", "host=h", "-d", "port=http", "-d", "nonsense=1")
        by_json = self.curl("/services", "--json", '{"host": "h", "port": "http", "nonsense": "1"}')
        self.assertEqual((by_form.status, by_form.json), (by_json.status, by_json.json))
        self.assertEqual(by_form.json["fields"], {"port": "expected an integer", "nonsense": "unknown field"})


class OtherBodyTests(CurlCase):
    """Multipart, JSON, nothing, and what is none of them."""

    def test_multipart(self) -> None:
        """``-F``: fields, files as values (certificates are uploaded so), a part that is JSON."""
        signed = authority().sign("a.example")
        certificate, key = signed.write(self.folder(), "a")
        made = self.made(
            "/certificates", "-F", f"cert=@{certificate}", "-F", f"key=@{key}", "-F", "snis[]=a.example",
            "-F", "snis[]=b.example",
        )  # fmt: skip
        self.assertEqual((made["cert"].strip(), made["key"].strip()), (signed.pem.strip(), signed.key_pem.strip()))
        self.assertEqual(made["snis"], ["a.example", "b.example"])
        self.assertEqual(self.curl("/certificates/b.example").json["id"], made["id"])
        inline = self.made("/certificates", "-F", f"cert=<{certificate}", "-F", f"key=<{key}")  # a value, no file name
        self.assertEqual(inline["cert"].strip(), signed.pem.strip())
        plugin = self.made(
            "/plugins", "-F", "name=rate-limiting", "-F", 'config={"minute": 7};type=application/json'
        )  # fmt: skip
        self.assertEqual(plugin["config"]["minute"], 7)

    def test_json(self) -> None:
        """``--json``, a charset beside the type, chunks instead of a length, and standard input."""
        self.assertEqual(self.made("/consumers", "--json", '{"username": "\u00fc"}')["username"], "\u00fc")
        typed = ("-H", "Content-Type: application/json; charset=utf-8", "-d")
        self.assertEqual(self.made("/consumers", *typed, '{"username": "typed"}')["username"], "typed")
        chunked = ("-H", "Transfer-Encoding: chunked", "--json", "@-")
        body = json.dumps({"username": "chunked", "tags": [f"t{number}" for number in range(5000)]}).encode()
        self.assertEqual(len(self.made("/consumers", *chunked, stdin=body)["tags"]), 5000)
        streamed = self.curl("/consumers/streamed", "-T", "-", "-H", "Content-Type: application/json", stdin=b"{}")
        self.assertEqual((streamed.status, streamed.json["username"]), (200, "streamed"))  # -T: PUT in chunks

    def test_broken_json(self) -> None:
        """What is no object is refused; what DELETE sends is not looked at."""
        for body in ("{", "[1]", '"text"', "", "nul"):
            shown = self.curl("/services", "-H", "Content-Type: application/json", "-d", body)
            self.assertEqual((shown.status, shown.json), (400, {"message": "Cannot parse JSON body"}), body)
        self.assertEqual(self.curl("/services/none", "-X", "DELETE", "--json", "{").status, 204)
        self.assertEqual(self.curl("/services", "-X", "GET", "--json", "{").status, 200)

    def test_other_types(self) -> None:
        """415 for a body of another type, or of none; nothing at all is an empty form."""
        for kind in ("Content-Type: text/plain", "Content-Type: application/xml", "Content-Type:"):
            self.assertEqual(self.curl("/services", "-H", kind, "-d", "name=x").status, 415, kind)
        for words in (("-X", "POST"), ("-d", "")):
            empty = self.curl("/services", *words)
            self.assertEqual((empty.status, empty.json["fields"]), (400, {"host": "required field missing"}), words)
        self.assertEqual(self.curl("/plugins/enabled", "-X", "POST").status, 405)

    def test_gzipped_body(self) -> None:
        """A compressed body is not unpacked (nor is it by Kong): it is no JSON, and nothing is made of it."""
        body = gzip.compress(b'{"username": "packed"}')
        packed = ("-H", "Content-Encoding: gzip", "--data-binary", "@-", "-H")
        shown = self.curl("/consumers", *packed, "Content-Type: application/json", stdin=body)
        self.assertEqual((shown.status, shown.json), (400, {"message": "Cannot parse JSON body"}))
        shown = self.curl("/consumers", *packed, "Content-Type: application/x-www-form-urlencoded", stdin=body)
        self.assertEqual(shown.status, 400)
        self.assertEqual(self.curl("/consumers").json["data"], [])

    def test_no_service_is_made_of_arguments(self) -> None:
        """``-G`` puts the data into the query string: of a GET it makes no write."""
        self.assertEqual(self.curl("/services", "-G", "-d", "name=x", "-d", "host=h").json["data"], [])


class ProtocolTests(CurlCase):
    """How requests and answers travel."""

    def setUp(self) -> None:
        self.curl_path = curl_program()
        port, self.port6 = free_port(), free_port()
        listen = f"127.0.0.1:{port}" + (f", [::1]:{self.port6}" if has_ipv6() else "")
        self.at = GatewayProcess(self, {"admin_listen": listen, "nginx_admin_client_max_body_size": "100k"})
        self.at.admin_port = port
        self._gateways.append(self.at)
        self.at.start()

    def test_head_and_options(self) -> None:
        """HEAD is GET without the body; OPTIONS tells the methods."""
        self.made("/services", "-d", "name=s", "-d", "host=h")
        got, head = self.curl("/services/s"), self.curl("/services/s", "-I")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.fields["content-length"], str(len(got.body)))
        self.assertEqual(head.fields["content-type"], got.fields["content-type"])
        self.assertEqual(self.curl("/services/none", "-I").status, 404)
        options = self.curl("/services/s", "-X", "OPTIONS")
        self.assertEqual((options.status, options.body), (204, b""))
        self.assertEqual(options.fields["allow"], "DELETE, GET, HEAD, OPTIONS, PATCH, PUT")
        self.assertEqual(self.curl("/services", "-X", "BREW").status, 405)

    def test_compressed(self) -> None:
        """curl that would take a compressed answer gets one that it can read."""
        self.assertEqual(self.curl("/services", "--compressed").json, {"data": [], "next": None})

    def test_expect(self) -> None:
        """A large body waits for ``100 Continue``; one beyond the limit is refused instead of asked for."""
        body = json.dumps({"username": "large", "tags": ["t" * 1000 + str(number) for number in range(80)]}).encode()
        words = ("-H", "Expect: 100-continue", "--expect100-timeout", "600", "--json", "@-")
        shown = self.curl("/consumers", *words, stdin=body)
        self.assertEqual([status for status, _ in shown.heads], [100, 201])
        shown = self.curl("/consumers", *words, stdin=b"x" * TOO_LARGE)
        self.assertEqual([status for status, _ in shown.heads], [413])

    def test_http_1_0(self) -> None:
        """HTTP/1.0: answered with a length, and the connection ends."""
        shown = self.curl("/status", "-0")
        self.assertEqual((shown.status, int(shown.fields["content-length"])), (200, len(shown.body)))
        self.assertNotIn("transfer-encoding", shown.fields)
        self.assertEqual(self.made("/consumers", "-0", "-d", "username=old")["username"], "old")

    def test_one_connection(self) -> None:
        """Several transfers of one curl use one connection."""
        base = f"http://127.0.0.1:{self.at.admin_port}"
        words = [self.curl_path, "-q", "-sS", "--noproxy", "*", "-w", "%{num_connects} %{http_code}\n"]
        each = ["-o", os.devnull, f"{base}/services", "-o", os.devnull, f"{base}/none", "-o", os.devnull, f"{base}/"]
        done = subprocess.run([*words, *each], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.splitlines(), ["1 200", "0 404", "0 200"])

    def test_ipv6(self) -> None:
        """An address in brackets, in the configuration and in the URL."""
        if not has_ipv6():
            raise AssertionError("no IPv6 loopback") if os.environ.get("CI") else SkipTest("no IPv6 loopback")
        url = f"http://[::1]:{self.port6}"
        self.assertEqual(self.made(f"{url}/consumers", "-d", "username=six")["username"], "six")
        self.assertEqual(self.curl("/consumers/six").status, 200)


class KeptConnectionTests(LiveTestCase):
    """Clients that hold one connection, as requests' sessions and HTTPie's do."""

    def setUp(self) -> None:
        self.at = self.gateway()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.at.admin_port, timeout=PATIENCE)
        self.addCleanup(self.connection.close)
        self.connection.connect()
        self.first = self.connection.sock

    def send(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, Any]:
        """One request; fails where it takes another connection than the first."""
        self.connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
        answer = self.connection.getresponse()
        data = answer.read()
        self.assertIs(self.connection.sock, self.first, f"{method} {path}: the connection was closed")
        return answer.status, json.loads(data) if data[:1] == b"{" else data

    def test_thousand_creates(self) -> None:
        """A thousand creates, one after the other, on one connection; all are there, and a page tells of the next."""
        for number in range(1000):
            status, made = self.send("POST", "/consumers", b'{"username": "c%d"}' % number)
            self.assertEqual((status, made["username"]), (201, f"c{number}"))
        seen, path = set(), "/consumers?size=300"
        while path:
            status, page = self.send("GET", path)
            self.assertEqual(status, 200)
            seen |= {each["username"] for each in page["data"]}
            path = page["next"]
        self.assertEqual(seen, {f"c{number}" for number in range(1000)})

    def test_errors_leave_it_usable(self) -> None:
        """After each refusal the next request on the same connection is answered."""
        self.assertEqual(self.send("POST", "/consumers", b'{"username": "there"}')[0], 201)
        refused = [
            (400, "POST", "/consumers", b"{", "application/json"),
            (400, "POST", "/services", b"{}", "application/json"),
            (404, "GET", "/consumers/none", None, ""),
            (404, "POST", "/nothing/here", b'{"a": 1}', "application/json"),
            (404, "POST", "/services/none/routes", b'{"paths": ["/"]}', "application/json"),
            (405, "POST", "/plugins/enabled", b"a=1", "application/x-www-form-urlencoded"),
            (409, "POST", "/consumers", b'{"username": "there"}', "application/json"),
            (415, "POST", "/consumers", b"<a/>", "application/xml"),
        ]
        for status, method, path, body, kind in refused:
            self.assertEqual(self.send(method, path, body, kind)[0], status, (method, path))
            self.assertEqual(self.send("GET", "/consumers/there")[0], 200, (method, path))

    def test_too_large(self) -> None:
        """413: told that the connection ends, as nginx does with any size; the client takes a new one by itself."""
        small = self.gateway({"nginx_admin_client_max_body_size": "1k"})
        connection = http.client.HTTPConnection("127.0.0.1", small.admin_port, timeout=PATIENCE)
        self.addCleanup(connection.close)
        for size in (2000, TOO_LARGE):
            connection.request("POST", "/consumers", b"x" * size, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            self.assertEqual((answer.status, answer.getheader("Connection")), (413, "close"))
            connection.request("GET", "/consumers")
            answer = connection.getresponse()
            self.assertEqual((answer.status, json.loads(answer.read())["data"]), (200, []))
