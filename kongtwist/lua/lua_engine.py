"""Lua in one process: `Engine.compile` makes programs of chunks, `Program.run` runs them within limits.

All programs share one runtime. A further one would cost 54 KB and, for each of thousands of configurations, a set of tables; and tables of
a request (``ngx.ctx``, ``kong.ctx``) could not go from one plugin to the next. What programs keep is apart: each has globals of its own,
and everything else they see is read-only. What they hold together is bounded; where that is exceeded by what stays after a run, the runtime
is replaced by a new one, and programs are compiled anew when they are run next.

Lua's memory has two bounds. The soft one, the setting, is looked at while scripts run, before and after each call of the gateway. The hard
one, three times as much, is the allocator's: it stops single large requests. It must never be met while Python hands a value in, which
would end the process, so such values are bounded to an eighth of the soft one each. Both move with the code that is held, which is as large
as the configuration has it: thousands of plugins take nothing from what scripts may hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from typing import Any
from weakref import WeakValueDictionary

from .lua_calls import LuaFailure, Members
from .lua_error import LuaError, LuaExit
from .lua_values import Values
from .pdk.pdk_call import LuaCall
from .python_functions import PREFIX, PythonProgram

__all__ = ["Engine", "LuaSettings", "Program", "implementation"]

DISABLED = "loading of untrusted Lua code disabled because 'untrusted_lua' config option is set to 'off'"

MODES = ("chunk", "value", "function")
"""How code is understood.

- chunk: as it stands, with globals of its own for each run;
- value: ``return <code>`` where that compiles, else as it stands; so bare expressions are values;
- function: as it stands, with globals that stay; where its first run gives a function, that is the program from then on, and called at
  once.
"""

_ERROR = 4096
"""Bytes of the text of an error."""

_PROGRAM, _CODE = 1024, 4
"""Bytes that Lua holds of a program, and for each byte of its code: measured; they are no part of what scripts may hold."""

_RESULTS = 8
"""Results of a function offered, the largest of which are an eighth of the soft bound each: with what is held, that is within the
hard one."""

_PERIOD = 1000
"""Instructions between two looks at the limits."""


@dataclass(frozen=True, slots=True)
class LuaSettings:
    """What an engine allows."""

    trust: str = "sandbox"  #: ``untrusted_lua``: sandbox, on or off
    requires: tuple[str, ...] = ()  #: names that ``require`` takes in the sandbox
    environment: tuple[str, ...] = ()  #: further names that the sandbox has, dotted
    path: str = ""  #: where modules are looked for, as ``package.path`` has it
    instructions: int = 10_000_000  #: of one run
    memory: int = 16 * 1024 * 1024  #: bytes that Lua may hold in a process; 2 MiB at least
    seconds: float = 0.25  #: processor time of one run, beyond which it ends at the next look
    pattern_steps: int = 20_000_000  #: of one call of string.find and its like
    modules: tuple[str, ...] = ()  #: of Python, whose functions may stand in place of Lua


def implementation() -> Any:
    """lupa's module for LuaJIT 2.1, or where its wheel has none, for Lua 5.1."""
    try:
        return import_module("lupa.luajit21")
    except ImportError:
        return import_module("lupa.lua51")


def _source(name: str) -> bytes:
    return files(__package__).joinpath(name).read_bytes()


def _refuse(_object: Any, name: Any, _setting: bool) -> Any:
    raise AttributeError("no member")


class _Runtime:
    """One Lua machine with the names of an engine."""

    def __init__(self, engine: Engine) -> None:
        lua = engine.lua()
        settings = engine.settings
        self._memory, self._code, self._most_code = settings.memory, 0, 0
        self._known: WeakValueDictionary[tuple[bytes, bytes, str], _Compiled] = WeakValueDictionary()
        self.call: LuaCall | None = None
        self.exit: LuaExit | None = None
        self.failed: Exception | None = None
        self.lua = lua.LuaRuntime(
            encoding=None, attribute_filter=_refuse, register_eval=False, register_builtins=False, unpack_returned_tuples=True,
            max_memory=3 * settings.memory,
        )  # fmt: skip
        self.error: type[Exception] = lua.LuaError
        jit = "luajit" in lua.__name__
        if jit:
            self.lua.execute(b"jit.off(); jit.flush()")
        self.values = Values(lua, self.lua, settings.memory // 8)
        limits = self.lua.table_from({
            b"memory": settings.memory / 1024, b"instructions": settings.instructions, b"period": _PERIOD,
            b"seconds": settings.seconds, b"text": settings.memory / 2, b"pattern_steps": settings.pattern_steps,
            b"per_coroutine": not jit, b"path": settings.path.encode("utf-8", "surrogateescape"),
            b"too_long": f"more than {settings.instructions} instructions (plugin_lua_max_instructions)".encode(),
            b"too_slow": f"more than {settings.seconds:g} s of processor time (plugin_lua_max_time)".encode(),
        })  # fmt: skip
        self.guard = self._load("guard.lua", limits)
        self.values.head = self.guard.head
        self.start = self.guard.run
        library = self._load("library.lua", self.guard, limits, self._load("patterns.lua"))
        sandbox = self._load("sandbox.lua", self.guard, library, limits, self._load("kong_cache.lua", self.guard))
        self.sandbox = sandbox
        offered = self.lua.table()
        for name, value in engine.functions.items():
            self._offer(offered, name.split("."), value)
        self.environment = sandbox.environment(
            engine.settings.trust.encode(), offered, self._request_functions(),
            self.lua.table_from([each.encode() for each in settings.requires]),
            self.lua.table_from([each.encode() for each in settings.environment]),
        )  # fmt: skip
        self._compile = sandbox.compile
        self.guard.begin()

    def _load(self, name: str, *args: Any) -> Any:
        return self.lua.compile(_source(name), name=b"=" + name.encode())(*args)

    def _offer(self, table: Any, path: list[str], value: Any) -> None:
        for name in path[:-1]:
            inner = table[name.encode()]
            if inner is None:
                inner = table[name.encode()] = self.lua.table()
            table = inner
        last = path[-1].encode()
        if isinstance(value, Members):
            table[last] = self.guard.members(self._callback(value.get), value.set and self._callback(value.set))
        elif callable(value):
            table[last] = self.guard.offer(self._callback(value), 1 if path[0].startswith("@") else 0)
        else:
            table[last] = self.values.to_lua(value)

    def _request_functions(self) -> Any:
        """What tables of a request are made with: the one that holds them all, and members of ``kong.ctx.shared``."""
        to_lua, to_python = self.values.to_lua, self.values.to_python

        def tables(call: LuaCall) -> tuple[Any, bytes]:
            if call.exchange is None:
                raise LuaError("no request found")
            kept = call.exchange.own("lua")
            if kept.get("runtime") is not self:
                kept["runtime"], kept["tables"] = self, self.lua.table()
            return kept["tables"], call.plugin_id.encode()

        def get(call: LuaCall, name: Any) -> Any:
            try:
                return (to_lua(call.shared.get(to_python(name))),)
            except LuaError:
                return (None,)  # an object of a plugin: nothing for Lua

        def put(call: LuaCall, name: Any, value: Any) -> Any:
            call.shared[to_python(name)] = to_python(value)
            return ()

        return self.lua.table_from({
            b"tables": self._guarded(tables), b"get": self._guarded(get), b"set": self._guarded(put)
        })  # fmt: skip

    def _callback(self, function: Any) -> Any:
        """What Lua calls for a function that is offered: with plain values. It gives true and results, false and the text of an error,
        or nil where the run is to end."""
        to_lua, argument, largest = self.values.to_lua, self.values.argument, self.values.largest

        def called(*args: Any) -> tuple[Any, ...]:
            try:
                result = function(self.call, *map(argument, args))
                kind = type(result)
                if result is None or (kind is bytes and len(result) <= largest):
                    return True, result
                if kind is tuple:
                    return (True, *map(to_lua, result[:_RESULTS]))
                return True, to_lua(result)
            except Exception as error:  # noqa: BLE001 - it comes out of Lua again, in `Program.run`
                return self._raised(error)

        return called

    def _guarded(self, function: Any) -> Any:
        """The same for a function of this class, which gives a tuple of values of Lua."""

        def called(*args: Any) -> tuple[Any, ...]:
            try:
                return (True, *function(self.call, *args))
            except Exception as error:  # noqa: BLE001 - likewise
                return self._raised(error)

        return called

    def _raised(self, error: Exception) -> tuple[Any, ...]:
        if isinstance(error, LuaError):
            return False, str(error).encode("utf-8", "surrogateescape")[:_ERROR]
        if isinstance(error, LuaExit):
            self.exit = error
            return None, b"exit"
        self.failed = error
        return None, b"a function of the gateway failed"

    def compile(self, code: bytes, name: bytes, mode: str) -> _Compiled:
        """Compiled code; equal code that keeps nothing is compiled once. Raises LuaFailure."""
        key = (code, name, mode)
        known = self._known.get(key)
        if known is not None:
            return known
        self._make_room(_PROGRAM + _CODE * len(code))
        compiled = _Compiled(self, _PROGRAM + _CODE * len(code))
        try:
            function, text = self._compile(code, name, mode.encode(), self.environment)
        except self.error as error:
            raise LuaFailure(str(error)) from None
        if function is None:
            raise LuaFailure(text.decode("utf-8", "replace"))
        compiled.function = function
        if mode != "function":
            self._known[key] = compiled
        return compiled

    def give_back(self, size: int) -> None:
        """Code of this size is gone. Called whenever Python likes, within Lua too: so Lua is told when the next code is compiled."""
        self._code -= size

    def _make_room(self, size: int) -> None:
        """Let Lua hold so many bytes of code more, which are no part of what scripts may hold."""
        self._code += size
        if (
            self._code > self._most_code
        ):  # what is given back lies there until Lua collects it: the hard bound never falls
            self._most_code = self._code
            self.lua.set_max_memory(3 * self._memory + 2 * self._code)
        self.guard.hold(self._code / 1024)

    def ended(self, results: Any) -> list[Any]:
        """What a run gives. Raises LuaFailure, LuaExit, and what broke a function of the gateway."""
        if results is True:
            return []
        if results[0] is True:
            to_python = self.values.to_python
            try:
                return [to_python(each) for each in results[1:]]
            except LuaError as error:
                raise LuaFailure(str(error)) from None
        self.check()
        raise _Crowded(results) if len(results) > 2 else LuaFailure(_text(results))

    def check(self) -> None:
        """Raise what ended the run, if that was not Lua."""
        failed, self.failed = self.failed, None
        exit_, self.exit = self.exit, None
        if failed is not None:
            raise failed
        if exit_ is not None:
            raise exit_


class _Compiled:
    """Code in a runtime; those who run it hold it.

    Attributes:
        function: of Lua.
    """

    __slots__ = ("__weakref__", "_runtime", "_size", "function")

    def __init__(self, runtime: _Runtime, size: int) -> None:
        self._runtime, self._size = runtime, size
        self.function: Any = None

    def __del__(self) -> None:
        self._runtime.give_back(self._size)


class _Crowded(LuaFailure):
    """Memory stays short after the run."""

    def __init__(self, results: Any) -> None:
        super().__init__(f"{_text(results)} (plugin_lua_max_memory); what scripts keep is dropped, Lua begins anew")


def _text(results: Any) -> str:
    return str(results[1].decode("utf-8", "replace"))


class Program:
    """Compiled code of one configuration."""

    def __init__(self, engine: Engine, code: bytes, name: bytes, mode: str) -> None:
        self._engine = engine
        self._code, self._name, self._mode = code, name, mode
        self._runtime = self._begin()

    def run(self, call: LuaCall, *args: Any) -> list[Any]:
        """Run it.

        Args:
            call: what the functions offered are told.
            args: what ``...`` is in the chunk.

        Returns:
            what it returns.

        Raises:
            LuaFailure: it failed, or exceeded a limit.
            LuaExit: a function offered ended it.
        """
        runtime = self._runtime
        if runtime is not self._engine.current:
            runtime = self._begin()
        if runtime.call is not None:
            raise LuaFailure("a program runs already")
        runtime.call = call
        try:
            if args:
                results = runtime.start(self._compiled.function, *map(runtime.values.to_lua, args))
            else:
                results = runtime.start(self._compiled.function)
        except (LuaError, runtime.error) as error:
            runtime.check()
            raise LuaFailure(str(error)) from None
        finally:
            runtime.call = None
        try:
            return runtime.ended(results)
        except _Crowded:
            self._engine.renew()
            raise

    def _begin(self) -> _Runtime:
        self._runtime = self._engine.runtime()
        self._compiled = self._runtime.compile(self._code, self._name, self._mode)
        return self._runtime


class Engine:
    """Lua in one process.

    Args:
        functions: what scripts find, by dotted name: functions, `Members`, or plain values (lua_calls.py).
        settings: what is allowed.
        lua: gives lupa's module.

    Attributes:
        current: the runtime; None: nothing has been compiled.
    """

    def __init__(
        self, functions: Mapping[str, Any], settings: LuaSettings | None = None, lua: Callable[[], Any] = implementation
    ) -> None:
        self.functions = functions
        self.settings = settings or LuaSettings()
        self.lua = lua
        self.current: _Runtime | None = None

    def runtime(self) -> _Runtime:
        """The runtime, made when it is first needed."""
        if self.current is None:
            self.current = _Runtime(self)
        return self.current

    def renew(self) -> None:
        """Go on with a new runtime: what programs kept is gone."""
        self.current = None

    def compile(self, code: str, *, name: str | None = None, mode: str = "chunk") -> Program | PythonProgram:
        """Compile.

        Args:
            code: text of Lua, or ``python:module.function``.
            name: of the chunk, as messages show it; None: its first line, as Lua does.
            mode: one of `MODES`.

        Raises:
            LuaFailure: it does not compile, or Lua is off.
        """
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {MODES}")
        if code.startswith(PREFIX):
            return PythonProgram(code, self.settings.modules)
        if self.settings.trust == "off":
            raise LuaFailure(DISABLED)
        source = code.encode("utf-8", "surrogateescape")
        if len(source) > self.settings.memory // 8:
            raise LuaFailure(f"the code is too long: {len(source)} bytes")
        return Program(self, source, source if name is None else b"=" + name.encode(), mode)
