"""request-transformer's templates: ``$(...)`` with Lua, as Kong 3.9 renders them."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities.errors import EntityError
from kongtwist.lua.lua_engine import Engine, LuaSettings
from kongtwist.lua.offered import offered_names
from kongtwist.plugins.pre_function import PreFunction
from kongtwist.plugins.request_transformer import RequestTransformer
from kongtwist.plugins.request_transformer.transform_templates import (
    Template,
    TemplateFailed,
    TemplateValues,
    is_template,
)
from kongtwist.testing.harness import PluginHarness


def engine(**settings: Any) -> Engine:
    return Engine(offered_names(lambda *_line: None), LuaSettings(**settings))


class RenderingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.harness = PluginHarness(RequestTransformer, add={"headers": ["a:b"]})
        sent = [("X-Who", "me"), ("X-Two", "a"), ("X-Two", "b"), ("User-Agent", "ua")]
        self.exchange = self.harness.request("GET", "/?q=1&flag&s=%FF&two=a&two=b", sent)
        captures = {"0": b"/a/7", "1": b"7", "user": b"ann"}
        self.exchange.match = self.exchange.match._replace(captures=captures)
        self.exchange.ctx.update(version="3", count=2.5, no=False)
        self.lua = engine()

    def render(self, text: str, lua: Engine | None = None) -> bytes:
        return Template(text, lua or self.lua).render(TemplateValues(self.exchange, "p"))

    def test_looked_up(self) -> None:
        """The same without Lua as with it."""
        for code, expected in (
            ("headers.x_who", b"me"), ('headers["X-Who"]', b"me"), ("headers['x-who']", b"me"), ("headers.none", b""),
            ("headers.host", b"example.com"), ("query_params.q", b"1"), ("query_params.flag", b"true"), ("query_params.s", b"\xff"),
            ("query_params.Q", b""), ("uri_captures.user", b"ann"), ("uri_captures[1]", b"7"), ("uri_captures[0]", b"/a/7"),
            ("uri_captures['user']", b"ann"), ("shared.version", b"3"), ("shared.count", b"2.5"), ("shared.no", b""),
            ("shared.none", b""),
        ):  # fmt: skip
            self.assertEqual(self.render(f"$({code})"), expected, code)
            self.assertEqual(self.render(f"$(({code}))"), expected, f"({code})")  # that is not looked up

    def test_expressions(self) -> None:
        for text, expected in (
            ("x$(headers.x_who)y$(uri_captures[1])z", b"xmey7z"),
            ('$(headers["zz"] or "none")', b"none"),
            ("$(10 * uri_captures[1])", b"70"),
            ("$(type(headers.x_two) == 'table' and headers.x_two[1] .. '-first')", b"a-first"),
            ("$(type(query_params.two))", b"table"),
            ("$('$(uri_captures.user1)')", b"$(uri_captures.user1)"),
            ("$(headers.x_who:upper())", b"ME"),
            ("$(nil)|$(false)|$(true)|$(1.5)", b"||true|1.5"),
            ('a"b\\c\n$(1)\t', b'a"b\\c\n1\t'),
        ):
            self.assertEqual(self.render(text), expected, text)

    def test_what_is_none(self) -> None:
        for text in ("", "$", "$(x", "$((x)", "$x", "a(b)"):
            self.assertFalse(is_template(text), text)
        for text in ("$(x)", "$(x$(y)", "a$((x) .. (y))b"):
            self.assertTrue(is_template(text), text)

    def test_what_fails(self) -> None:
        for code, why in (
            ("error('no')", "attempt to call global 'error' (a nil value)"),  # a name that templates do not know
            ("string.sub('a', 1)", "attempt to index global 'string' (a nil value)"),
            ("kong.request.get_path()", "attempt to index global 'kong' (a nil value)"),
            ("foo()", "[string \"TMP\"]:1: attempt to call global 'foo' (a nil value)"),
            ("headers.none.x", "attempt to index"),
            ("require('os')", "require 'os' not allowed within sandbox"),
        ):
            error = str(self.assertRaises(TemplateFailed, self.render, f"$({code})"))
            self.assertIn(f"failed to render the template $({code}), error:", error)
            self.assertIn(why, error)

    def test_names_that_are_allowed(self) -> None:
        lua = engine(environment=("string.sub",))
        self.assertEqual(self.render("$(string.sub(headers.x_who, 1, 1))", lua), b"m")
        self.assertEqual(self.render("$(string.sub(headers.x_who, 1, 1))", engine(trust="on")), b"m")

    def test_tables_of_scripts(self) -> None:
        """What Lua keeps in kong.ctx.shared is found, by whatever way."""
        self.harness.add(PreFunction, access=["kong.ctx.shared.t = { a = 1 } kong.ctx.shared.s = 'x'"])
        other = PluginHarness(
            RequestTransformer, add={"headers": ["x-a:$(shared.t.a)", "x-b:$(shared.s)", "x-c:$(type(shared.t))"]}
        )
        other.add(PreFunction, access=["kong.ctx.shared.t = { a = 1 } kong.ctx.shared.s = 'x'"])
        self.assertEqual(other.send().upstream_headers, {"x-a": "1", "x-b": "x", "x-c": "table"})


class PluginTests(SynchronousTestCase):
    def test_every_place(self) -> None:
        harness = PluginHarness(
            RequestTransformer,
            replace={"uri": "/u/$(headers.x_who) b", "headers": ["x-who:$(query_params.q)"]},
            add={
                "headers": ["x-add:$(headers.x_who)"],
                "querystring": ["a:$(headers.x_who)&"],
                "body": ["n:$(query_params.q)"],
            },
            append={"querystring": ["q:$(headers.host)"]},
        )
        sent = {"X-Who": "me", "content-type": "application/json"}
        outcome = harness.send("POST", "/?q=1", sent, b'{"m":1}')
        self.assertIsNone(outcome.answer)
        exchange = outcome.exchange
        self.assertEqual(exchange.match.upstream_path, b"/u/me%20b")
        self.assertEqual(outcome.upstream_headers, {"x-who": "1", "x-add": "me"})
        self.assertEqual(outcome.upstream_query, "a=me%26&q=1&q=example.com")
        self.assertEqual(exchange.upstream_body, b'{"m":1,"n":"1"}')

    def test_no_value_ends_a_line(self) -> None:
        harness = PluginHarness(RequestTransformer, add={"headers": ["x-a:$(query_params.q)"]})
        outcome = harness.send("GET", "/?q=1%0D%0AX-Evil:%201")
        self.assertEqual(outcome.upstream_headers, {"x-a": "1%0D%0AX-Evil: 1"})

    def test_bytes_that_are_no_text(self) -> None:
        harness = PluginHarness(RequestTransformer, add={"querystring": ["a:$(query_params.q)"]})
        self.assertEqual(harness.send("GET", "/?q=%FF").upstream_query, "a=%FF&q=%FF")

    def test_failure_closes(self) -> None:
        for config in (
            {"add": {"headers": ["x-a:$(ERROR())"]}},
            {"add": {"querystring": ["a:$(ERROR())"]}},
            {"replace": {"uri": "$(headers.none)"}},
        ):
            harness = PluginHarness(RequestTransformer, **config)
            answer = harness.send().answer
            assert answer is not None
            self.assertEqual((answer.status, answer.message), (500, "An unexpected error occurred"))
            self.assertEqual(len(harness.reports), 1)
            self.assertIn("[request-transformer]", harness.reports[0])

    def test_only_where_it_is_used(self) -> None:
        """What is to become of bodies is not looked at where there is none that is transformed."""
        harness = PluginHarness(RequestTransformer, add={"body": ["a:$(ERROR())"], "headers": ["x-a:1"]})
        outcome = harness.send()
        self.assertIsNone(outcome.answer)
        self.assertEqual(outcome.upstream_headers, {"x-a": "1"})

    def test_it_has_to_compile(self) -> None:
        with self.assertRaises(EntityError) as caught:
            PluginHarness(RequestTransformer, add={"querystring": ["a:$(uri_captures user2)"]})
        (error,) = caught.exception.fields["config"]["add"]["querystring"]
        self.assertEqual(
            error,
            "value '$(uri_captures user2)' is not in supported format, error:[string \"TMP\"]:1: ')' expected near 'user2'",
        )
        PluginHarness(RequestTransformer, add={"querystring": ["a:$(x", "b:$x"]})
