"""oauth2: an authorization server for your own APIs, and the guard that knows its tokens. Kong 3.9 `oauth2`."""

from .oauth2_phases import OAuth2

__all__ = ["OAuth2"]
