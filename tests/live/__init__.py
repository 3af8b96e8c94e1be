"""Tests with real peers and processes on free ports."""
