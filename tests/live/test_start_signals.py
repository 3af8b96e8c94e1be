"""Signals that come while a node starts: its sockets are open already, its reactor does not run yet."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.live.support import GatewayProcess, LiveTestCase

PLUGIN = """\
import os, signal

from kongtwist.api import Plugin
from kongtwist.api import Gateway

class Early(Plugin):
    name = "early"
    priority = 955
    config = {{}}

start = Gateway.startService

def interrupted(self):
    os.kill(os.getpid(), signal.{name})
    start(self)

Gateway.startService = interrupted
"""


class StartSignalTests(LiveTestCase):
    """The node sends itself the signal, at the moment in question."""

    def test_stop(self) -> None:
        """It is no traceback, and not forgotten: the node ends as it does later on."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            gateway = GatewayProcess(self, {"plugins": "bundled,early:Early", "log_level": "notice"})
            Path(gateway.folder, "early.py").write_text(PLUGIN.format(name=number.name), encoding="utf-8")
            process = gateway.launch()
            self.assertEqual(process.wait(), 0, process.output())
            self.assertIn(f"{number.name} received: stopping", process.output())
            self.assertNotIn("Traceback", process.output())
            self.assertFalse(Path(gateway.prefix, "kongtwist.pid").exists())
