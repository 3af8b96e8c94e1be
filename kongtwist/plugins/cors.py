"""cors: tell browsers which pages may read answers (Fetch standard, CORS protocol). Kong 3.9 `cors`.

What is told depends on the request's Origin alone, so it is worked out once for each and remembered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..core.chain.plugin import Plugin
from ..core.exchange import Answer, Exchange, Row
from ..core.http.headers import prepared_lines
from ..core.routing.patterns import BoundedPattern, PatternClock
from ..entities.regexes import fault
from ..entities.schema import Array, Boolean, Number, String
from ..entities.typedefs import header_value

__all__ = ["Cors"]

_METHODS = ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT"]

_PLAIN = re.compile(r"[A-Za-z0-9.:/-]+")
"""An origin as it stands; anything else is a regular expression."""

_CONFIGURED = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?//([^/:]+)(?::([0-9]*))?(?:/.*)?")

_ORIGIN = re.compile(
    rb"(?!null\Z)(?:([A-Za-z][A-Za-z0-9+.-]*)://)?([A-Za-z0-9._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?",
    re.ASCII,
)
"""An origin as browsers write it (RFC 6454 6.2), and a bare host, as Kong's tests have it. Whatever else stands there is nobody's;
``null`` is what pages say that anybody can make."""

_LONGEST = 300
"""Bytes of an Origin: a name has 253 at most."""

_REMEMBERED = 1024
"""Origins whose answer a configuration remembers."""

_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}

_ALLOW_ORIGIN = b"access-control-allow-origin"
_ALLOW_CREDENTIALS = b"access-control-allow-credentials"


def _asterisk_or_regex(value: str) -> str | None:
    return None if value == "*" or fault(value) is None else f"'{value}' is not a valid regex"


class _Told:
    """What answers to one Origin have.

    Attributes:
        names: of the fields, lower case.
        lines: the fields, complete lines.
        allowed: some page may read the answer; else an upstream's own word for that is taken out.
        varies: the answer depends on the Origin.
        change: sets them and ``vary``, for answers that have none (`Exchange.set_prepared_lines`).
    """

    __slots__ = ("allowed", "change", "lines", "names", "varies")

    def __init__(self, origin: bytes | None, credentials: bool, varies: bool) -> None:
        self.allowed = origin is not None
        self.varies = varies
        self.names: frozenset[bytes] = frozenset()
        self.lines = b""
        if origin is not None:
            self._add(b"Access-Control-Allow-Origin", origin)
        if credentials:
            self._add(b"Access-Control-Allow-Credentials", b"true")
        self.change = self._change()

    def _change(self) -> tuple[str, frozenset[bytes], bytes]:
        return prepared_lines(self.names | {b"vary"}, b"vary: Origin\r\n" + self.lines)

    def _add(self, name: bytes, value: bytes) -> None:
        self.names |= {name.lower()}
        self.lines += name + b": " + value + b"\r\n"

    def exposing(self, names: bytes) -> _Told:
        """The same for answers that are no preflight's.

        Args:
            names: headers that pages may read.
        """
        if not names:
            return self
        told = _Told(None, False, self.varies)
        told.allowed, told.names, told.lines = self.allowed, self.names, self.lines
        told._add(b"Access-Control-Expose-Headers", names)
        told.change = told._change()
        return told


class _Pattern:
    """A configured regular expression. It must match all of an origin, or of its host where it has no colon.

    Each alternative of it must: Kong puts ``^`` in front and ``$`` behind, so that of ``a\\.com|b\\.com`` the first one also
    lets ``a.com.evil.example`` in.
    """

    def __init__(self, text: str) -> None:
        self._by_host = ":" not in text
        self._pattern = BoundedPattern(b"(?:%b)$" % text.encode("utf-8", "surrogatepass"))

    def matches(self, origin: bytes, host: bytes, clock: PatternClock) -> bool:
        return self._pattern.find(host if self._by_host else origin, clock) is not None


class Config:
    """A configuration, ready for requests.

    Attributes:
        always: what every answer has, where the Origin does not matter; else None.
        absent: what answers to requests without Origin have; None: nothing.
        here: preflights are answered here.
    """

    __slots__ = (
        "_all", "_credentials", "_exact", "_exposed", "_fixed", "_known", "_patterns", "_varies", "absent", "allow_headers",
        "always", "here", "max_age", "methods", "private_network",
    )  # fmt: skip

    def __init__(self, conf: Row) -> None:
        origins: list[str] = conf["origins"] or []
        self._credentials: bool = conf["credentials"]
        self._exposed = _joined(conf["exposed_headers"])
        self._known: dict[bytes, _Told] = {}
        self._all = not origins or "*" in origins
        self._varies = bool(origins) and origins != ["*"]
        self._patterns: list[_Pattern] = []
        self._exact: set[bytes] = set()
        for each in origins:
            if _PLAIN.fullmatch(each):
                self._exact.update((each.encode(), _normal(each)))
            elif each != "*":
                self._patterns.append(_Pattern(each))
        # Where the Origin does not matter.
        self._fixed: _Told | None = None
        if len(origins) == 1 and self._exact:
            self._fixed = _Told(origins[0].encode(), self._credentials, True)
        elif self._all and not self._varies and not self._credentials:
            self._fixed = _Told(b"*", False, False)
        self.always = None if self._fixed is None else self._fixed.exposing(self._exposed)
        absent = self.always
        if absent is None:
            origin = None if self._varies else b"*"
            absent = _Told(origin, self._varies and self._credentials, self._varies).exposing(self._exposed)
        self.absent: _Told | None = absent if conf.get("allow_origin_absent", True) else None
        self.here: bool = not conf["preflight_continue"]
        self.private_network: bool = conf["private_network"]
        self.allow_headers = _joined(conf["headers"])
        self.methods = _joined(_METHODS if conf["methods"] is None else conf["methods"])
        self.max_age: bytes | None = None if conf["max_age"] is None else b"%.14g" % conf["max_age"]

    def told(self, origin: bytes | None, exchange: Exchange) -> _Told | None:
        """What an answer that is no preflight's has; None: nothing, not even that it may vary."""
        if origin is None:
            return self.absent
        if self.always is not None:
            return self.always
        found = self._known.get(origin)
        if found is None:
            found = self.judged(origin, exchange).exposing(self._exposed)
            if len(origin) <= _LONGEST:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[origin] = found
        return found

    def judged(self, origin: bytes, exchange: Exchange) -> _Told:
        """Who may read answers to this Origin."""
        if self._fixed is not None:
            return self._fixed
        parts = _ORIGIN.fullmatch(origin) if len(origin) <= _LONGEST else None
        if self._all:
            if not self._credentials or parts is None:
                # With ``*`` browsers give no credentials; an Origin that is none gets nothing better.
                return _Told(b"*", False, self._varies or self._credentials)
            return _Told(origin, True, True)
        allowed = origin if origin in self._exact else None
        if allowed is None and parts is not None:
            whole, host = _normalised(parts)
            if whole in self._exact or self._matches(whole, host, exchange):
                allowed = whole
        return _Told(allowed, self._credentials, True)

    def _matches(self, origin: bytes, host: bytes, exchange: Exchange) -> bool:
        clock = PatternClock()
        for pattern in self._patterns:
            try:
                if pattern.matches(origin, host, clock):
                    return True
            except TimeoutError:
                exchange.report(
                    "cors does not know whether an Origin is allowed, and takes it for one that is not: a regular expression"
                    " takes too long",
                    "simplify config.origins",
                )
        return False


def _joined(names: Sequence[str] | None) -> bytes:
    return ",".join(names or ()).encode()


def _normal(entry: str) -> bytes:
    """A configured origin in the form of an Origin; text that is none stays as it is."""
    found = _CONFIGURED.fullmatch(entry)
    if found is None:
        return entry.encode()
    scheme, host, port = (part.encode() for part in found.groups(""))
    return _whole(scheme, host, port)


def _normalised(parts: re.Match[bytes]) -> tuple[bytes, bytes]:
    scheme, host, port = parts.groups(b"")
    return _whole(scheme, host, port), host


def _whole(scheme: bytes, host: bytes, port: bytes) -> bytes:
    if port and _DEFAULT_PORTS.get(scheme) == port:
        port = b""
    return (scheme + b"://" if scheme else b"") + host + (b":" + port if port else b"")


class Cors(Plugin):
    """Answer preflight requests; tell in all other answers which pages may read them."""

    name = "cors"
    priority = 2000
    scopes = ("service", "route")
    example = {"origins": ["https://app.example.com"], "credentials": True, "max_age": 3600}
    config = {
        "origins": Array(
            String(checks=(_asterisk_or_regex,)),
            text="Origins whose pages may read answers, as they are or as regular expressions; null, or * alone: all.",
        ),
        "headers": Array(
            String(checks=(header_value,)), text="Headers that requests may have; null: those that the preflight names."
        ),
        "exposed_headers": Array(String(checks=(header_value,)), text="Headers of answers that pages may read."),
        "methods": Array(
            String(one_of=_METHODS), default=_METHODS, text="Methods that requests may have; told in preflights only."
        ),
        "max_age": Number(text="Seconds for which a preflight's answer holds; null: what the browser thinks best."),
        "credentials": Boolean(
            required=True, default=False, text="Let pages send cookies and credentials, and read what is answered then."
        ),
        "private_network": Boolean(
            required=True, default=False, text="Let pages of public networks ask here, where the preflight wants to know."
        ),
        "preflight_continue": Boolean(
            required=True, default=False, text="Leave preflights to the upstream; false: answer them here."
        ),
        "allow_origin_absent": Boolean(
            required=True, default=True, text="Tell the same where a request has no Origin; false: add nothing there."
        ),
    }  # fmt: skip

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def access(self, exchange: Exchange, conf: Config) -> Answer | None:
        if exchange.method != b"OPTIONS":
            return None
        origin = exchange.get_header(b"origin")
        if origin is None or exchange.get_header(b"access-control-request-method") is None:
            return None
        exchange.own(self.name)["preflight"] = True
        if not conf.here:
            return None
        told = conf.judged(origin, exchange)
        if told.varies:
            exchange.set_response_header(b"vary", b"Origin")
        _tell(exchange, told)
        headers = conf.allow_headers or exchange.get_header(b"access-control-request-headers")
        if headers is not None:
            exchange.set_response_header(b"Access-Control-Allow-Headers", headers)
        exchange.set_response_header(b"Access-Control-Allow-Methods", conf.methods)
        if conf.max_age is not None:
            exchange.set_response_header(b"Access-Control-Max-Age", conf.max_age)
        if conf.private_network and exchange.get_header(b"access-control-request-private-network") == b"true":
            exchange.set_response_header(b"Access-Control-Allow-Private-Network", b"true")
        return exchange.exit(200)

    def header_filter(self, exchange: Exchange, conf: Config) -> None:
        if exchange.method == b"OPTIONS" and exchange.own(self.name):
            return  # a preflight has its headers, or the upstream answers it
        told = conf.told(exchange.block.first(b"origin"), exchange)
        if told is None:
            return
        if told.varies:
            fields = exchange.response_fields
            if fields is not None and told.allowed and exchange.response_changes is None and b"vary" not in fields:
                exchange.set_prepared_lines(told.change)  # the usual case, and one change instead of two
                return
            exchange.add_response_header(b"vary", b"Origin")
        _tell(exchange, told)


def _tell(exchange: Exchange, told: _Told) -> None:
    if not told.allowed:
        exchange.clear_response_header(b"Access-Control-Allow-Origin")
    if told.names:
        exchange.set_response_lines(told.names, told.lines)
