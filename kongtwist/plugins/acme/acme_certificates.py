"""Certificates: ordered one at a time for each name in the cluster, kept where they are served from, renewed before their end."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable
from ipaddress import IPv4Address
from math import ceil
from typing import Any

from ...core.chain.failures import is_cancelled
from ...core.chain.host import Host, HostError
from ...core.chain.phases import CertificateChoice
from ...core.rows import Row
from ...entities.errors import EntityError
from .._redis_fields import redis_settings
from .acme_servers import STORAGES
from .acme_session import Failed, Settings, begin, ends, finish, key_of_jwk, new_key
from .acme_storage import MemoryStorage, RedisStorage, RowStorage, Storage

__all__ = ["Config", "Issuer"]

_ORDERS = 4
"""See ``plugin_acme_orders`` in kong.conf."""

_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\Z"
).match
"""A name as DNS has it (RFC 1123 2.1), lower case; no CA knows any other."""

PREFIX = "kong_acme:"
TAG = "managed-by-acme"
_LOCK = 180
"""Seconds for which one node orders a certificate, at the most."""
_CHALLENGE = 3600
_LIFE = 90 * 86400
"""Seconds after which Kong writes a certificate is to be renewed; its real end counts."""
_RENEWAL = 86400
"""Seconds between two looks at all certificates."""


class Config:
    """A configuration."""

    def __init__(self, conf: Row, plugin_id: str) -> None:
        self.id = plugin_id
        self.email: str = conf["account_email"]
        self.account_key: Row | None = conf["account_key"]
        uri: str = conf["api_uri"]
        self.directory = uri if uri.rstrip("/").endswith(("/directory", "/dir")) else f"{uri.rstrip('/')}/directory"
        self.terms = bool(conf["tos_accepted"])
        self.eab = (conf["eab_kid"], conf["eab_hmac_key"])
        self.kind: str = conf["cert_type"]
        self.bits = int(conf["rsa_key_size"])
        self.threshold = float(conf["renew_threshold_days"]) * 86400
        self.any: bool = bool(conf["allow_any_domain"])
        self.domains: list[str] = [each.lower() for each in conf["domains"] or ()]
        self.backoff = float(conf["fail_backoff_minutes"]) * 60
        self.storage: str = conf["storage"]
        self.redis: Row = conf["storage_config"]["redis"]
        self.server: Row = conf["storage_config"].get(self.storage) or {}
        self.chain: str | None = conf["preferred_chain"]
        self.addresses = bool(conf["enable_ipv4_common_name"])

    def allows(self, host: str) -> bool:
        """Whether a certificate may be asked for."""
        if _is_address(host):
            if not self.addresses:
                return False
        elif _HOST(host) is None:
            return False
        if self.any:
            return True
        return any(_matches(each, host) for each in self.domains)


def _is_address(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


def _matches(domain: str, host: str) -> bool:
    if domain.startswith("*"):
        return host.endswith(domain[1:]) and len(host) >= len(domain)
    if domain.endswith("*"):
        return host.startswith(domain[:-1]) and len(host) >= len(domain)
    return domain == host


class Issuer:
    """Gets certificates for one configuration.

    Args:
        conf: the configuration.
        host: gives rows, threads, Redis.
        memory: of this process, for storage shm without a database.
    """

    def __init__(self, conf: Config, host: Host, memory: MemoryStorage) -> None:
        self.conf, self.host = conf, host
        database = getattr(host.conf, "database", "off")
        self.stored = database != "off"  # certificates and SNIs are rows, which serve by themselves
        self._pause = 1.0 if database == "postgres" else 0.0
        self.storage: Storage
        if conf.storage == "redis":
            extra = conf.redis["extra_options"]
            client = host.redis(redis_settings(conf.redis))
            self.storage = RedisStorage(client, extra["namespace"] or "", int(extra["scan_count"] or 10))
        elif conf.storage in STORAGES:
            self.storage = STORAGES[conf.storage](conf.server, host)
        elif self.stored:
            self.storage = RowStorage(host.rows)
        else:
            self.storage = memory
        self.choices: dict[str, CertificateChoice] = {}  # of certificates that are in the storage
        self._busy: set[str] = set()

    # -- getting them --------------------------------------------------------------------------------------------------

    async def waits(self, name: str) -> str | None:
        """Why nothing is tried for a name now, because it failed not long ago."""
        since = await self.storage.get(f"{PREFIX}fail_backoff:{name}")
        if since is None:
            return None
        left = ceil(float(since) + self.conf.backoff - self.host.now())
        return (
            f"please try again in {max(left, 1)} seconds for host {name} because of previous failure; "
            "this is configurable with config.fail_backoff_minutes"
        )

    async def issue(self, name: str) -> None:
        """Get a certificate for a name, and serve it.

        Raises:
            Failed: there is none; the text says why.
            HostError, EntityError: the storage is away.
        """
        why = await self.waits(name)
        if why is not None:
            raise Failed(why)
        lock = f"{PREFIX}update_lock:{name}"
        if not await self.storage.add(lock, "placeholder", _LOCK):
            raise Failed(f"a certificate for {name} is being asked for already")
        try:
            await self._issue(name)
        except Failed:
            if self.conf.backoff > 0:
                await self.storage.set(f"{PREFIX}fail_backoff:{name}", str(int(self.host.now())), self.conf.backoff)
            raise
        finally:
            await self.storage.delete(lock)

    async def _issue(self, name: str) -> None:
        host, conf, storage = self.host, self.conf, self.storage
        eab_kid, eab_key = conf.eab
        settings = Settings(
            conf.directory, conf.email, conf.terms, eab_kid, eab_key, conf.chain, _trusted(host.conf), await self._account()
        )  # fmt: skip
        key = await host.threads(new_key, conf.kind, conf.bits)
        begun = await host.threads(begin, settings, name, key)
        try:
            for token, answer in begun.answers.items():
                await storage.set(f"{token}#http-01", answer, _CHALLENGE)
            chain = await host.threads(finish, begun, self._pause if begun.answers else 0.0)
        finally:
            for token in begun.answers:
                await storage.delete(f"{token}#http-01")
        await self._keep(name, chain.decode(), key.decode())

    async def _account(self) -> bytes:
        """The account's key; made where there is none."""
        named = self.conf.account_key
        if named is not None:
            return self._named_key(named)
        address = b64encode(self.conf.email.encode()).decode()
        place = f"{PREFIX}account:{self.conf.directory}:{address}"
        found = await self.storage.get(place)
        if found is None:
            made = await self.host.threads(new_key, "rsa")
            await self.storage.add(place, json.dumps({"key": made.decode()}), 0)
            found = await self.storage.get(place)  # another node may have been earlier
        if found is None:
            raise Failed("the account's key cannot be stored")
        key: str = json.loads(found)["key"]
        return key.encode()

    def _named_key(self, named: Row) -> bytes:
        rows = self.host.rows
        key_set = rows.by("key_sets", "name", named["key_set"]) if named.get("key_set") else None
        for row in rows.all("keys"):
            if row["kid"] == named["key_id"] and (row.get("set") or {}).get("id") == (key_set or {}).get("id"):
                pem = (row.get("pem") or {}).get("private_key")
                return str(pem).encode() if pem else key_of_jwk(row["jwk"])
        raise Failed(f"there is no key with kid {named['key_id']}")

    # -- keeping them --------------------------------------------------------------------------------------------------

    async def _keep(self, name: str, cert: str, key: str) -> None:
        if self.stored:
            await self._keep_rows(name, cert, key)
        else:
            await self.storage.set(f"{PREFIX}cert_key:{name}", json.dumps({"cert": cert, "key": key}))
            self.choices[name] = CertificateChoice(cert, key)

    async def _keep_rows(self, name: str, cert: str, key: str) -> None:
        """A certificate with its SNI; the one before goes."""
        rows = self.host.rows
        made = await rows.insert("certificates", {"cert": cert, "key": key, "tags": [TAG]})
        sni = rows.by("snis", "name", name)
        if sni is None:
            await rows.insert("snis", {"name": name, "certificate": {"id": made["id"]}, "tags": [TAG]})
            return
        before = sni["certificate"]["id"]
        await rows.update("snis", sni["id"], {"certificate": {"id": made["id"]}})
        old = rows.get("certificates", before)
        shared = any(each["certificate"]["id"] == before for each in rows.all("snis"))
        if old is not None and TAG in (old["tags"] or ()) and not shared:
            await rows.delete("certificates", before)

    async def remember(self, name: str) -> None:
        """Have a certificate renewed from now on."""
        value = json.dumps({"host": name, "expire_at": int(self.host.now()) + _LIFE})
        await self.storage.set(f"{PREFIX}renew_config:{name}", value)

    async def certificate(self, name: str) -> tuple[str, str] | None:
        """Certificate and key that are served for a name, PEM."""
        if self.stored:
            sni = self.host.rows.by("snis", "name", name)
            row = None if sni is None else self.host.rows.get("certificates", sni["certificate"]["id"])
            return None if row is None else (row["cert"], row["key"])
        found = await self.storage.get(f"{PREFIX}cert_key:{name}")
        if found is None:
            return None
        told = json.loads(found)
        return told["cert"], told["key"]

    async def names(self) -> list[str]:
        """Names whose certificates are renewed."""
        start = f"{PREFIX}renew_config:"
        return sorted(key[len(start) :] for key in await self.storage.list(start))

    # -- in the background ---------------------------------------------------------------------------------------------

    async def on_demand(self, name: str) -> None:
        """A client asked for a name that has no certificate: get one, here or from the storage. A star in ``domains`` lets anybody
        make names up; each one takes a thread, and counts at the CA."""
        conf = self.host.conf
        most = _ORDERS if conf is None else conf.plugin_acme_orders
        if name in self._busy or len(self._busy) >= most:
            return
        self._busy.add(name)
        try:
            if not self.stored:
                found = await self.certificate(name)
                if found is not None:
                    self.choices[name] = CertificateChoice(*found)
                    return
            if await self.waits(name) is None:
                await self.issue(name)
                await self.remember(name)
        except (Failed, HostError, EntityError) as error:
            self.host.report(f"acme: no certificate for {name}: {error}")
        finally:
            self._busy.discard(name)

    async def renew_if_due(self) -> None:
        """Look at all certificates, if no node has done so today."""
        if await self.storage.add(f"{PREFIX}renew_last_run", str(int(self.host.now())), _RENEWAL):
            await self.renew()

    async def renew(self) -> None:
        """Renew what ends soon; what fails is told in the log, and tried again at the next look."""
        for name in await self.names():
            try:
                await self._renew(name)
            except (Failed, HostError, EntityError) as error:
                self.host.report(f"acme: the certificate for {name} is not renewed: {error}")
            except Exception as error:
                if is_cancelled(error):
                    raise
                self.host.report(f"acme: the certificate for {name} is not renewed: {error!r}")

    async def _renew(self, name: str) -> None:
        found = await self.certificate(name)
        if found is None:  # somebody has deleted it: it is not wanted any more
            await self.storage.delete(f"{PREFIX}renew_config:{name}")
            return
        if ends(found[0]) - self.host.now() > self.conf.threshold:
            if not self.stored:
                self.choices[name] = CertificateChoice(*found)
            return
        await self.issue(name)
        await self.remember(name)


def _trusted(conf: Any) -> tuple[str, ...]:
    names: Iterable[str] = getattr(conf, "lua_ssl_trusted_certificate", ("system",))
    return tuple(names)
