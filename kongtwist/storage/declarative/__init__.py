"""Declarative configuration: texts to rows and rows to texts."""
