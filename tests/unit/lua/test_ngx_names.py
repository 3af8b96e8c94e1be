"""``ngx`` and ``kong.log`` as scripts have them."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.lua import ngx_re
from kongtwist.lua.lua_calls import LuaFailure
from kongtwist.lua.lua_engine import Engine, LuaSettings
from kongtwist.lua.offered import offered_names
from kongtwist.lua.pdk.pdk_call import LuaCall
from kongtwist.plugins.correlation_id import CorrelationId
from kongtwist.testing.harness import PluginHarness


class NameCase(SynchronousTestCase):
    """An engine with all names, and a request."""

    def setUp(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.engine = Engine(offered_names(lambda *line: self.lines.append(line)), LuaSettings(seconds=3600.0))
        self.harness = PluginHarness(CorrelationId)
        fields = {"Host": "h.example", "X-Thing": "one", "Cookie": "a=1; b=2", "Content-Type": "text/plain"}
        self.call = LuaCall(self.harness.request("GET", "/a%20b?x=1&y", fields), "log", plugin_id="p-1")

    def told(self, code: str, *args: Any) -> list[Any]:
        return self.engine.compile(code, mode="value").run(self.call, *args)

    def failure(self, code: str) -> str:
        return str(self.assertRaises(LuaFailure, self.told, code))


class TextTests(NameCase):
    def test_encodings(self) -> None:
        for code, expected in (
            ("ngx.encode_base64('ab'), ngx.encode_base64('ab', true), ngx.encode_base64(5)", ["YWI=", "YWI", "NQ=="]),
            ("ngx.decode_base64('YWI='), ngx.decode_base64('YWI'), ngx.decode_base64('?')", ["ab", "ab", None]),
            ("ngx.md5('a'), #ngx.md5_bin('a'), ngx.md5()", ["0cc175b9c0f1b6a831c399e269772661", 16, "d41d8cd98f00b204e9800998ecf8427e"]),
            ("ngx.encode_base64(ngx.sha1_bin('a'))", ["hvfkN/qlp/zhXR3cuerq6jd2Z7g="]),
            ("ngx.encode_base64(ngx.hmac_sha1('k', 'a'))", ["QOfUQcrbF7B/BQNBqiOmgg7YHIs="]),
            ("ngx.crc32_short('hello'), ngx.crc32_long('hello')", [907060870, 907060870]),
            ("ngx.escape_uri('a b/c?ä'), ngx.escape_uri('a b/c', 0)", ["a%20b%2Fc%3F%C3%A4", "a%20b/c"]),
            ("ngx.unescape_uri('a+b%20c%2F%zz')", ["a b c/%zz"]),
            ("ngx.encode_args({b = {'x', 'y'}, a = 'v w', c = true, d = false})", ["a=v%20w&b=x&b=y&c"]),
            ("ngx.decode_args('a=1&b&a=2')", [{"a": ["1", "2"], "b": True}]),
            ("ngx.quote_sql_str('it\\'s')", ["'it\\'s'"]),
        ):  # fmt: skip
            self.assertEqual(self.told(code), expected, code)
        self.assertIn("string argument only", self.failure("ngx.decode_base64(nil)"))
        self.assertIn("table expected, got nil", self.failure("ngx.encode_args()"))
        self.assertIn("string expected, got table", self.failure("ngx.md5({})"))

    def test_times(self) -> None:
        self.assertEqual(self.told("ngx.time(), ngx.now(), ngx.req.start_time()"), [1700000000, 1700000000, 1700000000])
        self.assertEqual(
            self.told("ngx.utctime(), ngx.http_time(0)"), ["2023-11-14 22:13:20", "Thu, 01 Jan 1970 00:00:00 GMT"]
        )
        self.assertEqual(self.told("#ngx.localtime(), #ngx.today(), ngx.parse_http_time('x')"), [19, 10, None])
        self.assertEqual(self.told("ngx.parse_http_time(ngx.http_time(10))"), [10])

    def test_constants(self) -> None:
        self.assertEqual(self.told("ngx.OK, ngx.ERR, ngx.DEBUG, ngx.HTTP_NOT_FOUND, ngx.HTTP_POST"), [0, 4, 8, 404, 8])
        self.assertEqual(self.told("tostring(ngx.null), ngx.get_phase()"), ["userdata: NULL", "log"])


class VariableTests(NameCase):
    def test_of_a_request(self) -> None:
        for name, expected in (
            ("host", "h.example"), ("request_method", "GET"), ("request_uri", "/a%20b?x=1&y"), ("args", "x=1&y"), ("is_args", "?"),
            ("arg_x", "1"), ("arg_none", None), ("http_x_thing", "one"), ("http_none", None), ("cookie_b", "2"), ("cookie_c", None),
            ("content_type", "text/plain"), ("scheme", "http"), ("server_protocol", "HTTP/1.1"), ("https", ""), ("ssl_protocol", None),
            ("request", "GET /a%20b?x=1&y HTTP/1.1"), ("none", None),
        ):  # fmt: skip
            self.assertEqual(self.told(f"ngx.var.{name}"), [expected], name)

    def test_without_a_request(self) -> None:
        self.call = LuaCall(None, "certificate")
        for code in ("ngx.var.host", "ngx.req.start_time()", "kong.ctx.shared.x", "ngx.ctx.x"):
            self.assertIn("no request found", self.failure(code))
        self.assertGreater(self.told("ngx.now()")[0], 1700000000)


class ContextTests(NameCase):
    def test_tables_of_a_request(self) -> None:
        """They stay from program to program; those of one plugin are its own."""
        self.told(
            "kong.ctx.shared.a = 1 kong.ctx.shared.t = {1} kong.ctx.plugin.own = 'mine' ngx.ctx.x = {y = 2} return 0"
        )
        self.told("kong.ctx.shared.t[2] = 5 ngx.ctx.x.y = 3 return 0")
        self.assertEqual(
            self.told("kong.ctx.shared.a, kong.ctx.shared.t, kong.ctx.plugin.own, ngx.ctx.x.y"), [1, [1, 5], "mine", 3]
        )
        self.call.plugin_id = "p-2"
        self.assertEqual(self.told("kong.ctx.plugin.own, kong.ctx.shared.a"), [None, 1])
        other = LuaCall(self.harness.request("GET", "/"), "log", plugin_id="p-1")
        self.assertEqual(self.engine.compile("kong.ctx.shared.a, ngx.ctx.x", mode="value").run(other), [None, None])

    def test_shared_with_plugins_in_python(self) -> None:
        shared = self.call.exchange.ctx if self.call.exchange is not None else {}
        self.call.shared = shared
        shared.update(theirs="x", table={"a": [1]}, thing=object())
        self.assertEqual(
            self.told("kong.ctx.shared.theirs, kong.ctx.shared.table, kong.ctx.shared.thing"), ["x", {"a": [1]}, None]
        )
        self.told("kong.ctx.shared.mine = 7 kong.ctx.shared.theirs = nil return 0")
        self.assertEqual((shared["mine"], shared["theirs"]), (7, None))

    def test_memory_of_the_engine_is_begun_anew(self) -> None:
        self.told("ngx.ctx.x = 1 return 0")
        self.engine.renew()
        self.assertEqual(self.told("ngx.ctx.x"), [None])


class LogTests(NameCase):
    def test_lines(self) -> None:
        self.told(
            "kong.log('a', 1, nil, true) kong.log.err('b') ngx.log(ngx.WARN, 'c', 2.5) kong.log.inspect({1}) return 0"
        )
        self.assertEqual([level for level, _ in self.lines], ["notice", "err", "warn", "debug"])
        first, second, third, fourth = (line for _, line in self.lines)
        self.assertIn("[kong] a1niltrue, client: ", first)
        self.assertIn("request: ", second)
        self.assertIn("[lua] c2.5", third)
        self.assertIn("[kong] [1]", fourth)
        self.assertIn("bad log level", self.failure("ngx.log(99, 'x')"))

    def test_one_line_and_bounded(self) -> None:
        self.told("kong.log.err('a\\nb', ('x'):rep(100000)) return 0")
        ((_, line),) = self.lines
        self.assertNotIn("\n", line)
        self.assertLess(len(line), 5000)

    def test_values_of_the_record(self) -> None:
        self.told("kong.log.set_serialize_value('a.b', {1}) return 0")
        assert self.call.exchange is not None and self.call.exchange.log_values is not None
        self.assertEqual(self.call.exchange.log_values[0][:2], (("a", "b"), [1]))
        self.assertIn("key must be a string", self.failure("kong.log.set_serialize_value({}, 1)"))
        self.assertIn("mode must be", self.failure("kong.log.set_serialize_value('a', 1, {mode = 'x'})"))


class ModuleTests(NameCase):
    def setUp(self) -> None:
        super().setUp()
        folder = self.mktemp()
        os.makedirs(folder)
        with open(f"{folder}/house.lua", "w", encoding="utf-8") as file:
            file.write(
                "return { shout = function(s) return s:upper() .. kong.request.get_path() end, loads = loadstring ~= nil }"
            )
        allowed = ("house", "cjson", "cjson.safe", "absent")
        settings = LuaSettings(requires=allowed, path=f"{folder}/?.lua", seconds=3600.0)
        self.engine = Engine(offered_names(lambda *line: self.lines.append(line)), settings)

    def test_file(self) -> None:
        self.assertEqual(self.told("require('house').shout('a'), require('house').loads"), ["A/a b", True])
        self.assertIn("module 'absent' not found", self.failure("require('absent')"))
        self.assertIn("not allowed within sandbox", self.failure("require('os')"))

    def test_cjson(self) -> None:
        for code, expected in (
            ("require('cjson').encode({a = {1, 'x', {n = require('cjson').null}}})", ['{"a":[1,"x",{"n":null}]}']),
            ("require('cjson').decode('{\"a\":[1,{\"b\":true}]}')", [{"a": [1, {"b": True}]}]),
            ("require('cjson.safe').decode('x')", [None, "Expected value but found invalid token"]),
            ("require('cjson.safe').encode(0/0)", [None, "Cannot serialise number: must not be NaN or Inf"]),
            ("select(2, require('cjson.safe').encode(type))", ["Cannot serialise function: type not supported"]),
        ):
            self.assertEqual(self.told(code), expected, code)
        self.assertIn(":1: Expected value", self.failure("local x = require('cjson').decode('')"))
        self.failure("require('cjson').encode = 1")


class ExpressionTests(NameCase):
    def test_match(self) -> None:
        code = "local m = ngx.re.match('hello, 1234', '([0-9])(?<rest>[0-9]+)(x)?') return m[0], m[1], m.rest, m[3]"
        self.assertEqual(self.told(code), ["1234", "1", "234", False])
        self.assertEqual(self.told("ngx.re.match('a', 'b', 'jo')"), [None, None])
        self.assertEqual(self.told("ngx.re.match('xA', 'a', 'i')[0], ngx.re.match('xa', 'a', 'a')"), ["A", None, None])
        self.assertIn("missing closing parenthesis", self.told("ngx.re.match('a', '(')")[1])
        self.assertIn('1: unknown flag "Q"', self.failure("local m = ngx.re.match('a', 'a', 'Q')"))
        self.assertEqual(
            self.told("local c = {pos = 2} return ngx.re.match('1 2 3', '[0-9]', '', c)[0], c.pos"), ["2", 4]
        )

    def test_find(self) -> None:
        self.assertEqual(self.told("ngx.re.find('hello, 1234', '[0-9]+')"), [8, 11, None])
        self.assertEqual(self.told("ngx.re.find('ab12', '([a-z]+)([0-9]+)', 'jo', nil, 2)"), [3, 4, None])
        self.assertEqual(self.told("ngx.re.find('a', 'b')"), [None, None, None])

    def test_gmatch(self) -> None:
        code = "local r = {} for m in ngx.re.gmatch('a1b22', %s) do r[#r + 1] = '<' .. m[0] .. '>' end return table.concat(r)"
        self.assertEqual(self.told(code % "'[0-9]+'"), ["<1><22>"])
        self.assertEqual(self.told(code % "'x*'"), ["<><><><><><>"])

    def test_replacements(self) -> None:
        for code, expected in (
            ("ngx.re.gsub('hello, world', '([a-z])[a-z]+', '[$0,$1]')", ["[hello,h], [world,w]", 2, None]),
            ("ngx.re.sub('hello, 12', '([0-9])', '<${1}$$>')", ["hello, <1$>2", 1, None]),
            ("ngx.re.gsub('hello', 'l', function(m) return m[0] .. '!' end)", ["hel!l!o", 2]),
            ("ngx.re.sub('hello', 'l', function(m) return 'L' end)", ["heLlo", 1]),
            ("ngx.re.gsub('abc', '', '-')", ["-a-b-c-", 4, None]),
            ("ngx.re.gsub('aab', 'a', 'x', 'a')", ["xxb", 2, None]),
        ):
            self.assertEqual(self.told(code), expected, code)

    def test_patterns_that_run_wild(self) -> None:
        code = "ngx.re.match(('a'):rep(5000) .. 'b', '(a|a)+$')"
        self.assertEqual(self.told(code), [None, "pcre_exec() failed: -8"])
        self.patch(ngx_re, "TIME_LIMIT", 3600.0)
        self.assertIn("too large", self.told("ngx.re.match('a', ('(?:a{9}){9}'):rep(2000))")[1])
        self.assertIn("more than", self.failure("ngx.re.gsub(('a'):rep(2500), 'a', function() return 'b' end)"))
