"""Plugins of one's own in the folder where the gateway is started, whichever command starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.live.support import PATIENCE, ROOT, LiveTestCase, free_port, request, wait_until

PLUGIN = """\
from kongtwist.core.exchange import Answer
from kongtwist.api import Plugin

class Mine(Plugin):
    name = "mine"
    priority = 955
    config = {}

    def access(self, exchange, conf):
        return exchange.error(418, "found")
"""

COMMANDS = {
    "twistd": (["-c", "from twisted.scripts.twistd import run; run()"], ["-n", "--pidfile=", "kongtwist"]),
    "kongtwist": (["-c", "import sys; from kongtwist.commands.main import main; sys.exit(main())"], ["start"]),
}
"""As the installed commands are: ``-P`` for those of a folder of programs, which is not the current one."""


class PluginFolderTests(LiveTestCase):
    """The plugin stands in the current folder, beside a file that would break the gateway if it hid the real module."""

    def node(self, command: str, workers: int) -> tuple[int, int]:
        """Start a node in a folder with the plugin; returns its proxy's and its Admin API's port."""
        folder, proxy, admin = self.folder(), free_port(), free_port()
        Path(folder, "mine_here.py").write_text(PLUGIN, encoding="utf-8")
        for name in ("yaml.py", "json.py", "cryptography.py"):
            Path(folder, name).write_text("raise RuntimeError('not the module that is meant')", encoding="utf-8")
        # Long enough to be read by a process of its own (node/declarative_loader.py).
        routes = [{"name": f"r{n}", "paths": [f"/{'x' * 100}/{n}"], "plugins": [{"name": "mine"}]} for n in range(800)]
        Path(folder, "kong.yml").write_text(
            json.dumps({"_format_version": "3.0", "services": [{"name": "s", "host": "127.0.0.1", "routes": routes}]}),
            encoding="utf-8",
        )
        Path(folder, "kong.conf").write_text(
            f"proxy_listen = 127.0.0.1:{proxy} reuseport\nadmin_listen = 127.0.0.1:{admin}\ndatabase = off\n"
            f"declarative_config = kong.yml\nplugins = bundled,mine_here:Mine\nnginx_worker_processes = {workers}\n",
            encoding="utf-8",
        )
        code, words = COMMANDS[command]
        env = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        started = self.start(
            [sys.executable, "-P", *code, *words, "--conf", "kong.conf", "--prefix", "data"], command, env, folder
        )
        if command == "kongtwist":
            self.addCleanup(
                subprocess.run,
                [sys.executable, "-P", *COMMANDS["kongtwist"][0], "stop", "--prefix", "data"],
                cwd=folder, env={**os.environ, **env}, capture_output=True, timeout=PATIENCE, check=False,
            )  # fmt: skip

        def answers() -> bool:
            self.assertTrue(started.running or started.wait() == 0, started.output())
            return request(admin, "GET", "/status").status == 200

        wait_until(answers, "the Admin API")
        return proxy, admin

    def check_served(self, command: str, workers: int) -> None:
        """The plugin answers, in each process that reads the configuration."""
        proxy, admin = self.node(command, workers)
        self.assertIn("mine", request(admin, "GET", "/plugins/enabled").json["enabled_plugins"])
        for number in range(8):
            self.assertEqual(request(proxy, "GET", f"/{'x' * 100}/{number}").status, 418)

    def test_twistd(self) -> None:
        """``twistd -n kongtwist``."""
        self.check_served("twistd", 1)

    def test_twistd_with_workers(self) -> None:
        """Its workers look in the same places."""
        self.check_served("twistd", 2)

    def test_kongtwist_start(self) -> None:
        """``kongtwist start``, which goes to the background."""
        self.check_served("kongtwist", 2)
