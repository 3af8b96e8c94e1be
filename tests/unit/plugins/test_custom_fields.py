"""``custom_fields_by_lua`` in every log plugin: Kong's meaning, and expressions, which are ours."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.entities import EntityError
from kongtwist.lua.lua_engine import DISABLED, Engine, LuaSettings
from kongtwist.plugins.file_log import FileLog
from kongtwist.plugins.http_log import HttpLog
from kongtwist.plugins.kafka_log import KafkaLog
from kongtwist.plugins.loggly import Loggly
from kongtwist.plugins.syslog import Syslog
from kongtwist.plugins.tcp_log import TCPLog
from kongtwist.plugins.udp_log import UDPLog
from kongtwist.testing import PluginHarness

KINDS: tuple[tuple[type[Plugin], dict[str, Any]], ...] = (
    (HttpLog, {"http_endpoint": "http://logs.example/x"}),
    (FileLog, {"path": "requests.json"}),
    (TCPLog, {"host": "logs.example", "port": 9999}),
    (UDPLog, {"host": "logs.example", "port": 9999}),
    (Syslog, {}),
    (Loggly, {"key": "token"}),
    (KafkaLog, {"bootstrap_servers": [{"host": "kafka.example", "port": 9092}], "topic": "access"}),
)


def sent(harness: PluginHarness) -> list[Any]:
    """The records that left, or wait to."""
    host = harness.host
    texts: list[bytes] = [data for each in host.sockets.values() for data in each.sent]
    texts += [entry for each in host.queues.values() for entry in each.entries]
    texts += [record.value or b"" for each in host.producers.values() for record in each.records]
    return [json.loads(text[text.index(b"{") :]) for text in texts]


def logged(fields: dict[str, str], kind: type[Plugin] = UDPLog, **config: Any) -> PluginHarness:
    """A request with header ``X-Thing`` that was answered."""
    harness = PluginHarness(kind, custom_fields_by_lua=fields, **(config or dict(KINDS)[kind]))
    harness.respond(harness.send("GET", "/a?b=1", {"X-Thing": "thing"}), 200)
    return harness


class FieldTests(SynchronousTestCase):
    def test_in_all_plugins(self) -> None:
        for kind, config in KINDS:
            fields = {"kind": '"bare"', "thing": "return kong.request.get_header('X-Thing')", "n.m": "1 + 1"}
            (record,) = sent(logged(fields, kind, **config))
            self.assertEqual((record["kind"], record["thing"], record["n"]), ("bare", "thing", {"m": 2}), kind.name)

    def test_values(self) -> None:
        fields = {
            "request.headers.x-thing": "return nil", "latencies": "return {a = {1, 2}}", "flag": "return false", "none": "return",
            "response.status": "418", "called": "kong.request.get_header('x-thing')",
        }  # fmt: skip
        (record,) = sent(logged(fields))
        self.assertNotIn("x-thing", record["request"]["headers"])
        self.assertEqual((record["latencies"], record["flag"]), ({"a": [1, 2]}, False))
        self.assertEqual((record["response"]["status"], record["called"]), (418, "thing"))
        self.assertNotIn("none", record)

    def test_of_the_request(self) -> None:
        """A log plugin with a lower priority has them too, as in Kong."""
        harness = PluginHarness(UDPLog, host="a", port=1, custom_fields_by_lua={"seen": "return 5"})
        harness.add(Syslog)
        harness.respond(harness.send("GET", "/a"), 200)
        self.assertEqual([record["seen"] for record in sent(harness)], [5])
        (datagrams,) = harness._configured[1].host.sockets.values()
        self.assertIn(b'"seen":5', datagrams.sent[0])

    def test_failures(self) -> None:
        """No record, and one line that says which field, of which plugin, and why."""
        for kind, config in KINDS:
            for code, why in (
                ("error('this')", "this"), ("return nothing.x", "nothing"), ("while true do end", "instructions"),
                ("return function() end", "function"), ("return kong.response.exit(200)", ""), ("return 0/0", "NaN"),
                ("return {a = {1/0}}", "Inf"),
            ):  # fmt: skip
                harness = logged({"good": "return 1", "bad": code}, kind, **config)
                self.assertEqual(sent(harness), [], (kind.name, code))
                (line,) = harness.reports
                self.assertIn(why, line)
                self.assertIn(f"plugin {kind.name} sends no record: custom_fields_by_lua.bad failed: ", line)
                self.assertNotIn("\n", line)

    def test_compiled_once(self) -> None:
        """Not at each request; globals of one request are gone at the next."""
        harness = PluginHarness(
            UDPLog, host="a", port=1, custom_fields_by_lua={"n": "count = (count or 0) + 1 return count"}
        )
        engine: Engine = harness.host.lua
        compiled: list[str] = []
        self.patch(engine, "compile", lambda code, **_: compiled.append(code))
        for _ in range(3):
            harness.respond(harness.send("GET", "/a"), 200)
        self.assertEqual([record["n"] for record in sent(harness)], [1, 1, 1])
        self.assertEqual(compiled, [])

    def test_refused(self) -> None:
        for kind, config in KINDS:
            with self.assertRaises(EntityError) as caught:
                PluginHarness(kind, custom_fields_by_lua={"a": "return ("}, **config)
            told = caught.exception.fields["config"]["custom_fields_by_lua"]
            self.assertEqual(told, "Error parsing function: [string \"return (\"]:1: unexpected symbol near '<eof>'")
        for fields in ({"a": ""}, {"": "1"}, {"a": {"b": "1"}}, {"a": "x y"}, {"a": "python:nothing"}, {"a": "\x1bLJ"}):
            self.assertRaises(EntityError, PluginHarness, UDPLog, host="a", port=1, custom_fields_by_lua=fields)

    def test_examined(self) -> None:
        """What its rules cannot tell: Lua is off, a module of Python is not allowed."""
        for kind, config in KINDS:
            harness = PluginHarness(kind, **config)
            harness.host.lua = Engine({}, LuaSettings(trust="off", modules=("os",)))
            for code, words in (
                ("return 1", DISABLED),
                ("python:sys.exit", "plugin_python_modules"),
                ("python:os.none", "no function"),
            ):
                examined = {**config, "custom_fields_by_lua": {"a": code}}
                error = self.assertRaises(EntityError, harness.plugin.examine, examined, harness.host)
                self.assertIn(words, error.fields["config"]["custom_fields_by_lua"])
            for fields in (None, {}, {"a": "return ("}, {"a": 5}, "text", {"a": "python:os.getcwd"}):
                harness.plugin.examine({**config, "custom_fields_by_lua": fields}, harness.host)

    def test_off_by_now(self) -> None:
        """A row that is there already keeps no request; its records are not sent."""
        harness = logged({"a": "return 1"})
        harness.host.lua = Engine({}, LuaSettings(trust="off"))
        conf = harness.plugin.open(harness.row["config"], harness.row, harness.host)
        exchange = harness.request("GET", "/")
        harness.plugin.log(exchange, conf)
        self.assertIn(DISABLED, harness.reports[-1])
        self.assertEqual(len(sent(harness)), 1)

    def test_python(self) -> None:
        """Called with the running call; what it raises fails the field."""
        harness = PluginHarness(UDPLog, host="a", port=1)
        harness.host.lua = Engine({}, LuaSettings(modules=(__name__,)))
        for name in ("path_of", "fails"):
            row = {
                **harness.row,
                "config": {**harness.row["config"], "custom_fields_by_lua": {"a": f"python:{__name__}.{name}"}},
            }
            harness.plugin.log(harness.request("GET", "/p"), harness.plugin.open(row["config"], row, harness.host))
        self.assertEqual([record["a"] for record in sent(harness)], ["log /p"])
        self.assertIn("ValueError: as it is", harness.reports[-1])


def path_of(call: Any) -> str:
    """For `FieldTests.test_python`."""
    return f"{call.phase} {call.exchange.raw_path.decode()}"


def fails(_call: Any) -> None:
    """Likewise."""
    raise ValueError("as it is")
