"""The variables of log formats: nginx's and Kong's names, and what each is of a request.

A variable is a function of a writer that makes a function of a request, so what depends on the format alone is decided once.
Values that clients choose are masked and escaped; those that are credentials by their name (``$http_authorization``,
``$cookie_session``) stand as ``***``.
"""

from __future__ import annotations

import os
import re
import socket
from base64 import b64decode
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote_to_bytes

from ..core.error_lines import PROTOCOLS, row_name
from ..core.http.headers import host_name
from .masking import MASK, escape

if TYPE_CHECKING:
    from ..core.log_values import Try
    from .masking import SecretMask

__all__ = [
    "MILLISECONDS", "VARIABLES", "Getter", "Seen", "basic_user", "consumer_name", "getter_of", "known", "response_times", "seconds_text",
    "upstream_addr", "upstream_statuses", "wants_notes",
]  # fmt: skip

Getter = Callable[[Any], bytes]
"""Gives a variable's value, as it is written, of an `Exchange` or a `Seen`."""


class Moment(Protocol):
    """When a line is written (`log_formats.Times`)."""

    @property
    def at(self) -> float: ...

    @property
    def local(self) -> bytes: ...

    @property
    def iso(self) -> bytes: ...


class Writing(Protocol):
    """What writes a format's lines (`log_formats.LineWriter`)."""

    @property
    def absent(self) -> bytes: ...

    @property
    def mask(self) -> SecretMask: ...

    @property
    def times(self) -> Moment: ...

    @property
    def escape(self) -> Callable[[bytes], bytes]: ...

    def text(self, value: bytes) -> bytes:
        """A value that may hold credentials, as it may be written."""

    def user(self, authorization: bytes) -> bytes:
        """The user of Basic credentials."""


Maker = Callable[[Writing], Getter]

_SCHEME = re.compile(rb"(?i)(bearer|basic|digest|negotiate|token|hmac|aws4-hmac-sha256)[ \t]+\S")
_SECRET_COOKIE = re.compile(r"(?i)sess|sid|auth|token|jwt|key|secret|csrf|xsrf|remember|ticket|passw|credential")


class Seen:
    """A request of which less is known than of an `Exchange`: one that was refused before it was one, or one of the Admin API.

    Args:
        facts: whatever is known of it, by the names that an `Exchange` has; ``line`` is its start line, escaped and without secrets.
    """

    route = snapshot = match = consumer = credential = tries = latencies = upstream_peer = tls = sni = None
    client_certificate = response_fields = answer_trailers = None
    answer_source = "error"
    client_ip = peer_ip = "unix:"
    peer_port = local_port = 0
    method = target = request_id = sent_head = line = b""
    host = b""
    scheme = b"http"
    http_version = "1.1"
    protocol: bytes | None = None
    status = bytes_out = bytes_in = upstream_status = 0
    wall_started = 0.0

    def __init__(self, first: Callable[[bytes], bytes | None], **facts: Any) -> None:
        self.first = first
        self.__dict__.update(facts)


def basic_user(authorization: bytes) -> bytes | None:
    """The user name of Basic credentials, or None (nginx's ``$remote_user``)."""
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        return b64decode(credentials.strip(), validate=True).partition(b":")[0] or None
    except ValueError:
        return None


# -- what is asked of a request ------------------------------------------------------------------------------------------------


def _first(seen: Any, name: bytes) -> bytes | None:
    if seen.__class__ is Seen:
        found: bytes | None = seen.first(name)
        return found
    block = seen.block
    if name == b"cookie":
        return b"; ".join(block.all(name)) or None
    joined: bytes | None = block.joined(name)
    return joined


def _protocol(seen: Any) -> bytes:
    if seen.__class__ is Seen and seen.protocol is not None:
        return escape(seen.protocol)
    return PROTOCOLS[seen.http_version]


def _sent(seen: Any, wanted: re.Pattern[bytes], name: bytes) -> bytes | None:
    """Values of a field of the answer as it was sent."""
    head = seen.sent_head
    if head:
        values = wanted.findall(head)
        return b", ".join(values) if values else None
    fields = getattr(seen, "answer_fields", None)
    found = fields().get(name) if fields is not None else None
    return b", ".join(found) if found else None


def _query(seen: Any) -> bytes | None:
    _, mark, query = seen.target.partition(b"?")
    return query if mark else None


def _tries(seen: Any) -> list[Try]:
    tries: list[Try] | None = seen.tries
    return tries or []


def _address(ip: str, port: int) -> bytes:
    if not port:
        return ip.encode()
    return (f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}").encode()


_known_address = lru_cache(1024)(_address)


def upstream_addr(seen: Any) -> bytes | None:
    """The addresses that were tried (nginx's ``$upstream_addr``)."""
    tries = seen.tries
    if tries:
        if len(tries) == 1:
            return _known_address(tries[0].ip, tries[0].port)
        return b", ".join([_address(each.ip, each.port) for each in tries])
    if seen.latencies is None or seen.route is None:
        return None
    peer = seen.upstream_peer
    host, port = (seen.route.host, seen.route.port) if peer is None else (peer.host, peer.port)
    return _address(host, port)


def upstream_statuses(seen: Any) -> bytes | None:
    """What came of each try (nginx's ``$upstream_status``)."""
    status = seen.upstream_status
    tries = seen.tries
    if status and (tries is None or (len(tries) == 1 and tries[0].code is None)):
        return b"%d" % status
    failed = [b"%d" % each.code for each in _tries(seen) if each.code is not None]
    if status:
        failed.append(b"%d" % status)
    return b", ".join(failed) or None


def _asked_at(seen: Any) -> float | None:
    """Epoch seconds at which an upstream was asked first; None: none was."""
    return None if seen.latencies is None else seen.wall_started + seen.latencies[0]


MILLISECONDS: dict[int, bytes] = {}
"""Texts of times that were written before, by milliseconds."""
_LONGEST = 4096
"""Milliseconds up to which their text is kept: most requests take less, and writing a fraction takes its time."""


def seconds_text(milliseconds: int) -> bytes:
    """Seconds as nginx writes them, with three places."""
    if not 0 <= milliseconds < _LONGEST:
        return b"%.3f" % (max(0, milliseconds) / 1000)
    text = MILLISECONDS.get(milliseconds)
    if text is None:
        text = MILLISECONDS[milliseconds] = b"%.3f" % (milliseconds / 1000)
    return text


def _upstream_times(seen: Any, now: float) -> list[float]:
    """Seconds that each try took."""
    begun = _asked_at(seen)
    if begun is None:
        return []
    later = [each.started for each in _tries(seen)[1:]]
    marks = [begun, *later, max(now, begun)]
    return [max(0.0, end - begin) for begin, end in pairwise(marks)]


def response_times(seen: Any, now: float) -> bytes:
    """Seconds that each try took (nginx's ``$upstream_response_time``)."""
    return b", ".join([seconds_text(round(each * 1000)) for each in _upstream_times(seen, now)])


# -- makers --------------------------------------------------------------------------------------------------------------------


def _plain(value: Callable[[Any], bytes | None]) -> Maker:
    """A value that needs no escaping: numbers, addresses, our own words."""

    def make(writer: Writing) -> Getter:
        absent = writer.absent

        def get(seen: Any) -> bytes:
            found = value(seen)
            return absent if found is None else found

        return get

    return make


def _number(value: Callable[[Any], int]) -> Maker:
    def make(writer: Writing) -> Getter:
        return lambda seen: b"%d" % value(seen)

    return make


def _text(value: Callable[[Any], bytes | None]) -> Maker:
    """A value that clients or upstreams choose."""

    def make(writer: Writing) -> Getter:
        absent, text = writer.absent, writer.text

        def get(seen: Any) -> bytes:
            found = value(seen)
            return absent if found is None else text(found)

        return get

    return make


def _fixed(value: bytes) -> Maker:
    return lambda writer: lambda seen: value


def _name(row: Callable[[Any], Any]) -> Maker:
    """What an entity is called."""
    return _text(lambda seen: row_name(row(seen)).encode() or None)


def _request(writer: Writing) -> Getter:
    text, escaped = writer.text, writer.escape

    def get(seen: Any) -> bytes:
        if seen.__class__ is Seen and seen.line:
            return escaped(seen.line)
        return b"%b %b %b" % (escaped(seen.method), text(seen.target), _protocol(seen))

    return get


def _method(writer: Writing) -> Getter:
    escaped, absent = writer.escape, writer.absent
    return lambda seen: escaped(seen.method) if seen.method else absent


def _remote_user(writer: Writing) -> Getter:
    absent, user = writer.absent, writer.user

    def get(seen: Any) -> bytes:
        authorization = _first(seen, b"authorization")
        return absent if authorization is None else user(authorization)

    return get


def _query_text(writer: Writing) -> Getter:
    absent, text = writer.absent, writer.text

    def get(seen: Any) -> bytes:
        query = _query(seen)
        return absent if query is None else text(b"?" + query)[1:]

    return get


def _uri(seen: Any) -> bytes:
    return unquote_to_bytes(seen.target.partition(b"?")[0])


def _status(writer: Writing) -> Getter:
    return lambda seen: b"%d" % (seen.status or 499)


def _request_time(writer: Writing) -> Getter:
    times = writer.times
    return lambda seen: seconds_text(round((times.at - (seen.wall_started or times.at)) * 1000))


def _request_length(seen: Any) -> int:
    if seen.__class__ is Seen:
        return int(seen.bytes_in)
    line = len(seen.method) + len(seen.target) + len("  HTTP/1.1\r\n")
    return line + len(seen.block.raw) + len("\r\n") + int(seen.bytes_in)


def _msec(writer: Writing) -> Getter:
    times = writer.times
    return lambda seen: b"%.3f" % times.at


def _response_time(writer: Writing) -> Getter:
    times, absent = writer.times, writer.absent

    return lambda seen: response_times(seen, times.at) or absent


def _header_time(seen: Any) -> bytes | None:
    return b"%.3f" % max(0.0, seen.latencies[1]) if seen.latencies is not None and seen.upstream_status else None


def _connect_time(seen: Any) -> bytes | None:
    begun, tries = _asked_at(seen), _tries(seen)
    return None if begun is None or not tries else b"%.3f" % max(0.0, tries[0].started - begun)


def _upstream_uri(seen: Any) -> bytes | None:
    if seen.match is None:
        return None
    query = seen.raw_query
    return b"%b?%b" % (seen.match.upstream_path, query) if query else bytes(seen.match.upstream_path)


def _forwarded_for(seen: Any) -> bytes:
    before = _first(seen, b"x-forwarded-for")
    own = str(seen.client_ip).encode()
    return own if before is None else b"%b, %b" % (before, own)


def _local(writer: Writing) -> Getter:
    times = writer.times
    return lambda seen: times.local


def _iso8601(writer: Writing) -> Getter:
    times = writer.times
    return lambda seen: times.iso


def _tls(field: str) -> Callable[[Any], bytes | None]:
    def value(seen: Any) -> bytes | None:
        facts = seen.tls if seen.scheme == b"https" else None
        return None if facts is None else str(getattr(facts, field)).encode()

    return value


def _sni(seen: Any) -> bytes | None:
    return seen.sni.encode() if seen.sni else None


def _host(seen: Any) -> bytes:
    return host_name(seen.host or None if seen.__class__ is Seen else seen.block.host)


VARIABLES: dict[str, Maker] = {
    "args": _query_text,
    "body_bytes_sent": _number(lambda seen: seen.bytes_out),
    "bytes_sent": _number(lambda seen: len(seen.sent_head) + seen.bytes_out),
    "content_length": _text(lambda seen: _first(seen, b"content-length")),
    "content_type": _text(lambda seen: _first(seen, b"content-type")),
    "document_uri": _text(_uri),
    "host": _text(_host),
    "hostname": _fixed(socket.gethostname().encode()),
    "http2": _plain(lambda seen: None if seen.http_version != "2" else b"h2" if seen.scheme == b"https" else b"h2c"),
    "https": _plain(lambda seen: b"on" if seen.scheme == b"https" else b""),
    "is_args": _plain(lambda seen: b"?" if _query(seen) else b""),
    "kong_consumer": _text(lambda seen: consumer_name(seen.consumer)),
    "kong_request_id": _plain(lambda seen: seen.request_id or None),
    "kong_route": _name(lambda seen: None if seen.route is None else seen.route.row),
    "kong_service": _name(lambda seen: None if seen.route is None else seen.route.service),
    "kong_source": _plain(lambda seen: b"upstream" if seen.answer_source == "service" else b"kong"),
    "msec": _msec,
    "pid": lambda writer: lambda seen: b"%d" % os.getpid(),
    "pipe": _fixed(b"."),
    "proxy_add_x_forwarded_for": _text(_forwarded_for),
    "proxy_host": _text(lambda seen: None if seen.route is None else str(seen.route.host).encode()),
    "proxy_port": _plain(lambda seen: None if seen.route is None else b"%d" % seen.route.port),
    "query_string": _query_text,
    "realip_remote_addr": _plain(lambda seen: str(seen.peer_ip).encode()),
    "realip_remote_port": _number(lambda seen: seen.peer_port),
    "remote_addr": _plain(lambda seen: str(seen.client_ip).encode()),
    "remote_port": _number(lambda seen: seen.peer_port),
    "remote_user": _remote_user,
    "request": _request,
    "request_completion": _plain(lambda seen: b"OK" if seen.status and not getattr(seen, "open", False) else b""),
    "request_id": _plain(lambda seen: seen.request_id or None),
    "request_length": _number(_request_length),
    "request_method": _method,
    "request_time": _request_time,
    "request_uri": _text(lambda seen: seen.target or None),
    "scheme": _plain(lambda seen: bytes(seen.scheme)),
    "server_port": _number(lambda seen: seen.local_port),
    "server_protocol": _plain(_protocol),
    "ssl_cipher": _plain(_tls("cipher")),
    "ssl_client_verify": _plain(_tls("client_verify")),
    "ssl_protocol": _plain(_tls("version")),
    "ssl_server_name": _text(_sni),
    "status": _status,
    "time_iso8601": _iso8601,
    "time_local": _local,
    "upstream_addr": _plain(upstream_addr),
    "upstream_connect_time": _plain(_connect_time),
    "upstream_header_time": _plain(_header_time),
    "upstream_host": _text(lambda seen: None if seen.route is None else bytes(seen.route.host_header)),
    "upstream_response_time": _response_time,
    "upstream_scheme": _plain(lambda seen: None if seen.route is None else b"https" if seen.route.secure else b"http"),
    "upstream_status": _plain(upstream_statuses),
    "upstream_uri": _text(_upstream_uri),
    "uri": _text(_uri),
}
"""Variables by name; those with a name of something in them are in `PREFIXES`."""


def consumer_name(row: Any) -> bytes | None:
    """What a consumer is called; None for none."""
    if row is None:
        return None
    return str(row.get("username") or row.get("custom_id") or row.get("id")).encode()


def _field_value(writer: Writing, name: bytes, value: Callable[[Any], bytes | None]) -> Getter:
    """A header's value; that of one which carries credentials is not told."""
    absent, text, mask = writer.absent, writer.text, writer.mask
    shown = name.decode("ascii")

    def get(seen: Any) -> bytes:
        found = value(seen)
        if found is None:
            return absent
        if mask.hides_field(shown):
            return MASK
        if b" " in found:
            scheme = _SCHEME.match(found)
            if scheme is not None:
                return scheme[1] + b" " + MASK
        return text(found)

    return get


def _header(name: str, writer: Writing) -> Getter:
    field = name.replace("_", "-").encode()
    return _field_value(writer, field, lambda seen: _first(seen, field))


def _sent_header(name: str, writer: Writing) -> Getter:
    field = name.replace("_", "-").encode()
    wanted = re.compile(rb"(?i)\r\n" + re.escape(field) + rb":[ \t]*([^\r\n]*)")
    return _field_value(writer, field, lambda seen: _sent(seen, wanted, field))


def _upstream_header(name: str, writer: Writing) -> Getter:
    field = name.replace("_", "-").encode()

    def value(seen: Any) -> bytes | None:
        block = seen.response_fields
        found: bytes | None = None if block is None else block.joined(field)
        return found

    return _field_value(writer, field, value)


def _argument(name: str, writer: Writing) -> Getter:
    absent, mask, text, wanted = writer.absent, writer.mask, writer.text, name.lower().encode()

    def get(seen: Any) -> bytes:
        for each in (_query(seen) or b"").split(b"&"):
            argument, equals, value = each.partition(b"=")
            if equals and argument.lower() == wanted:
                return MASK if mask.hides(name) else text(value)
        return absent

    return get


def _cookie(name: str, writer: Writing) -> Getter:
    absent, mask, text, wanted = writer.absent, writer.mask, writer.text, name.lower().encode()
    secret = _SECRET_COOKIE.search(name) is not None

    def get(seen: Any) -> bytes:
        for each in (_first(seen, b"cookie") or b"").split(b";"):
            cookie, equals, value = each.strip().partition(b"=")
            if equals and cookie.lower() == wanted:
                return MASK if secret or mask.hides(name) else text(value)
        return absent

    return get


def _trailer(name: str, writer: Writing) -> Getter:
    field = name.replace("_", "-").encode()

    def value(seen: Any) -> bytes | None:
        found = [value for each, value in seen.answer_trailers or () if each == field]
        return b", ".join(found) if found else None

    return _field_value(writer, field, value)


PREFIXES: dict[str, Callable[[str, Writing], Getter]] = {
    "http_": _header,
    "sent_http_": _sent_header,
    "upstream_http_": _upstream_header,
    "arg_": _argument,
    "cookie_": _cookie,
    "sent_trailer_": _trailer,
    "upstream_trailer_": _trailer,
}
"""Beginnings of variables that name a header, an argument, a cookie or a trailer."""


_NOTED = ("upstream_", "sent_", "bytes_sent")


def wants_notes(name: str) -> bool:
    """Whether a variable tells what is only noted where somebody asks for it: tries, and the head of the answer."""
    return name.startswith(_NOTED)


def getter_of(name: str, writer: Writing) -> Getter | None:
    """What gives a variable's value; None: there is no such variable."""
    maker = VARIABLES.get(name)
    if maker is not None:
        return maker(writer)
    for prefix, make in PREFIXES.items():
        if name.startswith(prefix) and len(name) > len(prefix):
            return make(name[len(prefix) :], writer)
    return None


def known() -> Iterable[str]:
    """The names of all variables, for the documentation; those with a name in them end in NAME."""
    return sorted([*VARIABLES, *(f"{prefix}NAME" for prefix in PREFIXES)])
