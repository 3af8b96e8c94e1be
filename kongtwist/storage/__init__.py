"""Where configuration is kept: one contract (core/storage.py), memory for declarative files, SQLite otherwise."""
