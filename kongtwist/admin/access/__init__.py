"""Who may use the Admin API, and what its logs must not hold."""
