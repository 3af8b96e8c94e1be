"""Where configuration is kept: one contract (core/storage_contract.py), memory for declarative files, SQLite otherwise."""
