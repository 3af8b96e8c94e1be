"""Plugins: their phases, their order, and what they are given."""
