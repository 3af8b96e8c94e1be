"""What a command of OpenSSL's configuration does to a context (SSL_CONF_cmd(3)), as far as pyOpenSSL can say it."""

from __future__ import annotations

from collections.abc import Iterable

from OpenSSL import SSL

from ..config.tls_kinds import TLSCommand

__all__ = ["NO_VERSION", "NoVersion", "TLSCommand", "only_versions", "set_up"]

_FORBID = {
    "SSLv3": SSL.OP_NO_SSLv3,
    "TLSv1": SSL.OP_NO_TLSv1,
    "TLSv1.1": SSL.OP_NO_TLSv1_1,
    "TLSv1.2": SSL.OP_NO_TLSv1_2,
    "TLSv1.3": SSL.OP_NO_TLSv1_3,
}

# Options that pyOpenSSL has no names for (OpenSSL 3 to 4, include/openssl/ssl.h).
_NO_EXTENDED_MASTER_SECRET = 1 << 0
_ALLOW_NO_DHE_KEX = 1 << 10
_NO_ENCRYPT_THEN_MAC = 1 << 19
_PRIORITIZE_CHACHA = 1 << 21

_SET = {
    "ServerPreference": SSL.OP_CIPHER_SERVER_PREFERENCE,
    "PrioritizeChaCha": _PRIORITIZE_CHACHA,
    "AllowNoDHEKEX": _ALLOW_NO_DHE_KEX,
    "NoRenegotiation": SSL.OP_NO_RENEGOTIATION,
}
_UNSET = {
    "SessionTicket": SSL.OP_NO_TICKET,
    "EncryptThenMac": _NO_ENCRYPT_THEN_MAC,
    "ExtendedMasterSecret": _NO_EXTENDED_MASTER_SECRET,
}
"""Options whose bit in a context means that they are off."""


NO_VERSION = "leaves no TLS version; allow TLSv1.2 or TLSv1.3"
"""What is said behind the name of the property that does."""


class NoVersion(ValueError):
    """No TLS version is left."""


def only_versions(versions: Iterable[str]) -> int:
    """The options that forbid all other versions."""
    kept = set(versions)
    options = 0
    for name, forbid in _FORBID.items():
        if name not in kept:
            options |= forbid
    return options


def set_up(
    context: SSL.Context, command: TLSCommand | None, versions: tuple[str, ...], options: int, ciphers: str = ""
) -> None:
    """Give a context its versions, options and ciphers, changed by a command.

    Args:
        context: new.
        command: the command; None for none.
        versions: allowed without it.
        options: set without it.
        ciphers: OpenSSL's list, of TLS 1.2 and older; "" for its default.

    Raises:
        NoVersion: no version is left that OpenSSL speaks.
        SSL.Error: OpenSSL knows none of the ciphers.
    """
    if command is not None:
        left = command.versions(versions)
        if not left and versions:
            raise NoVersion
        versions = left
        options = _changed(options, command)
        ciphers = command.value if command.name == "CipherString" else ciphers
    if versions == ("SSLv3",):  # OpenSSL is built without it
        raise NoVersion
    context.set_options(options | only_versions(versions))
    # OpenSSL's defaults leave old versions out whatever the options say; what is not wanted is forbidden above.
    context.set_min_proto_version(0)
    if ciphers:
        context.set_cipher_list(ciphers.encode())
    if command is not None and command.name == "Ciphersuites":
        context.set_tls13_ciphersuites(command.value.encode())


def _changed(options: int, command: TLSCommand) -> int:
    if command.name != "Options":
        return options
    for sign, name in command.signed():
        bit = _SET.get(name) or _UNSET[name]
        options = options | bit if (sign == "+") == (name in _SET) else options & ~bit
    return options
