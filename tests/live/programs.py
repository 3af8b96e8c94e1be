"""Programs of others that tests start."""

from __future__ import annotations

import os
import shutil
from functools import cache
from unittest import SkipTest

__all__ = ["find_program"]

_SERVERS = "/usr/sbin:/usr/local/sbin"
"""Where servers are that not everybody has in the path."""


@cache
def find_program(name: str, package: str = "") -> str:
    """The path of a program. A test that needs one that is not there is skipped; in CI it fails.

    Args:
        name: of the program.
        package: that has it, where that has another name.
    """
    found = shutil.which(name) or shutil.which(name, path=_SERVERS)
    if found is None:
        if os.environ.get("CI"):
            raise AssertionError(f"{name}{f' (package {package})' if package else ''} is not installed")
        raise SkipTest(f"needs {name}")
    return found
