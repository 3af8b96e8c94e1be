"""Answers of our own to clients that speak gRPC."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.answers import Answer, StreamedAnswer
from kongtwist.core.chain.phases import BodyFilter
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Exchange
from kongtwist.core.http.head import HeaderBlock, HeadError
from kongtwist.proxy.grpc_answers import grpc_lines

from .relay_kit import Gateway, plugin_row


class Call(Exchange):
    """A call of a client that speaks HTTP/2."""

    http_version = "2"
    begun = False
    open = True

    def __init__(self, gateway: Gateway, path: bytes, kind: bytes = b"application/grpc") -> None:
        super().__init__()
        self.gateway = gateway.context.host
        self.method, self.target, self.minor, self.scheme = b"POST", path, 1, b"http"
        self.peer_ip = self.client_ip = "127.0.0.1"
        self.peer_port, self.local_port, self.trusted, self.sni = 1, 18000, False, None
        self.started = self.wall_started = 0.0
        self.request_id = b"0" * 32
        self.block = HeaderBlock.from_pairs([(b"Host", b"a"), (b"Content-Type", kind), (b"TE", b"trailers")])
        self.answers: list[tuple[int, dict[bytes, bytes], int | None, bytes]] = []
        gateway.tree.find(self).serve(self)

    def answer(
        self, status: int, reason: bytes, headers: bytes, length: int | None, body: bytes, raw: bool = False
    ) -> None:
        pairs = [line.partition(b": ") for line in headers.split(b"\r\n") if line]
        fields = {name.lower(): value for name, _, value in pairs}
        assert len(fields) == len(pairs)
        self.answers.append((status, fields, length, body))

    @property
    def told(self) -> tuple[int, bytes | None, bytes | None]:
        """HTTP status, gRPC status and message of the one answer."""
        ((status, fields, length, body),) = self.answers
        assert (length, body) == (None, b"") and b"content-length" not in fields
        assert fields[b"content-type"] == b"application/grpc"
        return status, fields.get(b"grpc-status"), fields.get(b"grpc-message")


class Answering(Plugin):
    """Answers what it was told to."""

    name, priority, version = "answering", 10, "1"

    def __init__(self, outcome: Any) -> None:
        super().__init__()
        self.outcome = outcome
        self.fed: list[tuple[bytes, bool]] = []

    def access(self, exchange: Exchange, conf: Any) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def header_filter(self, exchange: Exchange, conf: Any) -> Any:
        exchange.set_response_header(b"x-seen", b"%d" % exchange.status)
        return BodyFilter(self.looks)

    def looks(self, chunk: bytes, last: bool) -> bytes:
        self.fed.append((chunk, last))
        return b"more"


def gateway(outcome: Any = None, **fields: Any) -> Gateway:
    """One with a gRPC route, and a plugin that answers."""
    rows = [] if outcome is None else [plugin_row("answering")]
    return Gateway(
        routes={"r": {"service": "s", "paths": ["/a.B"], "protocols": ["grpc"], "strip_path": False} | fields},
        services={"s": {"host": "127.0.0.1", "port": 18100, "protocol": "grpc", "retries": 0}},
        plugins={"answering": Answering(outcome)},
        plugin_rows=rows,
    )


class RefusalTests(SynchronousTestCase):
    def test_no_route(self) -> None:
        self.assertEqual(Call(gateway(), b"/x.Y/Z").told, (404, b"5", b"no Route matched with those values"))

    def test_what_plugins_answer(self) -> None:
        for answer, told in (
            (
                Exchange.exit(401, {"message": "No API key found in request"}),
                (401, b"16", b"No API key found in request"),
            ),
            (Exchange.exit(429, {"message": "API rate limit exceeded"}), (429, b"8", b"API rate limit exceeded")),
            (Exchange.exit(403, {"message": "50 % \u20ac"}), (403, b"7", b"50 %25 %E2%82%AC")),
            (Exchange.exit(413, b"no JSON"), (413, b"3", b"InvalidArgument")),
            (Exchange.exit(503, b"{"), (503, b"14", b"Unavailable")),
            (Exchange.error(400, "bad\r\nthing"), (400, b"3", b"bad%0D%0Athing")),
            (Exchange.exit(200, None, [(b"grpc-status", b"9"), (b"grpc-message", b"m")]), (200, b"9", b"m")),
        ):
            self.assertEqual(Call(gateway(answer), b"/a.B/C").told, told)

    def test_a_plugin_fails(self) -> None:
        made = gateway(ValueError("broken"))
        self.assertEqual(Call(made, b"/a.B/C").told, (500, b"13", b"An unexpected error occurred"))

    def test_fields_stay_and_filters_run(self) -> None:
        made = gateway(Exchange.exit(429, {"message": "no"}, [(b"Retry-After", b"5")]))
        call = Call(made, b"/a.B/C")
        ((_, fields, _, _),) = call.answers
        self.assertEqual((fields[b"retry-after"], fields[b"x-seen"]), (b"5", b"429"))
        self.assertEqual(call.status, 429)

    def test_body_filters_see_the_end(self) -> None:
        plugin = Answering(Exchange.exit(429, {"message": "no"}))
        made = gateway(plugin.outcome)
        made.plugins = {"answering": plugin}
        made.publish()
        self.assertEqual(Call(made, b"/a.B/C").told, (429, b"8", b"no"))
        self.assertEqual(plugin.fed, [(b"", True)])

    def test_streamed_answers_end_at_once(self) -> None:
        self.assertEqual(Call(gateway(StreamedAnswer(403, [b"a"])), b"/a.B/C").told, (403, b"7", b"PermissionDenied"))

    def test_only_in_plain_text(self) -> None:
        """A grpcs route: HTTP 200 as from Kong."""
        call = Call(gateway(protocols=["grpcs"]), b"/a.B/C")
        self.assertEqual(call.told, (200, b"1", b"gRPC request matched gRPCs route"))

    def test_requests_that_are_none_of_grpc(self) -> None:
        """They are answered as all others."""
        ((status, fields, length, body),) = Call(gateway(), b"/a.B/C", b"text/plain").answers
        self.assertEqual((status, length), (415, len(body)))
        self.assertIn(b"Non-gRPC request matched gRPC route", body)
        self.assertNotIn(b"grpc-status", fields)

    def test_http1(self) -> None:
        request = b"POST /a.B/C HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n"
        received = gateway().client().send(request)
        self.assertIn(b"HTTP/1.1 426 ", received)
        self.assertIn(b"Please use HTTP2 protocol", received)
        self.assertNotIn(b"grpc-status", received)


class LineTests(SynchronousTestCase):
    def test_framing_is_left_out(self) -> None:
        answer = Answer(400, b"{}", [(b"Content-Type", b"application/json"), (b"Content-Length", b"2"), (b"X-A", b"1")])
        self.assertEqual(
            grpc_lines(answer),
            b"Content-Type: application/grpc\r\ngrpc-status: 3\r\ngrpc-message: InvalidArgument\r\nX-A: 1\r\n",
        )


class HeadTests(SynchronousTestCase):
    def test_heads_that_are_refused(self) -> None:
        refusal = gateway().context.refusal
        for error, status, code, message in (
            (HeadError.bad("odd"), b"400 Bad Request", b"3", b"Bad request"),
            (HeadError.too_large("x"), b"400 Bad Request", b"8", b"Request header or cookie too large"),
            (HeadError(501, None, "odd"), b"501 Not Implemented", b"12", b"odd"),
        ):
            answer, size = refusal(error, b"1" * 32, None, b"application/grpc", http2=True)
            first, *lines = answer.split(b"\r\n")
            self.assertEqual((first, size), (b"HTTP/1.1 " + status, 0))
            self.assertIn(b"grpc-status: " + code, lines)
            self.assertIn(b"grpc-message: " + message, lines)
            self.assertEqual(answer[-4:], b"\r\n\r\n")

    def test_others_keep_their_connection(self) -> None:
        answer, size = gateway().context.refusal(HeadError.bad("odd"), b"1" * 32, None, None, http2=True)
        self.assertNotIn(b"Connection", answer)
        self.assertIn(b"Content-Length: %d\r\n" % size, answer)
