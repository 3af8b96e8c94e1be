"""``python -m benchmarks.lag [WORD ...]``: how long requests to the Admin API hold everything else.

A gateway on SQLite notes the longest round of its reactor, in processor time of its thread, and the longest that a timer
came late because another thread had the interpreter. Every list, map, set and record of every entity and plugin is sent with
many members, in JSON, as a form and as multipart; then bodies that are meant to cost much, and requests on many rows. Shown
are the answer's status and both figures in ms, largest last; WORDs choose cases by their names.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any
from urllib.parse import quote
from uuid import UUID

from kongtwist.entities import Entity, registry
from kongtwist.entities.schema import Array, Boolean, Field, Map, Number, Record
from kongtwist.node.plugin_loader import load_plugins

from .servers import Server, Stage

__all__ = ["Case", "all_cases", "main"]

COUNTS = (10_000, 100_000)
LIMIT = 20.0
"""Milliseconds that nothing may take at a stretch."""

Case = tuple[str, str, str, str, bytes]
"""Name, method, path, content type, body."""

_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data; boundary=B"


# -- bodies ----------------------------------------------------------------------------------------------------------------


def _member(name: str, field: Field, at: int) -> Any:
    """A value for one of many members of a list."""
    allowed = field.attrs.get("one_of")
    if allowed:
        return allowed[at % len(allowed)]
    if field.attrs.get("uuid"):
        return str(UUID(int=at + 1, version=4))
    if isinstance(field, Boolean):
        return True
    if isinstance(field, Number):
        low, high = field.attrs.get("between", (1, 1 << 30))
        return low + at % (high - low + 1)
    if isinstance(field, Record):
        return {"ip": f"10.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}", "port": at % 65536}
    address = f"10.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}"
    known: dict[str, Callable[[], str]] = {
        "paths": lambda: f"/p/{at}", "hosts": lambda: f"h{at}.example.com", "snis": lambda: f"s{at}.example.com",
        "methods": lambda: "M" + "".join(chr(65 + int(digit)) for digit in str(at)), "allow": lambda: address,
        "deny": lambda: address,
    }  # fmt: skip
    return known[name]() if name in known else f"x{at}"


def _many(name: str, field: Field, count: int, distinct: bool) -> Any:
    numbers = range(count) if distinct else [7] * count
    if isinstance(field, Array):
        return [_member(name, field.elements, at) for at in numbers]
    assert isinstance(field, Map)
    inner = field.values
    if distinct:
        return {f"n{at}": _inside(name, inner, at, 1) for at in numbers}
    return {"n": _inside(name, inner, 0, count)}


def _inside(name: str, field: Field, at: int, count: int) -> Any:
    return (
        [_member("", field.elements, at + n) for n in range(count)]
        if isinstance(field, Array)
        else _member("", field, at)
    )


def _containers(fields: dict[str, Field], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Field]]:
    """The lists and maps among fields, with their places."""
    for name, field in fields.items():
        if isinstance(field, Array | Map):
            yield (*path, name), field
        elif isinstance(field, Record):
            yield (*path, name), field
            yield from _containers(field.fields, (*path, name))


def _with(row: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, *rest = path
    inner = row.get(first)
    return {**row, first: _with(inner if isinstance(inner, dict) else {}, tuple(rest), value) if rest else value}


def _pairs(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _pairs(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _pairs(inner, f"{name}[]")
    else:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


def _form(row: dict[str, Any]) -> bytes:
    return "&".join(f"{quote(name)}={quote(value)}" for name, value in _pairs(row, "")).encode()


def _multipart(pairs: Iterator[tuple[str, str]]) -> bytes:
    head = 'Content-Disposition: form-data; name="%s"'
    parts = "".join(f"--B\r\n{head % name}\r\n\r\n{value}\r\n" for name, value in pairs)
    return f"{parts}--B--\r\n".encode()


# -- cases -----------------------------------------------------------------------------------------------------------------


def _rows() -> Iterator[tuple[str, Entity, dict[str, Any], dict[str, Field]]]:
    """Name, entity, a row's body and its fields, of every entity and plugin."""
    plugins = load_plugins(["bundled"])
    for entity in registry(plugins).values():
        row = {name: value for name, value in entity.example.items() if name not in entity.foreign}
        if not entity.stored or entity.name in ("certificates", "ca_certificates", "snis", "targets"):
            continue
        if entity.name == "plugins":
            for plugin in plugins.values():
                one = {"name": plugin.name, "config": dict(plugin.example)}
                yield f"plugins/{plugin.name}", entity, one, entity.fields_of({"name": plugin.name})
        else:
            yield entity.name, entity, row, dict(entity.fields)


def field_cases() -> Iterator[Case]:
    """Every container of every entity with many members, and with many members that it does not have."""
    for (name, entity, row, fields), count in product(_rows(), COUNTS):
        path = f"/{entity.admin_name}"
        sent = {key: value for key, value in row.items() if key not in ("name", "username") or entity.name == "plugins"}
        for place, field in _containers(fields):
            if isinstance(field, Record):
                unknown = _with(sent, place, {f"u{at}": at for at in range(count)})
                yield f"{name} {'.'.join(place)} unknown {count}", "POST", path, _JSON, json.dumps(unknown).encode()
                continue
            for distinct in (True, False):
                body = _with(sent, place, _many(place[-1], field, count, distinct))
                kind = "distinct" if distinct else "equal"
                yield f"{name} {'.'.join(place)} {kind} {count}", "POST", path, _JSON, json.dumps(body).encode()
            for few in (900, count):
                form = _with(sent, place, _many(place[-1], field, few, True))
                yield f"{name} {'.'.join(place)} form {few}", "POST", path, _FORM, _form(form)
                yield (
                    f"{name} {'.'.join(place)} multipart {few}",
                    "POST",
                    path,
                    _MULTIPART,
                    _multipart(_pairs(form, "")),
                )
        body = sent | {f"u{at}": at for at in range(count)}
        yield f"{name} unknown keys {count}", "POST", path, _JSON, json.dumps(body).encode()
        yield f"{name} validate {count}", "POST", f"/schemas/{entity.name}/validate", _JSON, json.dumps(body).encode()


def odd_cases() -> Iterator[Case]:
    """Bodies that are meant to cost much."""
    service = {"host": "h"}
    for kind, text in (("ascii", "x"), ("wide", "\u00e9"), ("escapes", "\n"), ("astral", "\U0001f600"), ("dots", "../"),
                       ("slashes", "/"), ("percents", "%41"), ("stars", "*")):  # fmt: skip
        for size, field in product((900_000, 3_000_000), ("name", "path", "url", "tags", "host", "x")):
            given: Any = text * (size // len(text.encode()))
            given = [given] if field == "tags" else "/" + given if field == "path" else given
            body = json.dumps(service | {field: given}, ensure_ascii=False).encode()
            yield f"long {kind} {field} {size}", "POST", "/services", _JSON, body
    numbers = b'{"host":"h","tags":[' + b"1," * 4_000_000 + b"1]}"
    yield "numbers 4000000", "POST", "/services", _JSON, numbers
    yield "numbers 40000", "POST", "/services", _JSON, b'{"host":"h","tags":[' + b"1," * 40_000 + b"1]}"
    yield "objects", "POST", "/services", _JSON, b'{"host":"h","tags":[' + b'{"a":1},' * 40_000 + b"1]}"
    yield "deep", "POST", "/services", _JSON, b'{"host":"h","tags":' + b"[" * 400_000 + b"]" * 400_000 + b"}"
    yield "deeper", "POST", "/services", _JSON, b'{"host":"h","tags":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}"
    nested = b"a" + b"[b]" * 300_000
    yield "form of one deep name", "POST", "/services", _FORM, nested + b"=1"
    yield (
        "form of deep names",
        "POST",
        "/services",
        _FORM,
        b"&".join(b"a%d" % n + b".b" * 900 + b"=1" for n in range(900)),
    )
    yield "form of one long name", "POST", "/services", _FORM, b"a" * 4_000_000 + b"=1"
    yield "form of one long value", "POST", "/services", _FORM, b"name=" + b"%41" * 1_300_000
    yield "form of signs", "POST", "/services", _FORM, b"&" * 4_000_000
    yield "form of equal names", "POST", "/services", _FORM, b"&".join([b"tags[]=x"] * 999)
    yield "form of positions", "POST", "/services", _FORM, b"&".join(b"tags[%d]=x" % n for n in range(999))
    inner = _multipart(("name", "x" * 50) for _ in range(20_000)).decode()
    wrapped = f"--B\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n{inner}\r\n--B--\r\n".encode()
    yield "multipart nested", "POST", "/services", _MULTIPART, wrapped
    deep = b"x"
    for level in range(400):
        deep = b"--B%d\r\nContent-Type: multipart/mixed; boundary=B%d\r\n\r\n%b\r\n--B%d--\r\n" % (
            level,
            level - 1,
            deep,
            level,
        )
    yield "multipart deep", "POST", "/services", f"multipart/form-data; boundary=B{399}", deep
    heads = b"--B\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(200_000)) + b"\r\n1\r\n--B--\r\n"
    yield "multipart heads", "POST", "/services", _MULTIPART, heads
    yield "multipart dashes", "POST", "/services", _MULTIPART, b"--B" * 1_300_000
    yield "multipart lines", "POST", "/services", _MULTIPART, b"--B\r\n" + b"\r\n" * 2_000_000
    yield (
        "multipart no end",
        "POST",
        "/services",
        _MULTIPART,
        b'--B\r\nContent-Disposition: form-data; name="' + b"x" * 4_000_000,
    )
    for count in (1000, 20_000):
        patterns = [f"~/u/(?<id{at}>[a-z]+)/{at}$" for at in range(count)]
        yield f"regex paths {count}", "POST", "/routes", _JSON, json.dumps({"paths": patterns}).encode()
    snis = {"key": "x", "cert": "x", "snis": [f"s{at}.example" for at in range(10_000)]}
    yield "certificate snis 10000", "POST", "/certificates", _JSON, json.dumps(snis).encode()
    for path in ("", "status", "metrics", "endpoints", "openapi.json", "timers", "schemas/routes", "schemas/plugins/rate-limiting",
                 "plugins/enabled", "debug/node/log-level", "cache/plugins:key-auth:::::", "config"):  # fmt: skip
        yield f"get /{path}", "GET", f"/{path}", "", b""
    yield "tags filter", "GET", "/services?tags=" + ",".join(f"t{at}" for at in range(1500)), "", b""
    yield "offset", "GET", "/services?offset=" + "W" * 8000, "", b""
    yield "many arguments", "GET", "/services?" + "&".join("a" for _ in range(4000)), "", b""
    lines = "\n".join(
        f"- {{name: s{at}, host: h, tags: [{', '.join(f't{n}' for n in range(20))}]}}" for at in range(20_000)
    )
    config = f'_format_version: "3.0"\nservices:\n{lines}\n'.encode()
    yield "config with a database", "POST", "/config", "application/yaml", config


def all_cases() -> Iterator[Case]:
    """All of them."""
    yield from field_cases()
    yield from odd_cases()


# -- measuring ---------------------------------------------------------------------------------------------------------------


class _Asker:
    """Sends requests, also in pieces, and reads answers to their ends."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def ask(self, method: str, path: str, kind: str, body: bytes, chunk: int = 0) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        with socket.create_connection(("127.0.0.1", self.server.admin), 120) as client:
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            head += f"Content-Type: {kind}\r\n" if kind else ""
            if chunk:
                pieces = (body[at : at + chunk] for at in range(0, len(body), chunk))
                body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
            head += "Transfer-Encoding: chunked\r\n\r\n" if chunk else f"Content-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode())
            try:
                client.sendall(body)
            except ConnectionError:
                pass  # it was answered early
            read = bytearray()
            try:
                while data := client.recv(1 << 20):
                    read += data
            except ConnectionError:
                pass
        head_end = read.find(b"\r\n\r\n")
        return int(read[9:12] or b"0"), bytes(read[head_end + 4 :])

    def measured(
        self, method: str, path: str, kind: str, body: bytes, chunk: int = 0
    ) -> tuple[int, float, float, bytes]:
        """Status, longest round and longest lateness (both ms), body."""
        self.server.longest_round()
        status, answer = self.ask(method, path, kind, body, chunk)
        for _ in range(3):  # what the change makes of it, and what its first request does
            self.ask("GET", "/status", "", b"")
            with socket.create_connection(("127.0.0.1", self.server.port), 60) as client:
                client.sendall(b"GET /p/1 HTTP/1.1\r\nHost: h1.example.com\r\nConnection: close\r\n\r\n")
                while client.recv(65536):
                    pass
        return status, self.server.longest_round() * 1e3, self.server.latest * 1e3, answer


def many_rows(asker: _Asker) -> Iterator[tuple[str, tuple[int, float, float, bytes]]]:
    """Requests on many rows, and on fat ones."""

    def sent(method: str, path: str, row: Any = None, chunk: int = 0) -> tuple[int, float, float, bytes]:
        return asker.measured(
            method, path, _JSON if row is not None else "", b"" if row is None else json.dumps(row).encode(), chunk
        )

    fat = {"host": "h", "tags": [f"tag-{at}" for at in range(2000)]}
    for _ in range(150):
        asker.ask("POST", "/services", _JSON, json.dumps(fat).encode())
    for path in ("/services?size=1000", "/services?size=1000&tags=tag-1", "/tags?size=1000", "/tags/tag-5?size=1000"):
        yield f"rows {path}", sent("GET", path)
    asker.ask("PUT", "/upstreams/up", _JSON, b"{}")
    asker.ask("PUT", "/consumers/owner", _JSON, b"{}")
    for at in range(5000):
        asker.ask("POST", "/consumers/owner/key-auth", _JSON, b"{}")
        if at < 2000:
            asker.ask(
                "POST", "/upstreams/up/targets", _JSON, json.dumps({"target": f"10.0.{at >> 8}.{at & 255}:80"}).encode()
            )
    for path in ("/key-auths?size=1000", "/consumers/owner/key-auth?size=1000", "/upstreams/up/health?size=1000",
                 "/upstreams/up/health?balancer_health=1", "/upstreams/up/targets?size=1000"):  # fmt: skip
        yield f"rows {path}", sent("GET", path)
    yield "rows delete upstream", sent("DELETE", "/upstreams/up")
    yield "rows delete consumer", sent("DELETE", "/consumers/owner")
    yield "rows tiny chunks", sent("POST", "/services", fat, 1)


def main() -> None:
    """Measure and print."""
    words = [word.lower() for word in sys.argv[1:]]
    found: list[tuple[float, str]] = []

    def show(name: str, measured: tuple[int, float, float, bytes]) -> None:
        status, busy, late, answer = measured
        line = f"{name:60s} {status} {busy:8.1f} {late:8.1f}  {answer[:60]!r}"
        found.append((max(busy, late), line))
        print(line, flush=True)

    with Stage() as stage:
        asker = _Asker(stage.on_sqlite("lag", 1))
        for name, method, path, kind, body in all_cases():
            if not words or any(word in name.lower() for word in words):
                show(name, asker.measured(method, path, kind, body))
        if not words or "rows" in words:
            for name, measured in many_rows(asker):
                show(name, measured)
    print("\n-- above the limit")
    print("\n".join(line for worst, line in sorted(found) if worst > LIMIT))


if __name__ == "__main__":
    main()
