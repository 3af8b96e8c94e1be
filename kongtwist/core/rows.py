"""Rows: entities as they are stored and as the Admin API shows them."""

from __future__ import annotations

from typing import Any

__all__ = ["Row"]

Row = dict[str, Any]
"""An entity. Never changed in place: who changes one makes another."""
