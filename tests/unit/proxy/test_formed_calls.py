"""Calls of gRPC-Web relayed directly: they end as those that pass through the plugin, whatever happens to them."""

from __future__ import annotations

import gc
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.phases import BodyFilter, DirectForm
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.grpc.grpc_messages import framed
from kongtwist.core.http2 import frames
from kongtwist.core.limits import Limits
from kongtwist.http2.http2_exchange import HTTP2Exchange
from kongtwist.net.http2_stream import HTTP2Stream
from kongtwist.plugins.grpc_web import GRPCWeb
from kongtwist.proxy.formed_calls import FormCall
from kongtwist.proxy.http2_forwarding import HTTP2UpstreamExchange

from ..net.http2_kit import frame
from . import test_direct_calls as plain
from .http2_relay_kit import OK, kept, new
from .relay_kit import Gateway, plugin_row
from .test_direct_calls import DONE, MESSAGE, Both, by_stream

WEB = {"content_type": "application/grpc-web+proto", "x_grpc_web": "1"}
LONG = framed(bytes(20))
CONFIG = {"proto": None, "pass_stripped_path": None, "allow_origin_header": "*"}
TIMES = {"read_timeout": 5000, "write_timeout": 5000}


def web_gateway(limits: Limits | None = None, *rows: Any, plugin: Plugin | None = None, **config: Any) -> Gateway:
    """A gateway with a gRPC service behind the path ``/`` and gRPC-Web before it, and what other plugins there are.

    Args:
        limits: its limits.
        rows: of other plugins.
        plugin: in place of gRPC-Web's.
        config: of gRPC-Web.
    """
    web = plugin or GRPCWeb()
    return Gateway(
        routes={"r": {"service": "s", "paths": ["/"], "protocols": ["grpc", "http"], "strip_path": False}},
        services={"s": {"host": "127.0.0.1", "port": 50051, "protocol": "grpc", "retries": 0, **TIMES}},
        limits=limits or Limits(),
        plugins={web.name: web, "p": plain.Watching()},
        plugin_rows=[plugin_row(web.name, config={**CONFIG, **config}), *rows],
    )


def web(limits: Limits | None = None, *rows: Any, plugin: Plugin | None = None, **config: Any) -> Both:
    """A client of gRPC-Web, the gateway, and an upstream; the arguments are those of `web_gateway`."""
    return Both(gateway=web_gateway(limits, *rows, plugin=plugin, **config), metadata=WEB)


def parted(body: bytes) -> tuple[bytes, dict[str, str]]:
    """The messages, and the fields in the frame behind them."""
    at = 0
    while at < len(body) and not body[at] & 0x80:
        at += 5 + int.from_bytes(body[at + 1 : at + 5], "big")
    lines = body[at + 5 :].decode().split("\r\n")
    fields = dict(line.split(":", 1) for line in lines if line)
    return body[:at], fields


# -- plays that only gRPC-Web has ----------------------------------------------------------------------------------------


def cut_request(both: Both) -> None:
    both.client.send(both.piece(MESSAGE + MESSAGE[:6], True))


def cut_behind_pieces(both: Both) -> None:
    both.client.send(both.piece(MESSAGE[:6]))
    both.client.send(both.piece(MESSAGE[6:] + MESSAGE[:3]))
    both.client.send(both.piece(b"", True))


def padded(number: int, data: bytes) -> bytes:
    """The last DATA, with padding: not every frame is passed on where it lies."""
    return frame(frames.DATA, frames.END_STREAM | frames.PADDED, number, b"\x03" + data + bytes(3))


def cut_with_padding(both: Both) -> None:
    both.client.send(padded(both.number, MESSAGE + MESSAGE[:6]))


def padding(both: Both) -> None:
    """An answer without trailers."""
    both.client.send(padded(both.number, MESSAGE))
    both.serve(both.server.head(both.at, *OK), padded(both.at, MESSAGE))


def cut_with_trailers(both: Both) -> None:
    both.client.send(both.piece(MESSAGE[:6]), frames.headers(both.number, b"\x00\x01a\x01b", True))


def cut_behind_the_head(both: Both) -> None:
    both.serve(both.server.head(both.at, *OK), both.server.data(both.at, MESSAGE))
    both.client.send(both.piece(MESSAGE[:6], True))


def taken_up_within_a_message(both: Both) -> None:
    """The general way takes the call up between two pieces of a message."""
    both.client.send(both.piece(MESSAGE + LONG[:6]))
    both.serve(both.server.head(both.at, (":status", "103"), ("link", "x")))
    both.client.send(both.piece(LONG[6:]))
    plain.whole(both)


def taken_up_within_a_prefix(both: Both) -> None:
    both.client.send(both.piece(MESSAGE + MESSAGE[:3]))
    both.serve(both.server.head(both.at, (":status", "103"), ("link", "x")))
    both.client.send(both.piece(MESSAGE[3:], True))
    both.answer()


def taken_up_and_cut(both: Both) -> None:
    both.client.send(both.piece(MESSAGE[:6]))
    both.serve(both.server.head(both.at, (":status", "103"), ("link", "x")))
    both.client.send(both.piece(b"", True))


def cut_answer(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.serve(both.server.head(both.at, *OK), both.server.data(both.at, MESSAGE[:6]))
    both.serve(both.server.head(both.at, DONE, end=True))


def cut_answer_without_trailers(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.serve(both.server.head(both.at, *OK), both.server.data(both.at, MESSAGE + MESSAGE[:3], True))


def no_messages(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.serve(both.server.head(both.at, *OK), both.server.head(both.at, DONE, end=True))


def empty_end(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.serve(both.server.head(both.at, *OK), both.server.data(both.at, MESSAGE), both.server.data(both.at, b"", True))


def no_grpc(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.serve(both.server.head(both.at, (":status", "200"), ("content-type", "text/html")))
    both.serve(both.server.data(both.at, b"<p>", True))


def status_in_the_head(both: Both) -> None:
    both.client.send(both.piece(MESSAGE, True))
    both.serve(both.server.head(both.at, *OK, ("grpc-status", "0")), both.server.data(both.at, b"", True))


def metadata(both: Both) -> None:
    """Fields of the service's own, in the head and behind the body, some of which the gateway has, too."""
    both.client.send(both.piece(MESSAGE, True))
    head = both.server.head(both.at, *OK, ("x-a", "1"), ("access-control-allow-origin", "https://b"), ("vary", "a"))
    both.serve(head, both.server.data(both.at, MESSAGE))
    both.serve(both.server.head(both.at, ("x-b-bin", "AA"), ("grpc-message", "a%20b"), ("grpc-status", "9"), end=True))


def long_answer(both: Both) -> None:
    """The client takes less than is sent: the end waits behind the body."""
    both.client.send(both.piece(MESSAGE, True))
    both.serve(both.server.head(both.at, *OK), both.server.data(both.at, b"\0\0\1\x11\x70" + bytes(15995)))
    for _ in range(3):
        both.serve(both.server.data(both.at, bytes(16384)))
    both.serve(both.server.data(both.at, bytes(4853)), both.server.head(both.at, DONE, end=True))
    both.client.send(frames.window_update(both.number, 10), frames.window_update(0, 10))
    both.client.send(frames.window_update(both.number, 50_000), frames.window_update(0, 50_000))


def end_without_room(both: Both) -> None:
    """The client has no room for the last frame, but for all before it."""
    both.client.send(both.piece(MESSAGE, True))
    both.serve(both.server.head(both.at, *OK), both.server.data(both.at, b"\0\0\0\xff\xf0" + bytes(16379)))
    for size in (16384, 16384, 16373):
        both.serve(both.server.data(both.at, bytes(size)))
    both.serve(both.server.head(both.at, DONE, end=True))
    both.client.send(frames.window_update(both.number, 50_000), frames.window_update(0, 50_000))


class WebEndsTests(plain.EndsTests):
    """As those of plain calls, and their own."""

    def both(self, limits: Limits | None = None) -> Both:
        return web(limits)

    def answered(self, told: Any) -> tuple[bytes, dict[str, str]]:
        return parted(told[1])

    def test_requests_that_break_off(self) -> None:
        """The gateway refuses them, and the upstream never believes that they are whole."""
        for play in (cut_request, cut_behind_pieces, cut_with_trailers, cut_with_padding, taken_up_and_cut):
            told, received, *_ = self.play(play)
            self.assertEqual(self.answered(told)[1]["grpc-status"], "3", play.__name__)
            self.assertEqual([each[2:] for each in received.values()], [(False, frames.CANCEL)], play.__name__)
        told, received, *_ = self.play(cut_behind_the_head)
        self.assertEqual((told[2:], received[3][2:]), ((False, frames.INTERNAL_ERROR), (False, frames.CANCEL)))

    def test_requests_that_break_off_while_they_wait(self) -> None:
        """The upstream takes less than comes: it is told at once that there will be no more."""
        both = self.both()
        both.answer()
        both.begin()
        both.client.send(both.piece(b"\0\0\2\0\0" + bytes(16000)))
        for _ in range(4):
            both.client.send(both.piece(bytes(16384)))
        both.client.send(both.piece(bytes(100), True))
        self.assertEqual(self.answered(both.told())[1]["grpc-status"], "3")
        self.assertEqual(by_stream(both.server.received)[3][2:], (False, frames.CANCEL))
        for each in (both.client.channel, both.server.connection):
            self.assertEqual((each.streams, each.hot, each.waiting, each.held), ({}, 0, {}, 0))

    def test_taken_up_within_a_message(self) -> None:
        for play in (taken_up_within_a_message, taken_up_within_a_prefix):
            told, _, _, codes, counted, _ = self.play(play)
            messages = 3 if play is taken_up_within_a_message else 2
            self.assertEqual((self.answered(told)[1]["grpc-status"], codes), ("0", {0: 1}))
            size = 2 * len(MESSAGE) + (len(LONG) if play is taken_up_within_a_message else 0)
            self.assertEqual(counted, (messages, size, 1, 8))

    def test_answers_that_break_off(self) -> None:
        """The client must not believe that they are whole."""
        for play in (cut_answer, cut_answer_without_trailers):
            told, *_ = self.play(play)
            self.assertEqual(told[2:], (False, frames.INTERNAL_ERROR), play.__name__)

    def test_ends_of_answers(self) -> None:
        for play in (no_messages, empty_end, padding, no_grpc, status_in_the_head):
            told, *_ = self.play(play)
            self.assertTrue(told[2], play.__name__)
        told, *_ = self.play(metadata)
        fields = {"x-b-bin": "AA", "grpc-message": "a%20b", "grpc-status": "9"}
        self.assertEqual(self.answered(told), (MESSAGE, fields))
        self.assertEqual(told[0][0]["access-control-allow-origin"], "*")
        self.assertIn("x-a", told[0][0]["access-control-expose-headers"])

    def test_slow_clients(self) -> None:
        for play in (long_answer, end_without_room):
            told, *_ = self.play(play)
            self.assertEqual((self.answered(told)[1]["grpc-status"], told[2]), ("0", True), play.__name__)


class FormTests(SynchronousTestCase):
    """Which calls are relayed so."""

    def relayed(self, both: Both, times: int = 3, **fields: str) -> list[bool]:
        """Whether a call with these fields is, the next too."""
        found = []
        for _ in range(times):
            both.begin(**fields)
            found.append(bool(both.direct))
            both.client.send(frames.rst_stream(both.number, frames.CANCEL))
        return found

    def test_dialects(self) -> None:
        """Binary gRPC-Web is; what has to be translated is not, nor is gRPC on such a route."""
        for kind, relayed in (
            ("application/grpc-web", True),
            ("application/grpc-web+proto", True),
            ("application/grpc-web-text", False),
            ("application/grpc-web+json", False),
            ("application/connect+proto", False),
            ("application/grpc", False),
        ):
            both = web()
            both.answer()
            both.metadata = {**WEB, "content_type": kind}
            self.assertEqual(self.relayed(both)[1:], [relayed] * 2, kind)

    def test_what_differs(self) -> None:
        """The client's other fields go up as they are."""
        both = web()
        both.answer()
        for value in ("a", "b"):
            both.begin(x_id=value, authorization=f"Bearer {value}")
            self.assertEqual(len(both.direct), 1)
            fields = both.received[0][2]
            self.assertEqual((fields["x-id"], fields["authorization"]), (value, f"Bearer {value}"))
            self.assertEqual((fields["content-type"], fields["te"]), ("application/grpc+proto", "trailers"))
            both.client.send(both.piece(MESSAGE, True))
            both.answer()
            self.assertEqual(parted(both.told()[1]), (MESSAGE, {"grpc-status": "0", "grpc-message": ""}))
        self.assertEqual(self.relayed(both, cookie="a=b"), [False, False, True])

    def test_paths(self) -> None:
        """The path that the plugin makes is the one that is called, and counted."""
        for stripped, path in ((None, "/a.B/C"), (True, "/base/a.B/C")):
            both = web(pass_stripped_path=stripped)
            both.gateway.services = {"s": {**both.gateway.services["s"], "path": "/base"}}
            both.gateway.publish()
            both.client.send(frames.rst_stream(1, frames.CANCEL))
            self.relayed(both)
            both.begin()
            self.assertEqual((len(both.direct), both.received[0][2][":path"]), (1, path))

    def test_who_is_looked_at(self) -> None:
        """Another plugin has its say with each call, and so has a limit."""
        of_consumer = plugin_row("grpc-web", id="other", config=CONFIG, consumer={"id": "c"})
        cases = [web(None, plugin_row("p")), web(None, of_consumer), web(Limits(client_max_body_size=1000))]
        cases += [web(plugin=plugin) for plugin in (Logging(), Opening(), Filtering())]
        for both in cases:
            both.client.send(frames.rst_stream(1, frames.CANCEL))
            self.assertEqual(self.relayed(both), [False] * 3)

    def test_answers_of_both_kinds(self) -> None:
        """Plain calls on the same connection to the upstream have their own heads and trailers."""
        gateway = web_gateway()
        gateway.services = {**gateway.services, "t": gateway.services["s"]}
        second = {"service": "t", "paths": ["/plain"], "protocols": ["grpc"], "strip_path": True}
        gateway.routes = {**gateway.routes, "q": second}
        gateway.plugin_rows[:] = [{**gateway.plugin_rows[0], "route": {"id": "r"}}]
        gateway.publish()
        both = Both(gateway=gateway, metadata=WEB)
        both.answer()
        for _ in range(3):
            both.server.received  # noqa: B018 - what was before does not matter
            number, at = both.client._next, both.at + 2
            both.client.send(both.client.head("POST", "/plain/a.B/C", False, **plain.METADATA))
            both.number, both.at = number, at
            plain.whole(both)
            self.assertEqual((both.told()[1], both.told()[0][-1]), (MESSAGE, {"grpc-status": "0"}))
            self.assertNotIn("access-control-allow-origin", both.told()[0][0])
            both.begin()
            self.assertEqual(len(both.direct), 1)
            plain.whole(both)
            self.assertEqual(parted(both.told()[1])[1]["grpc-status"], "0")

    def test_another_configuration(self) -> None:
        both = web()
        both.answer()
        self.assertEqual(self.relayed(both, 1), [True])
        both.gateway.plugin_rows[0]["config"]["allow_origin_header"] = "https://a"
        both.gateway.plugin_rows[:] = [{**both.gateway.plugin_rows[0], "updated_at": 2}]
        both.gateway.publish()
        for relayed in (False, True):
            both.begin()
            self.assertEqual(bool(both.direct), relayed)
            plain.whole(both)
            self.assertEqual(both.told()[0][0]["access-control-allow-origin"], "https://a")

    def test_plugins_that_fail(self) -> None:
        """A plugin that fails where a call is taken up ends it, on both sides."""
        interim = (":status", "103"), ("link", "x")
        for failing, begun in (
            ("request_body_filter", False),
            ("feed", False),
            ("header_filter", True),
            ("feed", True),
        ):
            plugin = Failing(failing)
            both = web(plugin=plugin)
            both.answer()
            both.begin()
            both.client.send(both.piece(MESSAGE[:6]))
            if begun:
                both.serve(both.server.head(both.at, *OK))
            self.assertEqual(len(both.direct), 1)
            plugin.fails = True
            if begun:
                both.serve(both.server.head(both.at, DONE, end=True))
            else:
                both.serve(both.server.head(both.at, *interim))
            self.assertEqual(both.told()[2:], (False, frames.INTERNAL_ERROR), failing)
            self.assertEqual((both.direct, both.client.channel.streams, both.server.connection.streams), ([], {}, {}))

    def test_plugins_that_fail_at_once(self) -> None:
        """One that fails when it is asked has its calls go the general way."""
        for failing in ("direct", "header_filter"):
            plugin = Failing(failing)
            plugin.fails = True
            both = web(plugin=plugin)
            both.answer()
            both.begin()
            self.assertEqual(len(both.direct), int(failing == "header_filter"))
            plain.whole(both)
            self.assertEqual(both.told()[0][0][":status"], "500" if failing == "header_filter" else "200")

    def test_nothing_is_left(self) -> None:
        """Nothing waits for the garbage collector but what the plugin leaves in the general way."""
        both = web()
        both.answer()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        kinds = (FormCall, HTTP2Exchange, HTTP2UpstreamExchange, HTTP2Stream)
        others = kept(kinds)
        for play in (plain.whole, plain.piece_by_piece, metadata):
            both.begin()
            play(both)
        self.assertEqual(new(kinds, others), [])


class Logging(GRPCWeb):
    """With a log phase."""

    def log(self, exchange: Any, conf: Any) -> None:
        """Nothing is written."""


class Opening(GRPCWeb):
    """Told of streams."""

    def on_open(self, stream: Any, conf: Any) -> None:
        """Nothing is watched."""


class Filtering(GRPCWeb):
    """Looks at bodies."""

    def body_filter(self, exchange: Any, conf: Any, chunk: bytes, last: bool) -> bytes:
        return chunk


class Failing(Plugin):
    """A plugin that has calls relayed without it, and fails somewhere."""

    name, priority, version = "failing", 10, "1"

    def __init__(self, where: str) -> None:
        self.where = where
        self.fails = False

    def _fail(self, where: str) -> None:
        if self.fails and self.where.startswith(where):
            raise ValueError(where)

    def direct(self, exchange: Any, conf: Any) -> DirectForm:
        self._fail("direct")
        return DirectForm(lambda block: True, lambda trailers: b"end")

    def request_body_filter(self, exchange: Any, conf: Any) -> BodyFilter:
        self._fail("request_body_filter")
        return BodyFilter(self._passed, keeps_length=True)

    def header_filter(self, exchange: Any, conf: Any) -> BodyFilter:
        self._fail("header_filter")
        return BodyFilter(self._passed)

    def _passed(self, chunk: bytes, last: bool) -> bytes:
        self._fail("feed")
        return chunk
