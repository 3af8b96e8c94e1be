"""Properties of logs, and of the timing of single requests; part of config/properties.py by length only. Names that Kong lacks are ours."""

from __future__ import annotations

from .kinds import BOOLEAN, NUMBER, STRING, Kind, Property, enum

__all__ = ["LEVELS", "Logs", "error_log_parts", "log_parts"]

LEVELS = ("debug", "info", "notice", "warn", "error", "crit", "alert", "emerg")
"""Kong's levels of ``log_level``, from the least to the most severe."""

_OPTIONS = ("buffer=", "flush=")
"""What nginx takes behind the format and has no effect here: lines are collected anyway, for a second at most."""


def log_parts(text: str) -> tuple[str, str]:
    """Where an access log goes, and the name of its format.

    Args:
        text: ``<path> [<format> [buffer=SIZE] [flush=TIME]]``, ``off`` or ``/dev/stdout``.

    Returns:
        the path and the format, which is "" where none is named.

    Raises:
        ValueError: with the end of a sentence that begins with the property's name.
    """
    path, *words = text.split() or [""]
    if not path or path == "off":
        return "off", ""
    if path.startswith("syslog:"):
        raise ValueError(
            "cannot go to syslog; name a file, and configure the plugin syslog or have a daemon follow the file"
        )
    options = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    for option in options:
        if not option.startswith(_OPTIONS):
            raise ValueError(f"has an option that is not built: '{option}' (<path> [<format>])")
    if len(names) > 1:
        raise ValueError(f"names more than one format: '{' '.join(names)}' (<path> [<format>])")
    return path, names[0] if names else ""


def error_log_parts(text: str) -> tuple[str, str]:
    """Where an error log goes, and its own level.

    Args:
        text: ``<path> [<level>]``.

    Returns:
        the path and the level, which is "" where none is named: `log_level` holds.

    Raises:
        ValueError: with the end of a sentence that begins with the property's name.
    """
    path, *words = text.split() or [""]
    if not path or path == "off":
        raise ValueError("must be a file or /dev/stderr; log_level sets what is written")
    if path.startswith("syslog:"):
        raise ValueError("cannot go to syslog; name a file, and have a daemon follow it")
    if len(words) > 1 or (words and words[0] not in LEVELS):
        raise ValueError(f"has something else than a level behind the file: '{' '.join(words)}' ({', '.join(LEVELS)})")
    return path, words[0] if words else ""


def _access(text: str) -> str:
    log_parts(text)
    return text


def _error(text: str) -> str:
    error_log_parts(text)
    return text


ACCESS_LOG: Kind[str] = Kind("text", _access)
ERROR_LOG: Kind[str] = Kind("text", _error)

_FORMAT = " A format's name may follow: json, combined, or one of nginx_http_log_format (docs/logs.md)."


class Logs:
    """Logs."""

    log_level = Property(enum(*LEVELS), "notice", "Least severe messages that the error log shows.", live=True)
    proxy_access_log = Property(
        ACCESS_LOG, "logs/access.log", f"Access log of proxied requests: a file, /dev/stdout, or off.{_FORMAT}"
    )
    proxy_error_log = Property(
        ERROR_LOG,
        "logs/error.log",
        "The node's error log: a file or /dev/stderr. A level of its own may follow (our addition), in place of log_level.",
    )
    admin_access_log = Property(
        ACCESS_LOG, "logs/admin_access.log", f"Access log of the Admin API: a file, /dev/stdout, or off.{_FORMAT}"
    )
    admin_error_log = Property(
        ERROR_LOG, "logs/error.log", "Error log of the Admin API, written as proxy_error_log; it may be the same file."
    )
    status_access_log = Property(
        ACCESS_LOG, "off", f"Access log of the Status API: a file, /dev/stdout, or off.{_FORMAT}"
    )
    status_error_log = Property(
        ERROR_LOG,
        "logs/status_error.log",
        "Error log of the Status API, written as proxy_error_log; made with status_listen.",
    )
    nginx_http_log_format = Property(
        STRING,
        None,
        "A format of access logs, as nginx's log_format has it: <name> [escape=default|json|none] '<text with $variables>'."
        " Several are separated by '; log_format '. docs/logs.md has the variables; an unknown one stops the start.",
    )
    stream_log_interval = Property(
        NUMBER.within(0, 86400),
        "0",
        "Seconds between two lines about each long stream (WebSocket, event stream, gRPC call) in stream_access_log, beside one when it"
        " opens and one when it closes (our own name). 0: there are none, and nothing is measured for them.",
    )
    stream_access_log = Property(
        ACCESS_LOG,
        "logs/streams.log",
        "Where those lines go, as JSON (our own name): a file, /dev/stdout, or off.",
    )
    request_debug = Property(
        BOOLEAN,
        "on",
        "Tell a client that asks for it (X-Kong-Request-Debug: *) what took how long in its request; clients of other machines"
        " have to bring the token.",
    )
    request_debug_token = Property(
        STRING,
        None,
        "The secret that such a request brings in X-Kong-Request-Debug-Token. Without it one is made at each start and reload, logged,"
        " and kept in <prefix>/.request_debug_token.",
        live=True,
    )
