"""The command, run in this process."""

from __future__ import annotations

import io
import os
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.commands import main as cli

__all__ = ["CommandTestCase"]


class CommandTestCase(SynchronousTestCase):
    """Runs commands.

    Attributes:
        environ: set for them.
    """

    environ: dict[str, str] = {}

    def run_command(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command."""
        out, err = io.StringIO(), io.StringIO()
        with patch("sys.stdout", out), patch("sys.stderr", err), patch.dict(os.environ, self.environ):
            try:
                code = cli.main(words)
            except SystemExit as left:
                code = int(left.code or 0)
        return code, out.getvalue(), err.getvalue()

    def file(self, text: str) -> str:
        """A file with this text; its path."""
        path: str = self.mktemp()
        Path(path).write_text(text)
        return path
