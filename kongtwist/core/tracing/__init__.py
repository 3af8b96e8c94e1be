"""Traces: what a request tells of the trace it belongs to, what the upstream is told, and what is noted while it lasts."""
