"""The package as users get it: a wheel that twistd finds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from tests.live.support import PATIENCE, ROOT, LiveTestCase, free_port, request, wait_until

LEFT_OUT = shutil.ignore_patterns(
    ".*", "build", "*.egg-info", "_trial_temp*", "node_modules", "__pycache__", "kongtwist-data"
)


class WheelTests(LiveTestCase):
    """Built from a copy of the source tree and unpacked where nothing else of ours is."""

    def test_wheel_runs(self) -> None:
        """It has what it needs beside the modules, and ``twistd -n kongtwist`` starts from it."""
        source, built, place = (os.path.join(self.folder(), name) for name in ("source", "built", "place"))
        shutil.copytree(ROOT, source, ignore=LEFT_OUT)
        words = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            built,
            source,
        ]
        done = subprocess.run(words, capture_output=True, text=True, timeout=5 * PATIENCE, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        (wheel,) = Path(built).glob("kongtwist-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            archive.extractall(place)
        for name in (
            "twisted/plugins/kongtwist_plugin.py", "kongtwist/py.typed", "kongtwist/demo/pages/index.html",
            "kongtwist/plugins/key_auth.py",
        ):  # fmt: skip
            self.assertIn(name, names)
        self.assertNotIn("twisted/plugins/__init__.py", names)
        self.assertEqual(
            [name for name in names if not re.match(r"kongtwist[/-]|twisted/plugins/kongtwist_plugin", name)], []
        )
        entry_points = next(Path(place).glob("*.dist-info/entry_points.txt")).read_text()
        self.assertIn("kongtwist = kongtwist.commands.main:main", entry_points)
        self._runs_from(place)

    def _runs_from(self, place: str) -> None:
        """A node starts with the package from ``place`` and the libraries of this environment, without our checkout."""
        libraries = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
        folder, port = self.folder(), free_port()
        conf = Path(folder, "kong.conf")
        conf.write_text(f"proxy_listen = 127.0.0.1:{free_port()}\nadmin_listen = 127.0.0.1:{port}\n")
        program = (
            f"import sys; sys.path[:0] = {[place, *libraries]!r}; import kongtwist;"
            f" assert kongtwist.__file__.startswith({place!r}); from twisted.scripts.twistd import run; run()"
        )
        # -S: no .pth files, which may point to the checkout; -P: nor the working directory
        words = [sys.executable, "-S", "-P", "-c", program, "--nodaemon", "--pidfile=", "kongtwist", "-c", str(conf)]
        process = self.start(
            [*words, "-p", os.path.join(folder, "prefix")], "twistd", folder=folder, env={"PYTHONPATH": ""}
        )

        def answers() -> bool:
            self.assertTrue(process.running, process.output())
            return request(port, "GET", "/status").status == 200

        wait_until(answers, "the Admin API")
