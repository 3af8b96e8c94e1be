"""Make a JSON Web Token (RFC 7519), signed with HS256: ``python make_jwt.py KEY SECRET [SECONDS]`` prints one.

KEY and SECRET are those of a credential of the plugin jwt; it holds for SECONDS, an hour by default. In a program of your own use a
library.
"""

from __future__ import annotations

import hmac
import json
import sys
import time
from base64 import urlsafe_b64encode


def encoded(data: bytes) -> str:
    """Base64url without padding (RFC 7515 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def token(key: str, secret: str, seconds: int) -> str:
    """A token that ends in so many seconds."""
    claims = {"iss": key, "exp": int(time.time()) + seconds}
    signed = ".".join(encoded(json.dumps(each).encode()) for each in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{encoded(hmac.digest(secret.encode(), signed.encode(), 'sha256'))}"


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: make_jwt.py KEY SECRET [SECONDS]")
    print(token(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) == 4 else 3600))
