"""response-ratelimiting: so much of what answers say that they cost, per second to year. Kong 3.9 `response-ratelimiting`."""

from .response_limiting import ResponseRateLimiting

__all__ = ["ResponseRateLimiting"]
