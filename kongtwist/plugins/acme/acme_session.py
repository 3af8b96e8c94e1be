"""What is done at the certificate authority (RFC 8555), by the library acme. All of it blocks: it is run in a thread.

The library is loaded when it is first used: most nodes never do.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

__all__ = ["Begun", "Failed", "Settings", "begin", "finish", "new_key"]

_NONCES = 5
"""Times a request is sent again with the fresh nonce of the answer that refused it (RFC 8555, section 6.5)."""
_CALL = 30
"""Seconds for one request to the authority."""
_ORDER = 120.0
"""Seconds for an order, from the answer to its challenges to the certificate."""


class Failed(Exception):
    """The authority gave no certificate; the text says why."""


class Settings(NamedTuple):
    """How to talk to the authority."""

    directory: str  #: its URL
    email: str
    terms: bool  #: its terms of service are accepted
    eab_kid: str | None
    eab_key: str | None
    chain: str | None  #: common name of the issuer that is preferred
    trusted: tuple[str, ...]  #: as ``lua_ssl_trusted_certificate``
    account_key: bytes  #: PEM


class Begun(NamedTuple):
    """An order whose challenges have not been answered."""

    client: Any
    order: Any
    challenges: list[tuple[Any, Any]]
    answers: dict[str, str]  #: what `/.well-known/acme-challenge/<token>` has to say, by token
    preferred: str | None


def new_key(kind: str, bits: int = 4096) -> bytes:
    """A private key, PEM (PKCS #8). ``kind``: ``rsa`` or ``ecc``."""
    key: Any = ec.generate_private_key(ec.SECP256R1()) if kind == "ecc" else rsa.generate_private_key(65537, int(bits))
    form = serialization.PrivateFormat.PKCS8
    made: bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return made


def _request_for(host: str, key_pem: bytes) -> bytes:
    """A certificate signing request, PEM."""
    name: x509.GeneralName
    try:
        name = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        name = x509.DNSName(host)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)] if len(host) <= 64 else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
    key: Any = serialization.load_pem_private_key(key_pem, None)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _verify(trusted: tuple[str, ...]) -> Any:
    """What `requests` checks the authority's own certificate against: a file of authorities."""
    paths = ssl.get_default_verify_paths()
    system = paths.cafile or paths.openssl_cafile
    files = [system if each == "system" else each for each in trusted]
    files = [each for each in files if Path(each).exists()]
    if len(files) == 1:
        return files[0]
    if not files:
        return True
    with NamedTemporaryFile("wb", prefix="kongtwist-authorities-", suffix=".pem", delete=False) as bundle:
        for each in files:
            bundle.write(Path(each).read_bytes() + b"\n")
    return bundle.name


def _ask_again(net: Any, refusal: type[Exception]) -> None:
    """Send what was refused for its nonce again, more often than the library's once: authorities that run on several
    machines refuse nonces in a row."""
    once = net.post

    def post(*args: Any, **kwargs: Any) -> Any:
        for _ in range(_NONCES):
            try:
                return once(*args, **kwargs)
            except refusal as error:
                if getattr(error, "code", None) != "badNonce":
                    raise
        return once(*args, **kwargs)

    net.post = post


def _account(client: Any, settings: Settings) -> None:
    """Log in to the account of this key; make it where there is none."""
    from acme import errors, messages

    binding = None
    if settings.eab_kid and settings.eab_key:
        binding = messages.ExternalAccountBinding.from_data(
            client.net.key.public_key(), settings.eab_kid, settings.eab_key, client.directory
        )
    wanted = messages.NewRegistration.from_data(
        email=settings.email, terms_of_service_agreed=settings.terms, external_account_binding=binding
    )
    try:
        client.net.account = client.new_account(wanted)
    except errors.ConflictError as known:
        there = messages.RegistrationResource(uri=known.location, body=messages.Registration())
        client.net.account = there
        client.net.account = client.query_registration(there)


def begin(settings: Settings, host: str, key_pem: bytes) -> Begun:
    """Order a certificate.

    Args:
        settings: how to talk to the authority.
        host: a DNS name or an IPv4 address.
        key_pem: its private key.

    Raises:
        Failed: the authority refuses, or cannot be reached.
    """
    import requests
    from acme import challenges, client, errors, messages
    from josepy.jwa import ES256, RS256
    from josepy.jwk import JWK, JWKEC

    try:
        account: Any = JWK.load(settings.account_key)
        algorithm = ES256 if isinstance(account, JWKEC) else RS256
        verify = _verify(settings.trusted)
        net = client.ClientNetwork(account, alg=algorithm, verify_ssl=verify, user_agent="kongtwist", timeout=_CALL)
        _ask_again(net, messages.Error)
        acme = client.ClientV2(client.ClientV2.get_directory(settings.directory, net), net)
        _account(acme, settings)
        order = acme.new_order(_request_for(host, key_pem))
        wanted: list[tuple[Any, Any]] = []
        answers: dict[str, str] = {}
        for authorization in order.authorizations:
            if authorization.body.status == messages.STATUS_VALID:
                continue
            offered = [each for each in authorization.body.challenges if isinstance(each.chall, challenges.HTTP01)]
            if not offered:
                raise Failed(f"the authority offers no HTTP-01 challenge for {host}")
            response, validation = offered[0].response_and_validation(account)
            wanted.append((offered[0], response))
            answers[offered[0].chall.encode("token")] = validation
    except (errors.Error, messages.Error, requests.RequestException, ValueError, OSError) as error:
        raise Failed(_said(error)) from error
    return Begun(acme, order, wanted, answers, settings.chain)


def finish(begun: Begun, pause: float) -> bytes:
    """Let the authority look at the challenges, and fetch the certificate.

    Args:
        begun: its answers are served by now.
        pause: seconds for other nodes to learn of them.

    Returns:
        the certificate and those that sign it, PEM.

    Raises:
        Failed: the authority refuses, or cannot be reached.
    """
    import requests
    from acme import errors, messages

    time.sleep(pause)
    client = begun.client
    try:
        for challenge, response in begun.challenges:
            client.answer_challenge(challenge, response)
        until = datetime.now() + timedelta(seconds=_ORDER)
        order = client.poll_authorizations(begun.order, until)
        order = client.finalize_order(order, until, fetch_alternative_chains=begun.preferred is not None)
    except errors.ValidationError as error:
        raise Failed(_refused(error)) from error
    except (errors.Error, messages.Error, requests.RequestException, ValueError, OSError) as error:
        raise Failed(_said(error)) from error
    chains = [order.fullchain_pem, *(order.alternative_fullchains_pem or ())]
    return _preferred(chains, begun.preferred).encode()


def _preferred(chains: list[str], name: str | None) -> str:
    for chain in chains if name is not None else ():
        last = x509.load_pem_x509_certificates(chain.encode())[-1]
        if any(each.value == name for each in last.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)):
            return chain
    return chains[0]


def _refused(error: Any) -> str:
    """What was wrong with the challenges."""
    found = []
    for authorization in error.failed_authzrs:
        for each in authorization.body.challenges:
            if each.error is not None:
                found.append(f"{authorization.body.identifier.value}: {each.error.detail}")
    return "; ".join(found) or "the authority did not accept the challenge"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def shown(host: str, cert_pem: str) -> dict[str, Any]:
    """A certificate as the Admin API shows it."""
    cert = x509.load_pem_x509_certificates(cert_pem.encode())[0]
    names = cert.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    key = cert.public_key()
    now = datetime.now(UTC)
    serial = cert.serial_number.to_bytes((cert.serial_number.bit_length() + 7) // 8 or 1, "big")
    return {
        "digest": _hex(cert.fingerprint(hashes.SHA1())),
        "host": host,
        "issuer_cn": str(names[0].value) if names else "",
        "not_before": f"{cert.not_valid_before_utc:%Y-%m-%d %H:%M:%S}",
        "not_after": f"{cert.not_valid_after_utc:%Y-%m-%d %H:%M:%S}",
        "valid": cert.not_valid_before_utc <= now <= cert.not_valid_after_utc,
        "serial_number": _hex(serial),
        "pubkey_type": "id-ecPublicKey" if isinstance(key, ec.EllipticCurvePublicKey) else "rsaEncryption",
    }


def ends(cert_pem: str) -> float:
    """Epoch seconds at which a certificate does."""
    return x509.load_pem_x509_certificates(cert_pem.encode())[0].not_valid_after_utc.timestamp()


def key_of_jwk(text: str) -> bytes:
    """A private key in JSON (RFC 7517) as PEM. Raises ValueError."""
    from josepy.jwk import JWK

    key: Any = JWK.from_json(json.loads(text))
    form = serialization.PrivateFormat.PKCS8
    made: bytes = key.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return made


def _hex(data: bytes) -> str:
    return ":".join(f"{each:02X}" for each in data)
