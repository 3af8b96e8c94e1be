"""TLS towards clients: certificates from files, from SNI entities, and one made here when there is none.

A listener's `ServerContexts` hands out OpenSSL contexts. The default certificate comes from the configuration or from
``<prefix>/ssl``; the server name in the client's first message (RFC 6066 3) picks another by asking the snapshot.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from ..config.kinds import ConfError
from ..core.chain.phases import CertificateChoice, ClientHello
from .dh_parameters import dh_parameters, use_parameters
from .tls_commands import NO_VERSION, NoVersion, TLSCommand, set_up

__all__ = [
    "KeyPair", "ServerContexts", "TLSRules", "check_tls", "contexts_for", "default_pairs", "read_pairs", "reconfigure",
]  # fmt: skip

ALPN = (b"http/1.1",)
"""Protocols offered (RFC 7301)."""
ALPN_HTTP2 = (b"h2", b"http/1.1")
"""Where HTTP/2 is spoken too."""

CACHED = 10000
"""Contexts kept for SNI certificates."""

_INTERMEDIATE = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
    ":ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384"
)
_SUITES = {
    # Mozilla's server-side TLS recommendations 5.7
    "modern": _INTERMEDIATE,
    "intermediate": _INTERMEDIATE,
    "old": _INTERMEDIATE
    + ":DHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA"
    ":ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA"
    ":ECDHE-RSA-AES256-SHA:DHE-RSA-AES128-SHA256:DHE-RSA-AES256-SHA256:AES128-GCM-SHA256:AES256-GCM-SHA384"
    ":AES128-SHA256:AES256-SHA256:AES128-SHA:AES256-SHA:DES-CBC3-SHA:@SECLEVEL=0",
    "fips": "ECDHE+AESGCM:DHE+AESGCM:!aNULL:!SSLv2:!SSLv3",
}
_VERSIONS = ("TLSv1.2", "TLSv1.3")
_SUITE_PROTOCOLS = {"modern": ["TLSv1.3"], "old": ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]}

_log = Logger(namespace="kongtwist.tls")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain, its own certificate first, and its private key."""

    chain: tuple[x509.Certificate, ...]
    key: Any

    @classmethod
    def from_pem(cls, certificates: bytes, key: bytes) -> KeyPair:
        """Read a chain and a key. Raises ValueError with the rest of a sentence when they are no pair."""
        try:
            chain = tuple(x509.load_pem_x509_certificates(certificates))
        except ValueError:
            raise ValueError("holds no certificate in PEM form") from None
        try:
            # OpenSSL's test of an RSA key's primes takes up to seconds and would hold every connection; that the key is the
            # certificate's is told below.
            private = serialization.load_pem_private_key(key, None, unsafe_skip_rsa_key_validation=True)
        except (ValueError, TypeError):
            raise ValueError("has a key that is not in PEM form without password") from None
        if _public(private.public_key()) != _public(chain[0].public_key()):
            raise ValueError("and its key do not belong together")
        return cls(chain, private)


def _public(key: Any) -> bytes:
    der: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return der


# -- certificates from the configuration -------------------------------------------------------------------------------


def read_pairs(name: str, certificates: Sequence[str], keys: Sequence[str]) -> list[KeyPair]:
    """The pairs of a property such as ``ssl_cert``: file names, PEM text, or PEM text in base64.

    Raises:
        ConfError: one cannot be read.
    """
    pairs = []
    for certificate, key in zip(certificates, keys, strict=True):
        try:
            pairs.append(KeyPair.from_pem(_material(name, certificate), _material(f"{name}_key", key)))
        except ValueError as error:
            raise ConfError(f"{name} {_shown(certificate)} {error}") from error
    return pairs


def _shown(text: str) -> str:
    return f"'{text}'" if len(text) < 200 and "-----" not in text else "given as text"


def _material(name: str, text: str) -> bytes:
    if "-----BEGIN" in text:
        return text.encode()
    try:
        with open(text, "rb") as file:
            return file.read()
    except OSError as error:
        try:
            decoded = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            decoded = b""
        if b"-----BEGIN" in decoded:
            return decoded
        raise ConfError(f"{name} cannot read {_shown(text)}: {error.strerror}") from error


def default_pairs(prefix: str, make: bool = True) -> list[KeyPair]:
    """The self-signed certificates under ``<prefix>/ssl``, made at the first call: one with ECDSA, one with RSA.

    Args:
        prefix: the node's working directory.
        make: make those that are not there; else they are left out.

    Raises:
        ConfError: they cannot be written or read.
    """
    folder = os.path.join(prefix, "ssl")
    pairs = []
    try:
        if make:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        for name in ("ecdsa", "rsa"):
            base = os.path.join(folder, f"default-{name}")
            if not (os.path.exists(f"{base}.crt") and os.path.exists(f"{base}.key")):
                if not make:
                    continue
                _write_self_signed(base, ec.generate_private_key(ec.SECP256R1()) if name == "ecdsa" else _rsa_key())
            pairs += read_pairs("ssl_cert", [f"{base}.crt"], [f"{base}.key"])
    except OSError as error:
        raise ConfError(f"cannot make the default certificate in {folder}: {error.strerror}") from error
    return pairs


def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _write_self_signed(base: str, key: Any) -> None:
    """Write ``base.key`` (0600) and ``base.crt``: for localhost, for ten years."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), *(x509.IPAddress(each) for each in addresses)]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for path, content in ((f"{base}.key", secret), (f"{base}.crt", certificate.public_bytes(encoding))):
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        os.replace(f"{path}.new", path)


_CERTIFICATES = {
    "proxy_listen": "ssl_cert", "stream_listen": "ssl_cert", "admin_listen": "admin_ssl_cert", "status_listen": "status_ssl_cert",
}  # fmt: skip
"""The property with the default certificates of each listener property."""


def contexts_for(
    conf: Any,
    listener: str,
    certificate_for: Callable[[str | None], Row | None] | None = None,
    choose: Callable[[ClientHello], CertificateChoice | None] | None = None,
    http2: bool = False,
) -> ServerContexts:
    """The contexts of the TLS addresses of a listener property.

    Args:
        conf: the configuration (`conf.Conf`).
        listener: ``proxy_listen``, ``stream_listen``, ``admin_listen`` or ``status_listen``.
        certificate_for, choose: as for `ServerContexts`; for the first two.
        http2: offer HTTP/2.

    Raises:
        ConfError: certificates or ciphers cannot be used.
    """
    rules, pairs = _configured(conf, listener)
    if http2:
        rules = replace(rules, alpn=ALPN_HTTP2)
    return ServerContexts(rules, pairs, certificate_for, choose)


def authorities(name: str, files: Sequence[str]) -> tuple[x509.Certificate, ...]:
    """The certificates of a property such as ``admin_ssl_client_ca``: file names, PEM text, or PEM text in base64.

    Raises:
        ConfError: one cannot be read.
    """
    found: list[x509.Certificate] = []
    for text in files:
        try:
            found += x509.load_pem_x509_certificates(_material(name, text))
        except ValueError as error:
            raise ConfError(f"{name} {_shown(text)} holds no certificate in PEM form") from error
    return tuple(found)


def reconfigure(contexts: ServerContexts, conf: Any, listener: str) -> None:
    """Have ``contexts`` follow a configuration that was read again. Raises ConfError and changes nothing."""
    rules, pairs = _configured(conf, listener)
    contexts.replace(replace(rules, alpn=contexts.alpn), pairs)


def check_tls(conf: Any, listener: str) -> None:
    """Raise ConfError if `contexts_for` would; no certificates are made."""
    rules, pairs = _configured(conf, listener, make=False)
    ServerContexts(rules, pairs)


def _configured(conf: Any, listener: str, make: bool = True) -> tuple[TLSRules, list[KeyPair]]:
    name = _CERTIFICATES[listener]
    certificates, keys = getattr(conf, name), getattr(conf, f"{name}_key")
    pairs = read_pairs(name, certificates, keys) if certificates else default_pairs(conf.prefix, make)
    rules = TLSRules.from_conf(conf, listener)
    if listener == "stream_listen":
        rules = replace(rules, alpn=())  # what is spoken there nobody knows
    if listener == "proxy_listen" and conf.proxy_ssl_client_ca:
        asked_for = authorities("proxy_ssl_client_ca", conf.proxy_ssl_client_ca)
        rules = replace(rules, client_ca=asked_for, client_ca_demanded=False)
    if listener == "admin_listen" and conf.admin_ssl_client_ca:
        rules = replace(rules, client_ca=authorities("admin_ssl_client_ca", conf.admin_ssl_client_ca))
    return rules, pairs


# -- contexts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TLSRules:
    """What holds for all TLS connections of a node."""

    suite: str = "intermediate"  #: as ``ssl_cipher_suite``
    ciphers: str = ""  #: OpenSSL list for the suite ``custom``
    protocols: tuple[str, ...] = ("TLSv1.2", "TLSv1.3")
    prefer_server_ciphers: bool = True
    tickets: bool = True
    session_timeout: float = 86400  #: seconds
    alpn: tuple[bytes, ...] = ALPN  #: protocols offered, the best first
    client_ca: tuple[x509.Certificate, ...] = ()  #: authorities, one of which must have signed the client's certificate
    client_ca_demanded: bool = True  #: whether a client must show one
    dh: bytes = b""  #: parameters for ciphers with DHE (PEM); none: those are not spoken
    command: TLSCommand | None = None  #: done after all other rules

    @classmethod
    def from_conf(cls, conf: Any, listener: str = "proxy_listen") -> TLSRules:
        """The rules that a configuration sets for the addresses of a listener property.

        Raises:
            ConfError: OpenSSL knows none of the ciphers, or no TLS version is left.
        """
        name, command = _command_of(conf, listener)
        rules = cls(
            conf.ssl_cipher_suite,
            conf.ssl_ciphers or "",
            tuple(conf.ssl_protocols.split()),
            conf.ssl_prefer_server_ciphers,
            conf.ssl_session_tickets,
            conf.ssl_session_timeout,
            dh=_dh("ssl_dhparam", conf.ssl_dhparam),
            command=command,
        )
        if listener == "stream_listen":
            rules = rules._of_streams(conf)
        try:
            rules.context(())
        except NoVersion:
            raise ConfError(rules._no_version(name, listener)) from None
        except SSL.Error as error:
            if command is not None and command.name in ("Ciphersuites", "CipherString"):
                raise ConfError(f"{name} has no cipher that OpenSSL knows: '{command.value}'") from error
            raise ConfError(f"ssl_ciphers has no cipher that OpenSSL knows: '{rules.ciphers}'") from error
        return rules

    def _no_version(self, name: str, listener: str) -> str:
        """The sentence that no TLS version is left, with what to do.

        Args:
            name: the property of the command.
            listener: the listener property.
        """
        allows = "nginx_stream_ssl_protocols" if listener == "stream_listen" else "ssl_protocols"
        if self.command is None or not self.command.versions(_VERSIONS):
            return f"{allows if self.command is None else name} {NO_VERSION}"
        protocols = _SUITE_PROTOCOLS.get(self.suite, self.protocols)
        allows = "ssl_cipher_suite" if self.suite in _SUITE_PROTOCOLS else allows
        return f"{name} leaves no TLS version of {', '.join(protocols)}, which {allows} allows; allow one in both"

    def _of_streams(self, conf: Any) -> TLSRules:
        """The same with the properties that only hold for stream routes. Raises ConfError."""
        found: dict[str, Any] = {}
        if conf.nginx_stream_ssl_protocols is not None:
            found["protocols"] = tuple(conf.nginx_stream_ssl_protocols.split())
        if conf.nginx_stream_ssl_prefer_server_ciphers is not None:
            found["prefer_server_ciphers"] = conf.nginx_stream_ssl_prefer_server_ciphers
        if conf.nginx_stream_ssl_session_tickets is not None:
            found["tickets"] = conf.nginx_stream_ssl_session_tickets
        if conf.nginx_stream_ssl_session_timeout is not None:
            found["session_timeout"] = conf.nginx_stream_ssl_session_timeout
        if conf.nginx_stream_ssl_dhparam is not None:
            found["dh"] = _dh("nginx_stream_ssl_dhparam", conf.nginx_stream_ssl_dhparam)
        return replace(self, **found)

    def context(self, pairs: Sequence[KeyPair]) -> SSL.Context:
        """A context that shows these certificates. Raises SSL.Error when OpenSSL cannot use them."""
        context = SSL.Context(SSL.TLS_METHOD)
        protocols = _SUITE_PROTOCOLS.get(self.suite, self.protocols)
        options = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_SSLv2
        if self.prefer_server_ciphers:
            options |= SSL.OP_CIPHER_SERVER_PREFERENCE
        if not self.tickets:
            options |= SSL.OP_NO_TICKET
        set_up(context, self.command, tuple(protocols), options, _SUITES.get(self.suite, self.ciphers))
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle connection keeps no 34 KB of buffers
        context.set_session_id(b"kongtwist")
        context.set_timeout(int(self.session_timeout))
        if self.dh:
            use_parameters(context, self.dh)
        context.set_alpn_select_callback(partial(_select_alpn, self.alpn))
        for pair in pairs:
            context.use_certificate(pair.chain[0])
            context.use_privatekey(pair.key)
            for extra in pair.chain[1:]:
                context.add_extra_chain_cert(extra)
        if self.client_ca:
            self._ask_for_certificates(context)
        return context

    def _ask_for_certificates(self, context: SSL.Context) -> None:
        """Refuse clients in the handshake that show a certificate of somebody else's than ``client_ca``, or none for TLS clients
        (RFC 5280 4.2.1.12); where one is demanded, those that show none too."""
        context.set_verify(SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if self.client_ca_demanded else 0), None)
        store = context.get_cert_store()
        assert store is not None
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)  # an intermediate authority may be trusted by itself
        for authority in self.client_ca:
            store.add_cert(crypto.X509.from_cryptography(authority))
            context.add_client_ca(authority)


def _command_of(conf: Any, listener: str) -> tuple[str, TLSCommand | None]:
    """The property with the command for a listener property, and the command. As nginx's, one of a block stands in place of its
    parent's."""
    if listener == "stream_listen":
        return "nginx_stream_ssl_conf_command", conf.nginx_stream_ssl_conf_command
    own = {
        "proxy_listen": ("nginx_proxy_ssl_conf_command", conf.nginx_proxy_ssl_conf_command),
        "admin_listen": ("nginx_admin_ssl_conf_command", conf.nginx_admin_ssl_conf_command),
        "status_listen": ("nginx_status_ssl_conf_command", conf.nginx_status_ssl_conf_command),
    }[listener]
    return own if own[1] is not None else ("nginx_http_ssl_conf_command", conf.nginx_http_ssl_conf_command)


def _dh(name: str, text: str | None) -> bytes:
    """The parameters of ``ssl_dhparam``, or the like. Raises ConfError."""
    if not text:
        return b""
    try:
        return dh_parameters(text)
    except ValueError as error:
        raise ConfError(f"{name} {_shown(text)} {error}") from error


def _select_alpn(ours: Sequence[bytes], connection: SSL.Connection, offered: list[bytes]) -> Any:
    """The first of ours that the client offers; none in common goes on without ALPN, as nginx does."""
    return next((each for each in ours if each in offered), SSL.NO_OVERLAPPING_PROTOCOLS)


@implementer(IOpenSSLServerConnectionCreator)
class ServerContexts:
    """Hands out the TLS contexts of one listener.

    Args:
        rules: what holds for all connections.
        pairs: the default certificates, at most one for each kind of key.
        certificate_for: server name (None when the client named none) -> the certificate's row, or None for the
            default; asked at every handshake, so that a change holds from the next one on.
        choose: asked before ``certificate_for``; None leaves the choice to that one. What it raises, and a certificate of its
            choice that cannot be used, ends the handshake.
    """

    def __init__(
        self,
        rules: TLSRules,
        pairs: Sequence[KeyPair],
        certificate_for: Callable[[str | None], Row | None] | None = None,
        choose: Callable[[ClientHello], CertificateChoice | None] | None = None,
    ) -> None:
        self._rules = rules
        self._certificate_for = certificate_for
        self._choice = choose
        self._chosen: dict[CertificateChoice, SSL.Context] = {}
        self._cached: dict[str, tuple[Row, SSL.Context]] = {}
        self.replace(rules, pairs)

    def replace(self, rules: TLSRules, pairs: Sequence[KeyPair]) -> None:
        """Use other rules and default certificates from now on (reload)."""
        self._rules = rules
        self._cached.clear()
        self._chosen.clear()
        self._default = rules.context(pairs)
        if self._certificate_for is not None or self._choice is not None:
            self._default.set_tlsext_servername_callback(self._choose)

    @property
    def alpn(self) -> tuple[bytes, ...]:
        """Protocols offered."""
        return self._rules.alpn

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """A connection that starts with the default certificate (IOpenSSLServerConnectionCreator)."""
        return SSL.Connection(self._default, None)

    def _choose(self, connection: SSL.Connection) -> None:
        """OpenSSL's callback for the server name."""
        try:
            found = connection.get_servername()
            name = found.decode("ascii", "replace") if found else None
            context = self._context_chosen(connection, name)
            if context is None:
                context = self._context_for(name)
            if context is not None:
                connection.set_context(context)
        except Exception:  # noqa: BLE001 - OpenSSL's caller would lose it
            _log.failure("choosing a certificate failed; the default one is shown")

    def _context_chosen(self, connection: SSL.Connection, name: str | None) -> SSL.Context | None:
        """The context a plugin wants; one without a certificate, with which no handshake succeeds, where it failed."""
        if self._choice is None:
            return None
        try:
            choice = self._choice(_hello(connection, name))
            if choice is None:
                return None
            context = self._chosen.get(choice)
            if context is None:
                context = self._rules.context(_choice_pairs(choice))
                if len(self._chosen) >= CACHED:
                    del self._chosen[next(iter(self._chosen))]
                self._chosen[choice] = context
        except Exception:  # noqa: BLE001 - OpenSSL's caller would lose it
            _log.failure("a plugin failed to choose a certificate for {name!r}; the handshake ends", name=name)
            return self._rules.context(())
        return context

    def _context_for(self, name: str | None) -> SSL.Context | None:
        row = self._certificate_for(name) if self._certificate_for is not None else None
        if row is None:
            return None
        known = self._cached.get(row["id"])
        if known is not None and known[0] is row:
            return known[1]
        context = self._rules.context(_row_pairs(row))
        if len(self._cached) >= CACHED:
            del self._cached[next(iter(self._cached))]
        self._cached[row["id"]] = (row, context)
        return context


def _hello(connection: SSL.Connection, name: str | None) -> ClientHello:
    """What is known of who begins TLS. Twisted notes the protocol, which has a transport by now, with the connection."""
    transport = getattr(connection.get_app_data(), "transport", None)
    if transport is None:
        return ClientHello(name)
    peer, here = transport.getPeer(), transport.getHost()
    return ClientHello(name, getattr(peer, "host", ""), getattr(here, "port", 0))


def _choice_pairs(choice: CertificateChoice) -> list[KeyPair]:
    """The pairs a plugin chose."""
    pairs = [KeyPair.from_pem(choice.cert.encode(), choice.key.encode())]
    if choice.cert_alt and choice.key_alt:
        pairs.append(KeyPair.from_pem(choice.cert_alt.encode(), choice.key_alt.encode()))
    return pairs


def _row_pairs(row: Row) -> list[KeyPair]:
    """The pairs of a Certificate entity: ``cert`` and ``key``, and where set ``cert_alt`` and ``key_alt``."""
    pairs = [KeyPair.from_pem(row["cert"].encode(), row["key"].encode())]
    if row.get("cert_alt") and row.get("key_alt"):
        pairs.append(KeyPair.from_pem(row["cert_alt"].encode(), row["key_alt"].encode()))
    return pairs
