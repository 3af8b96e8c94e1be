"""stream-lifetime: signs of life of WebSockets and event streams, and a polite end of all streams and of gRPC calls at an age.

Our own plugin. It also gives up peers that have vanished.
"""

from __future__ import annotations

from random import Random
from typing import Any

from ..core.chain.host import Host, Timer
from ..core.chain.plugin import Plugin
from ..core.chain.stream_watch import StreamInfo, StreamWatch
from ..core.rows import Row
from ..entities.checks import AtLeastOneOf, Custom
from ..entities.schema import Integer, Number, String

__all__ = ["StreamLifetime"]

_DAY = 86_400
_LONGEST = 31_536_000


def _may_be_sent(code: int) -> str | None:
    """The check of a close code (RFC 6455 7.4)."""
    if code < 3000 and (code > 1014 or code in (1004, 1005, 1006)):
        return "no code that may be sent: use 1000 to 1003, 1007 to 1014, or 3000 to 4999"
    return None


def _jitter_within_age(row: Row) -> dict[str, Any] | None:
    """Streams of a jitter above their age would mostly end as they begin, and come again, and so on."""
    conf = row["config"]
    if conf["max_stream_age_jitter"] <= conf["max_stream_age"]:
        return None
    return {
        "config": {"max_stream_age_jitter": "must not be greater than max_stream_age: streams would end as they begin"}
    }


class Config:
    """A configuration, ready for streams.

    Attributes:
        host: what makes timers; None until it is opened.
    """

    __slots__ = ("age", "client", "code", "comments", "host", "jitter", "pings", "reason", "retry", "upstream")

    def __init__(self, conf: Row) -> None:
        self.host: Host | None = None
        self.pings: float | None = conf["ping_interval"]
        self.client = conf["ping_sides"] in ("both", "client")
        self.upstream = conf["ping_sides"] in ("both", "upstream")
        self.comments: float | None = conf["comment_interval"]
        self.age: float | None = conf["max_stream_age"]
        self.jitter: float = conf["max_stream_age_jitter"]
        self.code: int = conf["close_code"]
        self.reason: str = conf["close_reason"] or ""
        self.retry: int | None = conf["retry"]


class _Age(StreamWatch):
    """Ends a stream that is old."""

    def __init__(self, conf: Config, host: Host, stream: StreamInfo, seconds: float) -> None:
        self._conf = conf
        self._stream: StreamInfo | None = stream
        self._timer: Timer = host.later(seconds, self._end)

    def _end(self) -> None:
        if self._stream is not None:
            conf = self._conf
            self._stream.close(conf.code, conf.reason, conf.retry)

    def on_close(self, why: str) -> None:
        """It has ended before."""
        self._stream = None
        self._timer.cancel()


class StreamLifetime(Plugin):
    """Keep silent streams alive, and end old ones."""

    name = "stream-lifetime"
    priority = 950_000
    protocols = ("grpc", "grpcs", "http", "https")
    example = {"ping_interval": 30, "comment_interval": 15, "max_stream_age": 3600, "max_stream_age_jitter": 600}
    config = {
        "ping_interval": Number(
            between=(0.1, _DAY),
            text="Seconds of silence after which a WebSocket's peer gets a Ping. One that says nothing for as long again is given up:"
            " both sides get 1001. Not given: no Pings.",
        ),
        "ping_sides": String(default="both", one_of=["both", "client", "upstream"], required=True, text="Who gets Pings."),
        "comment_interval": Number(
            between=(0.1, _DAY),
            text="Seconds of silence after which an event stream's client gets a comment. One whose host acknowledges nothing for as long"
            " is given up (over HTTP/1.1). Not given: no comments.",
        ),
        "max_stream_age": Number(
            between=(0.1, _LONGEST),
            text="Seconds after which a stream is ended politely, so that its client comes again, perhaps to another node. Calls of gRPC"
            " get the status UNAVAILABLE. Not given: never.",
        ),
        "max_stream_age_jitter": Number(
            default=0, between=(0, _LONGEST), required=True,
            text="Seconds by which each stream ends sooner at the most, by chance: streams that began together do not end together."
            " At most max_stream_age.",
        ),
        "close_code": Integer(
            default=1012, between=(1000, 4999), required=True, checks=(_may_be_sent,),
            text="Close code of a WebSocket that is too old (RFC 6455 7.4; 1012: service restart).",
        ),
        "close_reason": String(
            default="please connect again",
            text="What both sides of an old WebSocket, as a comment the client of an event stream, and as its message that of a call, get.",
        ),
        "retry": Integer(
            between=(0, 3_600_000),
            text="Milliseconds after which the client of an old event stream is to come again. Not given: it knows itself.",
        ),
    }  # fmt: skip
    config_checks = (
        AtLeastOneOf("config.ping_interval", "config.comment_interval", "config.max_stream_age"),
        Custom(("config.max_stream_age", "config.max_stream_age_jitter"), _jitter_within_age),
    )

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def open(self, conf: Config, plugin: Row, host: Host) -> Config:
        conf.host = host
        return conf

    def on_open(self, stream: StreamInfo, conf: Any) -> StreamWatch | None:
        if stream.kind == "websocket":
            if conf.pings is not None:
                stream.keep_alive(conf.pings, conf.client, conf.upstream)
        elif conf.comments is not None:
            stream.keep_alive(conf.comments)
        return self._aged(stream, conf)

    def on_call(self, call: StreamInfo, conf: Any) -> StreamWatch | None:
        return self._aged(call, conf)

    def opens(self, conf: Config) -> bool:
        return conf.age is not None

    def takes_part(self, conf: Any, phase: str) -> bool:
        return phase != "on_call" or conf.age is not None

    def _aged(self, stream: StreamInfo, conf: Config) -> StreamWatch | None:
        """What ends it at its age, where it has one."""
        if conf.age is None or conf.host is None:
            return None
        age = conf.host.now() - stream.started  # it may have begun in another process
        return _Age(conf, conf.host, stream, max(0.0, conf.age - Random(stream.id).random() * conf.jitter - age))
