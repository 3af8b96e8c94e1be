"""The OpenAPI document of the Admin API."""
