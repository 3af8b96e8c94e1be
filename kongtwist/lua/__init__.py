"""Lua in the configurations of plugins."""
