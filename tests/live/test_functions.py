"""azure-functions and aws-lambda through a whole gateway, against local stand-ins of their HTTP contract."""

from __future__ import annotations

import json
from typing import Any

from kongtwist.plugins.aws_lambda.request_signing import AWSKeys, signed_fields
from tests.live.stand_in import Answering, served
from tests.live.support import LiveTestCase, request

SECRET = "wJalrXUtnFEMI"


class _Lambda(Answering):
    """Lambda's API "Invoke": it verifies who asks, and the function tells what it was told."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path, _, query = self.path.partition("?")
        signed = self.headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        fields = {name: self.headers[name] for name in signed if name != "x-amz-date"}
        told = signed_fields(
            AWSKeys("AK", SECRET), "eu-west-1", "lambda", "POST", path, query, fields, body, self.stamp()
        )
        if told["Authorization"] != self.headers["Authorization"]:
            self.tell(403, {"Message": "The request signature we calculated does not match"})
        elif path != "/2015-03-31/functions/prices/invocations":
            self.tell(404, {"Message": f"Function not found: {path}"})
        else:
            event = json.loads(body)
            headers = {"x-method": event["httpMethod"], "content-type": "text/plain"}
            self.tell(
                200,
                {"statusCode": 201, "headers": headers, "body": json.dumps(event["multiValueQueryStringParameters"])},
            )

    def stamp(self) -> float:
        """The second that the request names."""
        from datetime import UTC, datetime

        return datetime.strptime(self.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()

    def tell(self, status: int, value: Any) -> None:
        self.answer(status, "application/json", json.dumps(value).encode())


class FunctionTests(LiveTestCase):
    def test_lambda(self) -> None:
        """The call is signed as AWS verifies it, and the function's answer is the client's; a wrong secret is a 500."""
        port, gateway = served(self, _Lambda), self.gateway()
        for name, secret in (("good", SECRET), ("bad", "x")):
            route = gateway.create("/routes", paths=[f"/{name}"])
            config = {
                "function_name": "prices", "aws_region": "eu-west-1", "aws_key": "AK", "aws_secret": secret, "host": "127.0.0.1",
                "port": port, "disable_https": True, "awsgateway_compatible": True, "is_proxy_integration": True,
            }  # fmt: skip
            gateway.create(f"/routes/{route['id']}/plugins", name="aws-lambda", config=config)
        answer = request(gateway.proxy_port, "DELETE", "/good/x?a=1&a=2")
        self.assertEqual((answer.status, answer.headers["x-method"], answer.json), (201, "DELETE", {"a": ["1", "2"]}))
        self.assertEqual(answer.headers["Via"], "1.1 kong/3.9.3")
        answer = gateway.get("/bad")
        self.assertEqual((answer.status, answer.json["message"]), (500, "An unexpected error occurred"))
        self.assertIn("Lambda refuses the call with 403", gateway.log())
        self.assertNotIn(SECRET, gateway.log())

    def test_azure(self) -> None:
        """The function sees the request; the client sees its answer."""
        port, gateway = self.upstream("echo"), self.gateway()
        route = gateway.create("/routes", paths=["/shop"])
        config = {
            "appname": "127",
            "hostdomain": f"0.0.1:{port}",
            "functionname": "prices",
            "https": False,
            "apikey": "key",
        }
        gateway.create(f"/routes/{route['id']}/plugins", name="azure-functions", config=config)
        answer = request(gateway.proxy_port, "PUT", "/shop/x?status=202", body=b"hello", headers={"X-A": "1"})
        seen = answer.json
        self.assertEqual(
            (answer.status, seen["method"], seen["target"], seen["body"]),
            (202, "PUT", "/api/prices?status=202", "hello"),
        )
        fields = {name.lower(): value for name, value in seen["headers"]}
        self.assertEqual((fields["x-a"], fields["x-functions-key"], fields["host"]), ("1", "key", f"127.0.0.1:{port}"))
        self.assertEqual(answer.headers["Via"], "1.1 kong/3.9.3")
        self.last_upstream.kill()
        answer = gateway.get("/shop")
        self.assertEqual((answer.status, answer.json), (500, {"message": "An unexpected error occurred"}))
