"""Endpoints of the Admin API that are not rows of an entity."""
