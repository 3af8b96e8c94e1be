"""The programs of the soak (tests/live/test_soak.py): clients that misbehave, upstreams that do, and one client that does not."""
