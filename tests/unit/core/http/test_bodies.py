"""Request bodies decoded for plugins, and with a field taken out."""

from __future__ import annotations

import signal

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http.bodies import RequestBody, decode_body

FORM = b"application/x-www-form-urlencoded"


class BodyTests(SynchronousTestCase):
    def decoded(self, content_type: bytes, raw: bytes) -> RequestBody:
        body = decode_body(content_type, raw)
        assert body is not None
        return body

    def test_form(self) -> None:
        """Fields once are text, several times a list; the rest stays when one is taken out."""
        body = self.decoded(FORM + b"; charset=utf-8", b"a=1&b=x+y%26&a=2&c=")
        self.assertEqual(body.args, {"a": ["1", "2"], "b": "x y&", "c": ""})
        self.assertEqual(body.without("a"), b"b=x+y%26&c=")

    def test_json(self) -> None:
        """Values keep their types."""
        body = self.decoded(b"Application/JSON", '{"key": "ä", "n": {"x": [1.5, null]}}'.encode())
        self.assertEqual(body.args["n"], {"x": [1.5, None]})
        self.assertEqual(body.without("n"), '{"key":"ä"}'.encode())

    def test_multipart(self) -> None:
        """Parts that stay are kept byte for byte, binary ones too."""
        kept = (
            b'--B\r\nContent-Disposition: form-data; name="file"; filename="apikey"\r\n'
            b"Content-Type: image/png\r\n\r\n\x89PNG\r\n--\x00\r\n"
        )
        gone = b'--B\r\ncontent-disposition: form-data; name="apikey"\r\n\r\nsecret\r\n'
        for raw, left in (
            (kept + gone + b"--B--\r\n", kept + b"--B--\r\n"),
            (gone + kept + b"--B--\r\n", kept + b"--B--\r\n"),
        ):
            body = self.decoded(b'multipart/form-data; boundary="B"', raw)
            self.assertEqual(body.args["apikey"], "secret")
            self.assertEqual(set(body.args), {"apikey", "file"})
            self.assertEqual(body.without("apikey"), left)

    def test_no_body_takes_long(self) -> None:
        """The square of a part's length would be minutes; the alarm ends them."""

        def too_long(*_: object) -> None:
            raise AssertionError("a part takes time by the square of its length")

        former = signal.signal(signal.SIGALRM, too_long)
        self.addCleanup(signal.signal, signal.SIGALRM, former)
        self.addCleanup(signal.alarm, 0)
        signal.alarm(60)
        body = b"--b\r\n" + b"content-disposition:" * 50_000 + b"\r\n\r\nx\r\n--b--\r\n"
        decoded = decode_body(b"multipart/form-data; boundary=b", body)
        assert decoded is not None
        self.assertEqual(decoded.args, {})

    def test_no_fields(self) -> None:
        """Other types, and bodies that are not what they say, have no fields."""
        for content_type, raw in (
            (None, b"a=1"), (b"text/plain", b"a=1"), (b"application/json", b"{"), (b"application/json", b"[1]"),
            (b"application/json", b"[" * 100_000), (b"multipart/form-data", b"--B\r\n"),
        ):  # fmt: skip
            self.assertIsNone(decode_body(content_type, raw))
