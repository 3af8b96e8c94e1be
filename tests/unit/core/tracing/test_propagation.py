"""What requests tell of their traces, and what upstreams are told: Kong's own tables, and what is malformed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Exchange
from kongtwist.core.http.head import HeaderBlock
from kongtwist.core.tracing.extraction import EXTRACTORS, extract
from kongtwist.core.tracing.injection import inject
from kongtwist.core.tracing.propagation import Propagation
from kongtwist.core.tracing.trace_context import Headers, TraceContext
from kongtwist.plugins.correlation_id import CorrelationId
from kongtwist.testing import PluginHarness
from tests.places import CONTRACT

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = "b7ad6b7169203332"
ZEROS = "0" * 32

CASES: list[dict[str, Any]] = json.loads((CONTRACT / "vectors_propagation.json").read_text())["cases"]


def request(method: str, target: str, headers: Sequence[tuple[str, str]] = ()) -> Exchange:
    """A request nobody has looked at."""
    return PluginHarness(CorrelationId).request(method, target, headers)


def fields(told: Mapping[str, str | Sequence[str]]) -> Headers:
    """Fields to extract from."""
    return Headers(
        {
            name.encode(): [each.encode("latin-1") for each in ([value] if isinstance(value, str) else value)]
            for name, value in told.items()
        }
    )


def read(name: str, told: Mapping[str, str | Sequence[str]]) -> tuple[TraceContext | None, list[str]]:
    """What a format makes of fields, and what it complains of."""
    said: list[str] = []
    return EXTRACTORS[name](fields(told), said.append), said


def shown(context: TraceContext | None) -> dict[str, Any] | None:
    """A context in the words of the vectors."""
    if context is None:
        return None
    told: dict[str, Any] = {
        "trace_id": context.trace_id and context.trace_id.hex(),
        "span_id": context.span_id and context.span_id.hex(),
        "parent_id": context.parent_id and context.parent_id.hex(),
        "should_sample": context.sampled,
        "reuse_span_id": context.shared or None,
        "flags": context.flags,
        "single_header": context.single or None,
        "trace_id_original_size": context.size or None,
        "baggage": context.baggage and {key.decode(): value.decode() for key, value in context.baggage.items()},
        "w3c_flags": context.w3c_flags or None,
    }
    return {key: value for key, value in told.items() if value is not None}


def context_of(told: Mapping[str, Any]) -> TraceContext:
    """A context by the words of the vectors."""

    def id_of(name: str) -> bytes | None:
        return bytes.fromhex(told[name]) if name in told else None

    return TraceContext(
        id_of("trace_id"), id_of("span_id"), id_of("parent_id"),
        sampled=told.get("should_sample"), flags=told.get("flags"), size=told.get("trace_id_original_size", 0),
        baggage={key.encode(): value.encode() for key, value in told.get("baggage", {}).items()} or None,
    )  # fmt: skip


class VectorTests(SynchronousTestCase):
    """The tables of Kong's specs."""

    maxDiff = None

    def test_extraction(self) -> None:
        """Headers give contexts. A zero is no id here (a parent of Jaeger's, flags that are 0)."""
        count = 0
        for case in CASES:
            if case["extract"] and "context" in case:
                expected = {key: value for key, value in case["context"].items() if str(value) not in ("0", "0" * 16)}
                found, said = read(case["extractor"], case["headers"])
                self.assertEqual(shown(found), expected, case["headers"])
                self.assertEqual(said, [], case["headers"])
                count += 1
        self.assertGreater(count, 40)

    def test_malformed(self) -> None:
        """What is malformed is said in Kong's words, and nothing of it."""
        count = 0
        for case in CASES:
            if case["extract"] and "error" in case:
                _, said = read(case["extractor"], case["headers"])
                self.assertIn(case["error"], said, case["headers"])
                count += 1
        self.assertGreater(count, 50)

    def test_injection(self) -> None:
        """Contexts give headers, and the id for the log."""
        count = 0
        for case in CASES:
            if case["inject"] and "headers" in case and "context" in case:
                injected = inject(case["injector"], context_of(case["context"]))
                found = {name.decode(): value.decode() for name, value in injected.fields}
                self.assertEqual(found, case["headers"], case["context"])
                self.assertEqual((injected.key, injected.told), (case["extractor"], case["told"]))
                count += 1
        self.assertGreater(count, 30)

    def test_ids_that_lack(self) -> None:
        """Formats that need ids say which one lacks."""
        count = 0
        for case in CASES:
            if case["inject"] and "error" in case:
                error = self.assertRaises(ValueError, inject, case["injector"], context_of(case["context"]))
                self.assertEqual(str(error), case["error"])
                count += 1
        self.assertGreater(count, 6)


class MalformedTests(SynchronousTestCase):
    """What clients may send that Kong's tables lack."""

    def test_zeros_are_no_ids(self) -> None:
        """An id of nothing but zeros begins no trace, in any format."""
        for name, told in (
            ("w3c", {"traceparent": f"00-{ZEROS}-{SPAN}-01"}),
            ("w3c", {"traceparent": f"00-{TRACE}-{ZEROS[:16]}-01"}),
            ("b3", {"b3": f"{ZEROS}-{SPAN}"}),
            ("b3", {"x-b3-traceid": ZEROS, "x-b3-spanid": SPAN}),
            ("jaeger", {"uber-trace-id": f"{ZEROS}:{SPAN}:0:01"}),
            ("jaeger", {"uber-trace-id": f"{TRACE}:0:0:01"}),
            ("ot", {"ot-tracer-traceid": ZEROS, "ot-tracer-spanid": SPAN}),
            ("datadog", {"x-datadog-trace-id": "0", "x-datadog-parent-id": "5"}),
            ("aws", {"x-amzn-trace-id": f"Root=1-{ZEROS[:8]}-{ZEROS[:24]};Parent={SPAN}"}),
            ("gcp", {"x-cloud-trace-context": f"{ZEROS}/5;o=1"}),
        ):
            self.assertIsNone(read(name, told)[0], told)

    def test_a_span_of_zeros(self) -> None:
        """A span id of zeros is none: the trace goes on without a parent."""
        for name, told in (
            ("b3", {"b3": f"{TRACE}-{ZEROS[:16]}"}),
            ("gcp", {"x-cloud-trace-context": f"{TRACE}/0;o=1"}),
            ("datadog", {"x-datadog-trace-id": "7", "x-datadog-parent-id": "0"}),
        ):
            found, _ = read(name, told)
            assert found is not None
            self.assertIsNone(found.span_id, told)
            self.assertIsNotNone(found.trace_id)

    def test_fields_that_come_several_times(self) -> None:
        """Two values of a field that has one are none."""
        w3c = f"00-{TRACE}-{SPAN}-01"
        for name, told in (
            ("w3c", {"traceparent": [w3c, w3c]}),
            ("b3", {"b3": [f"{TRACE}-{SPAN}", f"{TRACE}-{SPAN}"]}),
            ("b3", {"x-b3-traceid": [TRACE, TRACE], "x-b3-spanid": SPAN}),
            ("jaeger", {"uber-trace-id": [f"{TRACE}:{SPAN}:0:01"] * 2}),
            ("ot", {"ot-tracer-traceid": [TRACE, TRACE]}),
            ("datadog", {"x-datadog-trace-id": ["7", "8"]}),
            ("aws", {"x-amzn-trace-id": [f"Root=1-{TRACE[:8]}-{TRACE[8:]}"] * 2}),
            ("gcp", {"x-cloud-trace-context": [f"{TRACE}/5"] * 2}),
        ):
            self.assertIsNone(read(name, told)[0], told)

    def test_odd_values(self) -> None:
        """Empty, huge, not ASCII, with line ends: nothing of it, no exception."""
        names = (
            "traceparent", "b3", "tracestate", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags", "uber-trace-id",
            "ot-tracer-traceid", "ot-tracer-spanid", "ot-tracer-sampled", "x-datadog-trace-id", "x-datadog-parent-id",
            "x-datadog-sampling-priority", "x-amzn-trace-id", "x-cloud-trace-context",
        )  # fmt: skip
        values = (
            "", " ", "=", ";", "-", ":", "::::", "----", "\xff\xfe", "0" * 100_000, "9" * 100_000, "f" * 100_000,
            "Root=;Parent=;Sampled=", "Root", "Parent=zzzzzzzzzzzzzzzz", f"{TRACE}\n", f"00-{TRACE}-{SPAN}-01\n", "b3=", "b3=\xff",
            f"{TRACE}/99999999999999999999999999", "-1", "1" * 40, "٣" .encode().decode("latin-1"),
        )  # fmt: skip
        for name in names:
            for value in values:
                for form in EXTRACTORS:
                    found, said = read(form, {name: value})
                    self.assertTrue(found is None or found.trace_id is None or len(found.trace_id) == 16, (name, value))
                    self.assertNotIn(value if len(value) > 3 else "\0", "".join(said))

    def test_tracestate_of_others(self) -> None:
        """B3 that says nothing leaves a request with ``tracestate`` to W3C."""
        told = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
        found = extract(("b3", "w3c"), fields(told), self.fail)
        assert found is not None
        self.assertEqual((found[0], shown(found[1])["trace_id"]), ("w3c", TRACE))  # type: ignore[index]

    def test_nothing(self) -> None:
        """A request without any such field has no trace."""
        self.assertIsNone(extract(tuple(EXTRACTORS), fields({"accept": "*/*"}), self.fail))
        for form in EXTRACTORS:
            self.assertEqual(read(form, {}), (None, []))

    def test_baggage(self) -> None:
        """Baggage is decoded, and escaped again where it goes up: no line end gets into a head."""
        told = {
            "uber-trace-id": f"{TRACE}:{SPAN}:0:01",
            "uberctx-a": "x%0D%0AEvil:+1",
            "uberctx-b": "%zz",
            "uberctx-": "",
        }
        found, _ = read("jaeger", told)
        assert found is not None and found.baggage is not None
        self.assertEqual(found.baggage, {b"a": b"x\r\nEvil: 1", b"b": b"%zz", b"": b""})
        injected = dict(inject("jaeger", found).fields)
        self.assertEqual(injected[b"uberctx-a"], b"x%0D%0AEvil%3A%201")
        self.assertEqual(dict(inject("ot", found).fields)[b"ot-baggage-a"], b"x%0D%0AEvil%3A%201")

    def test_huge_baggage(self) -> None:
        """As much baggage as a head may hold passes."""
        told = {"uber-trace-id": f"{TRACE}:{SPAN}:0:01"} | {f"uberctx-{n}": "%41" * 30 for n in range(1000)}
        found, _ = read("jaeger", told)
        assert found is not None and found.baggage is not None
        self.assertEqual(len(inject("jaeger", found).fields), 1001)

    def test_datadog_decimals(self) -> None:
        """A decimal number longer than 16 bytes hold is malformed, not cut to another trace's id."""
        found, said = read("datadog", {"x-datadog-trace-id": "1" * 40, "x-datadog-sampling-priority": "1"})
        self.assertEqual(
            (shown(found), said), ({"should_sample": True}, ["x-datadog-trace-id header invalid; ignoring."])
        )


W3C = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
B3 = {"x-b3-traceid": PARENT, "x-b3-spanid": SPAN, "x-b3-sampled": "1"}


class PropagationTests(SynchronousTestCase):
    """``config.propagation`` and its forerunners."""

    def passed(self, conf: dict[str, Any], told: Mapping[str, str], **ids: bytes) -> dict[str, str]:
        """The trace fields that go up. ``ids``: what the plugin puts in place of what came."""
        exchange = request("GET", "/", headers=list(told.items()))
        propagation = Propagation(conf)
        came, context = propagation.read(exchange, self.fail)
        for name, value in ids.items():
            setattr(context, name, value)
        propagation.write(exchange, came, context, self.fail)
        self.logged = {value.path: value.value for value in exchange.log_values or ()}
        found = {name: values[-1].decode() for name, values in exchange.request_fields().items()}
        return {
            name.decode(): value for name, value in found.items() if name not in (b"host", b"accept", b"user-agent")
        }

    def test_rules_alone_count(self) -> None:
        """Any member of ``propagation`` makes the deprecated fields void, an empty list too."""
        old = {"header_type": "preserve", "default_header_type": "b3"}
        self.assertEqual(self.passed({**old, "propagation": {"extract": [], "inject": []}}, W3C), W3C)
        found = self.passed(
            {**old, "propagation": {"extract": ["w3c"], "default_format": "w3c"}}, W3C, span_id=b"\1" * 8
        )
        self.assertEqual(found, W3C)

    def test_preserve(self) -> None:
        """The format in which the trace came, or the default."""
        conf = {"header_type": "preserve", "propagation": {"default_format": "ot"}}
        self.assertEqual(self.passed(conf, W3C, span_id=b"\1" * 8), {"traceparent": f"00-{TRACE}-{'01' * 8}-01"})
        self.assertEqual(self.logged, {("trace_id",): {"w3c": TRACE}})
        found = self.passed(conf, {}, trace_id=b"\2" * 16, span_id=b"\3" * 8)
        self.assertEqual(found, {"ot-tracer-traceid": "02" * 8, "ot-tracer-spanid": "03" * 8})

    def test_order_of_old(self) -> None:
        """B3 comes first with ``header_type``."""
        conf = {"header_type": "preserve", "propagation": {"default_format": "w3c"}}
        self.passed(conf, {**W3C, **B3})
        self.assertEqual(self.logged, {("trace_id",): {"b3": PARENT}})

    def test_b3_single_is_kept(self) -> None:
        """The one header is answered with the one header."""
        conf = {"header_type": "preserve", "propagation": {"default_format": "w3c"}}
        self.assertEqual(self.passed(conf, {"b3": f"{TRACE}-{SPAN}-d"}), {"b3": f"{TRACE}-{SPAN}-d"})

    def test_type(self) -> None:
        """What came, and the wanted one."""
        conf = {"header_type": "w3c", "default_header_type": "b3", "propagation": {"default_format": "b3"}}
        self.assertEqual(self.passed(conf, B3), {**B3, "traceparent": f"00-{'0' * 16}{PARENT}-{SPAN}-01"})
        self.assertEqual(self.logged, {("trace_id",): {"b3": PARENT, "w3c": "0" * 16 + PARENT}})

    def test_ignore(self) -> None:
        """What came is not looked at, and replaced by the default."""
        conf = {"header_type": "ignore", "default_header_type": "b3", "propagation": {"default_format": "b3"}}
        found = self.passed(conf, B3, trace_id=b"\2" * 16, span_id=b"\3" * 8)
        self.assertEqual(found, {"x-b3-traceid": "02" * 16, "x-b3-spanid": "03" * 8, "x-b3-sampled": "0"})

    def test_clear(self) -> None:
        """Fields are taken out when they have been read, before others are put in."""
        conf = {
            "propagation": {
                "extract": ["b3"],
                "inject": ["w3c"],
                "clear": ["X-B3-TraceId", "x-b3-spanid", "traceparent"],
            }
        }
        self.assertEqual(
            self.passed(conf, B3), {"x-b3-sampled": "1", "traceparent": f"00-{'0' * 16}{PARENT}-{SPAN}-01"}
        )

    def test_what_plugins_before_have_changed(self) -> None:
        """A trace that an earlier plugin has told the upstream is the one that counts."""
        exchange = request("GET", "/", headers=list(W3C.items()))
        exchange.set_upstream_header(b"traceparent", f"00-{TRACE}-{PARENT}-00".encode())
        _, context = Propagation({"propagation": {"extract": ["w3c"]}}).read(exchange, self.fail)
        self.assertEqual((context.span_id, context.sampled), (bytes.fromhex(PARENT), False))
        exchange.clear_upstream_header(b"traceparent")
        came, _ = Propagation({"propagation": {"extract": ["w3c"]}}).read(exchange, self.fail)
        self.assertIsNone(came)

    def test_http2_fields(self) -> None:
        """gRPC metadata is fields like others."""
        block = HeaderBlock.from_pairs([(b"te", b"trailers"), (b"traceparent", W3C["traceparent"].encode())])
        exchange = request("POST", "/pkg.Service/Call")
        exchange.block = block
        came, _ = Propagation({"propagation": {"extract": ["w3c"]}}).read(exchange, self.fail)
        self.assertEqual(came, "w3c")
