"""References to secrets: ``{vault://<vault>/<name>[/<member>][?option=value][#version]}`` (Kong 3.9).

A field declared ``referenceable`` may hold one in place of its value. It is stored and shown as written; its value is
looked up where the field is used (`kongtwist.core.vault`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .json_text import parse_json

__all__ = ["Reference", "SecretMissing", "environment_secret", "is_reference", "parse_reference"]

_BEGIN, _END = "{vault://", "}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference taken apart."""

    vault: str  #: a vault's kind (``env``) or the prefix of a stored vault
    name: str  #: of the secret in that vault
    member: str | None = None  #: of the JSON object that the secret is; None: the secret itself
    options: tuple[tuple[str, str], ...] = ()  #: configuration of the vault for this reference alone
    version: int | None = None  #: of the secret, where the vault keeps several


def is_reference(value: Any) -> bool:
    """Whether a value has a reference's form; it may still name nothing."""
    return isinstance(value, str) and value.startswith(_BEGIN) and value.endswith(_END)


def parse_reference(text: str) -> Reference:
    """Take a reference apart.

    Raises:
        ValueError: it has another form, names no vault or no secret, or its version is no number; with the rest of a sentence.
    """
    try:
        parts = urlsplit(text[1:-1])
    except ValueError:  # of a bracket, as in an address of IPv6
        raise ValueError("is of another form than {vault://env/NAME}") from None
    if not parts.netloc:
        raise ValueError("names no vault")
    name, _, member = parts.path.removeprefix("/").partition("/")
    if not name:
        raise ValueError("names no secret")
    if parts.fragment and (not parts.fragment.isascii() or not parts.fragment.isdigit() or len(parts.fragment) > 18):
        raise ValueError(f"has a version that is no number: '{parts.fragment}'")
    return Reference(
        unquote(parts.netloc),
        unquote(name),
        unquote(member) or None,
        tuple(parse_qsl(parts.query, keep_blank_values=True)),
        int(parts.fragment) if parts.fragment else None,
    )


class SecretMissing(ValueError):
    """A reference stands for nothing; the text is the rest of a sentence."""


def environment_secret(reference: Reference, config: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """A secret of the vault ``env``: an environment variable, or a member of the JSON object that it holds.

    Args:
        reference: what is wanted.
        config: the vault's configuration; the reference's own options are stronger.
        environ: the environment.

    Raises:
        SecretMissing: there is no such variable or member.
    """
    prefix = dict(reference.options).get("prefix", config.get("prefix")) or ""
    variable = (prefix + reference.name).upper().replace("-", "_")
    value = environ.get(variable)
    if value is None:
        raise SecretMissing(f"there is no environment variable {variable}")
    if reference.member is None:
        return value
    try:
        found = parse_json(value)
    except ValueError:
        found = None
    member = found.get(reference.member) if isinstance(found, dict) else None
    if isinstance(member, bool) or not isinstance(member, str | int | float):
        raise SecretMissing(f"environment variable {variable} is no JSON object with a text '{reference.member}'")
    return str(member)
