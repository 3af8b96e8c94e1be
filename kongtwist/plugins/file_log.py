"""file-log: append a record of every request to a file, a line of JSON each. Kong 3.9 `file-log`.

Lines wait in a queue beside the traffic, and a thread writes them: a disk that hangs keeps no request. Configurations that write to the
same path in the same way share queue and file.
"""

from __future__ import annotations

import errno
import os
import select

from ..core.chain.host import QueueSettings, Scope
from ..core.exchange import Exchange, Row
from ..core.log_record import LogRecords
from ..entities.schema import Boolean, String
from ._custom_fields import CustomFields, LogPlugin, custom_fields_by_lua

__all__ = ["FileLog"]

_QUEUE = QueueSettings(max_batch_size=1000, max_coalescing_delay=0.1)

_PATIENCE = 5.0
"""Seconds a pipe may take nothing."""


def _file_name(path: str) -> str | None:
    """Kong 3.10's rule beside 3.9's: a space or a newline around a name is a slip; no name has a zero byte."""
    return None if path == path.strip() and "\0" not in path else "not a valid filename"


class LogFile:
    """A file that lines are appended to; its calls block.

    Args:
        path: created where it is missing, readable for all (0644), as Kong's.
        reopen: open it for each write, so that it may be moved away meanwhile.
    """

    def __init__(self, path: str, reopen: bool) -> None:
        self._path, self._reopen = path, reopen
        self._descriptor: int | None = None
        self._failed = b""  # what could not be written whole, of which so many bytes of whole lines are there
        self._whole = 0
        self._torn = False  # a part of a line is behind these

    def write(self, data: bytes) -> None:
        """Append lines. What could not be written whole is continued where it is given again, with the line that was torn.

        Raises:
            OSError: it cannot be opened or written; parts may be there.
        """
        if self._descriptor is None:
            # A named pipe without a reader is refused in place of waiting for one.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._descriptor = os.open(self._path, flags, 0o644)
        try:
            self._write(self._descriptor, data)
        except OSError:
            self.close()
            raise
        if self._reopen:
            self.close()

    def _write(self, descriptor: int, data: bytes) -> None:
        begun = self._whole if data == self._failed else 0
        head = b"\n" if self._torn else b""  # or the next line would be lost with the torn one
        rest = memoryview(head + data[begun:])
        try:
            while rest:
                try:
                    rest = rest[os.write(descriptor, rest) :]
                except BlockingIOError:
                    if not select.select((), (descriptor,), (), _PATIENCE)[1]:
                        raise TimeoutError(errno.ETIMEDOUT, "nobody reads what is written", self._path) from None
        except OSError:
            done = len(data) - len(rest)
            self._failed, self._whole = data, max(data.rfind(b"\n", 0, max(done, 0)) + 1, begun)
            self._torn = done > self._whole or len(rest) > len(data) - begun
            raise
        self._failed, self._whole, self._torn = b"", 0, False

    def close(self) -> None:
        """Give the descriptor back; what is written after that opens the file again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class Sender:
    """A configuration with its queue and its file."""

    def __init__(self, conf: Row, row: Row, scope: Scope) -> None:
        path, reopen = conf["path"], conf["reopen"]
        self.records = LogRecords(scope.workspace_id)
        self.fields = CustomFields(row, scope)
        self.file = LogFile(path, reopen)
        self._scope = scope
        self._writing = self._ending = False
        self.queue = scope.queue(f"file-log:{path}{':reopen' * reopen}", _QUEUE, self.send)

    async def send(self, lines: list[bytes]) -> None:
        """Write lines. Raises OSError, HostError."""
        self._writing = True
        try:
            await self._scope.threads(self.file.write, b"".join(lines))
        finally:
            self._writing = False
            if self._ending:
                await self._scope.threads(self.file.close)

    async def close(self) -> None:
        """Keep the file open no longer; what waits is still written. Raises HostError."""
        self._ending = True
        if not self._writing:  # else it is closed behind that: two threads must not use it
            await self._scope.threads(self.file.close)


class FileLog(LogPlugin):
    """Append a record of every request to a file."""

    name = "file-log"
    priority = 9
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    example = {"path": "/var/log/kong/requests.json"}
    config = {
        "path": String(
            required=True, match="^[^*&%%\\`]+$", err="not a valid filename", checks=(_file_name,),
            text="File that records are appended to, created where it is missing; relative to the directory the gateway was started in.",
        ),
        "reopen": Boolean(
            required=True, default=False, text="Open the file for each write, so that it may be moved away meanwhile."
        ),
        "custom_fields_by_lua": custom_fields_by_lua(),
    }  # fmt: skip

    def open(self, conf: Row, plugin: Row, host: Scope) -> Sender:
        return Sender(conf, plugin, host)

    def log(self, exchange: Exchange, conf: Sender) -> None:
        if conf.fields.put(exchange):
            conf.queue.add(conf.records.text(exchange) + b"\n")

    async def close(self, conf: Sender) -> None:
        await conf.close()
