"""rate-limiting: so many requests per second, minute, hour, day, month and year. Kong 3.9 `rate-limiting`."""

from .limiting import RateLimiting
from .windows import PERIODS

__all__ = ["PERIODS", "RateLimiting"]
