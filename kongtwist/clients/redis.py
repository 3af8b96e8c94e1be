"""Redis and Valkey (RESP2), one pipelined connection to a server, shared by all plugins with equal settings.

Commands of one reactor turn leave in one write, and answers are matched in order. A call ends within its server's
``timeout``, whatever happens: connecting, logging in, sending and the answer all count.

A server that is away must not make every request wait. After a failure calls fail at once until a pause is over
(`Limits.first_pause`, doubled up to `Limits.longest_pause`); then a single call tries the server while the others still
fail at once. A pause ends with an answer, not with a connection: a server that stands still accepts connections, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha1
from math import inf
from typing import Any, NamedTuple, cast

from hiredis import Reader, ReplyError, pack_command
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.host import ConnectFailed, RedisError, RedisSettings, RedisUnavailable, TLSSettings
from ..net.sending import sender
from .connections import Connector, Link, why
from .redis_remedies import remedy

__all__ = ["RedisClient", "RedisLimits", "Redises", "Reply"]

_log = Logger(namespace="kongtwist.redis")

Argument = bytes | str | int | float
_pack: Callable[[tuple[Argument, ...]], bytes] = cast(Any, pack_command)  # its stub says tuples of one
Reply = Any
"""RESP2: bytes, int, None, or a list of replies; in a list also a `ReplyError` of hiredis (what EXEC answers)."""

_LOG_EVERY = 60.0
"""Seconds between two lines about a server that is away."""


class RedisLimits(NamedTuple):
    """Bounds for each server."""

    calls: int = 4096  #: calls that wait for an answer
    pending: int = 16_777_216  #: bytes of commands that wait for an answer
    reply: int = 16_777_216  #: bytes of one answer
    first_pause: float = 0.1  #: seconds after the first failure in which calls fail at once
    longest_pause: float = 5.0  #: seconds at the most


class _Call:
    """A command whose answer is waited for."""

    __slots__ = ("again", "data", "deadline", "done", "ours")

    def __init__(
        self,
        data: bytes,
        done: Deferred[Reply],
        deadline: float,
        again: Callable[[], bytes] | None = None,
        ours: bool = False,
    ) -> None:
        self.data = data
        self.done = done
        self.deadline = deadline  # reactor seconds
        self.ours = ours  # part of logging in
        self.again = again  # makes what is sent instead when the server does not know the script


class _Connection(Link):
    """The connection of a client."""

    def __init__(self, client: RedisClient) -> None:
        super().__init__()
        self._client: RedisClient | None = client
        self._reader = Reader()
        self._limit = client.limits.reply
        self._unread = 0
        self.send: Callable[[bytes], None] = _not_open

    def opened(self) -> None:
        try:
            self.transport.setTcpNoDelay(True)
        except AttributeError:
            pass  # a transport that is no TCP
        self.send = sender(self.transport)

    def detach(self) -> None:
        """The client has no more to do with it."""
        self._client = None
        self.abort()

    def dataReceived(self, data: bytes) -> None:
        reader, client = self._reader, self._client
        reader.feed(data)
        self._unread += len(data)
        while client is not None:
            try:
                reply = reader.gets()
            except Exception:  # noqa: BLE001 - a list of more items than there is memory, a key that is a list, ...
                client.broken(self, remedy("what it answers is not RESP", client.settings, client.ready))
                return
            if reply is False:
                if self._unread > self._limit:
                    client.broken(self, f"an answer of more than {self._limit} bytes")
                return
            self._unread = 0
            client.answered(self, reply)
            client = self._client

    def lost(self, reason: Failure) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.broken(self, remedy(why(reason), client.settings, client.ready), failed=not client.ready)


def _as_answer(failure: Failure) -> RedisError:
    failure.trap(RedisError)
    assert isinstance(failure.value, RedisError)
    return failure.value


def _not_open(data: bytes) -> None:
    raise RuntimeError("not open yet")


class RedisClient:
    """One server.

    Args:
        settings: which, and how to get in.
        connector: makes the connection.
        limits: bounds.

    Attributes:
        ready: connected and logged in.
        calls: how many were made; failures: how many of them got no answer.
    """

    def __init__(self, settings: RedisSettings, connector: Connector, limits: RedisLimits) -> None:
        self.settings = settings
        self.limits = limits
        self.where = f"{settings.host}:{settings.port}"
        self.ready = False
        self.calls = self.failures = 0
        self._connector = connector
        self._reactor = connector.reactor
        self._seconds: Callable[[], float] = connector.reactor.seconds
        self._timeout = settings.timeout / 1000
        self._connection: _Connection | None = None
        self._trying = False  # to become ready
        self._attempt: Deferred[None] | None = None
        self._calls: deque[_Call] = deque()  # sent, in order
        self._fresh: list[_Call] = []  # to be sent at the end of this turn, or when the connection is there
        self._pending = 0
        self._flushing: IDelayedCall | None = None
        self._timer: IDelayedCall | None = None
        self._failed = 0  # failures in a row
        self._not_before = 0.0
        self._problem = ""
        self._last_line = -inf
        self._quiet = 0  # failed calls since the last line
        self._told = False
        self._closed = False

    # -- calls ---------------------------------------------------------------------------------------------------------

    def command(self, *words: Argument) -> Deferred[Reply]:
        """Ask for one command, such as ``command(b"INCR", key)``; text is sent as UTF-8.

        Cancelling the Deferred does not take the command back.

        Raises (by the Deferred):
            RedisError: the server's answer is an error.
            RedisUnavailable: there was no answer within ``timeout``, or there will be none.
        """
        return self._ask(_pack(words), None)

    def script(self, script: bytes, keys: Sequence[Argument] = (), args: Sequence[Argument] = ()) -> Deferred[Reply]:
        """Run a Lua script by its digest (EVALSHA), and by its text where the server does not know it.

        Raises as `command`.
        """
        count = len(keys)
        return self._ask(
            _pack((b"EVALSHA", _digest(script), count, *keys, *args)),
            lambda: _pack((b"EVAL", script, count, *keys, *args)),
        )

    def _ask(self, data: bytes, again: Callable[[], bytes] | None) -> Deferred[Reply]:
        self.calls += 1
        done: Deferred[Reply] = Deferred()
        fault = self._refusal(len(data))
        if fault is not None:
            self.failures += 1
            self._quiet += 1
            done.errback(RedisUnavailable(self.where, fault))
            return done
        self._pending += len(data)
        deadline = self._seconds() + self._timeout
        self._fresh.append(_Call(data, done, deadline, again))
        if self._flushing is None and self.ready:
            self._flushing = self._reactor.callLater(0, self._flush)
        if self._timer is None:
            self._timer = self._reactor.callLater(self._timeout, self._look)
        if self._connection is None and not self._trying:
            self._connect()
        return done

    def _refusal(self, size: int) -> str | None:
        """Why nothing more can be asked now."""
        if self._closed:
            return "closed"
        if self._pending + size > self.limits.pending or len(self._calls) + len(self._fresh) >= self.limits.calls:
            return f"{len(self._calls) + len(self._fresh)} calls wait for an answer already"
        if self._failed and not self.ready and (self._trying or self._seconds() < self._not_before):
            return self._problem
        return None

    def _flush(self) -> None:
        """Send what was asked for in this turn."""
        self._flushing = None
        connection = self._connection
        if connection is None or not self.ready:
            return
        fresh, self._fresh = self._fresh, []
        self._calls.extend(fresh)
        connection.send(fresh[0].data if len(fresh) == 1 else b"".join([call.data for call in fresh]))

    # -- answers -------------------------------------------------------------------------------------------------------

    def answered(self, connection: _Connection, reply: Reply) -> None:
        """The next answer has come."""
        if not self._calls:
            self.broken(connection, "it answers what was not asked")
            return
        call = self._calls.popleft()
        self._pending -= len(call.data)
        if type(reply) is not ReplyError:
            call.done.callback(reply)
            return
        text = str(reply)
        code = text.partition(" ")[0]
        if code == "NOSCRIPT" and call.again is not None:
            again = _Call(call.again(), call.done, call.deadline)
            self._pending += len(again.data)
            self._calls.append(again)
            connection.send(again.data)
        else:
            call.done.errback(RedisError(self.where, remedy(text, self.settings, self.ready), code))

    # -- the connection ------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._trying = True
        self._attempt = Deferred.fromCoroutine(self._become_ready()).addErrback(self._unexpected)

    async def _become_ready(self) -> None:
        """Connect and log in. What fails is told to all who wait."""
        settings = self.settings
        tls = TLSSettings(settings.ssl_verify, settings.server_name or "") if settings.ssl else None
        connection = _Connection(self)
        began = self._seconds()
        try:
            await self._connector.open(settings.host, settings.port, connection, tls=tls, timeout=self._timeout)
        except CancelledError:
            raise
        except ConnectFailed as error:
            self._trying = False
            self._fail(remedy(error.reason, self.settings), paused=True)
            return
        self._connection = connection
        try:
            await self._log_in(connection, began + self._timeout)
        except CancelledError:
            raise
        except RedisUnavailable:
            self._trying = False  # `broken` has told everybody
            return
        except RedisError as error:
            self._trying = False
            self.broken(connection, error.text)
            return
        self._trying = False
        self._works()

    async def _log_in(self, connection: _Connection, deadline: float) -> None:
        """AUTH, SELECT and a PING, for a server that lets everybody connect need not answer."""
        settings = self.settings
        commands: list[tuple[Argument, ...]] = []
        if settings.password:
            user = (settings.username,) if settings.username else ()
            commands.append((b"AUTH", *user, settings.password))
        if settings.database:
            commands.append((b"SELECT", settings.database))
        commands.append((b"PING",))
        calls = [_Call(_pack(words), Deferred(), deadline, ours=True) for words in commands]
        self._calls.extend(calls)
        self._pending += sum(len(call.data) for call in calls)
        answers = [call.done.addErrback(_as_answer) for call in calls]  # nobody may come to wait for the later ones
        connection.send(b"".join([call.data for call in calls]))
        for waiting, words in zip(answers, commands, strict=True):
            answer = await waiting
            if isinstance(answer, RedisError) and (words[0] != b"PING" or answer.code != "NOPERM"):
                raise answer  # a user who may not PING may still do what the plugin asks

    def _works(self) -> None:
        """The server answers."""
        self.ready = True
        self._failed = 0
        if self._told:
            self._told = False
            _log.info("redis {where} answers again", where=self.where)
        self._fresh = [call for call in self._fresh if not self._forgotten(call)]
        if self._fresh and self._flushing is None:
            self._flush()

    def _forgotten(self, call: _Call) -> bool:
        """Whether nobody waits for it any more; it is then not asked for."""
        if call.done.called:
            self._pending -= len(call.data)
        return bool(call.done.called)

    def _unexpected(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("redis {where}", failure, where=self.where)
            self._trying = False
            self._fail("connecting failed", paused=True)

    def broken(self, connection: _Connection, problem: str, failed: bool = True) -> None:
        """The connection has ended, or is of no use. With ``failed`` the server is left alone for a while."""
        if connection is self._connection:
            self._connection = None
            self.ready = False
            connection.detach()
            self._fail(problem, paused=failed)

    def _fail(self, problem: str, *, paused: bool) -> None:
        """Tell all who wait that there will be no answer."""
        now = self._seconds()
        self._problem = problem
        if paused:
            pause = min(self.limits.first_pause * 2 ** min(self._failed, 30), self.limits.longest_pause)
            self._failed += 1
            self._not_before = now + pause
        waiting = [*self._calls, *self._fresh]
        self._calls.clear()
        self._fresh.clear()
        self._pending = 0
        self._stop_timers()
        lost = sum(not (call.ours or call.done.called) for call in waiting)
        self.failures += lost
        self._quiet += lost
        if (paused or lost) and not self._closed and now - self._last_line >= _LOG_EVERY:
            self._last_line = now
            self._told = paused
            _log.error(
                "redis {where}: {problem} ({count} calls failed)", where=self.where, problem=problem, count=self._quiet
            )
            self._quiet = 0
        for call in waiting:
            if not call.done.called:
                call.done.errback(RedisUnavailable(self.where, problem))

    # -- time ----------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Has the time of a call passed? (Answers come in order; a script that is sent again keeps its deadline.)"""
        self._timer = None
        waiting = [call.deadline for call in (*self._calls, *self._fresh)]
        if not waiting:
            return
        rest = min(waiting) - self._seconds()
        if rest > 0:
            self._timer = self._reactor.callLater(rest, self._look)
        elif self._connection is not None:
            self.broken(self._connection, f"no answer within {self.settings.timeout} ms")
        # else the connection's own time is over in this turn, too

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._flushing):
            if timer is not None:
                timer.cancel()
        self._timer = self._flushing = None

    def close(self) -> None:
        """Cut the connection. Calls that wait fail, and so do all that follow."""
        if self._closed:
            return
        self._closed = True
        if self._attempt is not None:
            self._attempt.cancel()
        connection, self._connection = self._connection, None
        self.ready = False
        if connection is not None:
            connection.detach()
        self._fail("closed", paused=False)


@lru_cache(maxsize=256)
def _digest(script: bytes) -> str:
    return sha1(script, usedforsecurity=False).hexdigest()


class Redises:
    """The clients of a process: one for each server and way to get in, as long as somebody holds it.

    Args:
        connector: makes the connections.
        limits: bounds for each.
    """

    def __init__(self, connector: Connector, limits: RedisLimits = RedisLimits()) -> None:  # noqa: B008 - immutable
        self._connector = connector
        self._limits = limits
        self._clients: dict[RedisSettings, tuple[RedisClient, int]] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def take(self, settings: RedisSettings) -> RedisClient:
        """The client for ``settings``; to be given back once for each time it was taken."""
        client, holders = self._clients.get(settings, (None, 0))
        if client is None:
            client = RedisClient(settings, self._connector, self._limits)
        self._clients[settings] = client, holders + 1
        return client

    def give(self, client: RedisClient) -> None:
        """Somebody has no more use for it; it is closed when that was the last."""
        kept, holders = self._clients.get(client.settings, (None, 0))
        if kept is not client:
            return  # all of them were closed
        if holders > 1:
            self._clients[client.settings] = client, holders - 1
        else:
            del self._clients[client.settings]
            client.close()

    def close(self) -> None:
        """Close them all."""
        clients, self._clients = self._clients, {}
        for client, _ in clients.values():
            client.close()
