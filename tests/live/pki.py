"""Certificates for tests: authorities and what they sign."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

__all__ = ["Signed", "authority"]

_BEGIN = datetime.datetime(2020, 1, 1)
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Signed:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(_PEM).decode()

    @property
    def key_pem(self) -> str:
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(_PEM, form, serialization.NoEncryption()).decode()

    def write(self, folder: str, name: str) -> tuple[str, str]:
        """Write both as files; returns their paths."""
        paths = Path(folder, f"{name}.crt"), Path(folder, f"{name}.key")
        for path, text in zip(paths, (self.pem, self.key_pem), strict=True):
            path.write_text(text)
        return str(paths[0]), str(paths[1])

    def sign(self, name: str, *, client: bool = False, years: int = 79, ca: bool = False) -> Signed:
        """A certificate for ``name`` (and 127.0.0.1), for servers or for clients, that begins in 2020."""
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        return _make(name, self, years, ca, None if ca else usage)


def authority(name: str = "test authority") -> Signed:
    """A self-signed authority."""
    return _make(name, None, 79, True, None)


def _make(name: str, issuer: Signed | None, years: int, ca: bool, usage: x509.ObjectIdentifier | None) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_BEGIN.replace(year=2020 + years))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usage is not None:
        names = [x509.DNSName(name), x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Signed(builder.sign(key if issuer is None else issuer.key, hashes.SHA256()), key)
