"""The certificate that all upstreams are shown (``client_ssl``), where a service has none of its own."""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ..config.load import Conf
from ..net.server_tls import default_pairs, read_pairs
from ..upstream.client_tls import TLSDefaults

__all__ = ["shown_certificate"]


def shown_certificate(conf: Conf, make: bool = True) -> TLSDefaults:
    """What connections to upstreams have where a service does not say.

    Args:
        conf: the configuration.
        make: make the default certificate where none is configured and it is not there; else it is left out.

    Raises:
        ConfError: the certificate cannot be used.
    """
    if not conf.client_ssl:
        return TLSDefaults()
    if conf.client_ssl_cert:
        pairs = read_pairs("client_ssl_cert", [conf.client_ssl_cert], [conf.client_ssl_cert_key])
    else:
        pairs = default_pairs(conf.prefix, make)[-1:]  # the one with RSA, as Kong's: every upstream knows it
    if not pairs:
        return TLSDefaults()
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in pairs[0].chain)
    key = pairs[0].key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return TLSDefaults(certificate=chain.decode(), key=key.decode())
