"""opentelemetry: spans and lines of the log for a collector. Kong 3.9 `opentelemetry`."""

from .otel_phases import OpenTelemetry

__all__ = ["OpenTelemetry"]
