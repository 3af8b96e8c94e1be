"""Unit tests of HTTP/2 with clients."""
