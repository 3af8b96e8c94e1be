"""`kongtwist.observability.log_formats`, `log_variables`: nginx's formats, without credentials."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Exchange
from kongtwist.core.http.head import HeaderBlock
from kongtwist.core.log_values import TLSFacts, Try
from kongtwist.observability.log_expressions import EXPRESSIONS
from kongtwist.observability.log_formats import BUILT_IN, FormatError, LineWriter, Times, parse_formats
from kongtwist.observability.log_variables import VARIABLES, Seen
from kongtwist.observability.masking import SecretMask, configured_names

AT = 1_767_225_599.5  # 2025-12-31 23:59:59.5 UTC
FIELDS = [
    (b"host", b"Example.com:8000"), (b"user-agent", b'a"b\\c'), (b"referer", b"http://x/?token=s3cret"),
    (b"authorization", b"Basic am8gZW86czNjcmV0"), (b"cookie", b"session=s3cret; theme=dark"), (b"x-auth-token", b"s3cret"),
    (b"x-custom", b"Bearer s3cret"), (b"x-plain", b"plain"),
]  # fmt: skip


class Asked(Exchange):
    """A request that is over."""

    __slots__ = ("open",)

    client_ip = "192.0.2.7"
    peer_ip = "192.0.2.1"
    peer_port, local_port = 40000, 8000
    sni = "example.com"
    tls = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")


def asked(**changes: Any) -> Any:
    """One that went to the upstream at the second try."""
    exchange: Any = Asked()
    exchange.block = HeaderBlock.from_pairs(FIELDS)
    exchange.method, exchange.target, exchange.minor = b"GET", b"/a%20b?x=1&apikey=s3cret", 1
    exchange.scheme, exchange.status, exchange.bytes_out, exchange.bytes_in = b"https", 200, 12, 3
    exchange.request_id, exchange.wall_started, exchange.open = b"0123456789abcdef" * 2, AT - 0.75, False
    exchange.sent_head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: session=s3cret\r\nX-One: 1\r\nX-One: 2\r\n\r\n"
    )
    exchange.latencies, exchange.upstream_status = (0.25, 0.125), 200
    service = {"id": "s-id", "name": "s"}
    exchange.route = SimpleNamespace(
        row={"id": "r-id", "name": "r"}, service=service, host="up.test", port=80, host_header=b"up.test", secure=False
    )
    exchange.match = SimpleNamespace(upstream_path=b"/b")
    exchange.consumer = {"id": "c-id", "username": "jo", "custom_id": None}
    failed = Try(AT - 0.5, 0.0, "192.0.2.8", 80)
    failed.code = 502
    exchange.tries = [failed, Try(AT - 0.25, 0.0, "2001:db8::1", 80)]
    for name, value in changes.items():
        setattr(exchange, name, value)
    return exchange


def writer(text: str, names: tuple[str, ...] = ()) -> LineWriter:
    (form,) = parse_formats(f"x {text}").values()
    return LineWriter(form, SecretMask(names), Times(lambda: AT))


class FormatTests(SynchronousTestCase):
    """What nginx's directive may say."""

    def setUp(self) -> None:
        self.patch(time, "localtime", time.gmtime)

    def line(self, text: str, exchange: Any = None, names: tuple[str, ...] = ()) -> bytes:
        return writer(text, names).line(exchange or asked())[:-1]

    def test_forms(self) -> None:
        """Quotes of both kinds, pieces that are put together, names in braces, escapes, several formats."""
        found = parse_formats("""one '$status' "|\\"${host}\\"\\t|" 'x'; log_format two escape=json '{"a":"$uri"}';""")
        self.assertEqual(list(found), ["one", "two"])
        self.assertEqual(
            LineWriter(found["one"], SecretMask(), Times(lambda: AT)).line(asked()), b'200|"example.com"\t|x\n'
        )
        self.assertEqual(LineWriter(found["two"], SecretMask(), Times(lambda: AT)).line(asked()), b'{"a":"/a b"}\n')
        self.assertEqual(self.line("'100%b %d $status %'"), b"100%b %d 200 %")

    def test_faults(self) -> None:
        """Each is told in words."""
        for text, why in {
            "": "must be of the form", "x": "must be of the form", "x '$status": "a quote that does not end",
            "x escape=xml '$status'": "an unknown way of escaping: 'xml'", "x escape=json": "nothing to write",
            "x 'a $'": "a $ without the name", "x 'a'; include y": "something else than log_format",
            "x 'a'; log_format x 'b'": "two formats with the name 'x'", "'x' 'a'": "must be of the form",
        }.items():  # fmt: skip
            with self.assertRaises(FormatError) as caught:
                if not parse_formats(text):
                    raise FormatError("must be of the form")
            self.assertIn(why, str(caught.exception), text)
        for name in ("nope", "http_", "binary_remote_addr", "request_body"):
            with self.assertRaises(FormatError) as caught:
                writer(f"'${name}'")
            self.assertIn(f"'${name}' in format 'x'", str(caught.exception))

    def test_expressions_are_variables(self) -> None:
        """What is written as source tells the same as what is called, in each way of escaping, with values and without."""
        bare = asked(latencies=None, upstream_status=0, tries=None, consumer=None, route=None, scheme=b"http", status=0)
        bare.block = HeaderBlock.from_pairs([(b"host", b"x")])
        one = asked(tries=[Try(AT - 0.5, 0.0, "192.0.2.8", 80)])
        for mode in ("default", "json", "none"):
            for name in EXPRESSIONS:
                for exchange in (asked(), bare, one):
                    made = writer(f"escape={mode} '${name}'")
                    self.assertEqual(made.line(exchange), made.line_of(exchange), (mode, name))

    def test_every_variable(self) -> None:
        """Each has a value of a request, and of one that was refused."""
        for name in VARIABLES:
            made = writer(f"'${name}'")
            self.assertNotIn(b"s3cret", made.line(asked()), name)
            self.assertTrue(made.line_of(Seen(lambda name: None)).endswith(b"\n"), name)

    def test_values(self) -> None:
        """Tries, times, fields of request and answer, and what is absent."""
        for text, value in {
            "$upstream_addr": b"192.0.2.8:80, [2001:db8::1]:80", "$upstream_status": b"502, 200",
            "$upstream_response_time": b"0.250, 0.250", "$upstream_header_time": b"0.125", "$request_time": b"0.750",
            "$upstream_connect_time": b"0.000", "$sent_http_content_type": b"text/plain", "$sent_http_x_one": b"1, 2",
            "$http_x_plain": b"plain", "$http_x_absent": b"-", "$arg_x": b"1", "$arg_y": b"-", "$cookie_theme": b"dark",
            "$args": b"x=1&apikey=***", "$kong_route/$kong_service/$kong_consumer": b"r/s/jo", "$remote_user": b"jo\\x20eo",
            "$time_iso8601": b"2025-12-31T23:59:59+00:00", "$msec": b"1767225599.500", "$uri": b"/a b",
            "$ssl_protocol $ssl_cipher": b"TLSv1.3 TLS_AES_256_GCM_SHA384", "$http_user_agent": b"a\\x22b\\x5Cc",
        }.items():  # fmt: skip
            self.assertEqual(self.line(f"'{text}'"), value, text)
        self.assertEqual(self.line("escape=json '$http_user_agent|$http_x_absent'"), b'a\\"b\\\\c|')
        self.assertEqual(self.line("escape=none '$http_user_agent'"), b'a"b\\c')

    def test_no_credentials(self) -> None:
        """Whatever a format asks for, in whatever escaping; names that plugins are configured with are hidden as well."""
        rows: list[dict[str, Any]] = [
            {"name": "session", "config": {"cookie_name": "own", "remember_cookie_name": "mine"}},
            {"name": "jwt", "config": {"header_names": ["x-plain"], "cookie_names": ["theme"]}},
        ]
        names = tuple(configured_names(rows))
        text = (
            "$request $args $http_referer $http_authorization $http_cookie $cookie_session $http_x_auth_token $http_x_custom"
            " $sent_http_set_cookie $arg_apikey $query_string $request_uri"
        )
        for mode in ("default", "json", "none"):
            line = self.line(f"escape={mode} '{text} $http_x_plain $cookie_theme'", names=names)
            for secret in (b"s3cret", b"czNjcmV0", b"plain", b"dark"):
                self.assertNotIn(secret, line)
            self.assertIn(b"Bearer ***", line)
        self.assertTrue({"own", "mine"} <= set(names))

    def test_json(self) -> None:
        """A line is JSON whatever bytes a client sends, and has the documented members."""
        odd = asked(target=b'/\xff"\\?a=\xc3\xa9')
        odd.block = HeaderBlock.from_pairs([(b"host", b"x"), (b"user-agent", b"\xc3\xa9\xff\tx")])
        for exchange in (asked(), odd):
            line = json.loads(LineWriter(BUILT_IN["json"], SecretMask(), Times(lambda: AT)).line(exchange))
            self.assertEqual((line["status"], line["request_time"], line["route"]), (200, 0.75, "r"))
        self.assertEqual((line["uri"], line["user_agent"]), ('/\ufffd"\\?a=é', "é\ufffd\tx"))
        refused = LineWriter(BUILT_IN["json"], SecretMask(), Times(lambda: AT)).line_of(
            Seen(lambda name: None, line=b'"\n')
        )
        self.assertEqual(json.loads(refused)["status"], 499)

    def test_no_lines_of_clients(self) -> None:
        """Not even without escaping."""
        self.assertEqual(self.line("escape=none '[$uri]'", asked(target=b"/a%0D%0Ab")), b"[/ab]")
