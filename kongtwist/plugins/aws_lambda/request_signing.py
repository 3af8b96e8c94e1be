"""AWS Signature Version 4 (AWS General Reference, "Signing AWS API requests"): who asks, in a field of the request."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from hmac import digest
from typing import NamedTuple
from urllib.parse import quote

__all__ = ["AWSKeys", "signed_fields"]

_ALGORITHM = "AWS4-HMAC-SHA256"


class AWSKeys(NamedTuple):
    """Who asks."""

    key_id: str
    secret: str
    token: str | None = None  #: of a session that ends


def signed_fields(
    keys: AWSKeys,
    region: str,
    service: str,
    method: str,
    path: str,
    query: str,
    fields: Mapping[str, str],
    body: bytes,
    now: float,
) -> dict[str, str]:
    """The fields of a request with its signature.

    Args:
        keys: who asks.
        region, service: as AWS names them.
        method: as on the wire.
        path: as on the wire, escaped.
        query: as on the wire, in the order of its names.
        fields: those that are signed, Host among them.
        body: the whole body.
        now: epoch seconds.
    """
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    told = {**fields, "X-Amz-Date": stamp}
    if keys.token is not None:
        told["X-Amz-Security-Token"] = keys.token
    lines = sorted((name.lower(), " ".join(value.split())) for name, value in told.items())
    names = ";".join(name for name, _ in lines)
    # What stands in the path escaped is escaped once more, but for S3.
    request = "\n".join((
        method, quote(path, safe="/~-_."), query, *[f"{name}:{value}" for name, value in lines], "", names, sha256(body).hexdigest(),
    ))  # fmt: skip
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join((_ALGORITHM, stamp, scope, sha256(request.encode()).hexdigest()))
    key = f"AWS4{keys.secret}".encode()
    for part in scope.split("/"):
        key = digest(key, part.encode(), "sha256")
    signature = digest(key, text.encode(), "sha256").hex()
    told["Authorization"] = (
        f"{_ALGORITHM} Credential={keys.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return told
