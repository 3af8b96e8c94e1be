"""jwt: let clients in that show a JSON Web Token signed with a consumer's key (RFC 7519). Kong 3.9 `jwt`."""

from .token_checks import Jwt
from .token_fields import SECRETS

__all__ = ["SECRETS", "Jwt"]
