"""Why Kafka does not answer: kafka-python tells that only in its log, so its log is read.

The library says "timed out" to whoever asks; that a broker is away, that a login is refused or that a certificate is not trusted it
writes into its log, from the thread that met it.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from typing import NamedTuple

__all__ = ["Cause", "Causes", "explained", "more_telling"]

_MOST_THREADS = 256
"""Threads whose last line is kept."""
_SHOWN = 300
"""Characters of a line that are shown."""


class Cause(NamedTuple):
    """What failed, what to do about it, and the word by which it is counted."""

    text: str
    remedy: str
    kind: str = "other"


_KNOWN = (
    (r"SaslAuthenticationFailed|Error 58|SASL.*(?:refus|fail)", "login refused",
     "check config.authentication: user, password and mechanism", "login"),
    (r"UnsupportedSaslMechanism|Error 33", "the broker does not offer this SASL mechanism",
     "set config.authentication.mechanism to one the listener offers", "login"),
    (r"CERTIFICATE_VERIFY_FAILED.*expired", "the broker's certificate has expired", "renew it", "tls"),
    (r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", "the broker's certificate is not trusted",
     "name its authority in lua_ssl_trusted_certificate, and brokers as their certificates do", "tls"),
    (r"WRONG_VERSION_NUMBER|wrong version number|RECORD_LAYER_FAILURE|PLAINTEXT broker listener",
     "the broker does not speak TLS on this port", "turn config.security.ssl off, or name the port of its TLS listener", "tls"),
    (r"SSL|TLS", "TLS failed", "check config.security and the broker's listener", "tls"),
    (r"ECONNREFUSED|Connection refused|Errno 111", "connection refused",
     "start the broker, or correct config.bootstrap_servers", "unreachable"),
    (r"Name or service not known|getaddrinfo|DNS|Errno -[235]", "a broker's name cannot be resolved",
     "correct config.bootstrap_servers, or what the broker calls itself (advertised.listeners)", "unreachable"),
    (r"TopicAuthorization|Error 29", "not allowed to use the topic", "grant the user access to it (ACL)", "not_allowed"),
    (r"ClusterAuthorization|Error 31", "not allowed to write idempotently", "grant the user IdempotentWrite", "not_allowed"),
    (r"Unrecognized partition|_UNKNOWN_PARTITION", "no such partition",
     "correct config.partition_template, or add partitions to the topic", "no_partition"),
    (r"InvalidReceiveError|Invalid frame length", "what listens there speaks TLS, or no Kafka",
     "set config.security.ssl, or correct config.bootstrap_servers", "tls"),
    # Above time-outs: a library that tries in vain until its time is over says both.
    (r"socket disconnected|reset by peer|Errno 104", "the broker closed the connection",
     "check that config.security.ssl and config.authentication fit the broker's listener", "disconnected"),
    (r"[Tt]imed? ?[Oo]ut", "no answer in time",
     "look at the broker's log and load, and whether its listener speaks TLS (config.security.ssl)", "no_answer"),
    (r"[Dd]isconnected|Connection lost", "the broker closed the connection",
     "check that config.security.ssl and config.authentication fit the broker's listener", "disconnected"),
)  # fmt: skip


def explained(text: str) -> Cause:
    """A line of the library as a cause with its remedy."""
    shown = " ".join(text.split())[:_SHOWN]
    for pattern, cause, remedy, kind in _KNOWN:
        if re.search(pattern, text):
            return Cause(f"{cause} ({shown})", remedy, kind)
    return Cause(shown, "look at the broker's log")


def _weight(text: str) -> int:
    """Which of two lines of one failure says more: a lower number."""
    for number, (pattern, *_) in enumerate(_KNOWN):
        if re.search(pattern, text):
            return number
    return len(_KNOWN)


def more_telling(held: str | None, text: str) -> str:
    """Of two lines of one failure the one that says more; of equal ones the later."""
    return text if held is None or _weight(text) <= _weight(held) else held


class Causes(logging.Handler):
    """Keeps the most telling of the latest warnings of each thread of the library, and keeps them from standard error."""

    _made: Causes | None = None

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: OrderedDict[int, str] = OrderedDict()
        self._guard = threading.Lock()

    @classmethod
    def installed(cls) -> Causes:
        """The one that reads the library's log in this process."""
        if cls._made is None:
            cls._made = cls()
            logger = logging.getLogger("kafka")
            logger.addHandler(cls._made)
            logger.propagate = False
        return cls._made

    def emit(self, record: logging.LogRecord) -> None:
        """Note a line. See `logging.Handler`."""
        thread = record.thread
        if thread is None:
            return
        text = record.getMessage()
        with self._guard:
            held = self._kept.pop(thread, None)
            self._kept[thread] = more_telling(held, text)
            if len(self._kept) > _MOST_THREADS:
                self._kept.popitem(last=False)

    def taken(self, *threads: int | None) -> Cause | None:
        """What was last told by the first of these threads that told anything, which is then forgotten.

        Args:
            threads: as `threading.get_ident` has them.
        """
        with self._guard:
            lines = [line for thread in threads if thread is not None and (line := self._kept.pop(thread, None))]
        return explained(lines[0]) if lines else None
