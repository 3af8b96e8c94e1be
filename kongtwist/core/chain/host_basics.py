"""What the rest of core/chain/host.py is made of: its errors, and how TLS is spoken."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["HostError", "NotOffered", "ProtoFault", "TLSSettings"]


class HostError(Exception):
    """What a plugin asked of the gateway cannot be had. The text is for a log."""


class NotOffered(HostError):
    """This process does not offer it."""


class ProtoFault(HostError):
    """A .proto file cannot be used.

    Args:
        text: names file, line and fault.
        missing: there is no such file.
    """

    def __init__(self, text: str, missing: bool = False) -> None:
        super().__init__(text)
        self.missing = missing


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """How TLS is spoken to one server."""

    verify: bool = False  #: demand a certificate of a trusted authority for the server's name (Kong's ``ssl_verify``)
    server_name: str = ""  #: asked for (SNI) and, with ``verify``, demanded; "": the host that is connected to
    authorities: tuple[str, ...] = ()  #: PEM; none: those the gateway trusts (``lua_ssl_trusted_certificate``)
    certificate: str = ""  #: PEM, with its chain: what we show the server; "": nothing
    key: str = field(default="", repr=False)  #: PEM
    verify_depth: int | None = None  #: certificates between theirs and a trusted one; None: ``lua_ssl_verify_depth``
    protocols: tuple[str, ...] = ()  #: offered by ALPN (RFC 7301); where there are some the server has to choose one
