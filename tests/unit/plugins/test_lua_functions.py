"""pre-function and post-function: Lua in each phase."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.answers import Answer
from kongtwist.entities.errors import EntityError
from kongtwist.lua.lua_calls import LuaFailure
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.plugins.post_function import PostFunction
from kongtwist.plugins.pre_function import PreFunction
from kongtwist.testing.harness import PluginHarness
from kongtwist.testing.outcome import Outcome


def pre(**config: list[str]) -> PluginHarness:
    """A gateway with a pre-function."""
    return PluginHarness(PreFunction, **config)


def answer_of(outcome: Outcome) -> Answer:
    assert outcome.answer is not None
    return outcome.answer


class SchemaTests(SynchronousTestCase):
    def refused(self, kind: Any, **config: Any) -> Any:
        return self.assertRaises(EntityError, PluginHarness, kind, **config).body()

    def test_code_has_to_compile(self) -> None:
        for kind in (PreFunction, PostFunction):
            body = self.refused(kind, access=["return 1", "print("])
            self.assertEqual(
                body["fields"]["config"]["access"][1],
                f"error parsing {kind.name}: [string \"print(\"]:1: unexpected symbol near '<eof>'",
            )

    def test_there_has_to_be_some(self) -> None:
        self.assertEqual(
            self.refused(PreFunction)["fields"]["@entity"],
            [
                "at least one of these fields must be non-empty: 'config.certificate', 'config.rewrite', 'config.access',"
                " 'config.header_filter', 'config.body_filter', 'config.log'"
            ],
        )

    def test_nothing_runs_when_it_is_stored(self) -> None:
        pre(access=['error("should never happen")', 'return "a text"', "local x = 1 return function() x = x + 1 end"])

    def test_order(self) -> None:
        self.assertEqual((PreFunction.priority, PostFunction.priority), (1000000, -1000))


class AccessTests(SynchronousTestCase):
    def test_it_changes_the_request(self) -> None:
        harness = pre(access=['kong.service.request.set_header("x-path", kong.request.get_path())'])
        outcome = harness.send("GET", "/a/../b")
        self.assertIsNone(outcome.answer)
        self.assertEqual(outcome.upstream_headers, {"x-path": "/b"})

    def test_exit_ends_the_request(self) -> None:
        harness = pre(access=['kong.response.exit(418, { a = { 1, 2 } }, { ["X-A"] = "b" })', 'error("never")'])
        harness.add(KeyAuth)
        answer = answer_of(harness.send())
        self.assertEqual((answer.status, answer.body), (418, b'{"a":[1,2]}'))
        self.assertIn((b"X-A", b"b"), answer.headers)

    def test_no_pcall_keeps_exit(self) -> None:
        harness = pre(access=['pcall(kong.response.exit, 418) kong.service.request.set_header("x-later", "1")'])
        outcome = harness.send()
        self.assertEqual(answer_of(outcome).status, 418)
        self.assertEqual(outcome.upstream_headers, {})

    def test_error_in_the_form_that_the_client_takes(self) -> None:
        answer = answer_of(pre(access=["kong.response.error(403)"]).send())
        self.assertEqual((answer.status, answer.message), (403, "Forbidden"))

    def test_ngx_exit(self) -> None:
        for code, status, body, message in (
            ("ngx.status = 503 ngx.exit(ngx.status)", 503, None, "The upstream server is currently unavailable"),
            ('ngx.status = 404 ngx.say("Not Found") ngx.exit(ngx.status)', 404, b"Not Found\n", None),
            ("ngx.exit(403)", 403, None, None),
            ("ngx.exit(ngx.ERROR)", 500, None, "An unexpected error occurred"),
            ('ngx.print(1, " ", true, {"a", "b"}) ngx.exit(ngx.OK)', 200, b"1 trueab", None),
            ('ngx.say("no exit")', 200, b"no exit\n", None),
        ):
            answer = answer_of(pre(access=[code]).send())
            self.assertEqual((answer.status, answer.body, answer.message), (status, body, message), code)
        self.assertIsNone(pre(access=["ngx.exit(ngx.OK)", 'error("never")']).send().answer)

    def test_chunks_in_their_order(self) -> None:
        answer = answer_of(pre(access=["ngx.status = 400", "ngx.exit(ngx.status)"]).send())
        self.assertEqual(answer.status, 400)

    def test_failure_closes(self) -> None:
        harness = pre(access=['error("this should stop the request")'])
        answer = answer_of(harness.send())
        self.assertEqual((answer.status, answer.message), (500, "An unexpected error occurred"))
        (report,) = harness.reports
        self.assertIn("plugin pre-function failed in phase access", report)
        self.assertIn("this should stop the request", report)
        self.assertNotIn("\n", report)

    def test_wrong_phase_closes(self) -> None:
        harness = pre(access=["kong.response.get_status()"])
        self.assertEqual(answer_of(harness.send()).status, 500)
        self.assertIn("function cannot be called in access phase (only in: response,", harness.reports[0])

    def test_loop_without_end_is_stopped(self) -> None:
        harness = pre(access=["while true do end"])
        self.assertEqual(answer_of(harness.send()).status, 500)
        self.assertIn("more than", harness.reports[0])
        self.assertEqual(len(harness.reports), 1)

    def test_upvalues_last_as_long_as_the_configuration(self) -> None:
        code = "local count = 0 return function() count = count + 1 ngx.print(count) end"
        harness = pre(access=[code])
        self.assertEqual([answer_of(harness.send()).body for _ in range(3)], [b"1", b"2", b"3"])
        self.assertEqual(answer_of(pre(access=[code]).send()).body, b"1")

    def test_equal_code_of_two_configurations(self) -> None:
        """Each has upvalues and globals of its own."""
        code = """
            n = (n or 0) + 1
            local count = 0
            return function() count = count + 1 kong.service.request.add_header("x-n", n .. count) end
        """
        harness = pre(access=[code])
        harness.add(PostFunction, access=[code])
        self.assertEqual([harness.send().upstream_headers for _ in range(2)], [{"x-n": "11, 11"}, {"x-n": "12, 12"}])

    def test_a_chunk_that_ends_at_first_keeps_its_place(self) -> None:
        harness = pre(access=["n = (n or 0) + 1 kong.response.exit(200, tostring(n))"])
        self.assertEqual([answer_of(harness.send()).body for _ in range(3)], [b"1", b"2", b"3"])

    def test_plugins_are_told_of_each_other(self) -> None:
        harness = pre(access=["kong.ctx.shared.a = { b = 7 } kong.ctx.plugin.x = 1 ngx.ctx.y = 2"])
        harness.add(
            PostFunction, access=["ngx.say(kong.ctx.shared.a.b, tostring(kong.ctx.plugin.x), ngx.ctx.y) ngx.exit(200)"]
        )
        self.assertEqual(answer_of(harness.send()).body, b"7nil2\n")

    def test_cache(self) -> None:
        """What a function has given is kept, for all scripts, until it is told to go."""
        code = """
            local function count(by) n = (n or 0) + by return n end
            if kong.request.get_path() == "/forget" then kong.cache:invalidate("key") end
            local value, err, level = kong.cache:get("key", nil, count, 2)
            kong.response.exit(200, { value, level, kong.cache:get("key"), (kong.cache:probe("other")) == nil })
        """
        harness = pre(access=[code])
        self.assertEqual(
            [answer_of(harness.send("GET", path)).body for path in ("/", "/", "/forget")],
            [b"[2,3,2,true]", b"[2,1,2,true]", b"[4,3,4,true]"],
        )

    def test_cache_is_bounded_and_fails_as_the_function_does(self) -> None:
        code = """
            for number = 1, 1001 do kong.cache:get("k" .. number, nil, function() return number end) end
            local value, err = kong.cache:get("bad", nil, function() error("no", 0) end)
            local second, why = kong.cache:get("none", nil, function() return nil, "why" end)
            kong.response.exit(200, { tostring(kong.cache:get("k1")), kong.cache:get("k1001"), err, why })
        """
        self.assertEqual(answer_of(pre(access=[code]).send()).body, b'["nil",1001,"callback threw an error: no","why"]')

    def test_who_it_is(self) -> None:
        harness = pre(access=['kong.client.authenticate({ id = "c", username = "ann" }, { id = "k" })'])
        self.assertEqual((harness.send().consumer or {})["username"], "ann")

    def test_rewrite(self) -> None:
        answer = answer_of(
            pre(rewrite=['kong.response.exit(200, "r")'], access=['kong.response.exit(200, "a")']).send()
        )
        self.assertEqual(answer.body, b"r")


class BodyTests(SynchronousTestCase):
    READ = "kong.response.exit(200, { body = kong.request.get_raw_body() or select(2, kong.request.get_raw_body()) })"

    def test_the_body_is_read_where_it_is_named(self) -> None:
        answer = answer_of(pre(access=[self.READ]).send("POST", "/", body=b"abc"))
        self.assertEqual(answer.body, b'{"body":"abc"}')
        answer = answer_of(
            pre(access=["ngx.req.read_body() ngx.say(ngx.req.get_body_data() + 1)"]).send("POST", "/", body=b"4")
        )
        self.assertEqual(answer.body, b"5\n")

    def test_one_that_is_too_large(self) -> None:
        answer = answer_of(pre(access=[self.READ]).send("POST", "/", body=b"a" * 9000))
        self.assertIn(b"did not fit into client body buffer", answer.body or b"")

    def test_by_type(self) -> None:
        harness = pre(access=["kong.response.exit(200, tostring(kong.request.get_body().a[2]))"])
        sent = {"content-type": "application/json"}
        self.assertEqual(answer_of(harness.send("POST", "/", sent, b'{"a":[1,"two"]}')).body, b"two")

    def test_another_body_for_the_upstream(self) -> None:
        harness = pre(access=['kong.service.request.set_body({ a = "b" }, "application/json")'])
        outcome = harness.send("POST", "/", body=b"old")
        self.assertEqual(outcome.exchange.upstream_body, b'{"a":"b"}')


class AnswerTests(SynchronousTestCase):
    def test_header_filter(self) -> None:
        harness = pre(
            header_filter=[
                'kong.response.set_header("X-A", kong.service.response.get_header("x-from") .. kong.response.get_status())',
                'ngx.header["X-B"] = ngx.status ngx.status = 202',
            ]
        )
        outcome = harness.respond(harness.send(), 201, [("X-From", "up")], [b"body"])
        fields = outcome.exchange.answer_fields()
        self.assertEqual((fields[b"x-a"], fields[b"x-b"], outcome.exchange.status), ((b"up201",), (b"201",), 202))
        self.assertEqual(outcome.sent, b"body")

    def test_header_filter_answers(self) -> None:
        harness = pre(header_filter=['kong.response.exit(503, "no")'])
        outcome = harness.respond(harness.send(), 200, [], [b"body"])
        self.assertEqual((outcome.exchange.status, outcome.sent), (503, b"no"))

    def test_header_filter_fails(self) -> None:
        harness = pre(header_filter=["error('no')"])
        outcome = harness.respond(harness.send(), 200, [], [b"body"])
        self.assertEqual(outcome.exchange.status, 500)

    def test_pieces_pass_as_they_come(self) -> None:
        code = """
            local n = 0
            return function()
                n = n + 1
                ngx.arg[1] = n .. ":" .. string.upper(ngx.arg[1]) .. (ngx.arg[2] and "!" or "")
            end
        """
        harness = pre(body_filter=[code])
        outcome = harness.send()
        outcome.exchange.status = 200
        stage = harness.plugin.header_filter(outcome.exchange, harness.conf)
        self.assertEqual(
            [stage.call(b"a", False), stage.call(b"b", False), stage.call(b"", True)], [b"1:A", b"2:B", b"3:!"]
        )

    def test_a_piece_is_dropped_and_the_rest(self) -> None:
        harness = pre(
            body_filter=[
                'if ngx.arg[1] == "b" then ngx.arg[1] = nil end if ngx.arg[1] == "c" then ngx.arg[2] = true end'
            ]
        )
        outcome = harness.respond(harness.send(), 200, [], [b"a", b"b", b"c", b"d", b""])
        self.assertEqual(outcome.sent, b"ac")

    def test_the_whole_body(self) -> None:
        code = "local body = kong.response.get_raw_body() if body then kong.response.set_raw_body(body:reverse()) end"
        harness = pre(body_filter=[code])
        outcome = harness.respond(harness.send(), 200, [], [b"ab", b"cd", b""])
        self.assertEqual(outcome.sent, b"dcba")

    def test_the_answer_as_one(self) -> None:
        harness = pre(
            access=["kong.service.request.enable_buffering()"],
            header_filter=['kong.response.set_header("X-Size", #kong.service.response.get_raw_body())'],
            log=['kong.log.set_serialize_value("size", #kong.service.response.get_raw_body())'],
        )
        outcome = harness.respond(harness.send(), 200, [("content-type", "text/plain")], [b"ab", b"cd", b""])
        self.assertEqual(outcome.sent, b"abcd")
        self.assertEqual(outcome.exchange.answer_fields()[b"x-size"], (b"4",))
        assert outcome.exchange.log_values is not None
        self.assertEqual(outcome.exchange.log_values[0].value, 4)

    def test_event_streams_are_not_held(self) -> None:
        harness = pre(
            access=["kong.service.request.enable_buffering()"],
            header_filter=['kong.response.set_header("X", tostring(pcall(kong.service.response.get_raw_body)))'],
        )
        outcome = harness.respond(harness.send(), 200, [("content-type", "text/event-stream")], [b"data: 1\n\n"])
        self.assertEqual(outcome.exchange.answer_fields()[b"x"], (b"false",))

    def test_no_code_no_filter(self) -> None:
        harness = pre(access=["return"])
        outcome = harness.send()
        outcome.exchange.status = 200
        self.assertIsNone(harness.plugin.header_filter(outcome.exchange, harness.conf))

    def test_log(self) -> None:
        harness = pre(log=['kong.log.set_serialize_value("a.b", kong.response.get_status())'])
        outcome = harness.respond(harness.send(), 200, [], [b""])
        assert outcome.exchange.log_values is not None
        self.assertEqual(outcome.exchange.log_values[0].path, ("a", "b"))


class CertificateTests(SynchronousTestCase):
    def test_it_sees_the_client(self) -> None:
        harness = pre(
            certificate=["if kong.client.get_ip() == nil then error('nobody') end kong.log.notice(kong.node.get_id())"]
        )
        self.assertIsNone(harness.certificate("a.test"))
        self.assertIn("node-id", str(harness.host.lua_lines))

    def test_failure_ends_the_handshake(self) -> None:
        harness = pre(certificate=["error('no')"])
        self.assertRaises(LuaFailure, harness.certificate, "a.test")
