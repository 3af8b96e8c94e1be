"""A client's session from cookie to cookie: what is opened, renewed, and ended, and when. No I/O; the time comes in.

A session has an id of its own, made anew whenever it is saved, and three times: when it began, when it was saved last
(``rolled``, counted from the beginning), and when it was used last (``touched``, counted from the saving). It holds an entry
for each audience: data, audience, subject. Cookies carry times and entries sealed (sealing.py); with the storage ``kong`` they
carry the times and a row has the entries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from email.utils import formatdate
from math import ceil
from os import urandom
from struct import Struct
from typing import Any, NamedTuple

from ...core.chain.secrets import Unusable
from ...core.rows import Row
from .sealing import ID_SIZE, Sealer, base64url, unbase64url
from .session_cookies import expired_line, joined, split

__all__ = ["ClientSession", "Settings", "Write"]

LONGEST = 34560000
"""Seconds for which a cookie or row is kept at the most: 400 days, as browsers do."""
TOUCH_AFTER = 60
"""Seconds without a request after which the next one is noted in the cookie."""

_TIMES = Struct(">QII")
_MOST_SECONDS = (1 << 32) - 1


class Kind(NamedTuple):
    """One of the two cookies: that of the session, and the one that outlives the browser. Times in seconds, 0: never over."""

    use: bytes
    name: bytes
    idling: float
    rolling: float
    absolute: float


class Stamp(NamedTuple):
    """An opened or saved cookie."""

    session: bytes  #: the id
    created: int
    rolled: int
    touched: int
    cookies: int


class Write(NamedTuple):
    """A change of the stored rows."""

    what: str  #: ``insert``, ``expire`` (end it after ``ttl``, unless it ends before) or ``delete``
    session_id: str
    ttl: float = 0  #: seconds from ``now``
    now: int = 0
    data: str = ""


class Settings:
    """A configuration, ready for requests.

    Raises:
        Unusable: without a secret there are no sessions.
    """

    __slots__ = ("attributes", "audience", "main", "remember", "remembered", "sealer", "stale_ttl", "stored")

    def __init__(self, conf: Row) -> None:
        if not conf["secret"]:
            raise Unusable("session: secret is empty, so nothing can be encrypted")
        self.sealer = Sealer(conf["secret"])
        self.stored: bool = conf["storage"] == "kong"
        self.audience: str = conf["audience"] or "default"
        self.stale_ttl: float = _or(conf["stale_ttl"], 10)
        self.remember: bool = bool(conf["remember"])
        self.main = Kind(
            b"session", (conf["cookie_name"] or "session").encode(), _or(conf["idling_timeout"], 900),
            _or(conf["rolling_timeout"], 3600), _or(conf["absolute_timeout"], 86400),
        )  # fmt: skip
        self.remembered = Kind(
            b"remember", (conf["remember_cookie_name"] or "remember").encode(), 0,
            _or(conf["remember_rolling_timeout"], 604800), _or(conf["remember_absolute_timeout"], 2592000),
        )  # fmt: skip
        self.attributes = _attributes(conf).encode()


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _attributes(conf: Row) -> str:
    domain, same_site = conf["cookie_domain"], conf["cookie_same_site"] or "Lax"
    return "".join((
        f"; Domain={domain}" if domain and domain != "localhost" else "",
        f"; Path={conf['cookie_path'] or '/'}; SameSite={same_site}",
        "; Secure" if conf["cookie_secure"] or same_site == "None" else "",
        "; HttpOnly" if conf["cookie_http_only"] is not False else "",
    ))  # fmt: skip


class ClientSession:
    """The session of one request.

    Args:
        settings: the configuration.
        sent: the cookies of the request.
        now: epoch seconds.
        load: the data of the row with a session id, or None.

    Attributes:
        exists: the client has a session for this audience.
        cookies: lines of ``Set-Cookie`` for the client, by the cookie's name.
        writes: changes of rows that go with them, not made yet.
    """

    __slots__ = (
        "_at",
        "_entries",
        "_load",
        "_sent",
        "_settings",
        "cookies",
        "exists",
        "main",
        "now",
        "remembered",
        "writes",
    )

    def __init__(
        self, settings: Settings, sent: Mapping[bytes, bytes], now: int, load: Callable[[str], str | None]
    ) -> None:
        self._settings, self._sent, self._load, self.now = settings, sent, load, now
        self.cookies: dict[bytes, bytes] = {}
        self.writes: list[Write] = []
        self.main: Stamp | None = None
        self.remembered: Stamp | None = None
        self.exists = False
        self._entries: list[Any] = []
        opened = self._open(settings.main)
        if opened is not None:
            self.main, self._entries = opened
        elif settings.remember and (again := self._open(settings.remembered)) is not None:
            self.remembered, self._entries = again
        at = next((at for at, each in enumerate(self._entries) if each[1] == settings.audience), None)
        self._at = len(self._entries) if at is None else at
        if at is None:
            self._entries.append([None, settings.audience, None])
            return
        self.exists = True
        if self.main is None:
            self._save_remembered()
            self._save_main()

    # -- what it holds -------------------------------------------------------------------------------------------------

    @property
    def data(self) -> Any:
        """What was stored for this audience; None for a new session."""
        return self._entries[self._at][0]

    def set(self, data: Any, subject: str | None) -> None:
        """Hold this for the audience: JSON values."""
        self._entries[self._at] = [data, self._settings.audience, subject]

    def word(self, name: str) -> str | None:
        """What headers tell of it: ``id``, ``audience``, ``subject``, or seconds left (``timeout``: of all three the least)."""
        stamp = self.main
        if stamp is None:
            return None
        if name == "id":
            return base64url(stamp.session)
        if name in ("audience", "subject"):
            found: str | None = self._entries[self._at][1 if name == "audience" else 2]
            return found
        age = self.now - stamp.created
        rolled = age - stamp.rolled
        main = self._settings.main
        limits = {
            "idling-timeout": (main.idling, rolled - stamp.touched),
            "rolling-timeout": (main.rolling, rolled),
            "absolute-timeout": (main.absolute, age),
        }
        wanted = limits.values() if name == "timeout" else [limits[name]]
        left = [limit - used for limit, used in wanted if limit > 0]
        return f"{min(left):.14g}" if left else None

    # -- what becomes of it --------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Renew it after three quarters of its rolling time-out; note its use after `TOUCH_AFTER` seconds without one."""
        stamp, main = self.main, self._settings.main
        assert stamp is not None
        rolled = self.now - stamp.created - stamp.rolled
        if main.rolling > 0 and rolled > ceil(main.rolling * 0.75):
            self._save_main()
        elif main.idling > 0 and rolled - stamp.touched > TOUCH_AFTER:
            touched = stamp._replace(touched=_seconds(rolled))
            self.main = self._send(self._settings.main, touched)

    def save(self) -> None:
        """Give it a new id and send it to the client.

        Raises:
            ValueError: it is too large for cookies.
        """
        self._save_main()
        if self._settings.remember:
            if self.remembered is None and (opened := self._open(self._settings.remembered)) is not None:
                self.remembered = opened[0]
            self._save_remembered()

    def logout(self) -> None:
        """End it for this audience; the last one takes cookies and rows with it."""
        settings = self._settings
        if settings.remember and self.remembered is None and (opened := self._open(settings.remembered)) is not None:
            self.remembered = opened[0]
        del self._entries[self._at]
        self.exists = False
        if self._entries:
            self._save_main()
            if self.remembered is not None:
                self._save_remembered()
            return
        self._end(settings.main, self.main)
        if settings.remember:
            self._end(settings.remembered, self.remembered)

    # -- cookies and rows ----------------------------------------------------------------------------------------------

    def _open(self, kind: Kind) -> tuple[Stamp, list[Any]] | None:
        """What a cookie of the client's holds, unless its time is over."""
        value = joined(kind.name, self._sent)
        raw = None if value is None else unbase64url(value[0])
        if value is None or raw is None:
            return None
        session = raw[:ID_SIZE]
        sealer = self._settings.sealer
        text = sealer.open(kind.use, session, raw[ID_SIZE:])
        if text is None or len(text) < _TIMES.size:
            return None
        created, rolled_at, touched = _TIMES.unpack_from(text)
        stamp = Stamp(session, created, rolled_at, touched, value[1])
        age = self.now - stamp.created
        rolled = age - stamp.rolled
        over = ((kind.absolute, age), (kind.rolling, rolled), (kind.idling, rolled - stamp.touched))
        if any(limit > 0 and used > limit for limit, used in over):
            return None
        entries = text[_TIMES.size :]
        if self._settings.stored:
            found = self._load(base64url(session))
            sealed = None if found is None else unbase64url(found)
            opened = None if sealed is None else sealer.open(kind.use + b" row", session, sealed)
            if opened is None or entries:
                return None
            entries = opened
        return (stamp, json.loads(entries)) if entries else None

    def _save_main(self) -> None:
        self.main = self._save(self._settings.main, self.main)

    def _save_remembered(self) -> None:
        self.remembered = self._save(self._settings.remembered, self.remembered)

    def _save(self, kind: Kind, old: Stamp | None) -> Stamp:
        created = self.now if old is None else old.created
        new = Stamp(urandom(ID_SIZE), created, _seconds(self.now - created), 0, 0 if old is None else old.cookies)
        stamp = self._send(kind, new)
        if self._settings.stored:
            ttl = kind.rolling if 0 < kind.rolling <= LONGEST else LONGEST
            sealed = self._settings.sealer.seal(kind.use + b" row", new.session, self._text())
            self.writes.append(Write("insert", base64url(new.session), ttl, self.now, base64url(sealed)))
            if old is not None:
                what = "delete" if kind is self._settings.remembered else "expire"
                self.writes.append(Write(what, base64url(old.session), self._settings.stale_ttl, self.now))
        return stamp

    def _text(self) -> bytes:
        return json.dumps(self._entries, separators=(",", ":")).encode()

    def _send(self, kind: Kind, stamp: Stamp) -> Stamp:
        """Set the cookies of a stamp; those it had more before are taken back."""
        settings = self._settings
        text = _TIMES.pack(stamp.created, stamp.rolled, stamp.touched) + (b"" if settings.stored else self._text())
        value = base64url(stamp.session + settings.sealer.seal(kind.use, stamp.session, text)).encode()
        pieces = split(kind.name, value)
        attributes = settings.attributes
        if kind is settings.remembered:
            age = int(kind.rolling) if 0 < kind.rolling <= LONGEST else LONGEST
            expires = formatdate(self.now + age, usegmt=True)
            attributes += f"; Expires={expires}; Max-Age={age}".encode()
        for name, piece in pieces:
            self.cookies[name] = name + b"=" + piece + attributes
        self._take_back(kind, len(pieces), stamp.cookies)
        return stamp._replace(cookies=len(pieces))

    def _take_back(self, kind: Kind, kept: int, count: int) -> None:
        for at in range(kept, count):
            name = kind.name if at == 0 else b"%b%d" % (kind.name, at + 1)
            self.cookies[name] = expired_line(name, self._settings.attributes)

    def _end(self, kind: Kind, stamp: Stamp | None) -> None:
        if stamp is None and kind.name not in self._sent:
            return
        self._take_back(kind, 0, max(1, 0 if stamp is None else stamp.cookies))
        if stamp is not None and self._settings.stored:
            self.writes.append(Write("delete", base64url(stamp.session)))


def _seconds(value: int) -> int:
    return min(max(0, value), _MOST_SECONDS)
