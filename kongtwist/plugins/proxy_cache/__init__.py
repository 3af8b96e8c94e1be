"""proxy-cache: answer from memory what was answered before. Kong 3.9 `proxy-cache`."""

from .cache_phases import ProxyCache

__all__ = ["ProxyCache"]
