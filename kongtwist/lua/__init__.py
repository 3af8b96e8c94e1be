"""Lua in configurations: chunks compiled once, run within limits, given Kong's names and nothing of Python."""
