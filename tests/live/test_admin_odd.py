"""Requests to the Admin API that no tool sends: each is answered, none with a 500, and nothing is left in the error log."""

from __future__ import annotations

import socket

from .support import PATIENCE, Answer, GatewayProcess, LiveTestCase, request

COLLECTIONS = (
    "/services", "/routes", "/consumers", "/plugins", "/upstreams", "/certificates", "/snis", "/ca_certificates", "/vaults",
    "/keys", "/key-sets", "/key-auths",
)  # fmt: skip
NINES = "9" * 5000
BODIES = (
    "{", "[]", "null", '"x"', "NaN", '{"retries":NaN,"host":"h"}', '{"retries":-Infinity}', '{"retries":1e400}',
    f'{{"retries":{NINES}}}', '{"regex_priority":1180591620717411303424,"paths":["/a"]}', '{"port":9007199254740993}',
    '{"created_at":1e308,"host":"h","username":"u"}', f'{{"created_at":{NINES[:400]},"host":"h","username":"u1"}}',
    '{"name":"a\\u0000b","host":"h","username":"a\\u0000b"}', '{"name":"\\ud800","username":"\\ud800","key":"\\udfff"}',
    '{"name":"x","name":"y","host":"a","host":"b"}', "[" * 100_000, '{"a":' * 50_000, '{"id":[]}', '{"name":{"a":[]}}',
    '{"service":[]}', '{"service":{"name":[]},"name":"key-auth"}', '{"service":{"name":{}},"paths":["/"]}',
    '{"consumer":{"username":[1]},"key":"k"}', '{"set":{"name":7},"kid":"k"}', '{"certificate":{"id":[]},"name":"x.example"}',
    '{"protocols":[[]]}', '{"protocols":{"a":1},"paths":["/"]}', '{"name":"rate-limiting","config":[]}',
    '{"name":"rate-limiting","config":{"minute":1e400}}', '{"name":"rate-limiting","config":{"minute":5,"redis":[1]}}',
    '{"name":"rate-limiting","config":{"redis_host":"h","redis":[1]}}', '{"name":"key-auth","config":{"key_names":[[]]}}',
    '{"paths":["~/a{4294967296}"]}', '{"paths":["~/(a{99999999999999}"]}', '{"headers":{"x":[[]]},"paths":["/"]}',
    '{"sources":[[]],"protocols":["tcp"]}', '{"url":"http://[::1"}', '{"url":"http://a:99999999999999999999/"}',
    '{"url":[]}', '{"algorithm":[],"name":"u"}', '{"healthchecks":{"active":[1]},"name":"u2"}', '{"cert":[],"key":{}}',
    '{"cert":"-----BEGIN CERTIFICATE-----\\n\\ud800","key":"\\ud800"}', '{"snis":[[]],"cert":"x","key":"y"}',
    '{"ttl":1e400,"key":"x"}', '{"jwk":"{\\"kty\\":[]}","kid":"x"}', '{"pem":{"private_key":"\\ud800"},"kid":"y"}',
    '{"prefix":"aa-b","name":"env","config":[1]}', '{"host":"1.2.3.4:\\u00b2"}', '{"target":"1.2.3.4:\\u0661"}',
)  # fmt: skip
FORMS = (
    "=", "&&&", "a[=1", "[]=1", ".=1", "a[999999999999]=1", "a[1]=1&a[b]=2&a=3", "name=%00", "host=%ED%A0%80",
    "config.minute=0x" + "f" * 5000, f"retries={NINES}", "&".join(f"a{number}=1" for number in range(1500)),
    "a[b]" * 2000 + "=1", "a." * 5000 + "b=1", "name=rate-limiting&config=x", "service[]=1&paths=/", "headers[]=x&paths=/",
)  # fmt: skip
_PART = '--x\r\nContent-Disposition: form-data; name="name"\r\n'
PARTS = (
    ("multipart/form-data", "x"), ("multipart/form-data; boundary=x", "--x--\r\n"),
    ("multipart/form-data; boundary=x", f"{_PART}Content-Type: application/json\r\n\r\n{{bad\r\n--x--\r\n"),
    ("multipart/form-data; boundary=x", f"{_PART}Content-Type: application/json\r\n\r\n{'[' * 100_000}\r\n--x--\r\n"),
    ("multipart/form-data; boundary=x", f"{_PART}Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\na\r\n--x--\r\n"),
    ("multipart/form-data; boundary=x", f"{_PART}Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\nc\r\n--x--\r\n"),
    ("application/json; charset=utf-16", "\xff\xfe{"), (";", "{}"), ("text/plain", "a"),
)  # fmt: skip
PATHS = (
    "/services/%00", "/services/%ff", "/services/%ED%A0%80/routes", "/services/" + "a" * 5000, "/services/..%2f", "//",
    "/tags/%ff", "/cache/plugins:rate-limiting::::::", "/cache/" + ":" * 3000, "/upstreams/%ff/health",
    "/upstreams/up/targets/a:b:c", "/upstreams/up/targets/[::1%25eth0]:80", "/upstreams/up/targets/[::",
    "/upstreams/up/targets/x:%C2%B2", "/certificates/%ff", "/schemas/plugins/%00", "/consumers?custom_id=%ff",
    "/services?size=nan", "/services?size=1e400", "/services?size=%C2%B2", "/services?offset=W10", "/services?offset=e30",
    "/services?offset=%C3%A9", "/tags?offset=LTE", "/tags?offset=" + "OTk5" * 1700, "/services?tags=%00", "/status?scale=400",
    "/status?scale=%C2%B2", "/status?unit=%ff", "/services?" + "&".join(f"a{number}=1" for number in range(1100)),
)  # fmt: skip


class OddTests(LiveTestCase):
    """One gateway that must not stumble."""

    def check(self, answer: Answer, what: str) -> None:
        self.assertTrue(200 <= answer.status < 500, f"{what[:200]}: {answer}")

    def unharmed(self, gateway: GatewayProcess) -> None:
        """It answers, and no fault of its own is in the log."""
        self.assertEqual(gateway.admin("GET", "/services").status, 200)
        self.assertNotIn("Traceback", gateway.log())
        self.assertNotRegex(gateway.log(), r"\[error\]|\[crit\]")

    def test_bodies(self) -> None:
        """JSON that is none, is too deep, too large or of other types; forms and parts that lead nowhere."""
        gateway = self.gateway()
        gateway.create("/services", name="s", host="h")
        gateway.create("/services/s/routes", name="r", paths=["/r"])
        gateway.create("/plugins", name="rate-limiting", instance_name="p", config={"minute": 5})
        rows = ("/services/s", "/routes/r", "/plugins/p", "/routes/r/service")
        for path in (*COLLECTIONS, *rows):
            method = "PATCH" if path in rows else "POST"
            sent = [("application/json", body) for body in BODIES]
            if path in ("/services", "/plugins", *rows):
                sent += [*PARTS, *(("application/x-www-form-urlencoded", form) for form in FORMS)]
            for kind, body in sent:
                answer = gateway.admin(method, path, body=body.encode(), headers={"Content-Type": kind})
                self.check(answer, f"{method} {path} {kind} {body}")
        for path in COLLECTIONS:
            self.assertEqual(gateway.admin("GET", path).status, 200, path)
        self.unharmed(gateway)

    def test_paths(self) -> None:
        """Keys, offsets and sizes that are none."""
        gateway = self.gateway()
        gateway.create("/upstreams", name="up")
        for path in PATHS:
            for method in ("GET", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "ODD"):
                self.check(request(gateway.admin_port, method, path), f"{method} {path}")
        self.unharmed(gateway)

    def test_heads(self) -> None:
        """Heads that are none, or say what is no address."""
        gateway = self.gateway()
        lines = ("Origin: http://[", "Origin: http://[x", "Host: [::1", "Content-Length: -5", "Transfer-Encoding: odd")
        heads = [("/services", line) for line in lines] + [(target, "A: b") for target in ("http://[::1/", "*", "x")]
        for target, line in heads:
            host = "" if line.startswith("Host") else "Host: localhost\r\n"
            with socket.create_connection(("127.0.0.1", gateway.admin_port), PATIENCE) as connection:
                connection.sendall(f"GET {target} HTTP/1.1\r\n{host}{line}\r\nConnection: close\r\n\r\n".encode())
                status = connection.makefile("rb").readline()
            self.assertRegex(status, rb"HTTP/1.1 [245]\d\d", f"{target} {line}")
            self.assertNotRegex(status, rb" 500 ", f"{target} {line}")
        self.unharmed(gateway)
