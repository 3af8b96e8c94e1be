"""acme's storages in servers that keep keys and values: Consul and Vault (lua-resty-acme 0.15, ``storage/consul``, ``storage/vault``).

Both keep what Kong keeps there, under the same keys, so that a Kong and we find each other's. Each call is a request of its own.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from ...core.chain.host import Host, HostError, HTTPAnswer
from ...core.rows import Row

__all__ = ["STORAGES", "ConsulStorage", "VaultStorage"]

_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_TOO_LONG = 1 << 20
"""Bytes of a service account's token that are read."""
_NOTE = "managed by kongtwist"


class _Server:
    """What both have: where it is, and how it is asked.

    Args:
        kind: of the storage, for errors.
        conf: its fields of the plugin's configuration.
        host: asks.
        port: its port where none is configured.
    """

    def __init__(self, kind: str, conf: Row, host: Host, port: int) -> None:
        self._kind = kind
        self._host = host
        self._conf = conf
        name = conf["host"] or "127.0.0.1"
        name = f"[{name}]" if ":" in name else name
        self._base = f"{'https' if conf['https'] else 'http'}://{name}:{conf['port'] or port}"
        self._timeout = (2000 if conf["timeout"] is None else conf["timeout"]) / 1000
        self._path = "/" + (conf["kv_path"] or "acme").strip("/")

    async def _ask(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes = b"", **options: Any
    ) -> HTTPAnswer:
        return await self._host.http.request(
            method, self._base + path, headers=headers, body=body, timeout=self._timeout, keepalive=0.0, **options
        )

    def _refused(self, answer: HTTPAnswer, what: str) -> HostError:
        told = " ".join(answer.body[:200].decode("utf-8", "replace").split())
        return HostError(
            f"storage {self._kind} at {self._base} answers {answer.status} when it is asked to {what}: {told};"
            f" see config.storage_config.{self._kind}"
        )

    def _read(self, answer: HTTPAnswer, what: str) -> Any:
        try:
            return json.loads(answer.body)
        except ValueError:
            raise self._refused(answer, what) from None


def _key(text: str) -> str:
    """A key as the last part of a path: Kong keeps it in one piece."""
    return quote(text.replace("/", "-"), safe="")


class ConsulStorage(_Server):
    """In Consul's store of keys and values. It ends none by itself: the flags of a key are when it ends, in milliseconds.

    Args:
        conf: ``config.storage_config.consul``.
        host: asks, and tells the time.
    """

    def __init__(self, conf: Row, host: Host) -> None:
        super().__init__("consul", conf, host, 8500)
        self._headers = [(b"X-Consul-Token", conf["token"].encode())] if conf["token"] else []

    async def _call(self, method: str, rest: str, what: str, body: bytes = b"") -> Any:
        answer = await self._ask(method, f"/v1/kv{self._path}/{rest}", self._headers, body)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self._refused(answer, what)
        return self._read(answer, what)

    def _flags(self, ttl: float) -> list[str]:
        return [f"flags={int((self._host.now() + ttl) * 1000)}"] if ttl else []

    async def get(self, key: str) -> str | None:
        """See `Storage.get`."""
        found = await self._call("GET", _key(key), "read a key")
        if not found or found[0].get("Value") is None:
            return None
        entry = found[0]
        if 0 < entry.get("Flags", 0) < self._host.now() * 1000:
            await self._call("DELETE", f"{_key(key)}?cas={entry['ModifyIndex']}", "delete a key")
            return None
        return b64decode(entry["Value"]).decode("utf-8", "replace")

    async def set(self, key: str, value: str, ttl: float = 0) -> None:
        """See `Storage.set`."""
        if not await self._put(key, value, self._flags(ttl)):
            raise HostError(f"storage consul at {self._base} has not taken a key")

    async def _put(self, key: str, value: str, options: list[str]) -> bool:
        query = "?" + "&".join(options) if options else ""
        return await self._call("PUT", _key(key) + query, "write a key", value.encode()) is True

    async def add(self, key: str, value: str, ttl: float) -> bool:
        """See `Storage.add`."""
        if await self.get(key) is not None:
            return False
        return await self._put(key, value, [*self._flags(ttl), "cas=0"])

    async def delete(self, key: str) -> None:
        """See `Storage.delete`."""
        await self._call("DELETE", _key(key), "delete a key")

    async def list(self, prefix: str) -> list[str]:
        """See `Storage.list`."""
        found = [str(each).rpartition("/")[2] for each in await self._call("GET", "?keys", "list keys") or ()]
        return sorted(each for each in found if each.startswith(prefix))


class VaultStorage(_Server):
    """In Vault's second engine of keys and values, or in OpenBao's, which ends a key's versions by itself.

    Args:
        conf: ``config.storage_config.vault``.
        host: asks, and reads the service account's token in a thread.
    """

    def __init__(self, conf: Row, host: Host) -> None:
        super().__init__("vault", conf, host, 8200)
        mount, _, rest = self._path[1:].partition("/")
        rest = f"/{rest}" if rest else ""
        self._data, self._metadata = f"/v1/{mount}/data{rest}/", f"/v1/{mount}/metadata{rest}/"
        self._token: str | None = conf["token"] if conf["auth_method"] != "kubernetes" else None
        self._logs_in = conf["auth_method"] == "kubernetes"

    async def _call(
        self, method: str, path: str, what: str, payload: Any = None, also: tuple[int, ...] = ()
    ) -> HTTPAnswer:
        """Ask; log in first where that is to be done, and again where the token holds no more. ``also``: statuses that are no fault."""
        if self._logs_in and self._token is None:
            await self._log_in()
            answer = await self._send(method, path, payload)
        else:
            answer = await self._send(method, path, payload)
            if answer.status == 403 and self._logs_in:
                await self._log_in()
                answer = await self._send(method, path, payload)
        if answer.status not in (200, 204, 404, *also):
            raise self._refused(answer, what)
        return answer

    async def _send(self, method: str, path: str, payload: Any) -> HTTPAnswer:
        headers = [(b"X-Vault-Token", self._token.encode())] if self._token else []
        body = b"" if payload is None else json.dumps(payload).encode()
        if payload is not None:
            headers.append((b"Content-Type", b"application/json"))
        options: dict[str, Any] = {}
        if self._conf["https"]:
            name = self._conf["tls_server_name"] or ""
            options = {"ssl_verify": self._conf["tls_verify"] is not False, "server_name": name}
            if name:
                headers.append((b"Host", name.encode()))
        return await self._ask(method, path, headers, body, **options)

    async def _log_in(self) -> None:
        path = self._conf["jwt_path"] or _SERVICE_ACCOUNT
        try:
            jwt = await self._host.threads(_text, path)
        except OSError as error:
            raise HostError(
                f"storage vault: {path} cannot be read: {error.strerror}; see config.storage_config.vault.jwt_path"
            ) from error
        self._token = None
        where = f"/v1/auth/{quote((self._conf['auth_path'] or 'kubernetes').strip('/'))}/login"
        answer = await self._send("POST", where, {"role": self._conf["auth_role"], "jwt": jwt})
        token = None
        if answer.status == 200:
            with suppress(TypeError, KeyError):
                token = self._read(answer, "log in")["auth"]["client_token"]
        if not isinstance(token, str) or not token:
            raise self._refused(answer, "log in")
        self._token = token

    async def _entry(self, key: str) -> tuple[str | None, int]:
        """A key's value, and the number of its newest version; 0: there is none."""
        answer = await self._call("GET", self._data + _key(key), "read a key")
        data = _member(self._read(answer, "read a key"), "data") if answer.body else None
        version = _member(_member(data, "metadata"), "version")
        value = _member(_member(data, "data"), "value")
        found = isinstance(value, str) and answer.status == 200
        return value if found else None, version if isinstance(version, int) else 0

    async def get(self, key: str) -> str | None:
        """See `Storage.get`."""
        return (await self._entry(key))[0]

    async def set(self, key: str, value: str, ttl: float = 0) -> None:
        """See `Storage.set`."""
        await self._put(key, value, ttl, {})

    async def _put(self, key: str, value: str, ttl: float, options: dict[str, int]) -> bool:
        """Write a version; False where it is not the one after the given one."""
        if ttl:
            after = {"delete_version_after": f"{max(round(ttl * 1000), 1000)}ms"}  # it knows no less than a second
            await self._call("POST", self._metadata + _key(key), "say when a key ends", after)
        payload = {"data": {"value": value, "note": _NOTE}, "options": options}
        answer = await self._call("POST", self._data + _key(key), "write a key", payload, (400,))
        if options and answer.status == 400 and b"check-and-set" in answer.body:
            return False
        if answer.status != 200:  # 404: nothing is mounted there
            raise self._refused(answer, "write a key")
        return True

    async def add(self, key: str, value: str, ttl: float) -> bool:
        """See `Storage.add`."""
        known, version = await self._entry(key)
        return known is None and await self._put(key, value, ttl, {"cas": version})

    async def delete(self, key: str) -> None:
        """See `Storage.delete`."""
        await self._call("DELETE", self._metadata + _key(key), "delete a key")

    async def list(self, prefix: str) -> list[str]:
        """See `Storage.list`."""
        answer = await self._call("GET", f"{self._metadata}?list=true", "list keys")
        told = self._read(answer, "list keys") if answer.status == 200 else None
        keys = _member(_member(told, "data"), "keys") or ()
        return sorted(each for each in keys if each.startswith(prefix))


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read(_TOO_LONG).strip()


STORAGES: dict[str, Callable[[Row, Host], ConsulStorage | VaultStorage]] = {
    "consul": ConsulStorage,
    "vault": VaultStorage,
}
"""By their names in ``config.storage``."""
