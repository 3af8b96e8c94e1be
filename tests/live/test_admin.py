"""The Admin API of a running gateway: hostile and hasty clients, writes that race, changes that serve at once."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor

from tests.live.pki import authority
from tests.live.support import PATIENCE, GatewayProcess, LiveTestCase, request


class AdminTests(LiveTestCase):
    """Requests that tools do not send, and many at once."""

    def test_browser_attacks(self) -> None:
        """Neither a foreign page's form nor a rebound name changes anything."""
        gateway = self.gateway()
        form = {"name": "evil", "url": "http://127.0.0.1:1"}
        page = request(
            gateway.admin_port, "POST", "/services", form=form, headers={"Origin": "http://attacker.example"}
        )
        fetch = request(gateway.admin_port, "POST", "/services", form=form, headers={"Sec-Fetch-Site": "cross-site"})
        name = request(gateway.admin_port, "POST", "/services", form=form, headers={"Host": "attacker.example"})
        self.assertEqual([each.status for each in (page, fetch, name)], [403, 403, 403])
        self.assertEqual(gateway.admin("GET", "/services").json["data"], [])

    def test_console_origin(self) -> None:
        """A page of admin_gui_url may write, and CORS names it."""
        gateway = self.gateway({"admin_gui_url": "https://console.example"})
        answer = request(
            gateway.admin_port, "POST", "/services", json={"name": "ok", "host": "h"},
            headers={"Origin": "https://console.example", "Sec-Fetch-Site": "cross-site"},
        )  # fmt: skip
        self.assertEqual(answer.status, 201)
        self.assertEqual(answer.headers["Access-Control-Allow-Origin"], "https://console.example")

    def test_too_large_a_body(self) -> None:
        """A body above the limit is answered 413, with a length and chunked, and nothing is stored."""
        gateway = self.gateway({"nginx_admin_client_max_body_size": "1k"})
        big = b'{"name":"big","host":"h","tags":["' + b"x" * 4096 + b'"]}'
        headers = {"Content-Type": "application/json"}
        self.assertEqual(request(gateway.admin_port, "POST", "/services", body=big, headers=headers).status, 413)
        with socket.create_connection(("127.0.0.1", gateway.admin_port), PATIENCE) as client:
            client.sendall(
                b"POST /services HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(big), big)
            )
            self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 413"))
        self.assertEqual(gateway.admin("GET", "/services").json["data"], [])

    def test_racing_names(self) -> None:
        """Of many who create the same name at once, one succeeds and the others get 409."""
        gateway = self.gateway()
        with ThreadPoolExecutor(16) as crowd:
            answers = list(
                crowd.map(
                    lambda _: gateway.admin("POST", "/services", json={"name": "one", "host": "h"}).status, range(16)
                )
            )
        self.assertEqual(sorted(answers), [201] + [409] * 15)

    def test_racing_patches(self) -> None:
        """PATCHes of different fields that race are all in the result."""
        gateway = self.gateway()
        gateway.create("/services", name="s", host="h")
        fields = {
            "retries": 1,
            "connect_timeout": 11,
            "read_timeout": 12,
            "write_timeout": 13,
            "path": "/p",
            "port": 81,
        }
        with ThreadPoolExecutor(6) as crowd:
            list(crowd.map(lambda each: gateway.admin("PATCH", "/services/s", json=dict([each])), fields.items()))
        row = gateway.admin("GET", "/services/s").json
        self.assertEqual({name: row[name] for name in fields}, fields)

    def test_certificates_with_names_that_race(self) -> None:
        """Certificates that claim the same name at once: one has it with all its names, of the others nothing is left."""
        gateway, signed = self.gateway(), authority().sign("a.example")

        def claim(number: int) -> int:
            names = [f"own{number}.example", "shared.example", f"other{number}.example"]
            body = {"cert": signed.pem, "key": signed.key_pem, "snis": names}
            return gateway.admin("POST", "/certificates", json=body).status

        with ThreadPoolExecutor(8) as crowd:
            answers = list(crowd.map(claim, range(8)))
        self.assertEqual(sorted(answers), [201] + [400] * 7)
        (row,) = gateway.admin("GET", "/certificates").json["data"]
        self.assertEqual(len(row["snis"]), 3)
        self.assertEqual(len(gateway.admin("GET", "/snis").json["data"]), 3)

    def test_changes_serve_at_once(self) -> None:
        """A request sent right after the answer to a write meets the change, a hundred times."""
        gateway = self.gateway()
        gateway.create("/services", name="s", url="http://127.0.0.1:1")
        gateway.create(
            "/services/s/plugins", name="request-termination", config={"status_code": 200, "message": "here"}
        )
        for number in range(100):
            gateway.create("/services/s/routes", name=f"r{number}", paths=[f"/n{number}"])
            self.assertEqual(gateway.get(f"/n{number}").status, 200)
            self.assertEqual(gateway.admin("DELETE", f"/routes/r{number}").status, 204)
            self.assertEqual(gateway.get(f"/n{number}").status, 404)

    def test_every_body_encoding(self) -> None:
        """JSON, form, multipart: the same service."""
        gateway = self.gateway()
        boundary = b"--xyz\r\n"
        parts = [(b"name", b"multi"), (b"url", b"http://h.example:81/p"), (b"retries", b"2")]
        body = b"".join(
            boundary + b'Content-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % part for part in parts
        ) + b"--xyz--\r\n"  # fmt: skip
        made = [
            gateway.admin("POST", "/services", json={"name": "json", "url": "http://h.example:81/p", "retries": 2}),
            gateway.admin("POST", "/services", form={"name": "form", "url": "http://h.example:81/p", "retries": 2}),
            request(
                gateway.admin_port, "POST", "/services", body=body,
                headers={"Content-Type": "multipart/form-data; boundary=xyz"},
            ),
        ]  # fmt: skip
        self.assertEqual([each.status for each in made], [201, 201, 201])
        shapes = [
            {k: v for k, v in each.json.items() if k not in ("id", "name", "created_at", "updated_at")} for each in made
        ]
        self.assertEqual(shapes[0], shapes[1])
        self.assertEqual(shapes[0], shapes[2])

    def test_declarative_file(self) -> None:
        """Without a database the file's routes serve, and writes are refused with 405 and code 12."""
        path = os.path.join(self.folder(), "kong.yml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                "_format_version: '3.0'\nservices:\n- name: s\n  url: http://127.0.0.1:1\n  routes:\n  - name: r\n"
                "    paths: [/r]\n    plugins:\n    - name: request-termination\n      config: {status_code: 200}\n"
            )
        gateway = self.gateway({"database": "off", "declarative_config": path})
        self.assertEqual(gateway.get("/r").status, 200)
        refused = gateway.admin("POST", "/services", json={"name": "x", "host": "h"})
        self.assertEqual((refused.status, refused.json["code"]), (405, 12))
        self.assertEqual(gateway.admin("GET", "/routes/r").json["paths"], ["/r"])
        self.assertRegex(gateway.admin("GET", "/status").json["configuration_hash"], "^(?!0{32})[0-9a-f]{32}$")

    def test_bad_declarative_file_stops_the_start(self) -> None:
        """One sentence that names the faults, and exit code 1."""
        path = os.path.join(self.folder(), "kong.yml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("_format_version: '3.0'\nservices:\n- retries: 3\n- name: t\n  host: h\n  port: x\n")
        process = GatewayProcess(self, {"database": "off", "declarative_config": path}).launch()
        self.assertEqual(process.wait(), 1)
        self.assertIn("required field missing", process.output())
        self.assertIn("expected an integer", process.output())
