"""Who owns a prefix: locks of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.kinds import ConfError
from kongtwist.node.prefix import PID_FILE, Prefix, running_pid
from tests.places import ROOT


class PrefixTests(SynchronousTestCase):
    """`Prefix` and `running_pid`."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())

    def owner(self) -> subprocess.Popen[str]:
        """Another process that owns the prefix."""
        program = f"from kongtwist.node.prefix import Prefix; p = Prefix.claim({self.path!r}); print('ready', flush=True); input()"
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def test_claimed_and_released(self) -> None:
        """The directory is made for its owner alone, names the process, and forgets it at the end."""
        self.assertIsNone(running_pid(self.path))
        prefix = Prefix.claim(self.path)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o700)
        self.assertEqual(Path(self.path, PID_FILE).read_text(), f"{os.getpid()}\n")
        prefix.release()
        self.assertIsNone(running_pid(self.path))
        Prefix.claim(self.path).release()

    def test_second_owner(self) -> None:
        """A second node is refused, and others see the first one's process id."""
        process = self.owner()
        self.assertEqual(running_pid(self.path), process.pid)
        error = self.assertRaises(ConfError, Prefix.claim, self.path)
        first, second = str(error).splitlines()
        self.assertEqual(first, f"kongtwist is already running in {self.path}")
        self.assertIn(f"kongtwist stop -p {self.path}", second)

    def test_killed_owner(self) -> None:
        """What a killed node leaves is no running node."""
        process = self.owner()
        process.kill()
        process.wait()
        self.assertTrue(Path(self.path, PID_FILE).exists())
        self.assertIsNone(running_pid(self.path))
        Prefix.claim(self.path).release()

    def test_cannot_be_made(self) -> None:
        """A prefix that cannot be a directory is refused in a sentence."""
        Path(self.path).write_text("")
        error = self.assertRaises(ConfError, Prefix.claim, self.path)
        self.assertRegex(str(error), f"^cannot use prefix {self.path}: ")
