"""Recorded requests whose credentials are of the day of the recording, with credentials of today."""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
from email.utils import formatdate
from typing import Any

__all__ = ["renewed"]

RECORDED = 1795399835
"""Epoch seconds of the recording."""

_DATE = "Mon, 23 Nov 2026 02:10:35 GMT"
_TOKEN = re.compile(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+")


def renewed(case: dict[str, Any], http_version: str = "1.1") -> dict[str, Any]:
    """A recorded case as it would be now.

    Args:
        case: request and response. Tokens that say ``exp`` or ``nbf`` are made anew, with times as far from now as they were; so
            is the one good signature.
        http_version: what the request is sent by.
    """
    text = _TOKEN.sub(lambda found: _token(found[0]), json.dumps(case))
    if case["name"] == "hm-good":
        now = formatdate(time.time(), usegmt=True)
        signed = f"date: {now}\nGET /hm HTTP/{http_version}"
        signature = base64.b64encode(hmac.digest(b"hs", signed.encode(), "sha256")).decode()
        text = re.sub(r'signature=\\"[^"\\]+', lambda found: f'signature=\\"{signature}', text)
    if case["name"] in ("hm-good", "hm-bad"):
        text = text.replace(_DATE, formatdate(time.time(), usegmt=True))
    made: dict[str, Any] = json.loads(text)
    return made


def _token(token: str) -> str:
    head, claims_text, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(claims_text + "=="))
    moved = {name: claims[name] for name in ("exp", "nbf") if isinstance(claims.get(name), int)}
    if not moved or moved == {"nbf": 1}:
        return token
    claims |= {name: int(value - RECORDED + time.time()) if value > 1 else value for name, value in moved.items()}
    signed = f"{head}.{_text(json.dumps(claims).encode())}"
    return f"{signed}.{_text(hmac.digest(b's3cr3t', signed.encode(), 'sha256'))}"


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
