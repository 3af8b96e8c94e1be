"""One configuration made ready to serve."""
