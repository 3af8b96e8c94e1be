"""Names without I/O."""
