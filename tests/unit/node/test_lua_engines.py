"""The engine for Lua that a process has: where lines of scripts go."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.load import Conf
from kongtwist.lua.pdk.pdk_call import LuaCall
from kongtwist.node.lua_engines import lua_engine
from kongtwist.observability.error_log import ErrorLog

_CODE = """
kong.log("plain") kong.log.notice("noticed") kong.log.info("informed") kong.log.warn("warned") kong.log.err("failed")
kong.log.crit("grave") kong.log.alert("at once") kong.log.emerg("over") ngx.log(ngx.NOTICE, "ngx") ngx.log(ngx.STDERR, "last")
"""


class LevelTests(SynchronousTestCase):
    def test_levels(self) -> None:
        """Lines of scripts have the level that they ask for; notices, ``kong.log()`` among them, are written with log_level notice."""
        path = Path(self.mktemp())
        log = ErrorLog(str(path), "notice")
        self.addCleanup(log.close)
        globalLogPublisher.addObserver(log)
        self.addCleanup(globalLogPublisher.removeObserver, log)
        lua_engine(Conf()).compile(_CODE).run(LuaCall(None, "certificate"))
        told = [
            line.split("[", 1)[1].split("]", 1)[0] + line.rsplit("]", 1)[1] for line in path.read_text().splitlines()
        ]
        self.assertEqual(
            told,
            ["notice plain", "notice noticed", "warn warned", "error failed", "crit grave", "alert at once", "emerg over",
             "notice ngx", "emerg last"],
        )  # fmt: skip
