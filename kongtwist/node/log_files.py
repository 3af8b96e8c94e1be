"""A node's logs, made of what its configuration says: where they go, in which format, from which level on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..config.load import Conf, ConfError
from ..config.log_properties import error_log_parts, log_parts
from ..observability.access_log import AccessLog
from ..observability.error_log import ErrorLog
from ..observability.log_formats import BUILT_IN, FormatError, LineWriter, LogFormat, Times, parse_formats
from ..observability.masking import SecretMask
from ..observability.session_log import SessionLog
from ..observability.stream_log import StreamLog

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["ACCESS_LOGS", "access_log_for", "error_log_for", "format_faults", "session_log_for", "stream_log_for"]

ACCESS_LOGS = ("proxy_access_log", "admin_access_log", "status_access_log")


def _formats(conf: Conf) -> dict[str, LogFormat]:
    try:
        declared = parse_formats(conf.nginx_http_log_format) if conf.nginx_http_log_format else {}
    except FormatError as error:
        raise ConfError(f"nginx_http_log_format {error}") from error
    return {**BUILT_IN, **declared}


def _format_of(conf: Conf, name: str) -> tuple[str, LogFormat | None]:
    """Where an access log goes, and its format; None: the usual one."""
    path, wanted = log_parts(getattr(conf, name))
    if not wanted:
        return path, None
    formats = _formats(conf)
    found = formats.get(wanted)
    if found is None:
        known = ", ".join(sorted(formats))
        raise ConfError(f"{name} names a format that is not declared: '{wanted}' ({known}, or nginx_http_log_format)")
    return path, found


def format_faults(conf: Conf) -> Iterator[str]:
    """Sentences about formats that cannot be used, for who checks a configuration."""
    try:
        formats = _formats(conf)
    except ConfError as error:
        yield from error.problems
        return
    for form in formats.values():
        try:
            LineWriter(form, SecretMask(), Times(float))
        except FormatError as error:
            yield f"nginx_http_log_format {error}"
    for name in ACCESS_LOGS:
        try:
            _format_of(conf, name)
        except ConfError as error:
            yield from error.problems


def access_log_for(conf: Conf, name: str, reactor: IReactorTime) -> AccessLog:
    """The access log that property ``name`` asks for.

    Raises:
        ConfError: it cannot be opened, or its format cannot be used.
    """
    path, form = _format_of(conf, name)
    try:
        return AccessLog(path, reactor, prefix=conf.prefix, form=form)
    except OSError as error:
        raise ConfError(f"{name} cannot open {getattr(conf, name)}: {error.strerror}") from error
    except FormatError as error:
        raise ConfError(f"nginx_http_log_format {error}") from error


def stream_log_for(conf: Conf, reactor: IReactorTime, context: Any) -> StreamLog | None:
    """The log of long streams; None where nobody wants one.

    Args:
        conf: the configuration.
        reactor: for delayed writes.
        context: of the data path (`proxy.context.ProxyContext`): its clock and its deadlines.

    Raises:
        ConfError: it cannot be opened.
    """
    if not conf.stream_log_interval:
        return None
    path, _ = log_parts(conf.stream_access_log)
    interval, timers = float(conf.stream_log_interval), context.deadlines
    try:
        return StreamLog(path, reactor, interval, timers, context.monotonic, prefix=conf.prefix, wall=context.wall)
    except OSError as error:
        raise ConfError(f"stream_access_log cannot open {path}: {error.strerror}") from error


def session_log_for(conf: Conf, reactor: IReactorTime) -> SessionLog | None:
    """The access log of sessions of stream routes; None where there are none.

    Raises:
        ConfError: it cannot be opened.
    """
    if not conf.stream_listen:
        return None
    path, _ = log_parts(conf.proxy_stream_access_log)
    try:
        return SessionLog(path, reactor, prefix=conf.prefix)
    except OSError as error:
        raise ConfError(f"proxy_stream_access_log cannot open {path}: {error.strerror}") from error


def error_log_for(conf: Conf, apis: bool = True) -> ErrorLog:
    """The error log of a process.

    Args:
        conf: the configuration.
        apis: the process serves the Admin and Status APIs, whose errors may go to files of their own.

    Raises:
        ConfError: it cannot be opened.
    """
    path, level = error_log_parts(conf.proxy_error_log)
    try:
        log = ErrorLog(path, level or conf.log_level, prefix=conf.prefix, fixed=bool(level))
    except OSError as error:
        raise ConfError(f"proxy_error_log cannot open {conf.proxy_error_log}: {error.strerror}") from error
    others: dict[str, tuple[str, Any]] = {}
    if apis and conf.admin_listen:
        others["kongtwist.admin"] = ("admin_error_log", conf.admin_error_log)
    if conf.stream_listen:
        others["kongtwist.stream"] = ("proxy_stream_error_log", conf.proxy_stream_error_log)
    if apis and conf.status_listen:
        others["kongtwist.status"] = ("status_error_log", conf.status_error_log)
    for namespace, (name, text) in others.items():
        if text == conf.proxy_error_log:
            continue
        path, level = error_log_parts(text)
        try:
            log.divert(namespace, ErrorLog(path, level or conf.log_level, prefix=conf.prefix, fixed=bool(level)))
        except OSError as error:
            log.close()
            raise ConfError(f"{name} cannot open {text}: {error.strerror}") from error
    return log
