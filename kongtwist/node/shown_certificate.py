"""TLS to upstreams where a service does not say: the certificate that they are shown (``client_ssl``), and commands of OpenSSL's
configuration."""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from ..config.load import Conf, ConfError
from ..net.server_tls import default_pairs, read_pairs
from ..net.tls_commands import NO_VERSION, NoVersion, TLSCommand
from ..upstream.client_tls import TLSDefaults, check_command

__all__ = ["shown_certificate"]


def shown_certificate(conf: Conf, make: bool = True) -> TLSDefaults:
    """What connections to upstreams have where a service does not say.

    Args:
        conf: the configuration.
        make: make the default certificate where none is configured and it is not there; else it is left out.

    Raises:
        ConfError: the certificate, or a command, cannot be used.
    """
    defaults = TLSDefaults(
        http=_checked("nginx_http_proxy_ssl_conf_command", conf.nginx_http_proxy_ssl_conf_command),
        grpc=_checked("nginx_http_grpc_ssl_conf_command", conf.nginx_http_grpc_ssl_conf_command),
        stream=_checked("nginx_stream_proxy_ssl_conf_command", conf.nginx_stream_proxy_ssl_conf_command),
    )
    if not conf.client_ssl:
        return defaults
    if conf.client_ssl_cert:
        pairs = read_pairs("client_ssl_cert", [conf.client_ssl_cert], [conf.client_ssl_cert_key])
    else:
        pairs = default_pairs(conf.prefix, make)[-1:]  # the one with RSA, as Kong's: every upstream knows it
    if not pairs:
        return defaults
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in pairs[0].chain)
    key = pairs[0].key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return defaults._replace(certificate=chain.decode(), key=key.decode())


def _checked(name: str, command: TLSCommand | None) -> TLSCommand | None:
    """A command that OpenSSL can do. Raises ConfError."""
    if command is not None:
        try:
            check_command(command)
        except NoVersion:
            raise ConfError(f"{name} {NO_VERSION}") from None
        except SSL.Error as error:
            raise ConfError(f"{name} has no cipher that OpenSSL knows: '{command.value}'") from error
    return command
