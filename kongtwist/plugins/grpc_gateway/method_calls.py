"""The calls themselves: one message, a stream of them, or a WebSocket, each answered as HTTP clients expect."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from ...core.answers import Answer, BrokenOff, StreamedAnswer, WebSocketAnswer, WebSocketPeer
from ...core.chain.host import GRPCCall, GRPCFailed, GRPCReply, Scope
from ...core.exchange import BodyTooLarge, Exchange
from ...core.grpc.grpc_status import CANCELLED, DEADLINE_EXCEEDED, INTERNAL, NAMES, UNAVAILABLE, http_status_of
from ...core.grpc.grpc_text import encode_message, parse_timeout
from .._once import Seldom
from .._service_targets import NoTarget, target_of
from .call_metadata import headers_of, metadata_of
from .json_bodies import Shape, shape_of

if TYPE_CHECKING:
    from ...core.peer import Peer
    from .transcoder import Binding, Transcoder, Values

__all__ = ["Calls", "told"]

_TRY_LATER, _MALFORMED = 1013, 1007
"""WebSocket close codes (RFC 6455 7.4, and its registry)."""
_PRIVATE = 4000
"""Where WebSocket close codes begin that applications give (RFC 6455 7.4.2); a status of gRPC is added."""


def told(status: int, text: str) -> Answer:
    """An answer that is a text, as Kong's refusals of this plugin are."""
    return Answer(status, text.encode("utf-8", "replace"), [(b"Content-Type", b"text/plain; charset=utf-8")])


class Calls:
    """One request's call.

    Args:
        exchange: the request.
        host: makes calls.
        seldom: lines that would come with every request.
        transcoder: the methods of its service.
        binding: the method.
        values: what the path gave.
    """

    def __init__(
        self, exchange: Exchange, host: Scope, seldom: Seldom, transcoder: Transcoder, binding: Binding, values: Values
    ) -> None:
        self._exchange, self._host, self._seldom = exchange, host, seldom
        self._transcoder, self._binding, self._values = transcoder, binding, values
        self._tried: set[Peer] = set()

    async def answer(self, exchange: Exchange) -> Answer:
        """Make the call; what the client gets."""
        if exchange.block.upgrade_websocket and exchange.method == b"GET":
            return WebSocketAnswer(self._serve, limit=exchange.gateway.grpc_message_size)
        try:
            messages = await self._messages()
        except BodyTooLarge:
            return Answer.error(413, "Payload too large")
        except ValueError as wrong:
            return told(400, str(wrong))
        method = self._binding.method
        left = exchange.route.retries
        while True:
            try:
                if method.client_streaming or method.server_streaming:
                    return await self._streamed(messages)
                return self._shown(await self._unary(messages[0]))
            except NoTarget as none:
                return none.answer
            except GRPCFailed as failed:
                peer = exchange.upstream_peer
                if failed.unsent and not failed.busy and left > 0:
                    left -= 1
                    if peer is not None:
                        self._tried.add(peer)
                        exchange.let_go()
                    continue
                self._report(failed)
                return self._failed(failed)

    # -- the request -----------------------------------------------------------------------------------------------------

    async def _messages(self) -> list[bytes]:
        """The messages of the request's body. Raises BodyTooLarge, and ValueError for what is wrong with it."""
        exchange, binding = self._exchange, self._binding
        body = b""
        if binding.body or binding.method.client_streaming:
            if exchange.upstream_body is not None:
                body = exchange.upstream_body
            elif exchange.block.has_body:
                body = await exchange.read_body(exchange.gateway.grpc_message_size)
        query = exchange.query_args()
        if binding.method.client_streaming:
            return binding.messages(self._values, query, body)
        kind = exchange.block.first(b"content-type") or b""
        return [binding.request(self._values, query, body, kind.decode("latin-1"))]

    @property
    def _deadline(self) -> float | None:
        """Seconds that the client gives (``grpc-timeout``)."""
        return parse_timeout(self._exchange.block.first(b"grpc-timeout"))

    # -- one message -----------------------------------------------------------------------------------------------------

    async def _unary(self, message: bytes) -> GRPCReply:
        exchange = self._exchange
        client = self._host.grpc(target_of(exchange, self._tried))
        deadline = self._deadline
        began = time.monotonic()
        reply = await client.unary(
            self._binding.method.path,
            message,
            metadata=metadata_of(exchange),
            timeout=exchange.route.read_timeout if deadline is None else deadline,
        )
        self._heard(began)
        return reply

    def _shown(self, reply: GRPCReply) -> Answer:
        headers = headers_of(reply.initial, reply.trailing)
        try:
            kind, body = self._binding.answer(reply.message)
        except ValueError as wrong:
            return self._failed(GRPCFailed(INTERNAL, str(wrong)))
        return Answer(200, body, [(b"Content-Type", kind.encode("latin-1", "replace")), *headers], None, "service")

    def _heard(self, began: float) -> None:
        """The service has answered."""
        now = time.monotonic()
        exchange = self._exchange
        exchange.upstream_status = 200
        exchange.latencies = (began - exchange.started, now - began)
        if exchange.upstream_peer is not None:
            exchange.upstream_peer.observe(now - began, now)

    # -- many --------------------------------------------------------------------------------------------------------------

    def _begun(self, first: bytes | None) -> GRPCCall:
        """A call that has begun.

        Args:
            first: the one message of the request; None: there are many.
        """
        client = self._host.grpc(target_of(self._exchange, self._tried))
        return client.call(
            self._binding.method.path, first, metadata=metadata_of(self._exchange), timeout=self._deadline
        )

    async def _streamed(self, messages: list[bytes]) -> Answer:
        """An answer that is sent message by message, when the first has come; raises GRPCFailed before."""
        exchange, method = self._exchange, self._binding.method
        began = time.monotonic()
        call = self._begun(None if method.client_streaming else messages[0])
        silence = _Silence(self._host, call, exchange.route.read_timeout)
        try:
            if method.client_streaming:
                self._host.spawn("sending the messages of a grpc-gateway request", _send_all(call, messages))
            await call.begun()
            if call.failed is not None:
                raise silence.failure(call.failed)
            self._heard(began)
            if not method.server_streaming:
                message = await call.receive()
                if message is None:
                    raise GRPCFailed(INTERNAL, "the server sent no message", call.initial, call.trailing)
                await call.receive()
                reply = GRPCReply(message, call.initial, call.trailing)
                self._end(call, silence)
                return self._shown(reply)
        except BaseException:
            self._end(call, silence)
            raise
        shape = shape_of(exchange, self._binding)
        headers = [(b"Content-Type", shape.kind), *shape.headers, *headers_of(call.initial)]
        return StreamedAnswer(200, _Messages(self, call, shape, silence), headers, source="service")

    @staticmethod
    def _end(call: GRPCCall, silence: _Silence) -> None:
        silence.stop()
        call.cancel()

    # -- a WebSocket -------------------------------------------------------------------------------------------------------

    async def _serve(self, peer: WebSocketPeer) -> None:
        """Messages both ways, each the JSON of one. An empty one from the client means that there are no more of its."""
        method, binding = self._binding.method, self._binding
        query = self._exchange.query_args()
        call: GRPCCall | None = None
        try:
            if method.client_streaming:
                call = self._begun(None)
                self._host.spawn("sending what comes by a WebSocket", self._send(peer, call))
            else:
                text = await peer.receive() if binding.body else b""
                if text is None:
                    return
                made = binding.message(self._values, query, text) if text else binding.request(self._values, query)
                call = self._begun(made)
                self._host.spawn("waiting for the end of a WebSocket", _until_closed(peer, call))
            while (message := await call.receive()) is not None:
                await peer.send(binding.answer(message)[1].decode("utf-8", "replace"))
            peer.close()
        except NoTarget:
            peer.close(_TRY_LATER, "failure to get a peer from the ring-balancer")
        except GRPCFailed as failed:
            self._report(failed)
            peer.close(_TRY_LATER if failed.busy else _PRIVATE + failed.code, failed.text)
        except ValueError as wrong:
            peer.close(_MALFORMED, str(wrong))
        finally:
            if call is not None:
                call.cancel()

    async def _send(self, peer: WebSocketPeer, call: GRPCCall) -> None:
        """Pass on what the client says."""
        query = self._exchange.query_args()
        try:
            while (text := await peer.receive()) is not None:
                if text:
                    await call.send(self._binding.message(self._values, query, text))
                else:
                    call.finish()
        except ValueError as wrong:
            peer.close(_MALFORMED, str(wrong))
        except GRPCFailed:
            return  # who receives tells why
        call.cancel()

    # -- failures ----------------------------------------------------------------------------------------------------------

    def _report(self, failed: GRPCFailed) -> None:
        """A line for the operator, where the client alone cannot mend it."""
        if failed.busy:
            self._seldom(f"grpc-gateway refused a call: {failed}; raise it, or have streams end sooner")
        elif failed.unsent or failed.code == UNAVAILABLE:
            where = self._exchange.upstream_peer.name if self._exchange.upstream_peer else self._exchange.route.host
            self._exchange.report(f"gRPC call to {where} failed: {failed}", "look whether the service runs there")

    def _failed(self, failed: GRPCFailed) -> Answer:
        """The answer to a call that ended with another status than OK."""
        if not failed.unsent:
            self._exchange.upstream_status = 200
        headers = [
            (b"Content-Type", b"application/json"),
            (b"grpc-status", b"%d" % failed.code),
            (b"grpc-message", encode_message(failed.text)),
            *headers_of(failed.initial, failed.trailing),
        ]
        return Answer(http_status_of(failed.code), self.error_body(failed), headers, None, "service")

    def error_body(self, failed: GRPCFailed) -> bytes:
        """A failure as JSON: code, its name, message, and what details the server gave."""
        status = next((value for name, value in failed.trailing if name == "grpc-status-details-bin"), b"")
        details = self._transcoder.details(status) if isinstance(status, bytes) and status else []
        name = NAMES[failed.code] if 0 <= failed.code < len(NAMES) else "UNKNOWN"
        body: dict[str, Any] = {"code": failed.code, "status": name, "message": failed.text, "details": details}
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")

    def shown(self, message: bytes) -> bytes:
        """A message as JSON, or as it is (HttpBody)."""
        return self._binding.answer(message)[1]


class _Silence:
    """Ends a call on which nothing came for too long.

    Args:
        host: keeps time.
        call: the call.
        seconds: how long.
    """

    def __init__(self, host: Scope, call: GRPCCall, seconds: float) -> None:
        self._host, self._call, self._seconds = host, call, seconds
        self._last = host.now()
        self._waiting = True
        self._late = False
        self._timer = host.later(seconds, self._look)

    def moved(self, waiting: bool) -> None:
        """Something came; ``waiting``: more is waited for."""
        self._last = self._host.now()
        self._waiting = waiting

    def stop(self) -> None:
        """The call is over."""
        self._timer.cancel()

    def failure(self, failed: GRPCFailed) -> GRPCFailed:
        """What to tell of a failure, which may be our doing."""
        if self._late and failed.code == CANCELLED:
            return GRPCFailed(DEADLINE_EXCEEDED, f"the service was silent for {self._seconds:g} s", failed.initial)
        return failed

    def _look(self) -> None:
        left = self._last + self._seconds - self._host.now() if self._waiting else self._seconds
        if left > 0:
            self._timer = self._host.later(left, self._look)
        else:
            self._late = True
            self._call.cancel()


class _Messages:
    """The chunks of a streamed answer.

    Args:
        calls: the request's call.
        call: what is received.
        shape: how messages stand in the body.
        silence: ends it where nothing comes.
    """

    def __init__(self, calls: Calls, call: GRPCCall, shape: Shape, silence: _Silence) -> None:
        self._calls, self._call, self._shape, self._silence = calls, call, shape, silence
        self._broken = self._ended = False
        self._why = ""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._broken:
            raise BrokenOff(self._why)
        if self._ended:
            raise StopAsyncIteration
        self._silence.moved(True)
        try:
            message = await self._call.receive()
            if message is not None:
                self._silence.moved(False)
                return self._shape.message(self._calls.shown(message))
        except GRPCFailed as error:
            failed = self._silence.failure(error)
        except ValueError as wrong:
            failed = GRPCFailed(INTERNAL, str(wrong))
        else:
            self._ended = True
            return self._shape.end
        self._broken = True
        name = NAMES[failed.code] if 0 <= failed.code < len(NAMES) else str(failed.code)
        self._why = f"the service ended the stream with the status {name}: {failed.text}"
        return self._shape.error(self._calls.error_body(failed))

    async def aclose(self) -> None:
        """Nobody takes more."""
        self._silence.stop()
        self._call.cancel()


async def _send_all(call: GRPCCall, messages: list[bytes]) -> None:
    try:
        for each in messages:
            await call.send(each)
        call.finish()
    except GRPCFailed:
        return  # who receives tells why


async def _until_closed(peer: WebSocketPeer, call: GRPCCall) -> None:
    """A client that has said all it has to say may still leave."""
    while await peer.receive() is not None:
        continue
    call.cancel()
