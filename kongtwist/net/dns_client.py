"""Names as DNS knows them: A, AAAA, SRV and CNAME records, hosts file, search domains (Kong 3.9: kong/resty/dns/client.lua)."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf
from secrets import randbelow
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.python.failure import Failure

from ..core.dns.hosts_file import Hosts, in_hosts, parse_hosts
from ..core.dns.questions import plain_name, questions
from ..core.dns.record_cache import RecordCache, RecordSet
from ..core.dns.records import (
    AAAA,
    CNAME,
    HOPS,
    NAME_ERROR,
    SRV,
    A,
    Record,
    Reply,
    Server,
    code_text,
    kind_name,
    read_reply,
)
from ..core.dns.resolv_conf import ResolvConf, parse_resolv_conf
from ..core.dns.server_order import ServerOrder
from ..core.dns.settings import NameSettings
from ..core.dns.shares import spread, top_priority
from ..core.names import Address
from .dns_exchange import Exchange, ServerSilent, ServerUnusable
from .dns_messages import encode_query, read_answer
from .name_source import Found, NameNotResolved
from .watched_file import LOOK_EVERY, WatchedFile

__all__ = ["RESOLV_CONF", "DNSClient"]

RESOLV_CONF = "/etc/resolv.conf"

_EMPTY = "dns client error: 101 empty record received"
_CIRCLE = "dns client error: 104 recursion detected"
_TARGETS = 256
"""SRV records of one name that are looked at."""
_ASK_ELSEWHERE = frozenset((2, 4, 5))
"""Codes that speak of the server, not of the name: SERVFAIL, NOTIMP, REFUSED."""
_NO_EDNS = frozenset((1, 4))
"""Codes of servers that do not know what EDNS is (RFC 6891 7)."""


class DNSClient:
    """Asks name servers. One question is on its way once, however many wait for its answer.

    Args:
        reactor: sends, connects, keeps time.
        settings: servers, order, times.
        monotonic: seconds.
        resolv_conf: path of that file.
        random: gives a number below its argument; for ids.
    """

    def __init__(
        self,
        reactor: Any,
        settings: NameSettings,
        monotonic: Callable[[], float],
        resolv_conf: str = RESOLV_CONF,
        random: Callable[[int], int] = randbelow,
    ) -> None:
        self._settings, self._monotonic, self._random = settings, monotonic, random
        self._exchange = Exchange(reactor)
        self._cache = RecordCache(settings)
        self._order = ServerOrder()
        self._hosts: WatchedFile[Hosts] = WatchedFile(settings.hosts_file, parse_hosts, monotonic)
        self._conf: WatchedFile[ResolvConf] = WatchedFile(
            resolv_conf, lambda text: parse_resolv_conf(text, os.environ), monotonic
        )
        self._turns = DeferredSemaphore(settings.queries)
        self._plain: set[Server] = set()  # servers that do not know EDNS
        self._asking: dict[tuple[str, int], list[Deferred[RecordSet]]] = {}
        self._running: set[Deferred[Any]] = set()
        self._closed = False

    # -- names ---------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Deferred[Found]:
        """See `NameSource.find`."""
        try:
            plain, whole = plain_name(name)
        except ValueError as why:
            return _failed(NameNotResolved(name, f"no host has such a name: {why}", seconds=inf, keep=False))
        if self._closed:
            return _failed(NameNotResolved(name, "the gateway stops", absent=False, keep=False))
        return self._run(Deferred.fromCoroutine(self._find(name, plain, whole, self._settings.order, 0)))

    def close(self) -> None:
        """See `NameSource.close`."""
        self._closed = True
        for each in list(self._running):
            each.cancel()

    def _run(self, running: Deferred[Any]) -> Deferred[Any]:
        """Have it cancelled by `close`."""
        self._running.add(running)

        def over(result: Any) -> Any:
            self._running.discard(running)
            return result

        return running.addBoth(over)

    async def _find(self, asked: str, name: str, whole: bool, order: tuple[int, ...], hops: int) -> Found:
        """Ask one question behind the other, until one has addresses."""
        hosts = self._hosts.read()
        if (given := in_hosts(hosts, name)) is not None:
            return self._given(asked, [given[_preferred(order, given)]])
        conf = self._conf.read()
        fault: RecordSet | None = None
        again = inf

        def defined(name: str, kind: int) -> bool:
            return kind in (in_hosts(hosts, name) or ())

        last = self._cache.last(name)
        for each, kind in questions(name, whole, order, last, conf.search, conf.ndots, defined):
            if defined(each, kind):
                return self._given(asked, [hosts[each][kind]])
            found = await self._records(each, kind)
            if found.records:
                self._cache.found_by(name, kind)
                return await self._addresses(asked, kind, found, hops)
            fault, again = found, min(again, found.expires)
            if found.silent:  # the next question would take as long
                break
        self._cache.found_by(name, None)
        raise self._fault(asked, fault, again)

    def _given(self, asked: str, addresses: list[str]) -> Found:
        """Addresses of the hosts file: looked at again as often as the file is."""
        now = self._monotonic()
        found = tuple(Address(each, None, None, asked) for each in addresses)
        return Found(found, now + LOOK_EVERY, now + LOOK_EVERY + self._settings.stale_ttl)

    def _fault(self, asked: str, fault: RecordSet | None, again: float) -> NameNotResolved:
        """What the last question came to, as Kong says it; remembered until one of them is asked again."""
        if fault is None:  # an order of LAST alone
            return NameNotResolved(asked, _EMPTY, seconds=self._settings.not_found_ttl, keep=False)
        seconds = max(again - self._monotonic(), 0.0)
        return NameNotResolved(
            asked, fault.fault, absent=fault.absent, server=fault.server, seconds=seconds, keep=False
        )

    async def _addresses(self, asked: str, kind: int, found: RecordSet, hops: int) -> Found:
        """What records come to: addresses, or those of the names that they point to."""
        if kind in (A, AAAA):
            addresses = tuple(Address(each.value, None, None, asked) for each in found.records)
            return Found(addresses, found.expires, found.stale)
        if hops >= HOPS:
            raise NameNotResolved(asked, _CIRCLE, seconds=self._settings.error_ttl, keep=False)
        if kind == CNAME:
            target = await self._find(asked, found.records[0].value, True, self._settings.order, hops + 1)
            return Found(target.addresses, min(found.expires, target.expires), min(found.stale, target.stale))
        return await self._targets(asked, found, hops)

    async def _targets(self, asked: str, found: RecordSet, hops: int) -> Found:
        """The addresses of an SRV record set's targets; a target without any is left out while others have some.

        Targets have addresses of their own (RFC 2782): they are not asked for SRV records, as Kong does.
        """
        records = top_priority(found.records)[:_TARGETS]
        order = tuple(each for each in self._settings.order if each != SRV)
        if not {A, AAAA} & set(order):
            order = (*order, A)
        names = list(dict.fromkeys(each.value for each in records))
        results = await DeferredList([self._target(each, order, hops + 1) for each in names], consumeErrors=True)
        targets: dict[str, Found] = {}
        fault: NameNotResolved | None = None
        result: Any
        for name, (good, result) in zip(names, results, strict=True):
            if good:
                targets[name] = result
            else:
                result.trap(NameNotResolved)
                fault = result.value
        if not targets:
            if fault is None:  # the one target is ".": there is no such service (RFC 2782)
                raise NameNotResolved(asked, _EMPTY, seconds=self._settings.not_found_ttl, keep=False)
            raise NameNotResolved(
                asked, fault.why, absent=fault.absent, server=fault.server, seconds=fault.seconds, keep=False
            )
        pairs = [
            (each, [address.ip for address in targets[each.value].addresses])
            for each in records
            if each.value in targets
        ]
        expires = min(found.expires, *(each.expires for each in targets.values()))
        if fault is not None:  # what is missing may come back sooner
            expires = min(expires, self._monotonic() + (fault.seconds or self._settings.error_ttl))
        return Found(spread(pairs), expires, min(found.stale, *(each.stale for each in targets.values())))

    def _target(self, name: str, order: tuple[int, ...], hops: int) -> Deferred[Found]:
        try:
            plain, _ = plain_name(name)
        except ValueError as why:
            return _failed(
                NameNotResolved(name, f"no host has such a name: {why}", seconds=self._settings.not_found_ttl)
            )
        return Deferred.fromCoroutine(self._find(name, plain, True, order, hops))

    # -- questions -----------------------------------------------------------------------------------------------------

    async def _records(self, name: str, kind: int) -> RecordSet:
        """The records of one kind, through aliases that a server does not follow itself."""
        found = await self._ask(name, kind)
        expires, stale, hops = found.expires, found.stale, 0
        while found.alias and not found.records:
            hops += 1
            if hops > HOPS:
                return found._replace(alias="", fault=_CIRCLE, absent=False)
            found = await self._ask(found.alias, kind)
            expires, stale = min(expires, found.expires), min(stale, found.stale)
        return found._replace(expires=expires, stale=stale) if found.records else found

    async def _ask(self, name: str, kind: int) -> RecordSet:
        key = (name, kind)
        known = self._cache.fresh(key, self._monotonic())
        if known is not None:
            return known
        waiter: Deferred[RecordSet] = Deferred(lambda waiter: _forget(self._asking.get(key, []), waiter))
        waiting = self._asking.get(key)
        if waiting is not None:
            waiting.append(waiter)
            return await waiter
        waiting = self._asking[key] = [waiter]

        def answered(result: RecordSet | Failure) -> None:
            del self._asking[key]
            for each in list(waiting):
                each.callback(result) if isinstance(result, RecordSet) else each.errback(result)

        asking = self._turns.run(lambda: Deferred.fromCoroutine(self._wire(name, kind)))
        self._run(asking).addBoth(answered)  # type: ignore[unused-awaitable]
        return await waiter

    async def _wire(self, name: str, kind: int) -> RecordSet:
        """Ask servers, one behind the other, until one knows something about the name."""
        key, conf = (name, kind), self._conf.read()
        servers = self._settings.servers or conf.servers
        fault = RecordSet((), 0.0, 0.0, fault="no name server is configured", server="dns_resolver, resolv.conf")
        useless: set[Server] = set()
        for server in self._order.tries(servers, conf.attempts, conf.rotate, self._monotonic()):
            if server in useless:
                continue
            about = f"{kind_name(kind)} {name}, {server}"
            try:
                reply = await self._reply(name, kind, server, conf)
            except ServerSilent:
                self._order.silent(server, self._monotonic())
                if not fault.fault.startswith("dns server error"):
                    fault = fault._replace(fault="the name server does not answer", silent=True, server=about)
                continue
            except ServerUnusable as why:
                useless.add(server)
                self._order.silent(server, self._monotonic())
                fault = fault._replace(fault=f"the name server cannot be used: {why}", silent=True, server=about)
                continue
            self._order.answered(server)
            if reply.code not in _ASK_ELSEWHERE:
                return self._keep(key, reply, about)
            useless.add(server)
            fault = fault._replace(fault=f"dns server error: {code_text(reply.code)}", silent=False, server=about)
        return self._cache.negative(key, fault, self._monotonic())

    def _keep(self, key: tuple[str, int], reply: Reply, about: str) -> RecordSet:
        """Remember what a reply says."""
        now, (name, kind) = self._monotonic(), key
        if reply.code:
            missing = reply.code == NAME_ERROR
            text = f"dns server error: {code_text(reply.code)}"
            fault = RecordSet((), 0.0, 0.0, fault=text, absent=missing, missing=missing, server=about)
            return self._cache.negative(key, fault, now)
        meaning = read_reply(name, kind, reply)
        if not meaning.records and not meaning.alias:
            return self._cache.negative(key, RecordSet((), 0.0, 0.0, fault=_EMPTY, absent=True, server=about), now)
        if kind == SRV and meaning.records:
            self._keep_targets(meaning.records, reply, now)
        return self._cache.positive(key, meaning.records, meaning.alias, meaning.ttl, now)

    def _keep_targets(self, records: tuple[Record, ...], reply: Reply, now: float) -> None:
        """Remember the addresses of targets that came with SRV records: they need not be asked for."""
        for target in {each.value for each in records}:
            for kind in (A, AAAA):
                found = tuple(each for each in reply.additional if each.name == target and each.kind == kind)
                if found and self._cache.fresh((target, kind), now) is None:
                    self._cache.positive((target, kind), found, "", min(each.ttl for each in found), now)

    async def _reply(self, name: str, kind: int, server: Server, conf: ResolvConf) -> Reply:
        """Ask one server: over UDP; over TCP where its answer is too long, or others answer in its place."""
        edns = server not in self._plain
        while True:
            number = self._random(65536)
            query = encode_query(number, name, kind, edns)

            def read(data: bytes, number: int = number) -> Reply | None:
                return read_answer(data, number, name, kind)

            reply = None
            if not conf.tcp:
                reply = await self._exchange.over_udp(query, server, conf.timeout, read)
            if reply is None or (reply.truncated and not conf.tcp):
                reply = await self._exchange.over_tcp(query, server, conf.timeout, read)
            if not edns or reply.code not in _NO_EDNS:
                return reply
            edns = False
            self._plain.add(server)


def _preferred(order: tuple[int, ...], given: Any) -> int:
    """The family to take of the hosts file: the first in the order that is there."""
    return next(each for each in (*order, A, AAAA) if each in given)


def _failed(why: NameNotResolved) -> Deferred[Found]:
    failed: Deferred[Found] = Deferred()
    failed.errback(why)
    return failed


def _forget(waiting: list[Deferred[RecordSet]], waiter: Deferred[RecordSet]) -> None:
    if waiter in waiting:
        waiting.remove(waiter)
