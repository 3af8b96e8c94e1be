"""The authorities of ``lua_ssl_trusted_certificate``: whom the gateway trusts as a client."""

from __future__ import annotations

import os
import ssl

from .load import Conf, ConfError

__all__ = ["trusted_authorities"]

_SYSTEM = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where systems keep the authorities they trust."""


def trusted_authorities(conf: Conf) -> dict[str, str]:
    """The files that are named and what is in them; the file of the machine's for ``system``. Raises ConfError."""
    found = {}
    for each in conf.lua_ssl_trusted_certificate:
        file = _system() if each == "system" else os.path.abspath(each)
        try:
            with open(file, encoding="utf-8") as opened:
                text = found[file] = opened.read()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfError(f"lua_ssl_trusted_certificate cannot be read: {error}") from error
        if "-----BEGIN CERTIFICATE-----" not in text:
            raise ConfError(f"lua_ssl_trusted_certificate has a file without certificates in PEM format: {file}")
    return found


def _system() -> str:
    for path in (ssl.get_default_verify_paths().cafile, *_SYSTEM):
        if path and os.path.exists(path):
            return path
    raise ConfError("lua_ssl_trusted_certificate: this machine's authorities are not found; name a file with them")
