"""Kinds of TLS properties: versions, and commands of OpenSSL's configuration (SSL_CONF_cmd(3), names of configuration files)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .kinds import Kind

__all__ = ["OPTIONS", "TLS_COMMAND", "TLS_RANGE", "TLS_VERSIONS", "VERSIONS", "TLSCommand"]

VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
"""Versions that OpenSSL speaks, oldest first; SSLv3 is not built any more."""

OPTIONS = {
    "SessionTicket": "+-", "ServerPreference": "+-", "PrioritizeChaCha": "+-", "EncryptThenMac": "+-", "ExtendedMasterSecret": "+-",
    "AllowNoDHEKEX": "+-", "NoRenegotiation": "+",
}  # fmt: skip
"""Options, and whether each can be set, and unset. Renegotiation stays off whatever is said."""

_COMMANDS = {
    name.lower(): name for name in ("CipherString", "Ciphersuites", "MinProtocol", "MaxProtocol", "Protocol", "Options")
}
_CIPHERS = re.compile(r"[A-Za-z0-9_+!@=.:-]+")


@dataclass(frozen=True, slots=True)
class TLSCommand:
    """One command: its name, and its value as OpenSSL takes it."""

    name: str
    value: str

    def versions(self, allowed: tuple[str, ...]) -> tuple[str, ...]:
        """The TLS versions that remain, or come, where these were allowed."""
        if self.name in ("MinProtocol", "MaxProtocol") and self.value != "None":
            at = VERSIONS.index(self.value)
            left = VERSIONS[at:] if self.name == "MinProtocol" else VERSIONS[: at + 1]
            return tuple(each for each in allowed if each in left)
        if self.name != "Protocol":
            return allowed
        found = set(allowed)
        for sign, version in self.signed():
            named = VERSIONS if version == "ALL" else (version,)
            found = found.difference(named) if sign == "-" else found.union(named)
        return tuple(each for each in VERSIONS if each in found)

    def signed(self) -> list[tuple[str, str]]:
        """The members of a list, each with its sign."""
        parts = [part.strip() for part in self.value.split(",")]
        return [(part[0], part[1:]) if part[:1] in ("+", "-") else ("+", part) for part in parts]


def _command(text: str) -> TLSCommand:
    name, _, value = text.partition(" ")
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    if not value:
        raise ValueError(f"is not a command and its value, such as 'MinProtocol TLSv1.3': '{text}'")
    known = _COMMANDS.get(name.lower())
    if known is None:
        raise ValueError(f"cannot be '{name}': of OpenSSL's commands only {', '.join(_COMMANDS.values())} are built")
    command = TLSCommand(known, value)
    if known in ("CipherString", "Ciphersuites"):
        if not _CIPHERS.fullmatch(value):
            raise ValueError(f"has no list of ciphers, divided by colons: '{value}'")
    elif known in ("MinProtocol", "MaxProtocol"):
        if value not in ("None", *VERSIONS):
            raise ValueError(f"has an invalid value: '{value}' (None, {', '.join(VERSIONS)})")
    else:
        _check_members(command)
    return command


def _check_members(command: TLSCommand) -> None:
    known = OPTIONS if command.name == "Options" else dict.fromkeys(("ALL", *VERSIONS), "+-")
    for sign, member in command.signed():
        if member not in known:
            raise ValueError(f"has an invalid value: '{member}' (with + or -: {', '.join(known)})")
        if sign not in known[member]:
            raise ValueError(f"cannot be '{command.name} {sign}{member}': it stays as it is")


def _versions(text: str) -> str:
    known = ("SSLv3", *VERSIONS)
    if wrong := next((each for each in text.split() if each not in known), None):
        raise ValueError(f"has an invalid value: '{wrong}' ({', '.join(sorted(known))})")
    return text


def _range(text: str) -> str:
    found = text.split()
    if wrong := next((each for each in found if each not in VERSIONS), None):
        raise ValueError(f"has an invalid value: '{wrong}' ({', '.join(VERSIONS)})")
    places = sorted(VERSIONS.index(each) for each in set(found))
    if not places or places != list(range(places[0], places[-1] + 1)):
        raise ValueError(f"leaves out a version between others: '{text}'")
    return text


TLS_VERSIONS: Kind[str] = Kind("SSLv3, TLSv1, TLSv1.1, TLSv1.2, TLSv1.3, separated by blanks", _versions)
TLS_RANGE: Kind[str] = Kind("TLSv1, TLSv1.1, TLSv1.2, TLSv1.3, separated by blanks, none left out between", _range)
TLS_COMMAND: Kind[TLSCommand] = Kind("command of OpenSSL's configuration", _command)
