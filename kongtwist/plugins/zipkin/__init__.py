"""zipkin: spans of every request for Zipkin. Kong 3.9 `zipkin`."""

from .zipkin_phases import Zipkin

__all__ = ["Zipkin"]
