"""The Admin API and the Status API: Resource trees made from the entities."""
