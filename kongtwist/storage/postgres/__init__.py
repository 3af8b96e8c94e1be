"""PostgreSQL, one configuration for many nodes."""
