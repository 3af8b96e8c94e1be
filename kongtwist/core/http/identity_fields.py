"""Request fields that tell the upstream who the client is, in every spelling in which an upstream may read them.

Many servers read ``X_Consumer_Id`` as ``X-Consumer-Id`` (CGI, RFC 3875 4.1.18, and what came of it: WSGI, Rack, PHP). So where a
plugin says something of one of these fields, a client's own goes in all spellings.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

__all__ = ["IDENTITY_FIELDS", "SPELLINGS"]

IDENTITY_FIELDS = (
    b"x-consumer-id", b"x-consumer-custom-id", b"x-consumer-username", b"x-consumer-groups", b"x-credential-identifier",
    b"x-anonymous-consumer", b"x-authenticated-groups", b"x-authenticated-scope", b"x-authenticated-userid",
)  # fmt: skip
"""The fields, in lower case."""


def _spellings(name: bytes) -> tuple[bytes, ...]:
    parts = name.split(b"-")
    found = []
    for marks in product((b"-", b"_"), repeat=len(parts) - 1):
        found.append(b"".join([part + mark for part, mark in zip(parts, (*marks, b""), strict=True)]))
    return tuple(found[1:])


SPELLINGS: Mapping[bytes, tuple[bytes, ...]] = {name: _spellings(name) for name in IDENTITY_FIELDS}
"""The other spellings of each: with ``_`` for one or more ``-``."""
