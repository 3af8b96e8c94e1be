"""What acme does with requests and with clients that begin TLS (Kong 3.9.3, ``kong/plugins/acme/handler.lua``)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ...core.chain.host import Host, HostError
from ...core.chain.phases import CertificateChoice, ClientHello, ProxyEndpoint
from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, Exchange
from ...core.http.headers import host_name
from ...core.http.uri import normalise
from ...core.rows import Row
from ...entities.errors import EntityError
from .acme_admin import endpoints_of
from .acme_certificates import Config, Issuer
from .acme_fields import ACME_STORAGE, CONFIG, CONFIG_CHECKS
from .acme_storage import MemoryStorage

__all__ = ["Acme"]

_PATH = "/.well-known/acme-challenge/"
_LOOK = 3600
"""Seconds between two questions whether certificates have been looked at today."""


def _not_found() -> Answer:
    return Answer(404, b"Not found\n", [(b"Content-Type", b"text/plain; charset=utf-8")])


def _challenge(exchange: Exchange, issuer: Any) -> Awaitable[Answer | None] | None:
    if exchange.scheme != b"http" or not isinstance(issuer, Issuer):
        return None
    name = host_name(exchange.block.host).decode("latin-1").lower().partition(":")[0]
    if not issuer.conf.allows(name):
        return None
    return _answer(exchange, issuer, normalise(exchange.raw_path)[len(_PATH) :].decode("latin-1"))


async def _answer(exchange: Exchange, issuer: Issuer, token: str) -> Answer:
    if token == "x" or "/" in token or len(token) > 256:
        return _not_found()
    try:
        value = await issuer.storage.get(f"{token}#http-01")
    except (HostError, EntityError) as error:
        exchange.report(f"acme: the storage cannot be read: {error}")
        return exchange.error(500, "An unexpected error occurred")
    if value is None:
        return _not_found()
    return Answer(200, value.encode() + b"\n", [(b"Content-Type", b"text/plain; charset=utf-8")])


class Acme(Plugin):
    """Answer challenges; get certificates for names that clients ask for; renew them."""

    name = "acme"
    priority = 1705
    scopes = ()
    example = {"account_email": "ops@example.com", "tos_accepted": True, "domains": ["shop.example.com"]}
    config = CONFIG
    config_checks = CONFIG_CHECKS
    entities = (ACME_STORAGE,)
    proxy_endpoints = (ProxyEndpoint(_PATH, _challenge, anywhere=True),)

    def __init__(self) -> None:
        self._compiled: dict[str, Config] = {}
        self._memory: MemoryStorage | None = None
        self.endpoints = endpoints_of(self.issuer_of)  # type: ignore[misc]

    def memory(self, host: Host) -> MemoryStorage:
        """What this process keeps for storage shm without a database."""
        if self._memory is None:
            self._memory = MemoryStorage(host.now)
        return self._memory

    def compile(self, conf: Row, plugin: Row) -> Config:
        made = Config(conf, plugin["id"])
        self._compiled[made.id] = made
        return made

    def issuer_of(self, row: Row, host: Host) -> Issuer:
        """For endpoints of the Admin API, whose process may serve no traffic and open nothing."""
        conf = self._compiled.get(row["id"]) or Config(row["config"], row["id"])
        return Issuer(conf, host, self.memory(host))

    def open(self, conf: Config, plugin: Row, host: Host) -> Issuer:
        issuer = Issuer(conf, host, self.memory(host))
        host.every(_LOOK, issuer.renew_if_due)
        host.later(1, issuer.renew_if_due)
        return issuer

    def certificate(self, hello: ClientHello, conf: Any) -> CertificateChoice | None:
        if not isinstance(conf, Issuer) or hello.sni is None:
            return None
        name = hello.sni.lower()
        if not conf.conf.allows(name):
            return None
        choice = conf.choices.get(name)
        if choice is None and not _has_certificate(conf.host, name):
            conf.host.spawn(f"acme: a certificate for {name}", conf.on_demand(name))
        return choice


def _has_certificate(host: Host, name: str) -> bool:
    """Whether SNIs have a certificate for a name."""
    rest = name.partition(".")[2]
    names = (name, f"*.{rest}", f"{name.rpartition('.')[0]}.*", "*")
    return any(host.rows.by("snis", "name", each) is not None for each in names)
