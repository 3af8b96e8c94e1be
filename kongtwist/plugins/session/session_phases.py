"""session: keep clients known over many requests by a cookie. Kong 3.9 `session`.

Runs before the plugins that authenticate: who has a session is known by it already, so that those with an ``anonymous``
consumer let the request pass. When one of them has found out who a client is, the answer brings the client a session.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ...core.chain.authentication import identify, vouched
from ...core.chain.failures import is_cancelled
from ...core.chain.host import Host
from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, BodyTooLarge, Exchange
from ...core.http.bodies import decode_body
from ...core.http.cookies import read_cookies
from ...core.http.headers import encoded
from ...core.rows import Row
from .._once import Seldom
from .client_session import ClientSession, Settings
from .session_fields import CONFIG, SESSIONS
from .session_rows import SessionRows

__all__ = ["Session"]

_BODIES = frozenset((b"DELETE", b"PATCH", b"POST", b"PUT"))
"""Methods of requests whose bodies are looked into for a logout."""

_SEEN = "session.of_request"
"""Where the session that a request came with is kept for its answer; a new one stays nameless (``kong.ctx.shared``)."""

AUTHENTICATED = "authenticated_session"
"""Where other plugins find the session by which a client was recognised, as in Kong."""


class Config:
    """A configuration, ready for requests.

    Attributes:
        rows: where sessions are stored; None: in cookies.
        host: for what goes on after an answer; set in processes that serve.
    """

    __slots__ = (
        "host", "logout_argument", "logout_field", "logout_methods", "name", "request_headers", "response_headers", "rows",
        "settings", "tell",
    )  # fmt: skip

    def __init__(self, conf: Row) -> None:
        self.settings = Settings(conf)
        self.name = self.settings.main.name
        self.request_headers = _headers(conf["request_headers"])
        self.response_headers = _headers(conf["response_headers"])
        self.logout_methods = frozenset(each.encode() for each in conf["logout_methods"] or ())
        self.logout_argument: str | None = conf["logout_query_arg"]
        self.logout_field: str | None = conf["logout_post_arg"] if conf["read_body_for_logout"] else None
        self.host: Host | None = None
        self.rows: SessionRows | None = None
        self.tell: Seldom | None = None

    def serving(self, host: Host) -> Config:
        """The same in a process that serves."""
        self.host = host
        self.rows = SessionRows(host.rows) if self.settings.stored else None
        self.tell = Seldom(host.report, host.now)
        return self


def _headers(words: list[str] | None) -> tuple[tuple[str, bytes], ...]:
    return tuple((word, b"Session-" + word.title().encode()) for word in words or ())


class Session(Plugin):
    """Know a client by its session; end it when it logs out; give it one when another plugin has found out who it is."""

    name = "session"
    priority = 1900
    authenticates = True
    scopes = ("service", "route")
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    example = {"storage": "cookie", "cookie_secure": True}
    config = CONFIG
    entities = (SESSIONS,)

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def opens(self, conf: Config) -> bool:
        return conf.settings.stored  # cookies need nobody

    def open(self, conf: Config, plugin: Row, host: Host) -> Config:
        return conf.serving(host)

    def access(self, exchange: Exchange, conf: Config) -> Answer | Awaitable[Answer | None] | None:
        for _, name in conf.request_headers:
            exchange.clear_upstream_header(name.lower())
        if exchange.authenticated_groups is None:  # it is ours to tell, though nobody may be known
            exchange.clear_upstream_header(b"x-authenticated-groups")
        fields = exchange.get_headers(b"cookie")
        if not fields:
            return None
        session = _opened(exchange, conf, read_cookies(fields))
        exchange.ctx[_SEEN] = session
        if session.writes:  # one that was over is made anew from the cookie that outlives the browser
            return self._access_when_written(exchange, conf, session)
        return self._go_on(exchange, conf, session) if session.exists else None

    async def _access_when_written(self, exchange: Exchange, conf: Config, session: ClientSession) -> Answer | None:
        if not await _written(exchange, conf, session):
            session.cookies.clear()
            return None
        answer = self._go_on(exchange, conf, session)
        return answer if answer is None or isinstance(answer, Answer) else await answer

    def _go_on(
        self, exchange: Exchange, conf: Config, session: ClientSession
    ) -> Answer | Awaitable[Answer | None] | None:
        """A session is there: log out, or know the client by it."""
        if exchange.method in conf.logout_methods:
            if conf.logout_argument and conf.logout_argument in exchange.query_args():
                return self._log_out(exchange, conf, session)
            if conf.logout_field and exchange.method in _BODIES and exchange.block.has_body:
                return self._look_into_body(exchange, conf, session)
        return self._recognise(exchange, conf, session)

    async def _look_into_body(self, exchange: Exchange, conf: Config, session: ClientSession) -> Answer | None:
        try:
            raw = await exchange.read_body(exchange.gateway.body_limit)
        except BodyTooLarge:
            body = None
        else:
            body = decode_body(exchange.get_header(b"content-type"), raw)
        answer: Any
        if body is not None and body.args.get(conf.logout_field or "") not in (None, False):
            answer = self._log_out(exchange, conf, session)
        else:
            answer = self._recognise(exchange, conf, session)
        return answer if answer is None or isinstance(answer, Answer) else await answer

    @staticmethod
    def _log_out(exchange: Exchange, conf: Config, session: ClientSession) -> Answer | Awaitable[Answer | None]:
        session.logout()
        if not session.writes:
            return exchange.exit(200)

        async def when_written() -> Answer:
            if await _written(exchange, conf, session):
                return exchange.exit(200)
            # The cookie goes, but a copy of it would still be let in: the client must not take that for a logout.
            return exchange.error(500, "An unexpected error occurred")

        return when_written()

    @staticmethod
    def _recognise(exchange: Exchange, conf: Config, session: ClientSession) -> Awaitable[None] | None:
        consumer_id, credential_id, groups = _held(session)
        consumer = exchange.snapshot.rows.get("consumers", {}).get(consumer_id)
        before = session.main
        if consumer is None:
            session.logout()
            exchange.ctx.pop(_SEEN)
            exchange.ctx[_SEEN] = _Ended(session.cookies)
        else:
            session.refresh()
        if not session.writes:
            if consumer is not None:
                _authenticate(exchange, conf, session, consumer, credential_id, groups)
            return None

        async def when_written() -> None:
            written = await _written(exchange, conf, session)
            if consumer is None:
                return
            if not written:  # what the client has still holds
                session.cookies.clear()
                session.main = before
            _authenticate(exchange, conf, session, consumer, credential_id, groups)

        return when_written()

    def header_filter(self, exchange: Exchange, conf: Config) -> None:
        session: ClientSession | _Ended | None = exchange.ctx.get(_SEEN)
        consumer, credential = exchange.consumer, exchange.credential
        if credential is not None and consumer is not None and not vouched(exchange):
            known = exchange.ctx.get(AUTHENTICATED)
            if known is None or _held(known)[:2] != (consumer["id"], credential.get("id")):
                session = self._save(exchange, conf, session, consumer, credential.get("id") or consumer["id"])
        if session is not None:
            for line in session.cookies.values():
                exchange.add_response_header(b"Set-Cookie", line)

    @staticmethod
    def _save(
        exchange: Exchange, conf: Config, seen: ClientSession | _Ended | None, consumer: Row, credential_id: str
    ) -> ClientSession | _Ended | None:
        """Give the client a session."""
        if isinstance(seen, ClientSession):
            session = seen
        else:
            session = ClientSession(conf.settings, {}, int(exchange.wall_started), _nothing)
            session.cookies.update(seen.cookies if seen is not None else {})
        subject = consumer.get("username") or consumer.get("custom_id") or consumer["id"]
        session.set([consumer["id"], credential_id, exchange.authenticated_groups], subject)
        before = dict(session.cookies)
        try:
            session.save()
        except ValueError as error:
            exchange.report(f"session: not saved: {error}")
            session.cookies = before
            return session
        for word, name in conf.response_headers:
            _tell(exchange.set_response_header, name, session.word(word))
        if session.writes and conf.rows is not None and conf.host is not None:
            # The answer does not wait for the database, as in Kong; in this process the session is known from now on.
            conf.rows.announce(session.writes)
            conf.host.spawn("session: write a session", _written(exchange, conf, session))
        return session


class _Ended:
    """What is left of a session whose consumer is gone: the cookies that take it from the client."""

    __slots__ = ("cookies",)

    def __init__(self, cookies: dict[bytes, bytes]) -> None:
        self.cookies = cookies


def _nothing(session_id: str) -> None:
    return None


def _opened(exchange: Exchange, conf: Config, sent: dict[bytes, bytes]) -> ClientSession:
    now = exchange.wall_started
    rows = conf.rows
    return ClientSession(
        conf.settings, sent, int(now), _nothing if rows is None else lambda session_id: rows.load(session_id, now)
    )


async def _written(exchange: Exchange, conf: Config, session: ClientSession) -> bool:
    """Make the changes of rows that go with a session; False and a line in the log where that fails."""
    writes, session.writes = session.writes, []
    if conf.rows is None:
        return True
    try:
        await conf.rows.make(writes)
    except Exception as error:
        if is_cancelled(error):
            raise
        if conf.tell is not None:
            conf.tell(f"session: a session could not be written to the database: {error}")
        return False
    return True


def _held(session: Any) -> tuple[Any, Any, list[str] | None]:
    """Consumer, credential and groups of a session's data. It is ours, sealed: it has that form."""
    data = session.data or (None, None, None)
    return data[0], data[1], data[2]


def _authenticate(
    exchange: Exchange, conf: Config, session: ClientSession, consumer: Row, credential_id: str | None,
    groups: list[str] | None,
) -> None:  # fmt: skip
    """Tell everybody who this is."""
    for word, name in conf.request_headers:
        _tell(exchange.set_upstream_header, name.lower(), session.word(word))
    for word, name in conf.response_headers:
        _tell(exchange.set_response_header, name, session.word(word))
    exchange.ctx[AUTHENTICATED] = session
    credential = None if credential_id is None else {"id": credential_id, "consumer_id": consumer["id"]}
    identify(exchange, consumer, credential, credential_id)
    if groups is not None:
        exchange.set_upstream_header(b"x-authenticated-groups", encoded(", ".join(groups).encode()))
        exchange.authenticated_groups = groups


def _tell(tell: Any, name: bytes, value: str | None) -> None:
    if value is not None:
        tell(name, encoded(value.encode("utf-8", "surrogatepass")))
