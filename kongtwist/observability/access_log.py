"""The access log, in nginx's and Kong's format, so that the tools people have go on working, or in one of the operator's own.

No credential is written: see `masking`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from .log_file import LogFile
from .log_formats import BUILT_IN, DEFAULT, LineWriter, LogFormat, Times
from .log_variables import Seen
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


class AccessLog:
    """One line per request: nginx's combined format and the request's id, as Kong 3.9 writes it, unless another is given.

    Args:
        destination: as ``proxy_access_log`` without the format: a path, ``/dev/stdout``, or ``off``.
        reactor: for the delayed write.
        prefix: directory that relative paths start from.
        secret_names: query arguments whose values must not be written, beside the usual ones.
        wall: epoch seconds.
        form: of the lines; by default Kong's.

    Attributes:
        notes: the format asks for what is only noted of a request where somebody wants it (`log_variables.wants_notes`).

    Raises:
        OSError: the file cannot be opened.
        FormatError: the format has an unknown variable.
    """

    def __init__(
        self,
        destination: str,
        reactor: IReactorTime,
        *,
        prefix: str = ".",
        secret_names: Iterable[str] = (),
        wall: Callable[[], float] = time.time,
        form: LogFormat | None = None,
    ) -> None:
        self.enabled = destination.strip() != "off"  #: False for ``off``: callers may spare the call
        self.lost = 0  #: bytes of lines that could not be written since the start
        self._file = LogFile(destination, prefix) if self.enabled else None
        self._reactor = reactor
        self._mask = SecretMask(secret_names)
        self._writer = LineWriter(form or BUILT_IN[DEFAULT], self._mask, Times(wall))
        self._line = self._writer.line
        self.notes = self.enabled and self._writer.wants_notes
        self._lines: list[bytes] = []
        self._size = 0
        self._flushing: IDelayedCall | None = None
        self._failing = False
        self._complained = False
        self._logger = Logger(namespace="kongtwist.access_log")

    def hide(self, names: Iterable[str]) -> None:
        """Mask these query arguments from now on (``key_names`` of a configured key-auth)."""
        if self._mask.hide(names):
            self._writer.forget()

    def shown(self, target: bytes) -> bytes:
        """A request target as it stands in the log: credentials masked, escaped."""
        return escape(self._mask.target(target))

    def log(self, exchange: Exchange) -> None:
        """Write the line of a request that is over. A client that left before the head of the answer has 499."""
        if self.enabled:
            self._append(self._line(exchange))

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
            seen = Seen(_no_field, client_ip=peer, peer_ip=peer, status=status, bytes_out=sent, request_id=request_id)
            seen.line = self._mask.line(start_line)[:SHOWN]
            self._append(self._writer.line_of(seen))

    def log_request(self, request: Any, target: bytes | None = None) -> None:
        """Write the line of a twisted.web request (Admin and Status APIs).

        Args:
            request: it.
            target: its target as it may be shown, when that is not as it came.
        """
        if self.enabled:
            self._append(self._writer.line_of(_seen(request, request.uri if target is None else target)))

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


def _no_field(name: bytes) -> None:
    """The fields of a request that has none."""


def _seen(request: Any, target: bytes) -> Seen:
    """A twisted.web request as formats see it.

    Args:
        request: it.
        target: its target as it may be shown.
    """
    address = request.getClientAddress()
    client = str(getattr(address, "host", None) or "unix:")
    headers, sent = request.requestHeaders, request.responseHeaders
    lines = [b"%b: %b" % (name, value) for name, values in sent.getAllRawHeaders() for value in values]
    return Seen(
        lambda name: (headers.getRawHeaders(name) or [None])[0],
        client_ip=client,
        peer_ip=client,
        peer_port=getattr(address, "port", 0),
        local_port=getattr(request.getHost(), "port", 0),
        method=request.method,
        target=target,
        protocol=request.clientproto,
        scheme=b"https" if request.isSecure() else b"http",
        host=(headers.getRawHeaders(b"host") or [b""])[0],
        status=499 if request._disconnected and not request.startedWriting else request.code,
        bytes_out=request.sentLength,
        wall_started=getattr(request, "wall_started", 0.0),
        request_id=(sent.getRawHeaders(b"x-kong-request-id") or [b""])[0],
        sent_head=b"HTTP/1.1 %d\r\n%b\r\n\r\n" % (request.code, b"\r\n".join(lines)),
    )
