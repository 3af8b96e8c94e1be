"""HTTP/2 with clients, on our own listeners."""
