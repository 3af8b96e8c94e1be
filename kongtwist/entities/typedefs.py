"""Rules on single values that several entities share, with Kong's words (Kong 3.9, ``kong/db/schema/typedefs.lua``)."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

from .addresses import BAD_PORT, Address, parse_address
from .paths import normalise
from .pem import public_der, read_chain, read_private
from .regexes import fault
from .schema import Field, Set, String, Timestamp

__all__ = [
    "SEGMENTS", "cookie_name", "header_name", "header_value", "host", "host_with_optional_port", "ip_or_cidr",
    "path", "router_path", "sni", "stamps", "tags", "token", "url", "utf8_name", "wildcard_host",
]  # fmt: skip

_HEADER = re.compile(r"[A-Za-z0-9_-]+\Z")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_NOT_IN_A_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_COOKIE = re.compile(r"[!#-'*+.0-9A-Z^-z|~-]+\Z")
_NAME = re.compile(r"[A-Za-z0-9._~\u0080-\U0010ffff-]*\Z")
_TAG = re.compile(r"[\x20-\x2b\x2d-\x2e\x30-\x7e\u0080-\ud7ff\ue000-\U0010ffff]+\Z")
_NO_UTF8 = re.compile(r"[\ud800-\udfff]")
_PATH = re.compile(r"[A-Za-z0-9._~/%:@!$&'()*+,;=-]*\Z")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)

SEGMENTS = [{"err": "must not have empty segments", "pattern": "//"}]
"""``match_none`` of paths."""


def _address(value: str) -> Address | str:
    """What a text says, or what is wrong with it."""
    try:
        return parse_address(value)
    except ValueError as error:
        return str(error)


def host(value: str) -> str | None:
    """A name or address without a port."""
    found = _address(value)
    if isinstance(found, str):
        return "must not have a port" if found == BAD_PORT else f"invalid value: {value}"
    return None if found.port is None else "must not have a port"


def host_with_optional_port(value: str) -> str | None:
    """A name or address, with a port or not."""
    found = _address(value)
    return found if isinstance(found, str) else None


def route_host(value: str) -> str | None:
    """A route's host: a star stands for a label."""
    return host_with_optional_port(value.replace("*", "abc"))


def ip(value: str) -> str | None:
    """An IPv4 or IPv6 address."""
    try:
        ip_address(value.strip("[]") if value.startswith("[") else value)
    except ValueError:
        return f"not an ip address: {value}"
    return None


def ip_or_cidr(value: str) -> str | None:
    """An address or a CIDR block."""
    try:
        ip_network("" if "%" in value else value, strict=False)
    except ValueError:
        return f"invalid ip or cidr range: '{value}'"
    return None


def _percent(value: str) -> str | None:
    found = _BAD_PERCENT.search(value)
    return f"invalid url-encoded value: '{found[0]}'" if found else None


def path(value: str) -> str | None:
    """A path of RFC 3986 characters."""
    if not _PATH.match(value):
        return f"invalid path: '{value}' (characters outside of the reserved list of RFC 3986 found)"
    return _percent(value)


def router_path(value: str) -> str | None:
    """A route's path: a normalised prefix, or ``~`` and a regular expression."""
    if value.startswith("~"):
        wrong = fault(value[1:])
        return None if wrong is None else f"invalid regex: '{value[1:]}' (PCRE returned: {wrong})"
    if wrong := _percent(value):
        return wrong
    normal = normalise(value.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    return None if normal == value else f"non-normalized path, consider use '{normal}' instead"


_URL = re.compile(r"(?:([A-Za-z0-9][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?")


def url(value: str) -> str | None:
    """A URL with scheme and host."""
    found = _URL.match(value)
    assert found is not None  # all of it may be empty
    where = (found[2] or "").rpartition("@")[2]
    if not re.sub(r":[^:\]]*\Z", "", where):
        return "missing host in url"
    return None if found[1] else "missing scheme in url"


def header_name(value: str) -> str | None:
    """A header's name."""
    if _HEADER.match(value):
        return None
    return f"bad header name '{value}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"


def token(value: str) -> str | None:
    """A header's name, any that RFC 9110 5.1 allows."""
    if _TOKEN.match(value):
        return None
    return f"bad header name '{value}', allowed characters are letters, digits and !#$%&'*+-.^_`|~"


def header_value(value: str) -> str | None:
    """Text that is sent in a header: no control characters."""
    found = _NOT_IN_A_HEADER.search(value)
    if found is None:
        return None
    return f"invalid character U+{ord(found[0]):04X} at position {found.start() + 1}: it cannot be sent in a header"


def cookie_name(value: str) -> str | None:
    """A cookie's name (RFC 6265 4.1.1: a token)."""
    if _COOKIE.match(value):
        return None
    return (
        "contains one or more invalid characters. ASCII control characters (0-31;127), space, tab and the characters "
        '()<>@,;:\\"/?={}[] are not allowed.'
    )


def utf8_error(value: str) -> str | None:
    """Where a text is not UTF-8. Half of a surrogate pair stands for bytes that were not."""
    wrong = _NO_UTF8.search(value)
    if wrong is None:
        return None
    position = len(value[: wrong.start()].encode("utf-8", "surrogatepass")) + 1
    return f"invalid utf-8 character sequence detected at position {position}"


def utf8_name(value: str) -> str | None:
    """An entity's name: ASCII letters, digits and a few marks, or anything beyond ASCII."""
    if wrong := utf8_error(value):
        return wrong
    if _NAME.match(value):
        return None
    return f"invalid value '{value}': the only accepted ascii characters are alphanumerics or ., -, _, and ~"


def tag(value: str) -> str | None:
    """A label: printable ASCII without comma and slash, or UTF-8."""
    if wrong := utf8_error(value):
        return wrong
    if _TAG.match(value):
        return None
    return f"invalid tag '{value}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"


def sni(value: str) -> str | None:
    """A server name: no address, no port."""
    found = _address(value)
    if isinstance(found, str):
        return "must not have a port" if found == BAD_PORT else f"invalid value: {value}"
    if found.kind != "name":
        return "must not be an IP"
    return None if found.port is None else "must not have a port"


def wildcard_host(value: str) -> str | None:
    """A server name with at most one star, first or last."""
    star = value.find("*")
    if star < 0:
        return sni(value)
    if star not in (0, len(value) - 1):
        return "wildcard must be leftmost or rightmost character"
    if value.count("*") > 1:
        return "only one wildcard must be specified"
    return sni(value.replace("*", "wildcard"))


def _first_sentence(error: Exception) -> str:
    """A library's message without its advice to programmers."""
    return str(error).partition(". ")[0]


def certificate(value: str) -> str | None:
    """One or more certificates in PEM form."""
    try:
        read_chain(value)
    except ValueError as error:
        return f"invalid certificate: x509.new: {_first_sentence(error)}"
    return None


def key(value: str) -> str | None:
    """A private key in PEM form."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        read_private(value)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return f"invalid key: pkey.new:load_key: {_first_sentence(error)}"
    return None


def key_matches(certificate_pem: str, key_pem: str) -> bool:
    """Whether the first certificate belongs to the key; both are valid PEM."""
    public = read_chain(certificate_pem)[0].public_key()
    return public_der(public) == public_der(read_private(key_pem).public_key())


# -- fields that many entities have ------------------------------------------------------------------------------------------


def name(**attrs: object) -> String:
    """A name by which the row can be addressed."""
    return String(
        unique=True, checks=(utf8_name,), **({"text": "Unique name; null: only the id addresses it."} | attrs)
    )


def stamps() -> dict[str, Field]:
    """When a row was created and last changed."""
    return {"created_at": Timestamp(), "updated_at": Timestamp()}


def tags() -> Set:
    """Labels for filtering."""
    return Set(String(required=True, checks=(tag,)), text="Labels to filter lists by; null: none.")


def key_kind(certificate_pem: str) -> str:
    """The type of a certificate's key, for telling RSA from ECDSA."""
    return type(read_chain(certificate_pem)[0].public_key()).__name__


def digest(certificate_pem: str) -> str:
    """SHA-256 of a certificate, lower-case hex."""
    from cryptography.hazmat.primitives.hashes import SHA256

    found: str = read_chain(certificate_pem)[0].fingerprint(SHA256()).hex()
    return found


def ca_error(row: dict[str, object]) -> str | None:
    """What is wrong with a CA certificate entity."""
    from datetime import UTC, datetime

    from cryptography import x509

    found = read_chain(str(row["cert"]))
    if len(found) > 1:
        return "please submit only one certificate at a time"
    if found[0].not_valid_after_utc < datetime.now(UTC):
        return 'certificate expired, "Not After" time is in the past'
    try:
        constraints = found[0].extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = None
    if constraints is None or not constraints.ca:
        return 'certificate does not appear to be a CA because it is missing the "CA" basic constraint'
    return None
