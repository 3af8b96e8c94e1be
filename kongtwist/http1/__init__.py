"""HTTP/1.1 with clients, on our own listeners."""
