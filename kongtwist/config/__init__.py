"""The configuration of a node: every property of kong.conf declared once, and how files and environment are read."""
