"""What pre-function and post-function are: Lua in each phase (Kong 3.9, ``kong/plugins/pre-function/_handler.lua``).

A chunk is compiled once for each configuration, and keeps its globals and upvalues while that is served. One that gives a function
when it runs first is that function from then on. All end with the first that answers, or fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..core.chain.failures import UNEXPECTED
from ..core.chain.host import Scope
from ..core.chain.phases import BodyFilter, CertificateChoice, ClientHello, WholeBody
from ..core.chain.plugin import Plugin
from ..core.exchange import Answer, BodyTooLarge, Exchange, Row
from ..core.grpc.grpc_text import is_grpc
from ..entities.checks import AtLeastOneOf
from ..entities.entity import Config
from ..entities.schema import Array, String
from ..lua.lua_calls import LuaFailure
from ..lua.lua_error import LuaExit
from ..lua.lua_syntax import fault_of_code
from ..lua.pdk.pdk_call import LuaCall
from ..lua.pdk.pdk_ngx import said
from ._passed_body import passed_body

__all__ = ["LuaFunctions", "function_fields"]

_PHASES = ("certificate", "rewrite", "access", "header_filter", "body_filter", "log")

_BODY_NAMES = ("body", "post_args")
"""What code that looks into the request's body names."""

_TOO_LARGE = "request body did not fit into client body buffer, consider raising 'client_body_buffer_size'"
_STREAM = "the request body is a stream, which is not held"


def function_fields(plugin: str) -> Config:
    """The configuration of a plugin of this name."""

    def compiles(code: str) -> str | None:
        fault = fault_of_code(code, "function")
        return None if fault is None else f"error parsing {plugin}: {fault}"

    return Config(
        {
            phase: Array(
                String(required=False, checks=(compiles,)),
                required=True,
                default=[],
                text=f"Lua that runs in the phase {phase}, in this order.",
            )
            for phase in _PHASES
        },
    )


class Functions:
    """A configuration, compiled.

    Attributes:
        host: what it was opened with.
        id: of the plugin's row.
        programs: by phase.
        reads: by phase, whether code names the request's body.
    """

    __slots__ = ("host", "id", "programs", "reads")

    def __init__(self, conf: Row, row: Row, host: Scope) -> None:
        self.host = host
        self.id: str = row["id"]
        self.programs: dict[str, list[Any]] = {
            phase: [host.lua.compile(code, mode="function") for code in conf[phase]] for phase in _PHASES
        }
        self.reads = {
            phase: any(name in code for code in conf[phase] for name in _BODY_NAMES) for phase in ("rewrite", "access")
        }


class LuaFunctions(Plugin):
    """Runs Lua. A subclass has the name, the priority and the fields."""

    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    scopes = ("service", "route")
    config_checks = (AtLeastOneOf(*(f"config.{phase}" for phase in _PHASES)),)

    def open(self, conf: Row, plugin: Row, host: Scope) -> Functions:
        return Functions(conf, plugin, host)

    def takes_part(self, conf: Functions, phase: str) -> bool:
        if phase == "header_filter":  # where it is told what is done with the body
            return any(conf.programs[each] for each in ("header_filter", "body_filter", "log"))
        return bool(conf.programs[phase])

    # -- before the upstream is asked ------------------------------------------------------------------------------

    def certificate(self, hello: ClientHello, conf: Functions) -> CertificateChoice | None:
        for program in conf.programs["certificate"]:
            call = LuaCall(None, "certificate", plugin_id=conf.id)
            call.hello, call.gateway = hello, conf.host
            try:
                program.run(call)
            except LuaExit:
                break
        return None

    def rewrite(self, exchange: Exchange, conf: Functions) -> Answer | Awaitable[Answer | None] | None:
        return self._before(exchange, conf, "rewrite")

    def access(self, exchange: Exchange, conf: Functions) -> Answer | Awaitable[Answer | None] | None:
        return self._before(exchange, conf, "access")

    def _before(self, exchange: Exchange, conf: Functions, phase: str) -> Answer | Awaitable[Answer | None] | None:
        programs = conf.programs[phase]
        if not programs:
            return None
        call = self._call(exchange, conf, phase)
        if conf.reads[phase] and exchange.block.has_body and exchange.upstream_body is None:
            if not _is_stream(exchange):
                return self._with_body(call, programs)
            call.body_error = _STREAM
        return self._answer(call, programs)

    async def _with_body(self, call: LuaCall, programs: list[Any]) -> Answer | None:
        exchange = call.exchange
        assert exchange is not None
        try:
            call.body = await passed_body(exchange, exchange.gateway.body_limit)
        except BodyTooLarge:
            call.body_error = _TOO_LARGE
        return self._answer(call, programs)

    def _answer(self, call: LuaCall, programs: list[Any]) -> Answer | None:
        if not self._run(call, programs):
            return Answer.error(500, UNEXPECTED)
        if call.answer is None and call.exchange is not None and call.phase != "header_filter":
            return said(call.exchange)
        return call.answer

    # -- the answer ------------------------------------------------------------------------------------------------

    def header_filter(self, exchange: Exchange, conf: Functions) -> Answer | BodyFilter | WholeBody | None:
        if _is_held(exchange) and any(conf.programs[each] for each in ("header_filter", "body_filter", "log")):
            return self._whole(exchange, conf)
        if conf.programs["header_filter"]:
            answer = self._answer(self._call(exchange, conf, "header_filter"), conf.programs["header_filter"])
            if answer is not None:
                return answer
        if conf.programs["body_filter"]:
            return BodyFilter(self._pieces(exchange, conf))
        return None

    def _whole(self, exchange: Exchange, conf: Functions) -> WholeBody:
        """What is done with an answer whose body scripts have asked for (``kong.service.request.enable_buffering``)."""

        def whole(body: bytes) -> bytes | Answer:
            exchange.own("kong.service")["body"] = body
            answer = self._answer(self._call(exchange, conf, "header_filter"), conf.programs["header_filter"])
            if answer is not None:
                return answer
            return self._pieces(exchange, conf)(body, True) if conf.programs["body_filter"] else body

        def too_large() -> Answer:
            what = f"plugin {self.name} asks for the whole answer, which is longer than {exchange.gateway.body_limit} bytes"
            exchange.report(what, "raise client_body_buffer_size, or do without enable_buffering")
            return Answer.error(502, "An invalid response was received from the upstream server")

        return WholeBody(exchange.gateway.body_limit, whole, too_large)

    def _pieces(self, exchange: Exchange, conf: Functions) -> Callable[[bytes, bool], bytes]:
        """What becomes of each piece of the answer's body."""
        call = self._call(exchange, conf, "body_filter")
        ended = False

        def piece(chunk: bytes, last: bool) -> bytes:
            nonlocal ended
            if ended:
                return b""
            call.chunk, call.last = chunk, last
            if not self._run(call, conf.programs["body_filter"]):
                raise RuntimeError("Lua has failed, as the line before says")
            ended = call.last
            return call.chunk or b""

        return piece

    def log(self, exchange: Exchange, conf: Functions) -> None:
        if conf.programs["log"]:
            self._run(self._call(exchange, conf, "log"), conf.programs["log"])

    # -- one run -------------------------------------------------------------------------------------------------------

    def _call(self, exchange: Exchange, conf: Functions, phase: str) -> LuaCall:
        return LuaCall(exchange, phase, exchange.own(self.name), exchange.ctx, conf.id)

    def _run(self, call: LuaCall, programs: list[Any]) -> bool:
        """Run them; False: one has failed, and the log says why."""
        try:
            for program in programs:
                program.run(call)
        except LuaExit:
            return True
        except LuaFailure as failure:
            assert call.exchange is not None
            call.exchange.report(
                f"plugin {self.name} failed in phase {call.phase}: {failure.text}",
                f"correct config.{call.phase} of plugin {call.plugin_id}",
            )
            return False
        return True


def _is_stream(exchange: Exchange) -> bool:
    """Whether the body is that of a call, which may have no end for as long as nobody answers. Only a service of gRPC is called: what
    a client claims to be hides no body."""
    if exchange.route is None or not is_grpc(exchange.block.first(b"content-type")):
        return False
    service = exchange.route.service
    return service is not None and service.get("protocol") in ("grpc", "grpcs")


def _is_held(exchange: Exchange) -> bool:
    """Whether scripts have asked for the whole answer, and it has an end."""
    own = exchange.own("kong.service")
    fields = exchange.response_fields
    if not own.get("buffered") or fields is None or "body" in own:
        return False
    kind = (fields.first(b"content-type") or b"").lower()
    return not kind.startswith(b"text/event-stream") and not is_grpc(kind)
