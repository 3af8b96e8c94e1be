"""Binds at one LDAP server: connections that are kept for the next one, bounded (RFC 4511, RFC 4513)."""

from __future__ import annotations

from ...core.chain.host import Connection, ConnectionLost, Host, HostError, TLSSettings
from ...core.rows import Row
from .ldap_messages import BIND, EXTENDED, Malformed, bind_request, result_of, start_tls_request, unbind_request, whole

__all__ = ["Binds", "Unanswered"]

IDLE = 16
"""Connections that wait for the next bind, at the most; more are ended when theirs is answered."""

_SUCCESS = 0
_REFUSED = frozenset((1, 2, 8, 13, 51, 52, 53, 80))
"""Results that say nothing of the user: the server is busy, shut down, wants TLS (RFC 4511 appendix A)."""
_NEXT = 0x7FFFFFFF


class Unanswered(Exception):
    """The server has not said whether somebody is who they claim to be; the text says why."""


class _Server:
    """One connection: a request at a time."""

    __slots__ = ("_connection", "_held", "_number", "since")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held = b""
        self._number = 0
        self.since = 0.0  #: when it became idle

    async def bind(self, name: str, password: bytes) -> tuple[int, str]:
        """What the server says to a name and password: result code and words."""
        self._number = self._number % _NEXT + 1
        await self._connection.write(bind_request(self._number, name, password))
        return await self._answer(BIND)

    async def start_tls(self, settings: TLSSettings) -> None:
        """Go on in TLS."""
        self._number += 1
        await self._connection.write(start_tls_request(self._number))
        code, text = await self._answer(EXTENDED)
        if code != _SUCCESS:
            raise Unanswered(f"the server does not begin TLS: {text or f'result {code}'}")
        if self._held:  # whoever sent it was not asked, and is not who TLS is going to be spoken with
            raise Unanswered("the server went on without TLS")
        await self._connection.start_tls(settings)

    async def _answer(self, operation: int) -> tuple[int, str]:
        while (size := whole(self._held)) is None:
            data = await self._connection.read()
            if not data:
                raise ConnectionLost("the server ended the connection")
            self._held += data
        message, self._held = self._held[:size], self._held[size:]
        found = result_of(message)
        if found.message_id != self._number or found.operation != operation:
            raise Malformed(f"an answer to something else: {found.text}")
        return found.code, found.text

    async def close(self) -> None:
        try:
            await self._connection.write(unbind_request(self._number % _NEXT + 1))
            await self._connection.close()
        except HostError:
            pass


class Binds:
    """Binds of one configuration.

    Args:
        conf: the configuration.
        host: connects.
        most: binds under way at once; whoever wants more is refused.
    """

    def __init__(self, conf: Row, host: Host, most: int) -> None:
        self._host = host
        self._most = most
        self._name: str = conf["ldap_host"]
        self._port: int = conf["ldap_port"]
        self._time = max((conf["timeout"] or 10000) / 1000, 0.001)
        self._keep = (conf["keepalive"] or 0) / 1000
        tls = TLSSettings(verify=conf["verify_ldap_host"], server_name=self._name)
        self._tls = tls if conf["ldaps"] else None
        self._start_tls = tls if conf["start_tls"] and not conf["ldaps"] else None
        self._idle: list[_Server] = []
        self._under_way = 0

    async def bind(self, name: str, password: bytes) -> bool:
        """Whether the server knows this name by this password.

        Raises:
            Unanswered: it did not say.
        """
        if self._under_way >= self._most:
            raise Unanswered(f"{self._under_way} logins are under way already; see plugin_ldap_binds")
        self._under_way += 1
        try:
            while self._idle:
                server = self._idle.pop()
                if self._host.now() - server.since >= self._keep:
                    self._host.spawn("ldap-auth: end a connection", server.close())
                    continue
                try:
                    return await self._asked(server, name, password)
                except ConnectionLost:  # the server ends what is idle: that tells nothing of the next connection
                    continue
            return await self._asked(await self._connected(), name, password)
        except Malformed as odd:
            raise Unanswered(f"{self._name}:{self._port} sent {odd}") from odd
        except HostError as error:
            raise Unanswered(str(error)) from error
        finally:
            self._under_way -= 1

    async def _connected(self) -> _Server:
        connection = await self._host.connect(self._name, self._port, tls=self._tls, timeout=self._time)
        server = _Server(connection)
        if self._start_tls is not None:
            try:
                await server.start_tls(self._start_tls)
            except BaseException:
                self._host.spawn("ldap-auth: end a connection", _ended(connection))
                raise
        return server

    async def _asked(self, server: _Server, name: str, password: bytes) -> bool:
        done = False
        try:
            code, text = await server.bind(name, password)
            done = True
        finally:
            if not done:  # an answer that is still to come would be taken for the next one's
                self._host.spawn("ldap-auth: end a connection", server.close())
        self._put_back(server)
        if code in _REFUSED:
            raise Unanswered(f"{self._name}:{self._port} answered {code}: {text}")
        return code == _SUCCESS

    def _put_back(self, server: _Server) -> None:
        if self._keep <= 0 or len(self._idle) >= IDLE:
            self._host.spawn("ldap-auth: end a connection", server.close())
            return
        server.since = self._host.now()
        self._idle.append(server)
        if len(self._idle) == 1:
            self._host.later(self._keep, self._tidy)

    def _tidy(self) -> None:
        """End what was idle for too long."""
        now = self._host.now()
        over = [each for each in self._idle if now - each.since >= self._keep]
        self._idle = [each for each in self._idle if now - each.since < self._keep]
        for each in over:
            self._host.spawn("ldap-auth: end a connection", each.close())
        if self._idle:
            self._host.later(max(self._idle[0].since + self._keep - now, 0.01), self._tidy)


async def _ended(connection: Connection) -> None:
    try:
        await connection.close()
    except HostError:
        pass
