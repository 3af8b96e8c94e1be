"""TLS towards upstreams: which certificate we show, what we ask of theirs, what name we ask for (SNI)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from OpenSSL import SSL, crypto
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from ..net.resolver import is_address
from ..net.tls_commands import TLSCommand, set_up

if TYPE_CHECKING:
    from ..core.exchange import Row
    from ..core.snapshot.compiled_route import UpstreamTLS

__all__ = ["BadServerName", "ClientConnections", "TLSDefaults", "TLSFacts", "check_command", "check_name", "facts_of"]

_VERSIONS = ("TLSv1.2", "TLSv1.3")
"""Spoken where a command does not say."""

_LONGEST_NAME = 255
"""Bytes of a server name (RFC 6066 3; OpenSSL takes no more)."""


class BadServerName(ValueError):
    """What a client's Host says (``preserve_host``) cannot be asked for as a server name."""


class TLSDefaults(NamedTuple):
    """What holds where a service does not say (``nginx_proxy_proxy_ssl_verify``, ``lua_ssl_trusted_certificate``)."""

    verify: bool = False
    verify_depth: int = 1
    certificate: str = ""  #: shown to upstreams (PEM, with its chain; ``client_ssl_cert``); "" for none
    key: str = ""  #: PEM
    http: TLSCommand | None = None  #: done for connections that speak HTTP
    grpc: TLSCommand | None = None  #: the same for those that speak gRPC
    stream: TLSCommand | None = None  #: the same for sessions of stream routes

    def command(self, alpn: bytes) -> TLSCommand | None:
        """The command for connections that ask for these protocols: gRPC's take HTTP/2 only, those of sessions say nothing."""
        return {b"": self.stream, b"h2": self.grpc}.get(alpn, self.http)


class TLSFacts(NamedTuple):
    """Everything that makes two TLS connections to one address different. Key of pools and contexts."""

    name: str  #: asked for (SNI) and, when verifying, demanded of the certificate; may be an address
    verify: bool
    verify_depth: int  #: certificates between theirs and one we trust
    certificate: str  #: PEM, with its chain; "" for none
    key: str  #: PEM
    authorities: tuple[str, ...]  #: PEM; none: the system's store
    alpn: bytes = b"http/1.1"  #: the protocols asked for (RFC 7301), divided by commas; none: it is not said
    command: TLSCommand | None = None  #: done after everything else


def facts_of(tls: UpstreamTLS, name: str, defaults: TLSDefaults, alpn: bytes = b"http/1.1") -> TLSFacts:
    """The facts for a connection that asks for ``name`` and speaks ``alpn``."""
    own: Row | None = tls.client_certificate
    verify = defaults.verify if tls.verify is None else tls.verify
    depth = defaults.verify_depth if tls.verify_depth is None else tls.verify_depth
    return TLSFacts(
        name,
        verify,
        depth,
        own["cert"] if own else defaults.certificate,
        own["key"] if own else defaults.key,
        tuple(row["cert"] for row in tls.ca_certificates) if verify else (),
        alpn,
        defaults.command(alpn),
    )


def _context(facts: TLSFacts) -> SSL.Context:
    """A context for these facts.

    Raises:
        OpenSSL.crypto.Error, OpenSSL.SSL.Error: the certificate or key is unusable.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if facts.alpn:
        context.set_alpn_protos(facts.alpn.split(b","))
    # Many servers end TCP without close_notify. As nginx: that ends what has no other end; what has one is still seen to be
    # cut, and a reset is still a reset.
    set_up(context, facts.command, _VERSIONS, SSL.OP_IGNORE_UNEXPECTED_EOF)
    if facts.certificate:
        leaf, *chain = _certificates(facts.certificate)
        context.use_certificate(leaf)
        for each in chain:
            context.add_extra_chain_cert(each)
        context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, facts.key.encode()))
        context.check_privatekey()
    if facts.verify:
        context.set_verify(SSL.VERIFY_PEER, lambda connection, certificate, number, depth, good: bool(good))
        context.set_verify_depth(facts.verify_depth)
        store = context.get_cert_store()
        if facts.authorities and store is not None:
            for pem in facts.authorities:
                for each in _certificates(pem):
                    store.add_cert(each)
        else:
            context.set_default_verify_paths()
    else:
        context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
    return context


def check_command(command: TLSCommand) -> None:
    """Raise what a context with this command would: tls_commands.NoVersion, OpenSSL.SSL.Error."""
    set_up(SSL.Context(SSL.TLS_CLIENT_METHOD), command, _VERSIONS, 0)


def _certificates(pem: str) -> list[crypto.X509]:
    """The certificates in a PEM text, in order."""
    end = "-----END CERTIFICATE-----"
    return [
        crypto.load_certificate(crypto.FILETYPE_PEM, (part + end).encode()) for part in pem.split(end) if part.strip()
    ]


@implementer(IOpenSSLClientConnectionCreator)
class ClientConnections:
    """Makes the TLS half of connections that share their facts.

    Raises:
        OpenSSL.SSL.Error: our certificate or key is unusable.
        BadServerName: the name is too long.
    """

    def __init__(self, facts: TLSFacts) -> None:
        name = facts.name
        if len(name) > _LONGEST_NAME:
            raise BadServerName(f"a server name of {len(name)} bytes cannot be asked for in TLS")
        try:
            self._context = _context(facts)
        except crypto.Error as error:
            raise SSL.Error("no certificate and key in PEM form") from error
        # RFC 6066 3: no literal addresses as server names. Any other name is asked for as it is (nginx), its bytes unjudged.
        self._server_name = None if is_address(name) else name.encode("latin-1")

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """A connection that asks for our name. See `IOpenSSLClientConnectionCreator`."""
        connection = SSL.Connection(self._context, None)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        return connection


def check_name(connection: SSL.Connection, facts: TLSFacts) -> None:
    """After the handshake, whose chain OpenSSL has verified: is the certificate one of the name we asked for?

    Raises:
        service_identity.VerificationError, service_identity.CertificateError: it is not.
    """
    if facts.verify:
        (verify_ip_address if is_address(facts.name) else verify_hostname)(connection, facts.name)
