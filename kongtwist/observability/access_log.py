"""The access log, in nginx's and Kong's format, so that the tools people have go on working.

No credential is written: see `masking`.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..core.error_lines import PROTOCOLS
from .log_file import LogFile
from .masking import SecretMask, escape

if TYPE_CHECKING:
    from ..core.exchange import Exchange

__all__ = ["AccessLog"]

BATCH = 32 * 1024
"""Bytes of access log collected before they are written at once."""

FLUSH_AFTER = 1.0
"""Seconds a line of the access log waits at most before it is written."""

BACKLOG = 1024 * 1024
"""Bytes kept while a log's destination takes nothing (a full pipe); lines beyond it are lost, and counted."""

SHOWN = 1024
"""Bytes of a refused request's first line that are written; what is hidden in it is found before it is cut."""

REMEMBERED = 2048
"""Targets and header values kept in the form they are written in."""

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


class AccessLog:
    """One line per request: nginx's combined format and the request's id, as Kong 3.9 writes it.

    Args:
        destination: as ``proxy_access_log``: a path, ``/dev/stdout``, or ``off``.
        reactor: for the delayed write.
        prefix: directory that relative paths start from.
        secret_names: query arguments whose values must not be written, beside the usual ones.
        wall: epoch seconds.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        destination: str,
        reactor: IReactorTime,
        *,
        prefix: str = ".",
        secret_names: Iterable[str] = (),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.enabled = destination.strip() != "off"  #: False for ``off``: callers may spare the call
        self.lost = 0  #: bytes of lines that could not be written since the start
        self._file = LogFile(destination, prefix) if self.enabled else None
        self._reactor = reactor
        self._wall = wall
        self._mask = SecretMask(secret_names)
        self._lines: list[bytes] = []
        self._size = 0
        self._second = -1
        self._stamp = b""
        self._values: dict[bytes, bytes] = {}
        self._flushing: IDelayedCall | None = None
        self._failing = False
        self._complained = False
        self._logger = Logger(namespace="kongtwist.access_log")

    def hide(self, names: Iterable[str]) -> None:
        """Mask these query arguments from now on (``key_names`` of a configured key-auth)."""
        if self._mask.hide(names):
            self._values.clear()

    def shown(self, target: bytes) -> bytes:
        """A request target as it stands in the log: credentials masked, escaped."""
        return escape(self._mask.target(target))

    def log(self, exchange: Exchange) -> None:
        """Write the line of a request that is over. A client that left before the head of the answer has 499."""
        if not self.enabled:
            return
        first = exchange.block.first
        authorization = first(b"authorization")
        self._append(
            b'%b - %b [%b] "%b %b %b" %d %d "%b" "%b" kong_request_id: "%b"\n'
            % (
                exchange.client_ip.encode(),
                b"-" if authorization is None else _basic_user(authorization),
                self._now(),
                exchange.method,
                self._written(exchange.target),
                PROTOCOLS[exchange.http_version],
                exchange.status or 499,
                exchange.bytes_out,
                self._written(first(b"referer") or b"-"),
                self._written(first(b"user-agent") or b"-"),
                exchange.request_id,
            )
        )

    def log_refused(self, peer: str, start_line: bytes, status: int, sent: int, request_id: bytes) -> None:
        """Write the line of a request that had no well-formed head.

        Args:
            peer: the client's address.
            start_line: what could be read of the request line.
            status: the answer's status code.
            sent: bytes of its body.
            request_id: 32 hex digits, as in the answer.
        """
        if self.enabled:
            line = escape(self._mask.line(start_line)[:SHOWN])
            values = (peer.encode(), self._now(), line, status, sent, request_id)
            self._append(b'%b - - [%b] "%b" %d %d "-" "-" kong_request_id: "%b"\n' % values)

    def log_request(self, request: Any, target: bytes | None = None) -> None:
        """Write the line of a twisted.web request (Admin and Status APIs).

        Args:
            request: it.
            target: its target as it may be shown, when that is not as it came.
        """
        if not self.enabled:
            return
        address = request.getClientAddress()
        headers = request.requestHeaders
        referer, agent, authorization = (
            (headers.getRawHeaders(name) or [None])[0] for name in (b"referer", b"user-agent", b"authorization")
        )
        request_id = (request.responseHeaders.getRawHeaders(b"x-kong-request-id") or [b"-"])[0]
        self._append(
            b'%b - %b [%b] "%b %b %b" %d %d "%b" "%b" kong_request_id: "%b"\n'
            % (
                str(getattr(address, "host", None) or "unix:").encode(),
                b"-" if authorization is None else _basic_user(authorization),
                self._now(),
                escape(request.method),
                self._written(request.uri if target is None else target),
                escape(request.clientproto),
                499 if request._disconnected and not request.startedWriting else request.code,
                request.sentLength,
                self._written(referer or b"-"),
                self._written(agent or b"-"),
                request_id,
            )
        )

    def _now(self) -> bytes:
        """The time as in ``$time_local``, made once per second."""
        second = int(self._wall())
        if second != self._second:
            self._second = second
            at = time.localtime(second)
            minutes = (at.tm_gmtoff or 0) // 60
            self._stamp = b"%02d/%b/%d:%02d:%02d:%02d %b%02d%02d" % (
                at.tm_mday, _MONTHS[at.tm_mon - 1], at.tm_year, at.tm_hour, at.tm_min, at.tm_sec,
                b"-" if minutes < 0 else b"+", abs(minutes) // 60, abs(minutes) % 60,
            )  # fmt: skip
        return self._stamp

    def _written(self, value: bytes) -> bytes:
        """A target or header value as it may be written; remembered, for clients repeat themselves."""
        written = self._values.get(value)
        if written is None:
            written = escape(self._mask.target(value))
            if written == value and len(value) < 512:  # what was masked is not kept
                if len(self._values) >= REMEMBERED:
                    self._values.clear()
                self._values[value] = written
        return written

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BATCH and not self._failing:
            self.flush()
        elif self._flushing is None:
            self._flushing = self._reactor.callLater(FLUSH_AFTER, self._flush_later)
        elif self._size > BACKLOG:
            self._size -= len(self._lines.pop())
            self._lose(len(line), "it takes no more")

    def _flush_later(self) -> None:
        self._flushing = None
        self.flush()

    def flush(self) -> None:
        """Write what is collected, now. A destination that fails is tried again with the next batch."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._file is None or not self._lines:
            return
        batch = b"".join(self._lines)
        try:
            taken = self._file.write(batch)
        except OSError as error:
            self._lines, self._size = [], 0
            self._lose(len(batch), error.strerror or str(error))
            return
        rest = batch[taken:]
        self._lines, self._size = ([rest], len(rest)) if rest else ([], 0)
        self._failing = bool(rest)
        if not rest:
            self._complained = False
        else:
            self._flushing = self._reactor.callLater(FLUSH_AFTER, self._flush_later)

    def _lose(self, size: int, reason: str) -> None:
        """Count lines that are lost, and say so once until writing works again."""
        self.lost += size
        if not self._complained and self._file is not None:
            self._complained = True
            path = self._file.path
            self._logger.error("cannot write the access log {path}: {reason}; lines are lost", path=path, reason=reason)

    def reopen(self) -> None:
        """Write what is collected and go on in the file that now has our name (after a rotation)."""
        if self._file is None:
            return
        self.flush()
        try:
            self._file.reopen()
        except OSError as error:
            self._logger.error(
                "cannot reopen the access log {path}: {reason}", path=self._file.path, reason=error.strerror
            )

    def close(self) -> None:
        """Write what is collected and close the file."""
        self.flush()
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self.enabled = False
        if self._file is not None:
            self._file.close()
            self._file = None


def _basic_user(authorization: bytes) -> bytes:
    """The user name of Basic credentials as it may be written, or ``-`` (nginx's ``$remote_user``)."""
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return b"-"
    try:
        name = b64decode(credentials.strip(), validate=True).partition(b":")[0]
    except ValueError:
        return b"-"
    return escape(name).replace(b" ", b"\\x20") or b"-"
