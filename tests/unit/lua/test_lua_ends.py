"""The end of a run, wherever the look at the limits falls."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.lua.lua_calls import LuaFailure
from kongtwist.lua.lua_engine import Engine, LuaSettings
from kongtwist.lua.lua_error import LuaExit
from kongtwist.lua.pdk.pdk_call import LuaCall

CALL = LuaCall(None, "access")


def leave(_call: LuaCall) -> None:
    raise LuaExit


class EndTests(SynchronousTestCase):
    def test_exit_is_an_exit(self) -> None:
        """After any number of instructions, the counter's period included."""
        program = Engine({"leave": leave}).compile("local n = ... for i = 1, n do end pcall(leave) while true do end")
        for number in range(1100):
            self.assertRaises(LuaExit, program.run, CALL, number)

    def test_failure_is_the_script_s(self) -> None:
        program = Engine({}).compile("local n = ... for i = 1, n do end error('mine', 0)")
        for number in range(1100):
            self.assertEqual(str(self.assertRaises(LuaFailure, program.run, CALL, number)), "mine")

    def test_limit_is_told_as_such(self) -> None:
        """Where the last instruction is the one too many, nothing of the guard's own is told."""
        program = Engine({}, LuaSettings(instructions=1000)).compile("local n = ... for i = 1, n do end return 1")
        told = set()
        for number in range(900, 1100):
            try:
                told.add(str(program.run(CALL, number)[0]))
            except LuaFailure as failure:
                told.add(str(failure).rpartition(": ")[2])
        self.assertEqual(told, {"1", "more than 1000 instructions (plugin_lua_max_instructions)"})
