"""Records that are sent once, however often they are asked for: the field Idempotency-Key (draft-ietf-httpapi-idempotency-key-header).

A key that is new is written down before its record is sent, and what became of the record behind that. So a retry finds one of
three things: a record under way, which it waits for; where the record is, which it is told; or another request, which refuses it.
Where nobody can tell any more whether a record is in the topic, its key stays taken: it is never sent again.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Awaitable
from hashlib import sha256
from typing import Any, Protocol

from ...core.chain.host import HostError, Promise, RedisClient, RedisError, Scope
from ...core.chain.host_kafka import KafkaFailed, KafkaLate, KafkaPlaced, KafkaProducer, KafkaRecord
from .._once import Seldom
from .._schema_producing import SchemaProducer, taken

__all__ = ["KeyRefused", "Keys", "MemoryStore", "OnceOnly", "RedisStore", "key_of"]

_STRING = re.compile(r'\s*"((?:[ !#-\[\]-~]|\\["\\])*)"\s*(?:;.*)?\Z')
"""A String of structured fields (RFC 8941 3.3.3), and parameters, which mean nothing here."""
_BARE = re.compile(r"\s*([!#-+\--:<-~]+)\s*\Z")
"""What many clients send instead: the key without quotes."""
_LONGEST = 255
_PREFIX = "kongtwist:kafka-upstream:"
_AGAIN = 0.1
"""Seconds between two looks at a key that another process has."""
_REST = 1.0
"""Seconds between two tries to write into a store that is away."""

_CLAIM = b"""local held = redis.call('GET', KEYS[1])
if held then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false"""
_WRITE = b"""local held = redis.call('GET', KEYS[1])
if not held or held == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1"""
_RELEASE = b"""if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1"""


class KeyRefused(HostError):
    """A request that its key forbids.

    Args:
        status: of the answer.
        message: its ``message``.
        text: why, for the client.
    """

    def __init__(self, status: int, message: str, text: str) -> None:
        super().__init__(text)
        self.status, self.message = status, message


def key_of(values: list[bytes], name: str) -> str | None:
    """The key of a request; None where it has none.

    Args:
        values: of the field.
        name: the field's, for who is told.

    Raises:
        KeyRefused: it is none.
    """
    if not values:
        return None
    text = values[0].decode("latin-1")
    if (found := _STRING.match(text)) is not None:
        key = re.sub(r"\\(.)", r"\1", found[1])
    else:
        key = found[1] if (found := _BARE.match(text)) is not None else ""
    if len(values) > 1 or not 0 < len(key) <= _LONGEST:
        raise KeyRefused(400, "Bad Request", f"{name} is not one string of 1 to {_LONGEST} characters")
    return key


class Store(Protocol):
    """Where keys are kept. A value is what was written last."""

    async def claim(self, name: str, mine: bytes) -> bytes | None:
        """Write ``mine`` where there is nothing; else what is there. Raises HostError."""
        ...

    def write(self, name: str, mine: bytes, value: bytes) -> None:
        """Put ``value`` in the place of ``mine``."""
        ...

    def release(self, name: str, mine: bytes) -> None:
        """Take ``mine`` away."""
        ...

    @property
    def behind(self) -> bool:
        """Something is still to be written."""
        ...


class Keys:
    """The keys of a process.

    Args:
        most: that are kept where no store is shared.

    Attributes:
        pending: records under way here.
        kept: what was written, and until when it is kept, the oldest first.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.pending: dict[str, _Pending] = {}
        self.kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()


class MemoryStore:
    """Keys of one process.

    Args:
        keys: of the process.
        host: tells the time.
        ttl: seconds for which they are kept.
    """

    behind = False

    def __init__(self, keys: Keys, host: Scope, ttl: float) -> None:
        self._keys, self._host, self._ttl = keys, host, ttl

    async def claim(self, name: str, mine: bytes) -> bytes | None:
        """See `Store`."""
        until, value = self._keys.kept.get(name, (0.0, b""))
        if until > self._host.now():
            return value
        return None  # a record under way is known of anyhow

    def write(self, name: str, mine: bytes, value: bytes) -> None:
        """See `Store`."""
        kept, now = self._keys.kept, self._host.now()
        kept.pop(name, None)
        kept[name] = now + self._ttl, value
        while len(kept) > self._keys.most or next(iter(kept.values()))[0] <= now:
            kept.popitem(last=False)

    def release(self, name: str, mine: bytes) -> None:
        """See `Store`. There is nothing to take away."""


class RedisStore:
    """Keys of all nodes, in a Redis server. What cannot be written is tried again until it can.

    Args:
        client: the server.
        host: waits.
        ttl: seconds for which they are kept.
        most: writes that wait for a server that is away; then the oldest are given up, and their keys stay taken.
    """

    def __init__(self, client: RedisClient, host: Scope, ttl: float, most: int) -> None:
        self._client, self._host, self._most = client, host, most
        self._ttl = str(int(ttl * 1000))
        self._unwritten: OrderedDict[str, tuple[bytes, tuple[bytes | str, ...]]] = OrderedDict()
        self._writing = False
        self._seldom = Seldom(host.report, host.now)

    @property
    def behind(self) -> bool:
        """See `Store`."""
        return self._writing

    async def claim(self, name: str, mine: bytes) -> bytes | None:
        """See `Store`."""
        try:
            held: bytes | None = await self._client.script(_CLAIM, [_PREFIX + name], [mine, self._ttl])
        except RedisError:
            self.release(name, mine)  # it may have been done all the same
            raise
        return held

    def write(self, name: str, mine: bytes, value: bytes) -> None:
        """See `Store`."""
        self._put(name, _WRITE, (mine, value, self._ttl))

    def release(self, name: str, mine: bytes) -> None:
        """See `Store`."""
        self._put(name, _RELEASE, (mine,))

    def _put(self, name: str, script: bytes, arguments: tuple[bytes | str, ...]) -> None:
        self._unwritten[name] = script, arguments
        if len(self._unwritten) > self._most:
            self._unwritten.popitem(last=False)
            self._seldom(
                "kafka-upstream: outcomes of requests with idempotency keys are given up: Redis is away; their keys stay taken"
            )
        if not self._writing:
            self._writing = True
            self._host.spawn("writing outcomes of requests with idempotency keys", self._write())

    async def _write(self) -> None:
        try:
            while self._unwritten:
                taken, self._unwritten = self._unwritten, OrderedDict()
                calls = {
                    name: self._client.script(script, [_PREFIX + name], arguments)
                    for name, (script, arguments) in taken.items()
                }
                failed = False
                for name, call in calls.items():
                    try:
                        await call
                    except RedisError:
                        failed = True
                        self._unwritten.setdefault(name, taken[name])
                if failed:
                    await _rest(self._host, _REST)
        finally:
            self._writing = False


async def _rest(host: Scope, seconds: float) -> None:
    try:
        await host.promise().wait(seconds)
    except TimeoutError:
        return


class _Pending:
    """A record under way.

    Attributes:
        fingerprint: of its request.
        mine: what the store has of it meanwhile.
        first: what whoever asked first is told.
        final: what became of it; what all others are told.
        late: the failure that the first one was told of.
    """

    def __init__(self, host: Scope, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.mine = json.dumps({"request": fingerprint, "token": host.new_id()}).encode()
        self.first: Promise = host.promise()
        self.final: Promise = host.promise()
        self.late: KafkaFailed | None = None


class OnceOnly:
    """Sends records of requests that have a key.

    Args:
        host: runs what goes on behind a client that has left.
        keys: of the process.
        store: keeps them.
        producer: sends.
        scope: whose keys they are: the cluster.
        timeout: seconds that a request waits.
        most: records that may wait in the background; None: who asks waits for the acknowledgement.
    """

    def __init__(
        self,
        host: Scope,
        keys: Keys,
        store: Store,
        producer: KafkaProducer | SchemaProducer,
        scope: str,
        timeout: float,
        most: int | None,
    ) -> None:
        self._host, self._keys, self._store, self._producer = host, keys, store, producer
        self._scope, self._timeout, self._most = scope, timeout, most
        self._count = self._under_way = 0

    def begin(self, key: str, who: str, fingerprint: str, record: KafkaRecord) -> Awaitable[KafkaPlaced | None]:
        """Send a record unless that was done, or is under way.

        Args:
            key: the client's.
            who: the client.
            fingerprint: what two requests that are the same have in common.
            record: what to send.

        Returns:
            where it is; None where it waits in the background. Raises KeyRefused, and as `KafkaProducer.send`.
        """
        name = sha256("\0".join((self._scope, record.topic, who, key)).encode("utf-8", "replace")).hexdigest()[:40]
        pending = self._keys.pending.get(name)
        if pending is not None:
            return self._attached(pending, fingerprint)
        pending = self._keys.pending[name] = _Pending(self._host, fingerprint)
        self._count += 1
        self._under_way += 1
        waiting = pending.first.wait()
        self._host.spawn(
            f"sending record {self._count} of a request with an idempotency key", self._run(name, pending, record)
        )
        return waiting

    async def _attached(self, pending: _Pending, fingerprint: str) -> KafkaPlaced | None:
        if pending.fingerprint != fingerprint:
            raise _other()
        try:
            placed: KafkaPlaced | None = await pending.final.wait(self._timeout)
        except TimeoutError:
            late = pending.late or KafkaLate("no acknowledgement", "look at the brokers", sent=True)
            raise late from None
        return placed

    async def finished(self, seconds: float) -> None:
        """Wait until nothing is under way and all is written, so long at the most."""
        until = self._host.now() + seconds
        while (self._under_way or self._store.behind) and self._host.now() < until:
            await _rest(self._host, _AGAIN)

    @property
    def busy(self) -> bool:
        """Something is under way."""
        return bool(self._under_way) or self._store.behind

    # -- one record ------------------------------------------------------------------------------------------------------

    async def _run(self, name: str, pending: _Pending, record: KafkaRecord) -> None:
        host, until = self._host, self._host.now() + self._timeout
        try:
            while (held := await self._store.claim(name, pending.mine)) is not None:
                found = _read(held, pending.fingerprint)
                if found is not None:
                    self._over(name, pending, found)
                    return
                if host.now() >= until:
                    raise KeyRefused(409, "Conflict", "a request with this key is under way, and may be in the topic")
                await _rest(host, _AGAIN)
        except HostError as error:
            self._over(name, pending, error)
            return
        except BaseException:  # cancelled: nobody else takes it up
            self._store.release(name, pending.mine)
            self._over(name, pending, KafkaFailed("the gateway closes the plugin"))
            raise
        await self._send(name, pending, record, max(until - host.now(), 0.0))

    async def _send(self, name: str, pending: _Pending, record: KafkaRecord, seconds: float) -> None:
        def settled(outcome: KafkaPlaced | KafkaFailed) -> None:
            self._settled(name, pending, outcome)

        try:
            if self._most is None:
                await self._producer.send(record, seconds, settled)
            else:
                await taken(self._producer, record, self._most, settled)
                pending.first.give(None)
                pending.final.give(None)
        except KafkaFailed as failed:
            if failed.sent:
                pending.late = failed
                pending.first.fail(failed)
            else:  # of what was never taken nobody tells
                self._settled(name, pending, failed)

    def _settled(self, name: str, pending: _Pending, outcome: KafkaPlaced | KafkaFailed) -> None:
        """What became of a record is known."""
        if self._keys.pending.get(name) is not pending:
            return
        known: dict[str, Any] = {"request": pending.fingerprint}
        if isinstance(outcome, KafkaPlaced):
            self._store.write(name, pending.mine, json.dumps({**known, "placed": outcome}).encode())
        elif outcome.sent:
            self._store.write(name, pending.mine, json.dumps({**known, "unknown": True}).encode())
        else:
            self._store.release(name, pending.mine)
        self._over(name, pending, outcome)

    def _over(self, name: str, pending: _Pending, outcome: KafkaPlaced | HostError) -> None:
        del self._keys.pending[name]
        self._under_way -= 1
        for each in (pending.first, pending.final):
            if isinstance(outcome, HostError):
                each.fail(outcome)
            else:
                each.give(outcome)


def _other() -> KeyRefused:
    return KeyRefused(422, "Unprocessable Content", "this key was used for another request")


def _read(held: bytes, fingerprint: str) -> KafkaPlaced | None:
    """Where a store says that a record is; None: it is under way elsewhere. Raises KeyRefused."""
    value = json.loads(held)
    if value["request"] != fingerprint:
        raise _other()
    if "placed" in value:
        return KafkaPlaced(*value["placed"])
    if "unknown" in value:
        raise KeyRefused(409, "Conflict", "nobody can tell whether the record of this key is in the topic")
    return None
