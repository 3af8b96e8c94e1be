"""Where things stand in the source tree."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CONTRACT", "ROOT"]

ROOT = Path(__file__).resolve().parents[1]

CONTRACT = ROOT / "tests" / "contract"
"""Vectors and recorded answers of Kong."""
