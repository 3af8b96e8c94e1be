"""Requests of vectors, made when the clock stood at `NOW`, with credentials that are as old now as they were then."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

__all__ = ["NOW", "renewed"]

NOW = 1700000000
"""Epoch seconds: the vectors' clock."""

_TOKEN = re.compile(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+")
_HMAC = re.compile(r'algorithm="hmac-(\w+)", headers="([^"]*)", signature="([^"]*)"')


def renewed(request: dict[str, Any], http_version: str) -> dict[str, Any]:
    """A vector's request as it would be now.

    Args:
        request: method, uri, headers, body.
        http_version: what it is sent by, which signatures cover. A signature that was bad stays as it is.
    """
    made = _with_token(request)
    headers = made["headers"]
    if "webhook-timestamp" in headers:
        return made | {"headers": headers | _webhook(headers, made.get("body", ""))}
    if "date" in headers:
        return made | {"headers": headers | _signed(made, http_version)}
    return made


def _moved(then: float) -> int:
    return int(then - NOW + time.time())


def _with_token(request: dict[str, Any]) -> dict[str, Any]:
    text = _TOKEN.sub(lambda found: _token(found[0]), json.dumps(request))
    made: dict[str, Any] = json.loads(text)
    return made


def _token(token: str) -> str:
    head, claims_text, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(claims_text + "=="))
    times = {name: _moved(claims[name]) for name in ("exp", "nbf") if isinstance(claims.get(name), int)}
    if not times:
        return token
    digest = "sha" + json.loads(base64.urlsafe_b64decode(head + "=="))["alg"][2:]
    assert signature == _text(hmac.digest(b"s3cr3t", f"{head}.{claims_text}".encode(), digest))
    signed = f"{head}.{_text(json.dumps(claims | times).encode())}"
    return f"{signed}.{_text(hmac.digest(b's3cr3t', signed.encode(), digest))}"


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _webhook(headers: dict[str, str], body: str) -> dict[str, str]:
    then = headers["webhook-timestamp"]
    now = str(_moved(int(then))) if then.isdigit() else then

    def signature(moment: str) -> str:
        text = f"{headers.get('webhook-id', '')}.{moment}.{body}"
        return "v1," + base64.b64encode(hmac.digest(b"s3cret", text.encode(), "sha256")).decode()

    good = headers.get("webhook-signature") == signature(then)
    return {"webhook-timestamp": now} | ({"webhook-signature": signature(now)} if good else {})


def _signed(request: dict[str, Any], http_version: str) -> dict[str, str]:
    """The date of now, and the same signature of it."""
    headers = request["headers"]
    then = parsedate_to_datetime(headers["date"]).astimezone(UTC).timestamp()
    made = {"date": formatdate(_moved(then), usegmt=True)}
    parts = _HMAC.search(headers["authorization"])
    assert parts is not None
    if not hasattr(hashlib, parts[1]) or parts[1] == "md5":
        return made

    def signature(date: str, version: str) -> str:
        method, uri = request["method"], request["uri"]
        known = headers | {"date": date}
        lines = [
            f"{method} {uri} HTTP/{version}" if name == "request-line"
            else f"{name}: {method.lower()} {uri}" if name == "@request-target"
            else f"{name}: {known[name]}"
            for name in parts[2].split(" ")
        ]  # fmt: skip
        return base64.b64encode(hmac.digest(b"sec", "\n".join(lines).encode(), parts[1])).decode()

    if parts[3] != signature(headers["date"], "1.1"):
        return made
    changed = headers["authorization"].replace(parts[3], signature(made["date"], http_version))
    return made | {"authorization": changed}
