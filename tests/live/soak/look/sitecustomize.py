"""Lets a test see what a gateway's process holds: on SIGUSR2 the process writes it down as JSON.

Python imports a module of this name at every start, the worker processes included, so a test that has this folder in
PYTHONPATH needs nothing in the gateway itself. What is written down comes from the garbage collector's lists and from
/proc: numbers of objects by class, what is registered with the reactor, timers, open requests of targets, descriptors,
memory. It is written to ``$SOAK_LOOK/PID.json``, by a rename, so that a reader never finds half of it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable
from enum import Enum
from math import inf
from typing import Any

OURS = frozenset((
    "HTTP1Channel", "HTTP1Exchange", "SiteExchange", "UpstreamConnection", "UpstreamExchange", "RelayedStream",
    "EventStream", "FilteredAnswer", "AnswerStream", "SocketEnd", "TransportEnd", "AdminChannel", "AdminRequest", "_Connecting",
    "PluginWait", "_Ending",
))  # fmt: skip
"""Classes of the gateway of which an open connection, request or stream has one."""
BELOW = frozenset((
    "TLSFront", "BufferingTLSTransport", "TLSMemoryBIOProtocol", "Server", "Client", "HTTPChannel", "_GenericHTTPChannelProtocol",
    "Request", "Connector", "Connection",
))  # fmt: skip
"""Those of Twisted and pyOpenSSL below and beside them."""
SHOWN = 60
"""Objects of a class that are described."""
REFERENCES = ("transport", "protocol", "wrappedProtocol", "producer", "_producer", "user", "exchange", "stream")
"""Attributes that lead to another object."""
TOLD = (
    "_phase", "_linger", "_fetched", "_state", "_mode", "_cell", "_stopped", "_blocked", "_paused", "_reading",
    "_pending", "_served", "_started", "_over", "_closing", "_begun", "_ready", "_requests", "_tries", "dead",
    "ended", "closed", "open", "begun", "body_complete", "method", "target", "why", "reused", "request_sent",
    "deadline", "wake", "peer_port", "connected", "disconnecting", "disconnected", "_lostTLSConnection", "_aborted",
    "_handshakeDone", "_waitingForTransport", "_handlingRequest", "persistent", "producerPaused", "dataBuffer",
    "_tempDataLen", "_appSendBuffer", "requests", "_dataBuffer", *REFERENCES,
)  # fmt: skip
"""Attributes that tell what state an object is in."""


def _of(objects: Iterable[Any], names: frozenset[str]) -> list[Any]:
    return [
        each
        for each in objects
        if type(each).__name__ in names
        and type(each).__module__.partition(".")[0] in ("kongtwist", "twisted", "OpenSSL")
    ]


def _count(objects: Iterable[Any]) -> dict[str, int]:
    return dict(Counter(type(each).__name__ for each in objects))


def _brief(value: Any) -> str:
    if isinstance(value, bytes | str | memoryview):
        return (
            f"{type(value).__name__}[{len(value)}] {bytes(value[:60]) if not isinstance(value, str) else value[:60]!r}"
        )
    if isinstance(value, list | tuple | dict | set):
        return f"{type(value).__name__}[{len(value)}]"
    if isinstance(value, int | float | bool | Enum | None):
        return repr(value)
    return f"<{type(value).__name__} {id(value):x}>"


def _describe(item: Any, reading: set[int], writing: set[int]) -> str:
    told = []
    for name in TOLD:
        try:
            value = getattr(item, name)
        except Exception:  # noqa: BLE001 - whatever state it is in, the others are told all the same
            continue
        if value is not None and (not callable(value) or name in REFERENCES):
            told.append(f"{name}={_brief(value)}")
    told += [name for name, items in (("reading", reading), ("writing", writing)) if id(item) in items]
    return f"<{type(item).__name__} {id(item):x} {' '.join(told)}>"


def _descriptors() -> dict[str, int]:
    kinds: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the one of listdir itself
            continue
        kinds[target.split(":[")[0] if ":[" in target else target] += 1
    return dict(kinds)


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _relay(relay: Any) -> dict[str, Any]:
    pools = list(relay.pools._pools.values())
    return {
        "connections": len(relay.connections),
        "streams": len(relay.streams),
        "gone": len(relay.hangups),
        "deadlines": sum(item.deadline != inf for bucket in relay.deadlines._buckets.values() for item in bucket),
        "pooled": sum(len(pool.all) for pool in pools),
        "idle": sum(len(pool.idle) for pool in pools),
        "cells": list(relay.cells),
    }


def _name(call: Any) -> str:
    function = call.func
    return str(getattr(function, "__qualname__", type(function).__name__))


def look() -> dict[str, Any]:
    """What this process holds, as JSON has it.

    Counts are of what is left after a full collection. ``buried``: what had been put out of the collector's reach
    (`gc.freeze`) and was garbage all the same, which without this look would have stayed for ever.
    """
    young = {id(each) for each in _of(gc.get_objects(), OURS | BELOW)}
    gc.unfreeze()
    frozen = {id(each): type(each).__name__ for each in _of(gc.get_objects(), OURS | BELOW) if id(each) not in young}
    gc.collect()
    everything = gc.get_objects()
    ours, below = _of(everything, OURS), _of(everything, BELOW)
    relays = _of(everything, frozenset(("ProxyContext",)))
    peers = _of(everything, frozenset(("Peer",)))
    total = len(everything)
    del everything
    alive = {id(each) for each in (*ours, *below)}
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    shown: Counter[str] = Counter()
    described = {}
    readers, writers = (reactor.getReaders(), reactor.getWriters()) if reactor is not None else ((), ())
    reading, writing = {id(each) for each in readers}, {id(each) for each in writers}
    for item in (*ours, *below):
        shown[type(item).__name__] += 1
        if shown[type(item).__name__] <= SHOWN:
            described[f"{id(item):x}"] = _describe(item, reading, writing)
    return {
        "pid": os.getpid(),
        "relays": [_relay(each) for each in relays],
        "peers": {f"{each.name} of {each.host_header}": each.active for each in peers},
        "ours": _count(ours),
        "below": _count(below),
        "buried": dict(Counter(name for key, name in frozen.items() if key not in alive)),
        "readers": _count(readers),
        "writers": _count(writers),
        "timers": dict(Counter(_name(call) for call in reactor.getDelayedCalls())) if reactor is not None else {},
        "descriptors": _descriptors(),
        "objects": total,
        "blocks": sys.getallocatedblocks(),
        "resident": _resident(),
        "described": described,
    }


def _asked(number: int, frame: Any) -> None:
    path = os.path.join(os.environ["SOAK_LOOK"], f"{os.getpid()}.json")
    try:
        seen = look()
    except Exception as error:  # noqa: BLE001 - told to the test, which waits for it
        seen = {"error": repr(error)}
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(seen, file)
    os.rename(path + ".new", path)


if "SOAK_LOOK" in os.environ:
    signal.signal(signal.SIGUSR2, _asked)
