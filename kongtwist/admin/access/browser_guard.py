"""Protects the Admin API against web pages in a browser that can reach it.

Without it any page a developer visits could reconfigure the gateway. Browsers send forms across sites without asking; an
attacker can bind a name of his to our address (DNS rebinding), and then his page is not even foreign; and Kong's CORS rule
lets every origin read when ``admin_gui_url`` is not set.

The rule. Programs (curl, decK, CI) pass, and get Kong's answers. A browser's request passes when its page is ours (an origin of
``admin_gui_url``, or the Admin API's own), or when somebody opened the address by hand or by a link. A foreign page gets 403
for reading and for writing. A browser is known by ``Sec-Fetch-*`` (W3C Fetch Metadata, which scripts cannot set), which it
sends to trustworthy addresses, and by a ``User-Agent`` that begins with ``Mozilla/``, which it sends to all. A script that
changes the latter causes a preflight request, which carries the true one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

__all__ = ["Approach", "Guard", "exposure"]

WRITING = frozenset(("POST", "PUT", "PATCH", "DELETE"))


def _name(host: str) -> str:
    """The name in a Host field or origin, lower case, without port and without the dot of the DNS root."""
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[").lower()
    name = host.rsplit(":", 1)[0] if host.count(":") == 1 else host
    return name.lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    """Whether a host name or address can only be this machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Approach:
    """What a request says about its sender."""

    method: str
    host: str | None = None  #: Host
    origin: str | None = None  #: Origin (RFC 6454)
    fetch_site: str | None = None  #: Sec-Fetch-Site
    fetch_mode: str | None = None  #: Sec-Fetch-Mode
    user_agent: str | None = None  #: User-Agent
    wanted_method: str | None = None  #: Access-Control-Request-Method
    secure: bool = False  #: it came over TLS

    @classmethod
    def of(cls, method: str, header: Callable[[str], str | None], secure: bool) -> Approach:
        """Read it from a request's header fields."""
        return cls(
            method,
            header("host"),
            header("origin"),
            header("sec-fetch-site"),
            header("sec-fetch-mode"),
            header("user-agent"),
            header("access-control-request-method"),
            secure,
        )

    @property
    def browser(self) -> bool:
        """A web browser sent it."""
        fetched = self.fetch_site is not None or self.fetch_mode is not None
        return fetched or (self.user_agent or "").startswith("Mozilla/")

    @property
    def preflight(self) -> bool:
        """A browser's question whether a page may send something (Fetch standard, CORS-preflight request)."""
        return self.method == "OPTIONS" and self.origin is not None and self.wanted_method is not None


class Guard:
    """Decides whether a request may pass.

    Args:
        loopback: the Admin API listens on loopback addresses only; then Host must name one.
        names: further host names that are ours (of the listeners, of ``admin_gui_url``, of ``admin_gui_api_url``).
        origins: origins whose pages may read and write, as browsers write them (``admin_gui_origin``).
    """

    def __init__(self, loopback: bool, names: Iterable[str] = (), origins: Sequence[str] = ()) -> None:
        self.loopback = loopback
        self.origins = tuple(origin.rstrip("/").lower() for origin in origins)
        self.names = {_name(name) for name in names} | {_name(urlsplit(origin).netloc) for origin in self.origins}

    def refusal(self, approach: Approach) -> str | None:
        """Why a request may not pass, as a sentence that says what to do; None if it may."""
        return self._refused_name(approach) or self._refused_page(approach)

    def allowed_origin(self, approach: Approach) -> str | None:
        """The value of Access-Control-Allow-Origin: Kong's, but for foreign pages, which get none."""
        if self.origins:
            own = approach.origin is not None and approach.origin.lower() in self.origins
            return approach.origin if own else self.origins[0]
        if approach.origin is None:
            return "*"
        return approach.origin if not approach.browser or self._own_origin(approach) else None

    def _refused_name(self, approach: Approach) -> str | None:
        """Refuse names of an attacker's that lead to our address. Over TLS they need no refusal: he has no certificate for us."""
        if approach.host is None:
            return None
        name = _name(approach.host)
        if name in self.names or _is_loopback(name):
            return None
        if self.loopback:
            return (
                f"the Admin API listens on this machine only and does not answer to the name '{name}'; "
                "use localhost, or set admin_gui_url, admin_gui_api_url or admin_listen to the name you use"
            )
        if not approach.browser or approach.secure or _is_address(name):
            return None
        return (
            f"the Admin API does not know itself by the name '{name}' that a web browser used; "
            f"if it is yours, set admin_gui_api_url = http://{approach.host}"
        )

    def _refused_page(self, approach: Approach) -> str | None:
        if self._own_origin(approach):
            return None
        foreign = approach.origin is not None or approach.fetch_site in ("cross-site", "same-site")
        if not foreign:
            return None
        if approach.method in WRITING:
            return "writes from another site's web page are refused; if this page is yours, add its origin to admin_gui_url"
        opened = approach.origin is None and approach.fetch_mode == "navigate"  # a link: its page cannot see the answer
        if not approach.browser or opened:
            return None
        return "another site's web page may not read here; if this page is yours, add its origin to admin_gui_url"

    def _own_origin(self, approach: Approach) -> bool:
        origin = approach.origin
        if origin is None or origin == "null":
            return False
        if origin.lower() in self.origins:
            return True
        try:
            netloc = urlsplit(origin).netloc
        except ValueError:  # brackets around what is no address
            return False
        return approach.host is not None and netloc.lower() == approach.host.lower()


def exposure(wide: Sequence[tuple[str, bool]], token: bool, client_ca: bool) -> str | None:
    """What is wrong with how widely the Admin API listens, as a sentence with the remedy; None when nothing is.

    Args:
        wide: the addresses that can be reached from beyond this machine, and whether each has TLS.
        token: ``admin_api_token`` is set.
        client_ca: ``admin_ssl_client_ca`` is set.
    """
    unguarded = [address for address, secure in wide if not token and not (secure and client_ca)]
    if unguarded:
        return (
            f"the Admin API listens beyond this machine on {', '.join(unguarded)} and whoever reaches it controls the "
            "gateway; set admin_api_token, or ssl and admin_ssl_client_ca, or listen on 127.0.0.1 (see docs/security.md)"
        )
    plain = [address for address, secure in wide if not secure]
    if plain:
        return (
            f"the Admin API listens without TLS on {', '.join(plain)}: admin_api_token and all it protects can be read "
            "on the way; add the flag ssl to admin_listen (see docs/security.md)"
        )
    return None
