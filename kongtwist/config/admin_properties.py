"""Properties of the Admin API's listeners: who may connect, and what all clients together may take up. Names that Kong lacks are ours."""

from __future__ import annotations

import re

from .kinds import ARRAY, INTEGER, SIZE, Kind, Property, items

__all__ = ["TOKEN_LENGTH", "AdminAccess", "origin_of"]

TOKEN_LENGTH = 16
"""Characters of the shortest token taken."""

_URL = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?(?:/\S*)?", re.IGNORECASE)


def origin_of(url: str) -> str:
    """The origin of a page at ``url``, as browsers write it (RFC 6454 6.2): lower case, without the usual port.

    Raises:
        ValueError: with the end of a sentence that begins with the property's name.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"is not the address of a page, such as https://console.example:8445: '{url}'")
    scheme, host, port = match[1].lower(), match[2].lower(), match[3]
    usual = {"http": "80", "https": "443"}[scheme]
    return f"{scheme}://{host}" + (f":{int(port)}" if port and port != usual else "")


def _urls(text: str) -> list[str]:
    found = items(text)
    for url in found:
        origin_of(url)
    return found


def _url(text: str) -> str:
    origin_of(text if "://" in text else f"http://{text}")
    return text


def _tokens(text: str) -> list[str]:
    """Tokens; what is wrong with one is told without showing it."""
    found = items(text)
    for token in found:
        if len(token) < TOKEN_LENGTH:
            raise ValueError(
                f"has a token of fewer than {TOKEN_LENGTH} characters, which could be guessed; "
                "make one with: openssl rand -hex 32"
            )
        if not re.fullmatch(r"[!-~]+", token):
            raise ValueError("has a token with a blank or a character that is not ASCII, which no header can carry")
    return found


URLS: Kind[list[str]] = Kind("list of addresses", _urls)
URL: Kind[str] = Kind("address", _url)
TOKENS: Kind[list[str]] = Kind("list of secrets", _tokens)


class AdminAccess:
    """Admin API."""

    admin_gui_url = Property(
        URLS,
        "",
        "Addresses (scheme, host, port) at which a console of yours is reached: pages from there may read and write"
        " through the Admin API, those of other sites may not, and their host names are answered on a loopback Admin API.",
    )
    admin_gui_api_url = Property(
        URL,
        None,
        "Address at which browsers reach the Admin API, when that is another name than those of admin_listen (behind a"
        " proxy, for example): requests to this name are answered.",
    )
    admin_api_token = Property(
        TOKENS,
        "",
        "Secrets of at least 16 characters, separated by commas, one of which every request to the Admin API must bring:"
        " 'Kong-Admin-Token: <token>' or 'Authorization: Bearer <token>' (our own name). Several let one be replaced"
        " without a gap. {vault://env/NAME} takes one from the environment, as does KONG_ADMIN_API_TOKEN. None: no token"
        " is needed.",
        live=True,
    )
    admin_ssl_client_ca = Property(
        ARRAY,
        "",
        "Files with certificates (PEM) of authorities: on the ssl addresses of admin_listen, clients without a"
        " certificate signed by one of them are refused in the handshake (our own name).",
        live=True,
    )
    admin_max_connections = Property(
        INTEGER.within(1, 100000),
        "1024",
        "Connections to the Admin API, and to the Status API, at once (our own name); a new one takes the place of the"
        " longest idle one, or is answered 503.",
    )
    nginx_admin_client_max_body_size = Property(
        SIZE, "10m", "Largest request body of the Admin API; larger ones are answered 413. 0: admin_max_body_memory."
    )
    admin_max_body_memory = Property(
        SIZE,
        "256m",
        "Bytes that the bodies of all requests to the Admin API may take at once (our own name); beyond it they are"
        " answered 503. Bodies are never written to disk.",
    )
