"""What the log is told of clients that keep the gateway waiting or send nonsense: level info, as nginx's. It is not for
the operator to mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from ..core.error_lines import error_line, request_line, seconds_text

if TYPE_CHECKING:
    from ..core.chain.host import Host
    from ..core.exchange import Exchange

__all__ = ["log_refused", "log_timeout"]

_log = Logger(namespace="kongtwist.proxy")


def log_timeout(exchange: Exchange | None, client: str, doing: str, seconds: float) -> None:
    """A client kept its request waiting.

    Args:
        exchange: the request; None where there is none.
        client: the client's address.
        doing: what was waited for: "while ...".
        seconds: that nothing came.
    """
    what = f"client timed out {doing}: nothing for {seconds_text(seconds)}"
    _log.info("{line}", line=error_line(what, client=client) if exchange is None else request_line(exchange, what))


def log_refused(host: Host, client: str, what: str, start_line: bytes, request_id: bytes) -> None:
    """A head never came, or is malformed: there is no request.

    Args:
        host: masks what must not be shown.
        client: the client's address.
        what: what happened.
        start_line: the line that came, or its beginning.
        request_id: that the client was given.
    """
    shown = host.shown(start_line[:1024]).decode("latin-1")
    _log.info("{line}", line=error_line(what, client=client, request=shown, request_id=request_id.decode()))
