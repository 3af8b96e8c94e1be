"""azure-functions and aws-lambda: what they ask, and what they make of the answer. Nothing but the public kit is used."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host import HostError, HTTPAnswer
from kongtwist.entities import EntityError
from kongtwist.plugins.aws_lambda import AWSLambda
from kongtwist.plugins.aws_lambda.request_signing import AWSKeys, signed_fields
from kongtwist.plugins.azure_functions import AzureFunctions
from kongtwist.testing import Outcome, PluginHarness

UNEXPECTED = "An unexpected error occurred"


class AzureTests(SynchronousTestCase):
    def harness(self, **config: Any) -> PluginHarness:
        return PluginHarness(AzureFunctions, **{"appname": "shop", "functionname": "prices", **config})

    def test_asked(self) -> None:
        """Method, query, fields and body go there; whose keys they are is ours to say."""
        harness = self.harness(apikey="k", routeprefix="/x/y/")
        headers = {
            "Host": "here",
            "X-A": "1",
            "x-functions-key": "mine",
            "x-functions-clientid": "me",
            "Connection": "X-Hop",
            "X-Hop": "1",
        }
        harness.send("POST", "/there?a=b&c", headers, b"body")
        (asked,) = harness.host.http.requests
        self.assertEqual(
            (asked.method, asked.url, asked.body),
            ("POST", "https://shop.azurewebsites.net:443/x/y/prices?a=b&c", b"body"),
        )
        fields = {name: value for name, value in asked.headers.items() if name != b"content-length"}
        self.assertEqual(fields, {b"x-a": b"1", b"x-functions-key": b"k"})
        self.assertEqual((asked.options["timeout"], asked.options["ssl_verify"]), (600.0, False))
        for config, url in (
            ({"routeprefix": None}, "https://shop.azurewebsites.net:443/prices"),
            ({"https": False, "hostdomain": "test:81", "functionname": "/f/g/"}, "http://shop.test:81/api/f/g"),
        ):
            other = self.harness(**config)
            other.send()
            self.assertEqual(other.host.http.requests[0].url, url)

    def test_body_that_another_plugin_has_made(self) -> None:
        class Behind(AzureFunctions):
            def access(self, exchange: Any, conf: Any) -> Any:
                exchange.set_upstream_body(b"without credentials")
                return super().access(exchange, conf)

        harness = PluginHarness(Behind, appname="shop", functionname="prices")
        harness.send("POST", "/", {}, b"with credentials")
        self.assertEqual(harness.host.http.requests[0].body, b"without credentials")

    def test_answered(self) -> None:
        """The answer is passed on, with Via, and without what belongs to the connection."""
        harness = self.harness()
        fields = [(b"X-F", b"1"), (b"Via", b"1.1 azure"), (b"Transfer-Encoding", b"chunked"), (b"Connection", b"close")]
        harness.host.http.reply = lambda asked: HTTPAnswer(201, fields, b"made")
        outcome = harness.send()
        assert outcome.answer is not None
        self.assertEqual((outcome.answer.status, outcome.answer.body), (201, b"made"))
        self.assertEqual(outcome.answer_headers, {"x-f": "1", "via": "1.1 azure, 1.1 kong/3.9.3"})

    def test_failures(self) -> None:
        """No answer is a 500; a body that is too long is not sent in part."""
        harness = self.harness()
        harness.host.http.reply = lambda asked: HostError("refused")
        outcome = harness.send()
        assert outcome.answer is not None
        self.assertEqual((outcome.answer.status, outcome.answer_json), (500, {"message": UNEXPECTED}))
        outcome = harness.send("POST", "/", body=b"x" * 10_000)
        assert outcome.answer is not None
        self.assertEqual((outcome.answer.status, len(harness.host.http.requests)), (413, 1))

    def test_refused_configurations(self) -> None:
        """Nothing in a name leads to another host."""
        for config in (
            {"appname": "evil.example/"},
            {"hostdomain": "x#"},
            {"appname": "u@evil"},
            {"functionname": "f?x"},
            {"apikey": "a\r\nb"},
        ):
            self.assertRaises(EntityError, self.harness, **config)


class SigningTests(SynchronousTestCase):
    def test_published(self) -> None:
        """Signatures of AWS's own test suite for version 4."""
        keys = AWSKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
        for method, signature in (
            ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ):
            fields = {"Host": "example.amazonaws.com"}
            told = signed_fields(keys, "us-east-1", "service", method, "/", "", fields, b"", 1440938160)
            self.assertEqual(told["X-Amz-Date"], "20150830T123600Z")
            self.assertEqual(
                told["Authorization"],
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request,"
                f" SignedHeaders=host;x-amz-date, Signature={signature}",
            )

    def test_session(self) -> None:
        """A token is sent, and signed."""
        told = signed_fields(AWSKeys("a", "b", "t"), "r", "s", "GET", "/", "", {"Host": "h"}, b"", 0)
        self.assertEqual(told["X-Amz-Security-Token"], "t")
        self.assertIn("x-amz-security-token", told["Authorization"])


class LambdaTests(SynchronousTestCase):
    def harness(
        self, answer: HTTPAnswer | Exception | None = None, of: type[AWSLambda] = AWSLambda, **config: Any
    ) -> PluginHarness:
        given = {"function_name": "f", "aws_region": "eu-west-1", "aws_key": "AK", "aws_secret": "secret"}
        harness = PluginHarness(of, **{**given, **config})
        found = answer or HTTPAnswer(200, [(b"Content-Type", b"application/json"), (b"Content-Length", b"2")], b"{}")
        harness.host.http.reply = lambda asked: found
        return harness

    def event(self, outcome: Outcome, harness: PluginHarness) -> Any:
        assert outcome.answer is not None
        (asked,) = harness.host.http.requests
        return json.loads(asked.body)

    def test_asked(self) -> None:
        """The call of AWS's API, signed; the secret is nowhere in it."""
        harness = self.harness(
            function_name="arn:aws:lambda:eu-west-1:1:function:f", qualifier="live", invocation_type="Event"
        )
        harness.send("GET", "/?a=1&b=2&b=3")
        (asked,) = harness.host.http.requests
        self.assertEqual(
            (asked.method, asked.url),
            ("POST", "https://lambda.eu-west-1.amazonaws.com:443/2015-03-31/functions/"
             "arn%3Aaws%3Alambda%3Aeu-west-1%3A1%3Afunction%3Af/invocations?Qualifier=live"),
        )  # fmt: skip
        self.assertEqual(
            (asked.headers[b"X-Amz-Invocation-Type"], asked.headers[b"X-Amz-Log-Type"]), (b"Event", b"Tail")
        )
        self.assertIn(b"Credential=AK/20231114/eu-west-1/lambda/aws4_request", asked.headers[b"Authorization"])
        self.assertEqual(json.loads(asked.body), {"a": "1", "b": ["2", "3"]})
        self.assertTrue(asked.options["ssl_verify"])
        self.assertNotIn("secret", repr(asked))

    def test_body_that_another_plugin_has_made(self) -> None:
        class Behind(AWSLambda):
            def access(self, exchange: Any, conf: Any) -> Any:
                exchange.set_upstream_body(b'{"b":1}')
                return super().access(exchange, conf)

        harness = self.harness(of=Behind)
        outcome = harness.send("POST", "/", {"content-type": "application/json"}, b'{"b":1,"apikey":"secret"}')
        self.assertEqual(self.event(outcome, harness), {"b": 1})

    def test_event_of_arguments(self) -> None:
        """Query and body in one; the body is stronger."""
        harness = self.harness()
        outcome = harness.send("POST", "/?a=1&b=2", {"content-type": "application/json"}, b'{"b": {"c": []}}')
        self.assertEqual(self.event(outcome, harness), {"a": "1", "b": {"c": []}})

    def test_forwarded_event(self) -> None:
        """What of the request is chosen; a body of unknown type in base64."""
        every: dict[str, Any] = {f"forward_request_{part}": True for part in ("method", "uri", "headers", "body")}
        harness = self.harness(**every)
        sent = [("x-a", "1"), ("x-a", "2"), ("content-type", "application/x-odd")]
        event = self.event(harness.send("POST", "/p?q=1", sent, b"\xff\x00"), harness)
        self.assertEqual(event["request_headers"]["x-a"], ["1", "2"])
        del event["request_headers"]
        self.assertEqual(
            event,
            {
                "request_method": "POST", "request_uri": "/p?q=1", "request_uri_args": {"q": "1"}, "request_body_args": {},
                "request_body": b64encode(b"\xff\x00").decode(), "request_body_base64": True,
            },
        )  # fmt: skip
        harness = self.harness(forward_request_body=True)
        event = self.event(harness.send("POST", "/", {"content-type": "text/plain"}, b"text"), harness)
        self.assertEqual(event, {"request_body": "text", "request_body_args": {}})

    def test_gateway_event(self) -> None:
        """Amazon API Gateway's form."""
        harness = self.harness(awsgateway_compatible=True)
        event = self.event(
            harness.send("PUT", "/p?q=1&q=2", {"host": "a.example:80", "user-agent": "u"}, b"body"), harness
        )
        self.assertEqual((event["version"], event["httpMethod"], event["path"]), ("1.0", "PUT", "/p"))
        self.assertEqual(
            (event["queryStringParameters"], event["multiValueQueryStringParameters"]), ({"q": "1"}, {"q": ["1", "2"]})
        )
        self.assertEqual((event["body"], event["isBase64Encoded"]), ("Ym9keQ==", True))
        context = event["requestContext"]
        self.assertEqual(context["identity"], {"sourceIp": "10.0.0.1", "userAgent": "u"})
        self.assertEqual(
            (context["domainName"], context["domainPrefix"], context["protocol"]), ("a.example", "a", "HTTP/1.1")
        )
        self.assertEqual(
            (context["requestTime"], context["requestTimeEpoch"]), ("14/Nov/2023:22:13:20 +0000", 1700000000000)
        )

    def test_large_bodies(self) -> None:
        """They are left out, or sent."""
        harness = self.harness(awsgateway_compatible=True, base64_encode_body=False)
        self.assertNotIn("body", self.event(harness.send("POST", "/", body=b"x" * 10_000), harness))
        self.assertIn("leaves out a body", harness.reports[0])
        harness = self.harness(awsgateway_compatible=True, base64_encode_body=False, skip_large_bodies=False)
        self.assertEqual(len(self.event(harness.send("POST", "/", body=b"x" * 10_000), harness)["body"]), 10_000)

    def test_answers(self) -> None:
        """As they came, with Via; empty arrays as Kong has them, or not."""
        fields = [
            (b"Content-Type", b"application/json"),
            (b"X-Amz-Function-Error", b"Unhandled"),
            (b"Content-Length", b"9"),
        ]
        answer = HTTPAnswer(200, fields, b'{"a": [], "b": [1, []], "c": {}}')
        for config, status, body in (
            ({}, 200, b'{"a":{},"b":[1,{}],"c":{}}'), ({"empty_arrays_mode": "correct"}, 200, answer.body),
            ({"unhandled_status": 412}, 412, b'{"a":{},"b":[1,{}],"c":{}}'),
        ):  # fmt: skip
            outcome = self.harness(answer, **config).send()
            assert outcome.answer is not None
            self.assertEqual((outcome.answer.status, outcome.answer.body), (status, body))
            self.assertEqual(outcome.answer_headers["via"], "1.1 kong/3.9.3")
            self.assertNotIn("content-length", outcome.answer_headers)

    def test_proxy_integration(self) -> None:
        """Status, headers and body are the function's; what is no such answer is a 502."""
        told = {
            "statusCode": "201", "headers": {"X-A": "1", "x-n": 5, "Content-Length": "9"}, "multiValueHeaders": {"x-a": ["2", "3"]},
            "body": "Ym9keQ==", "isBase64Encoded": True,
        }  # fmt: skip
        fields = [(b"Content-Type", b"application/json"), (b"X-Amzn-RequestId", b"r")]
        outcome = self.harness(HTTPAnswer(200, fields, json.dumps(told).encode()), is_proxy_integration=True).send()
        assert outcome.answer is not None
        self.assertEqual((outcome.answer.status, outcome.answer.body), (201, b"body"))
        pairs = [(name.lower(), value) for name, value in outcome.answer.headers]
        self.assertEqual([value for name, value in pairs if name == b"x-a"], [b"2", b"3"])
        self.assertEqual(dict(pairs)[b"x-n"], b"5")
        self.assertNotIn(b"content-length", dict(pairs))
        for wrong, words in (
            ("not JSON", "Expecting value"), ([], "proxy response must be json format"), ({}, "statusCode validation failed"),
            ({"statusCode": 99}, "statusCode validation failed"), ({"statusCode": 200, "headers": "x"}, "headers must be a table"),
            ('{"statusCode": 1e999}', "statusCode validation failed"), ({"statusCode": 100}, "statusCode validation failed"),
            ({"statusCode": 200, "headers": {"": "b"}}, "a header cannot be sent"),
            ({"statusCode": 200, "headers": {"a b": "c"}}, "a header cannot be sent"),
            ({"statusCode": 200, "body": 1}, "body must be a string"), ({"statusCode": True}, "statusCode validation failed"),
            ({"statusCode": 200, "isBase64Encoded": "x"}, "isBase64Encoded must be a boolean"),
            ({"statusCode": 200, "headers": {"a": "b\r\nc: d"}}, "a header cannot be sent"),
            ({"statusCode": 200, "isBase64Encoded": True, "body": "="}, "body is no base64"),
        ):  # fmt: skip
            body = wrong.encode() if isinstance(wrong, str) else json.dumps(wrong).encode()
            outcome = self.harness(HTTPAnswer(200, [], body), is_proxy_integration=True).send()
            assert outcome.answer is not None
            self.assertEqual((outcome.answer.status, outcome.answer_json["message"]), (502, "Bad Gateway"), wrong)
            self.assertTrue(
                outcome.answer_json["error"].startswith(f"could not JSON decode Lambda function response: {words}")
            )

    def test_failures(self) -> None:
        """No answer, a refusal, no region, no keys: 500, and the log says why without the secret."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            self.addCleanup(os.environ.__setitem__, name, os.environ.pop(name))
        refused = HTTPAnswer(403, [], b'{"Message": "no"}')
        for harness, said in (
            (self.harness(HostError("refused")), "refused"), (self.harness(refused), "Lambda refuses the call with 403"),
            (self.harness(aws_region=None, host="h"), "no region specified"),
            (self.harness(aws_key=None, aws_secret=None), "there are no keys"),
        ):  # fmt: skip
            outcome = harness.send()
            assert outcome.answer is not None
            self.assertEqual((outcome.answer.status, outcome.answer.message), (500, UNEXPECTED))
            self.assertIn(said, harness.reports[0])
            self.assertNotIn("secret", harness.reports[0].replace("aws_secret", ""))

    def test_keys_of_the_environment(self) -> None:
        """Where the configuration has none."""
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "EK"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_SESSION_TOKEN", "tok"),
            ("AWS_REGION", "r-1"),
        ):
            self.patch(os, "environ", {**os.environ, name: value})
        harness = self.harness(aws_key=None, aws_secret=None, aws_region=None)
        harness.send()
        (asked,) = harness.host.http.requests
        self.assertIn(b"Credential=EK/20231114/r-1/", asked.headers[b"Authorization"])
        self.assertEqual(asked.headers[b"X-Amz-Security-Token"], b"tok")

    def test_refused_configurations(self) -> None:
        """What is not there is said so."""
        for config, words in (
            ({"aws_assume_role_arn": "arn:aws:iam::1:role/r"}, "roles are not available"), ({"proxy_url": "http://p"}, "proxies are not"),
        ):  # fmt: skip
            error = self.assertRaises(EntityError, self.harness, **config)
            self.assertIn(words, error.message)
