"""gRPC without I/O: its statuses, names, time-outs and messages (gRPC over HTTP2, PROTOCOL-HTTP2.md)."""
