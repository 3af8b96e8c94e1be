"""client-certificate: let clients in by the certificate that they show in TLS. Our own; Kong 3.9 has none outside of Enterprise.

The handshake verifies the certificate: ``proxy_ssl_client_ca`` says whose are accepted. Here its names find the consumer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from ..core.chain.authentication import anonymous_field, identify, is_known, refuse
from ..core.chain.credentials import REMEMBERED
from ..core.chain.plugin import Plugin
from ..core.exchange import Answer, Exchange
from ..core.rows import Row
from ..entities.schema import Array, String

__all__ = ["ClientCertificate", "names_of"]

_FIELDS = ("username", "custom_id")
_LONGEST = 65536
"""Bytes of a certificate that is looked into."""

_MISSING = "No client certificate was shown"
_UNKNOWN = "Unauthorized"

Kept = tuple[Row, Row, float, float]
"""Consumer, credential, and the epoch seconds between which the certificate is valid."""


def names_of(certificate: x509.Certificate) -> list[str]:
    """Whom a certificate is for: its alternative names (URIs, mail addresses, host names), in their order by kind; the common
    name where it has none of these (RFC 6125 6.4.4)."""
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        found: list[str] = []
    else:
        found = [
            *alternative.get_values_for_type(x509.UniformResourceIdentifier),
            *alternative.get_values_for_type(x509.RFC822Name),
            *alternative.get_values_for_type(x509.DNSName),
        ]
    return found or [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


class ClientCertificate(Plugin):
    """Find the consumer whom the client's certificate names; tell the upstream who it is."""

    name = "client-certificate"
    priority = 1600
    authenticates = False  # a ticket does not stand for the connection's certificate
    protocols = ("grpcs", "https")
    scopes = ("service", "route")
    example = {"consumer_by": ["username"]}
    config = {
        "consumer_by": Array(
            String(one_of=list(_FIELDS)), required=True, default=list(_FIELDS), len_min=1,
            text="Fields of consumers that a name of the certificate is looked for in, in this order.",
        ),
        "anonymous": anonymous_field(),
    }  # fmt: skip

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._consumers: Mapping[str, Row] = {}
        self._known: dict[tuple[bytes, tuple[str, ...]], Kept] = {}

    def compile(self, conf: Row, plugin: Row) -> tuple[tuple[str, ...], str | None]:
        return tuple(conf["consumer_by"]), conf["anonymous"]

    def access(self, exchange: Exchange, conf: tuple[tuple[str, ...], str | None]) -> Answer | None:
        fields, anonymous = conf
        if is_known(exchange, anonymous):
            return None
        shown = exchange.client_certificate
        if shown is None:
            return refuse(exchange, anonymous, exchange.error(401, _MISSING, [(b"WWW-Authenticate", b"Certificate")]))
        found = self._find(exchange, shown, fields)
        # A connection, or a TLS session that is resumed, may outlive the certificate that it began with.
        if found is None or not found[2] <= exchange.wall_started <= found[3]:
            return refuse(exchange, anonymous, exchange.error(401, _UNKNOWN, [(b"WWW-Authenticate", b"Certificate")]))
        consumer, credential, _, _ = found
        identify(exchange, consumer, credential, credential["id"])
        return None

    def _find(self, exchange: Exchange, shown: bytes, fields: tuple[str, ...]) -> Kept | None:
        consumers = exchange.snapshot.rows["consumers"]
        if consumers is not self._consumers:
            self._consumers = consumers
            self._known.clear()
        known = self._known.get((shown, fields))
        if known is not None:
            return known
        if len(shown) > _LONGEST:
            return None
        try:
            certificate = x509.load_der_x509_certificate(shown)
            names = names_of(certificate)
        except ValueError:  # OpenSSL has taken it, but it is not well-formed
            return None
        consumer = _consumer(exchange, names, fields)
        if consumer is None:
            return None
        credential = {"id": sha256(shown).hexdigest(), "username": consumer.get("username")}
        begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        if len(self._known) >= self._most:
            self._known.clear()
        found = self._known[shown, fields] = (consumer, credential, begin, end)
        return found


def _consumer(exchange: Exchange, names: Sequence[str], fields: Sequence[str]) -> Any:
    """The consumer that a name finds. Names that find several leave open who it is: then it is nobody."""
    found: dict[str, Row] = {}
    for field in fields:
        for name in names:
            row = exchange.snapshot.by("consumers", field, name)
            if row is not None:
                found[row["id"]] = row
        if found:
            break
    return next(iter(found.values())) if len(found) == 1 else None
