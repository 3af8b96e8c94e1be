"""The rules of the traditional router written down as they read, to compare the real one with. Slow on purpose."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any, NamedTuple

from kongtwist.core.exchange import Row

WEIGHTS = {"hosts": 0x40, "headers": 0x20, "paths": 0x10, "methods": 0x08, "snis": 0x04}


class Asked(NamedTuple):
    """A request."""

    method: str
    host: str
    path: str
    headers: dict[str, list[str]]
    scheme: str
    sni: str | None


class Entry(NamedTuple):
    """A route with one of its paths."""

    row: Row
    path: str | None
    place: int

    @property
    def category(self) -> int:
        return sum(weight for name, weight in WEIGHTS.items() if self.row[name])

    @property
    def order(self) -> tuple[Any, ...]:
        hosts = self.row["hosts"] or []
        wild = [host for host in hosts if "*" in host]
        weight = 4 if any(":" in host for host in wild) else 2 if hosts and not wild else 0
        regex = self.path is not None and self.path.startswith("~")
        return (
            -(weight + regex),
            -len(self.row["headers"] or {}),
            -self.row["regex_priority"] if regex else 0,
            0 if regex else -len(self.path or ""),
            self.row["created_at"],
            self.row["id"],
            self.place,
        )


def name_and_port(host: str) -> tuple[str, str]:
    name, _, port = host.partition(":")
    return name, port


def host_matches(entry_host: str, asked: Asked) -> bool:
    name, port = name_and_port(asked.host)
    if "*" not in entry_host:
        return entry_host in (asked.host, name)
    its_name, its_port = name_and_port(entry_host)
    if its_port and its_port != (port or ("443" if asked.scheme == "https" else "80")):
        return False
    return re.fullmatch(re.escape(its_name).replace(r"\*", ".+"), name) is not None


def path_matches(path: str, asked: Asked) -> bool:
    if path.startswith("~"):
        return re.match(path[1:], asked.path) is not None
    return asked.path.startswith(path)


def header_matches(name: str, values: list[str], asked: Asked) -> bool:
    sent = [value.lower() for value in asked.headers.get(name.lower(), [])]
    if len(values) == 1 and values[0].startswith("~*"):
        return any(re.search(values[0][2:], value) for value in sent)
    return any(value.lower() in sent for value in values)


def matches(entry: Entry, asked: Asked) -> bool:
    row = entry.row
    return (
        (not row["hosts"] or any(host_matches(host, asked) for host in row["hosts"]))
        and all(header_matches(name, values, asked) for name, values in (row["headers"] or {}).items())
        and (entry.path is None or path_matches(entry.path, asked))
        and (not row["methods"] or asked.method in row["methods"])
        and (not row["snis"] or asked.scheme == "http" or asked.sni in row["snis"])
    )


def hits(entries: list[Entry], asked: Asked) -> dict[str, str]:
    """For each attribute that matches anything: the value that Kong looks up its lists with."""
    found: dict[str, str] = {}
    hosts = [host for entry in entries for host in entry.row["hosts"] or []]
    name = name_and_port(asked.host)[0]
    wild = [host for entry in entries for host in sorted(entry.row["hosts"] or []) if "*" in host]
    for host in chain((asked.host, name), wild):
        if host in hosts and host_matches(host, asked):
            found["hosts"] = host
            break
    for header in chain.from_iterable(sorted(entry.row["headers"] or {}) for entry in entries):
        if asked.headers.get(header.lower()):
            found["headers"] = header
            break
    paths = [entry.path for entry in entries if entry.path is not None]
    regexes = [path for path in paths if path.startswith("~")]
    prefixes = sorted((path for path in paths if not path.startswith("~")), key=len, reverse=True)
    for path in regexes + prefixes:
        if path_matches(path, asked):
            found["paths"] = path
            break
    if any(asked.method in (entry.row["methods"] or ()) for entry in entries):
        found["methods"] = asked.method
    if asked.scheme != "http" and any(asked.sni in (entry.row["snis"] or ()) for entry in entries):
        found["snis"] = str(asked.sni)
    return found


def listed(entry: Entry, name: str, value: str) -> bool:
    if name == "paths":
        return entry.path == value
    return value in (entry.row[name] or ())


def find(rows: list[Row], asked: Asked) -> Entry | None:
    """The route that the rules give."""
    entries = [Entry(row, path, place) for row in rows for place, path in enumerate(row["paths"] or [None])]
    entries = sorted((entry for entry in entries if entry.category), key=lambda entry: entry.order)
    found = hits(entries, asked)
    potential = sum(WEIGHTS[name] for name in found)
    if not potential:
        return None
    categories = sorted({entry.category for entry in entries}, key=lambda bits: (-bits.bit_count(), -bits))
    if potential in categories:
        categories = categories[categories.index(potential) :]
    for bits in categories:
        members = [entry for entry in entries if entry.category == bits]
        lists = [
            [entry for entry in members if listed(entry, name, found[name])]
            for name, weight in WEIGHTS.items()
            if bits & weight and name in found
        ]
        reduced = min((each for each in lists if each), key=len, default=[])
        for entry in reduced + members:
            if matches(entry, asked):
                return entry
    return None
