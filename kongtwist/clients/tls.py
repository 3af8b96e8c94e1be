"""TLS towards what plugins talk to: what is demanded of a server's certificate, and which name it is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from OpenSSL import SSL, crypto
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from ..core.chain.host import TLSSettings
from ..net.resolver import is_address
from ..net.tls_commands import set_up

__all__ = ["Contexts", "Trust", "check_name"]

_MOST_CONTEXTS = 256
"""Contexts that are kept; a context holds the authorities it trusts, and is slow to make."""
_PEM_END = "-----END CERTIFICATE-----"


class Trust(NamedTuple):
    """Whom the gateway trusts (``lua_ssl_trusted_certificate``, ``lua_ssl_verify_depth``), and in which versions
    of TLS (``lua_ssl_protocols``)."""

    authorities: tuple[str, ...] = ()  #: PEM texts; none: the system's store
    verify_depth: int = 1  #: certificates between a server's and one that is trusted
    versions: tuple[str, ...] = ("TLSv1.2", "TLSv1.3")


class Contexts:
    """OpenSSL contexts, one for all connections that demand the same.

    Args:
        trust: whom to trust where settings do not say.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._made: dict[TLSSettings, SSL.Context] = {}

    def creator(self, settings: TLSSettings, host: str) -> ConnectionCreator:
        """Makes the TLS half of connections to ``host``.

        Raises:
            OpenSSL.crypto.Error, OpenSSL.SSL.Error: authorities, certificate or key are not in PEM form, or do not fit each other.
        """
        key = replace(settings, server_name="")
        context = self._made.get(key)
        if context is None:
            if len(self._made) >= _MOST_CONTEXTS:
                del self._made[next(iter(self._made))]
            context = self._made[key] = _context(key, self._trust)
        return ConnectionCreator(context, settings.server_name or host)


def _context(settings: TLSSettings, trust: Trust) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    old = any(each in trust.versions for each in ("TLSv1", "TLSv1.1"))  # their handshakes are signed with SHA-1
    options = SSL.OP_IGNORE_UNEXPECTED_EOF  # many servers end TCP without close_notify
    set_up(context, None, trust.versions, options, "DEFAULT:@SECLEVEL=0" if old else "")
    if settings.protocols:
        context.set_alpn_protos([each.encode() for each in settings.protocols])
    if settings.certificate:
        leaf, *chain = _certificates(settings.certificate)
        context.use_certificate(leaf)
        for each in chain:
            context.add_extra_chain_cert(each)
        context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, settings.key.encode()))
        context.check_privatekey()
    if not settings.verify:
        context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
        return context
    context.set_verify(SSL.VERIFY_PEER, lambda connection, certificate, number, depth, good: bool(good))
    context.set_verify_depth(trust.verify_depth if settings.verify_depth is None else settings.verify_depth)
    authorities = settings.authorities or trust.authorities
    store = context.get_cert_store()
    if not authorities or store is None:
        context.set_default_verify_paths()
        return context
    for pem in authorities:
        for each in _certificates(pem):
            store.add_cert(each)
    return context


def _certificates(pem: str) -> list[crypto.X509]:
    """The certificates in a PEM text, in order. Raises OpenSSL.crypto.Error where there is none."""
    parts = [part + _PEM_END for part in pem.split(_PEM_END) if part.strip()]
    return [crypto.load_certificate(crypto.FILETYPE_PEM, part.encode()) for part in parts or [pem]]


@implementer(IOpenSSLClientConnectionCreator)
class ConnectionCreator:
    """Makes connections that ask for one name."""

    def __init__(self, context: SSL.Context, name: str) -> None:
        self._context = context
        # RFC 6066 3: no literal addresses as server names.
        self._server_name = None if is_address(name) else name.encode("idna")

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """A connection that asks for our name. See `IOpenSSLClientConnectionCreator`."""
        connection = SSL.Connection(self._context, None)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        return connection


def check_name(connection: SSL.Connection, name: str) -> None:
    """After a handshake whose chain OpenSSL has verified: is the certificate one of ``name``?

    Raises:
        service_identity.VerificationError, service_identity.CertificateError: it is not.
    """
    (verify_ip_address if is_address(name) else verify_hostname)(connection, name)
