"""Error bodies, compared with recorded answers."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http.error_bodies import default_message, error_body
from tests.places import CONTRACT

RECORDED = CONTRACT / "observed_errors.json"
NGINX_LEVEL = {"dead-json", "slow-json", "slow-html", "tlsbad"}


class RecordedErrors(SynchronousTestCase):
    def test_bodies_and_types(self) -> None:
        compared = 0
        for case in json.loads(RECORDED.read_text()):
            answer = case["response"]
            headers = {name.lower(): value for name, value in answer["headers"]}
            body = answer.get("body")
            if (body is not None and "request_id" not in body) or case["request"]["method"] == "HEAD":
                continue
            if answer["status"] < 400 or headers["server"] != "kong/3.9.3":
                continue
            accept = case["request"]["headers"].get("Accept")
            fallback = b"text/plain" if case["name"] in NGINX_LEVEL else None
            message = None if case["name"] in NGINX_LEVEL or body is None else body["message"]
            if message is None and answer["status"] == 404:
                message = "no Route matched with those values"
            request_id = headers["x-kong-request-id"].encode()
            kind, made = error_body(answer["status"], message, request_id, accept and accept.encode(), fallback)
            self.assertEqual(kind.decode(), headers["content-type"], case["name"])
            self.assertEqual(len(made), int(headers["content-length"]), case["name"])
            if body is not None:
                self.assertEqual(json.loads(made), body, case["name"])
            else:
                self.assertEqual(made.decode(), answer["body_raw"], case["name"])
            compared += 1
        self.assertGreater(compared, 12)


class FormTests(SynchronousTestCase):
    def kind(self, accept: bytes | None, content_type: bytes | None = None) -> bytes:
        return error_body(500, None, b"0", accept, content_type)[0].partition(b";")[0]

    def test_json_has_exactly_this_shape(self) -> None:
        self.assertEqual(
            error_body(401, 'a "b"', b"0af", None)[1], b'{\n  "message":"a \\"b\\"",\n  "request_id":"0af"\n}'
        )

    def test_highest_quality_wins_and_of_equals_the_first(self) -> None:
        for accept, kind in {
            b"text/plain;q=0.2, text/html;q=0.3": b"text/html",
            b"application/xml, text/html": b"application/xml",
            b"text/*": b"text/plain",
            b"application/*": b"application/json",
            b"image/png, text/html;q=0.5": b"application/json",
            b"TEXT/HTML": b"text/html",
            b"text/html;q=0": b"application/json",
            b"text/html;level=1;q=0.1, text/plain; q=0.9": b"text/plain",
            b"nonsense": b"application/json",
            b"": b"application/json",
        }.items():
            self.assertEqual(self.kind(accept), kind, accept)

    def test_nginx_level_errors_look_at_content_type_without_accept(self) -> None:
        self.assertEqual(self.kind(None, b"application/xml"), b"application/xml")
        self.assertEqual(self.kind(b"text/html", b"application/xml"), b"text/html")

    def test_markup_in_a_message_stays_text(self) -> None:
        for accept in (b"text/html", b"application/xml"):
            body = error_body(500, "<script>&", b"0", accept)[1]
            self.assertIn(b"&lt;script&gt;&amp;", body)

    def test_grpc_has_no_body(self) -> None:
        self.assertEqual(error_body(404, None, b"0", b"application/grpc"), (b"", b""))

    def test_default_messages(self) -> None:
        self.assertEqual(default_message(429), "Too many requests")
        self.assertEqual(default_message(599), "The upstream server responded with 599")


class TemplateTests(SynchronousTestCase):
    """The operator's own forms."""

    def test_each_form(self) -> None:
        """The message is written as the form has it, with the request's id where the template wants it."""
        templates = {
            "json": '{"error": "%s", "id": "%s", "full": "100%%"}', "html": "<p>%s (%s)", "xml": "<e>%s</e>", "plain": "no: %s",
        }  # fmt: skip
        for accept, wanted in (
            (None, b'{"error": "a \\"b\\" <c>", "id": "0af", "full": "100%"}'), (b"text/html", b'<p>a "b" &lt;c&gt; (0af)'),
            (b"application/xml", b'<e>a "b" &lt;c&gt;</e>'), (b"text/plain", b'no: a "b" <c>'),
        ):  # fmt: skip
            self.assertEqual(error_body(500, 'a "b" <c>', b"0af", accept, None, templates)[1], wanted)

    def test_message_with_signs(self) -> None:
        """What a message says is no template."""
        self.assertEqual(error_body(500, "%s %% %d", b"0", b"text/plain", None, {"plain": "%s|%s"})[1], b"%s %% %d|0")

    def test_others_stay(self) -> None:
        self.assertEqual(error_body(404, "x", b"0", b"text/plain", None, {"html": "%s"})[1], b"x\nrequest_id: 0\n")
        self.assertEqual(error_body(404, "x", b"0", b"application/grpc", None, {"html": "%s"})[1], b"")
