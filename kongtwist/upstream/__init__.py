"""Connections to upstreams: pools, one connection, TLS to them."""
