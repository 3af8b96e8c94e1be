"""Connect's protocol without any connection; expectations are those of connectrpc.com/docs/protocol."""

from __future__ import annotations

import json
from base64 import b64encode

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.grpc.connect_protocol import (
    CODES,
    BadCall,
    connect_status,
    end_of_stream,
    error_object,
    json_metadata,
    message_of_query,
    timeout_of,
    trailer_fields,
)

STATUSES = {
    "canceled": 499, "unknown": 500, "invalid_argument": 400, "deadline_exceeded": 504, "not_found": 404,
    "already_exists": 409, "permission_denied": 403, "resource_exhausted": 429, "failed_precondition": 400,
    "aborted": 409, "out_of_range": 400, "unimplemented": 501, "internal": 500, "unavailable": 503, "data_loss": 500,
    "unauthenticated": 401,
}  # fmt: skip


class ErrorTests(SynchronousTestCase):
    def test_codes(self) -> None:
        """Each code has its name and its HTTP status."""
        self.assertEqual({CODES[code]: connect_status(code) for code in range(1, 17)}, STATUSES)
        self.assertEqual((connect_status(99), error_object(99, "")), (500, {"code": "unknown"}))

    def test_details(self) -> None:
        """Details of google.rpc.Status: the type without its host, the value without padding."""
        value = b"\x0a\x01a"
        name = b"type.googleapis.com/sensor.Explained"
        detail = b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(value)]) + value
        status = b"\x08\x05" + b"\x12\x02no" + b"\x1a" + bytes([len(detail)]) + detail
        found = {
            "code": "not_found",
            "message": "no",
            "details": [{"type": "sensor.Explained", "value": b64encode(value).rstrip(b"=").decode()}],
        }
        self.assertEqual(error_object(5, "no", status), found)

    def test_bad_details(self) -> None:
        """Details that cannot be read are left out."""
        for status in (b"\x1a", b"\x1a\x09ab", b"\x1b", b"\xff" * 11, b"\x1a\x03\x0a\x01\xff"):
            self.assertEqual(error_object(5, "no", status), {"code": "not_found", "message": "no"}, repr(status))


class StreamTests(SynchronousTestCase):
    def test_end(self) -> None:
        """The last frame has the flag 2 and a JSON object."""
        self.assertEqual(end_of_stream(None, {}), b"\x02\0\0\0\x02{}")
        frame = end_of_stream(error_object(8, "zu “viel”"), json_metadata([(b"X-A", b"1"), (b"x-a", b"2")]))
        self.assertEqual(frame[:1] + frame[1:5], b"\x02" + (len(frame) - 5).to_bytes(4, "big"))
        told = {
            "error": {"code": "resource_exhausted", "message": "zu “viel”"},
            "metadata": {"x-a": ["1", "2"]},
        }
        self.assertEqual(json.loads(frame[5:]), told)

    def test_unary_trailers(self) -> None:
        self.assertEqual(trailer_fields([(b"X-A", b"1")]), [(b"trailer-x-a", b"1")])


class RequestTests(SynchronousTestCase):
    def test_timeouts(self) -> None:
        """Milliseconds, of at most ten digits."""
        self.assertEqual(timeout_of(b"4000"), 4.0)
        self.assertEqual(timeout_of(b"9999999999"), 9999999.999)
        for value in (b"", b"-1", b"1.5", b"10000000000", b"1s"):
            with self.assertRaises(BadCall, msg=repr(value)):
                timeout_of(value)

    def test_queries(self) -> None:
        """A call as GET, its message as text or as base64 of either alphabet's URL form, padded or not."""
        query = {"connect": ["v1"], "encoding": ["json"], "message": ["{}"]}
        self.assertEqual(message_of_query(query), ("json", "identity", b"{}"))
        query = {"encoding": ["proto"], "base64": ["1"], "message": ["-_8"], "compression": ["gzip"]}
        self.assertEqual(message_of_query(query), ("proto", "gzip", b"\xfb\xff"))
        self.assertEqual(message_of_query({**query, "message": ["-_8="]})[2], b"\xfb\xff")

    def test_bad_queries(self) -> None:
        """What lacks, and a message that is no base64."""
        for query in (
            {"encoding": ["json"]},
            {"message": ["{}"]},
            {"encoding": ["proto"], "base64": ["1"], "message": ["a"]},
        ):
            with self.assertRaises(BadCall, msg=repr(query)):
                message_of_query(query)
