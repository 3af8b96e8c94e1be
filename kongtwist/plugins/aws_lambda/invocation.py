"""The plugin: asks Lambda (API "Invoke", version 2015-03-31) in place of the upstream."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable
from urllib.parse import quote

from ...core.chain.host import HTTPAnswer, HTTPClient
from ...core.exchange import Answer, BodyTooLarge, Exchange, Row
from .._functions import FunctionPlugin, answered_fields
from .._passed_body import passed_body
from .lambda_answers import NotAnAnswer, proxy_answer, with_empty_objects
from .lambda_events import event_of
from .lambda_fields import CONFIG, CONFIG_CHECKS
from .request_signing import AWSKeys, signed_fields

__all__ = ["AWSLambda"]

LARGEST = 6 * 1024 * 1024
"""Bytes of the longest event that Lambda takes from who waits for the answer."""

_JSON = re.compile(rb"application/.*json", re.IGNORECASE)
_UNEXPECTED = "An unexpected error occurred"


class _Unable(Exception):
    """The function cannot be asked; the argument says why, and what to do."""


class Function:
    """A configuration, ready for requests."""

    __slots__ = ("conf", "fields", "host", "http", "keys", "path", "query", "region", "url")

    def __init__(self, conf: Row) -> None:
        self.conf = conf
        self.region: str | None = (
            conf["aws_region"] or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        )
        self.keys = _keys(conf)
        scheme = "http" if conf["disable_https"] else "https"
        name = conf["host"] or f"lambda.{self.region}.amazonaws.com"
        port = 443 if conf["port"] is None else conf["port"]
        self.host = name if (scheme, port) in (("http", 80), ("https", 443)) else f"{name}:{port}"
        self.path = f"/2015-03-31/functions/{quote(conf['function_name'] or '', safe='~')}/invocations"
        self.query = "" if conf["qualifier"] is None else f"Qualifier={quote(conf['qualifier'], safe='~')}"
        self.url = f"{scheme}://{name}:{port}{self.path}" + (f"?{self.query}" if self.query else "")
        self.fields = {
            "Host": self.host, "Content-Type": "application/x-amz-json-1.1", "X-Amz-Invocation-Type": conf["invocation_type"],
            "X-Amz-Log-Type": conf["log_type"],
        }  # fmt: skip
        self.http: HTTPClient | None = None

    def signed(self, body: bytes, now: float) -> list[tuple[bytes, bytes]]:
        """The fields of a request. Raises _Unable."""
        if self.region is None:
            raise _Unable("no region specified; set aws_region")
        if self.keys is None:
            raise _Unable("there are no keys; set aws_key and aws_secret")
        told = signed_fields(self.keys, self.region, "lambda", "POST", self.path, self.query, self.fields, body, now)
        return [(name.encode(), value.encode()) for name, value in told.items() if name != "Host"]


def _keys(conf: Row) -> AWSKeys | None:
    if conf["aws_key"] is not None and conf["aws_secret"] is not None:
        return AWSKeys(conf["aws_key"], conf["aws_secret"])
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return None if not key or not secret else AWSKeys(key, secret, os.environ.get("AWS_SESSION_TOKEN") or None)


class AWSLambda(FunctionPlugin):
    """Tell the function of the request, and pass its answer on."""

    name = "aws-lambda"
    priority = 750
    config = CONFIG
    config_checks = CONFIG_CHECKS
    example = {"function_name": "prices", "aws_region": "eu-central-1", "is_proxy_integration": True}

    def compile(self, conf: Row, plugin: Row) -> Function:
        return Function(conf)

    async def access(self, exchange: Exchange, conf: Function) -> Answer:
        http = self.client(conf)
        event = event_of(conf.conf, exchange, await self._body(exchange, conf.conf))
        payload = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")

        def ask() -> Awaitable[HTTPAnswer]:
            return http.request(
                "POST",
                conf.url,
                headers=conf.signed(payload, exchange.gateway.now()),
                body=payload,
                timeout=conf.conf["timeout"] / 1000,
                keepalive=conf.conf["keepalive"] / 1000,
                # Kong never verifies. Another host than AWS's may have a certificate of its own.
                ssl_verify=conf.conf["host"] is None,
            )

        found = await self.told(exchange, ask)
        if found is None:
            return exchange.error(500, _UNEXPECTED)
        if found.status >= 400:
            said = found.body[:500].decode("utf-8", "replace")
            exchange.report(f"plugin {self.name}: Lambda refuses the call with {found.status}: {said}")
            return exchange.error(500, _UNEXPECTED)
        return self._passed_on(exchange, conf.conf, found)

    async def _body(self, exchange: Exchange, conf: Row) -> bytes | None:
        limit = exchange.gateway.body_limit
        if not conf["skip_large_bodies"]:
            limit = max(limit, LARGEST)
        try:
            return await passed_body(exchange, limit)
        except BodyTooLarge:
            exchange.report(
                f"plugin {self.name} leaves out a body that is longer than {limit} bytes",
                "raise client_body_buffer_size",
            )
            return None

    def _passed_on(self, exchange: Exchange, conf: Row, found: HTTPAnswer) -> Answer:
        status, fields, body = found.status, found.headers, found.body
        if conf["is_proxy_integration"]:
            try:
                told = proxy_answer(body)
            except NotAnAnswer as error:
                exchange.report(f"plugin {self.name}: the function's answer cannot be read: {error}")
                words = f"could not JSON decode Lambda function response: {error}"
                return exchange.exit(502, {"message": "Bad Gateway", "error": words})
            names = {name.lower() for name, _ in told.fields}
            fields = [*[(name, value) for name, value in fields if name.lower() not in names], *told.fields]
            return Answer(told.status, told.body, answered_fields(exchange, fields))
        kinds = [value for name, value in fields if name.lower() == b"content-type"]
        if conf["empty_arrays_mode"] == "legacy" and kinds and _JSON.search(kinds[0]):
            body = with_empty_objects(body)
        failed = any(name.lower() == b"x-amz-function-error" and value == b"Unhandled" for name, value in fields)
        if failed and conf["unhandled_status"] is not None:
            status = conf["unhandled_status"]
        return Answer(status, body, answered_fields(exchange, fields))
