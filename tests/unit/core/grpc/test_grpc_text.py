"""Fields of gRPC, and its statuses."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.grpc import grpc_status
from kongtwist.core.grpc.grpc_text import (
    decode_message,
    encode_message,
    format_timeout,
    is_grpc,
    method_name,
    parse_timeout,
)


class ContentTypeTests(SynchronousTestCase):
    def test_grpc_alone(self) -> None:
        for kind in (b"application/grpc", b"application/grpc+proto", b"Application/gRPC;x=1"):
            self.assertTrue(is_grpc(kind), kind)
        for other in (
            None,
            b"",
            b"application/grpc-web",
            b"application/grpc-web+proto",
            b"application/json",
            b"application/grpcx",
        ):
            self.assertFalse(is_grpc(other), other)


class MessageTests(SynchronousTestCase):
    def test_printable_ascii_stays(self) -> None:
        self.assertEqual(encode_message("no key: a=b&c"), b"no key: a=b&c")

    def test_the_rest_is_percent_encoded(self) -> None:
        self.assertEqual(encode_message("50%\t\u20ac\n"), b"50%25%09%E2%82%AC%0A")

    def test_decoded_again(self) -> None:
        for text in ("", "a b", "100 %", "\u20ac \U0001f600", "%41"):
            self.assertEqual(decode_message(encode_message(text)), text)

    def test_wrong_escapes_stay(self) -> None:
        self.assertEqual(decode_message(b"100 % of %zz"), "100 % of %zz")
        self.assertEqual(decode_message(b"%FF"), "\ufffd")


class TimeoutTests(SynchronousTestCase):
    def test_units(self) -> None:
        for value, seconds in (
            (b"1H", 3600),
            (b"2M", 120),
            (b"3S", 3),
            (b"4m", 0.004),
            (b"5u", 5e-6),
            (b"6n", 6e-9),
            (b"0n", 0),
        ):
            self.assertAlmostEqual(parse_timeout(value) or 0.0, seconds, 12)

    def test_malformed(self) -> None:
        for value in (None, b"", b"1", b"S", b"1s", b"123456789S", b"-1S", b"1.5S", b" 1S", b"1S\n"):
            self.assertIsNone(parse_timeout(value), value)

    def test_finest_unit_of_eight_digits(self) -> None:
        for seconds, value in (
            (0, b"0n"), (-1, b"0n"), (0.05, b"50000000n"), (1.5, b"1500000u"), (100, b"100000m"), (200000, b"200000S"),
            (1e9, b"16666667M"), (1e10, b"2777778H"), (1e13, b"99999999H"),
        ):  # fmt: skip
            self.assertEqual(format_timeout(seconds), value)

    def test_never_less(self) -> None:
        for seconds in (0.1, 1 / 3, 99.9999999, 12345.678901):
            self.assertGreaterEqual(parse_timeout(format_timeout(seconds)) or 0.0, seconds - 1e-12)


class MethodTests(SynchronousTestCase):
    def test_names(self) -> None:
        self.assertEqual(method_name(b"/sensor.DataService/GetReading"), "sensor.DataService/GetReading")
        for path in (b"/", b"/a", b"/a/", b"//b", b"/a/b/c", b"a/b"):
            self.assertIsNone(method_name(path), path)


class StatusTests(SynchronousTestCase):
    def test_kongs_table(self) -> None:
        table = {
            200: 0, 201: 0, 400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 413: 3, 415: 3, 426: 3, 429: 8, 499: 1, 500: 13, 501: 12, 503: 14,
            504: 4, 505: 13, 302: 2,
        }  # fmt: skip
        self.assertEqual({status: grpc_status.status_of_http(status) for status in table}, table)

    def test_an_upstream_that_is_away_is_unavailable(self) -> None:
        self.assertEqual(grpc_status.status_of_http(502), grpc_status.UNAVAILABLE)

    def test_back_to_http(self) -> None:
        found = [grpc_status.http_status_of(code) for code in (*range(17), 17, -1)]
        self.assertEqual(
            found, [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 500, 500, 503, 500, 401, 500, 500]
        )

    def test_resets(self) -> None:
        found = [grpc_status.status_of_reset(error) for error in (0, 1, 2, 3, 7, 8, 11, 12, 99)]
        self.assertEqual(found, [13, 13, 13, 13, 14, 1, 8, 7, 13])

    def test_as_many_names_as_codes(self) -> None:
        self.assertEqual((len(grpc_status.NAMES), len(grpc_status.STATUS_WORDS)), (17, 17))
        self.assertEqual(grpc_status.NAMES[grpc_status.UNAUTHENTICATED], "UNAUTHENTICATED")
