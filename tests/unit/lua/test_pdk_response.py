"""``kong.response`` over exchanges of the kit."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.answers import Answer
from kongtwist.core.http.head import HeaderBlock
from kongtwist.lua.lua_error import LuaError, LuaExit
from kongtwist.lua.pdk.pdk_call import LuaCall

from .test_pdk_request import Fields, ask, made, request_of


def answered(headers: list[tuple[bytes, bytes]], phase: str = "header_filter") -> LuaCall:
    """A call for a request that the upstream has answered."""
    call = made(phase=phase)
    exchange = request_of(call)
    exchange.response_fields = HeaderBlock.from_pairs(headers)
    exchange.status = exchange.upstream_status = 201
    return call


def ended(call: LuaCall, name: str, *args: Any) -> Answer:
    """The answer that a function ends the request with."""
    try:
        ask(call, f"response.{name}", *args)
    except LuaExit:
        assert call.answer is not None
        return call.answer
    raise AssertionError("it went on")


class ReadingTests(SynchronousTestCase):
    def test_status_and_fields(self) -> None:
        call = answered([(b"X-A", b"1"), (b"x-a", b"2"), (b"X-B", b"3")])
        request_of(call).set_response_header(b"X-C", b"4")
        self.assertEqual(ask(call, "response.get_status"), 201)
        self.assertEqual(ask(call, "response.get_headers"), {b"x-a": [b"1", b"2"], b"x-b": b"3", b"x-c": b"4"})
        self.assertEqual(ask(call, "response.get_headers", 1), ({b"x-a": b"1"}, b"truncated"))
        self.assertEqual([ask(call, "response.get_header", name) for name in ("X_A", "x-none")], [b"1", None])
        self.assertEqual(ask(call, "response.get_source"), "service")

    def test_what_was_sent(self) -> None:
        call = answered([(b"X-A", b"1")], "log")
        request_of(call).sent_head = b"HTTP/1.1 200 OK\r\nVia: us\r\nX-A: 2\r\n\r\n"
        self.assertEqual(ask(call, "response.get_headers"), {b"via": b"us", b"x-a": b"2"})

    def test_names_and_numbers_are_checked(self) -> None:
        call = answered([])
        for name, value, why in (
            ("get_header", 1, "header name must be a string"),
            ("get_headers", "1", "max_headers must be a number"),
            ("get_headers", 0, "max_headers must be >= 1"),
            ("get_headers", 1001, "max_headers must be <= 1000"),
        ):
            self.assertEqual(str(self.assertRaises(LuaError, ask, call, f"response.{name}", value)), why)
        error = self.assertRaises(LuaError, ask, made(), "response.get_status")
        self.assertEqual(
            str(error),
            "function cannot be called in access phase (only in: response, header_filter, body_filter, log, error, admin_api)",
        )


class ChangingTests(SynchronousTestCase):
    def fields(self, call: LuaCall) -> dict[bytes, tuple[bytes, ...]]:
        return request_of(call).answer_fields()

    def test_fields(self) -> None:
        call = answered([(b"Old", b"1"), (b"Gone", b"1")])
        ask(call, "response.set_header", "old", "2")
        ask(call, "response.add_header", "Old", 3)
        ask(call, "response.clear_header", "gone")
        ask(call, "response.set_headers", {"a": ["x", "y"], b"b": True, "c": "", "transfer-encoding": "chunked"})
        self.assertEqual(self.fields(call), {b"old": (b"2", b"3"), b"a": (b"x", b"y"), b"b": (b"true",), b"c": (b" ",)})

    def test_no_field_ends_a_line(self) -> None:
        call = answered([])
        ask(call, "response.set_header", "x\r\ny: z", "1\r\nSet-Cookie: a=b\0")
        self.assertEqual(self.fields(call), {b"x%0d%0ay%3a%20z": (b"1%0D%0ASet-Cookie: a=b%00",)})

    def test_status(self) -> None:
        call = answered([])
        ask(call, "response.set_status", 418)
        self.assertEqual(request_of(call).status, 418)

    def test_arguments_are_checked(self) -> None:
        call = answered([])
        for wrong, why in (
            (("set_status", "1"), "code must be a number"),
            (("set_status", 99), "code must be a number between 100 and 599"),
            (("set_status", 600), "code must be a number between 100 and 599"),
            (("set_header", 1, "a"), 'invalid header name "1": got number, expected string'),
            (
                ("set_header", "a"),
                'invalid header value for "a": got nil, expected array of string, string, number or boolean',
            ),
            (("add_header", "a", [1]), 'invalid header value in array "a": got number, expected string'),
            (("clear_header", 1), "header name must be a string"),
            (("set_headers", "a"), "headers must be a table"),
            (("set_headers", {1: "a"}), 'invalid header name "1": got number, expected string'),
            (
                ("set_headers", {"a": len}),
                'invalid header value for "a": got function, expected string, number, boolean or array of strings',
            ),
            (("exit", "200"), "code must be a number"),
            (("exit", 99), "code must be a number between 100 and 599"),
            (("exit", 200, 7), "body must be a nil, string or table"),
            (("exit", 200, "", 7), "headers must be a nil or table"),
            (("error", 399), "code must be a number between 400 and 599"),
            (("error", 400, 7), "message must be a nil, a string or a table"),
            (("error", 400, "", 7), "headers must be a nil or table"),
        ):
            name, *args = wrong
            self.assertEqual(str(self.assertRaises(LuaError, ask, call, f"response.{name}", *args)), why)

    def test_too_late(self) -> None:
        call = answered([])
        request_of(call).sent_head = b"HTTP/1.1 200 OK\r\n\r\n"
        for name, *args in (("set_status", 200), ("set_header", "a", "b"), ("exit", 200)):
            error = self.assertRaises(LuaError, ask, call, f"response.{name}", *args)
            self.assertEqual(str(error), "headers have already been sent")
        error = self.assertRaises(LuaError, ask, made(phase="log"), "response.exit", 200)
        self.assertEqual(
            str(error),
            "function cannot be called in log phase (only in: rewrite, access, balancer, response, header_filter, error,"
            " admin_api)",
        )


class ExitTests(SynchronousTestCase):
    def test_exit(self) -> None:
        answer = ended(made(), "exit", 403, "no", {"X-Why": ["a", "b"], "Content-Length": 99})
        self.assertEqual(
            (answer.status, answer.body, answer.headers), (403, b"no", [(b"X-Why", b"a"), (b"X-Why", b"b")])
        )
        self.assertEqual(answer.source, "exit")
        answer = ended(made(), "exit", 204)
        self.assertEqual((answer.body, answer.headers), (b"", []))

    def test_exit_with_a_table(self) -> None:
        answer = ended(made(), "exit", 200, {b"a": [1, True, {"b": b"\xc3\xa4"}]})
        self.assertEqual(answer.body, '{"a":[1,true,{"b":"ä"}]}'.encode())
        self.assertEqual(answer.headers, [(b"Content-Type", b"application/json; charset=utf-8")])
        answer = ended(made(), "exit", 200, {}, {"content-type": "application/x"})
        self.assertEqual((answer.body, answer.headers), (b"{}", [(b"content-type", b"application/x")]))
        self.assertRaises(LuaError, ask, made(), "response.exit", 200, {"a": len})

    def test_error(self) -> None:
        answer = ended(made(), "error", 404)
        self.assertEqual((answer.status, answer.body, answer.message), (404, None, "Not found"))
        answer = ended(made(), "error", 400, {"a": 1}, {"X": "y"})
        self.assertEqual((answer.message, answer.headers), ('{"a":1}', [(b"X", b"y")]))

    def test_error_in_the_form_that_is_asked_for(self) -> None:
        answer = ended(made(), "error", 500, "oops", {"Content-Type": "text/html"})
        assert answer.body is not None
        self.assertIn(b"<p>oops", answer.body)
        self.assertEqual(answer.headers, [(b"Content-Type", b"text/html")])


class BodyTests(SynchronousTestCase):
    def pieces(self, *chunks: bytes, sent: Fields = ()) -> list[bytes | None]:
        """What becomes of pieces where each asks for the whole body."""
        call = answered([], "body_filter")
        out: list[bytes | None] = []
        for number, chunk in enumerate(chunks, 1):
            call.chunk, call.last = chunk, number == len(chunks)
            out.append(ask(call, "response.get_raw_body"))
            out.append(call.chunk)
        return out

    def test_the_whole_body(self) -> None:
        self.assertEqual(self.pieces(b"a", b"b", b""), [None, None, None, None, b"ab", b"ab"])
        self.assertEqual(self.pieces(b"a"), [b"a", b"a"])

    def test_not_without_end(self) -> None:
        error = self.assertRaises(LuaError, self.pieces, b"a" * 8000, b"a" * 200, b"")
        self.assertIn("does not fit", str(error))

    def test_another_body(self) -> None:
        call = answered([], "body_filter")
        ask(call, "response.set_raw_body", "new")
        self.assertEqual((call.chunk, call.last), (b"new", True))
        ask(call, "response.set_raw_body", "")
        self.assertEqual(call.chunk, b"\n")
        self.assertEqual(
            str(self.assertRaises(LuaError, ask, call, "response.set_raw_body", 1)), "body must be a string"
        )
