"""Who may talk to the Admin API: protection of a loopback Admin API against web pages in a browser on the same machine.

Without it any page a developer visits could reconfigure the gateway: forms are sent across sites without asking, and a
name of the attacker's may be bound to 127.0.0.1 (DNS rebinding) so that the page is not even foreign.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

__all__ = ["Guard"]

WRITING = frozenset(("POST", "PUT", "PATCH", "DELETE"))


def _name(host: str) -> str:
    """The name in a Host field or origin, lower case, without port."""
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[").lower()
    return host.rsplit(":", 1)[0].lower() if host.count(":") == 1 else host.lower()


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


class Guard:
    """Decides whether a request may pass.

    Args:
        loopback: the Admin API listens on loopback addresses only; then Host must name one.
        names: further host names that are ours (of ``admin_gui_url`` and of the listeners).
        origins: origins whose pages may write (``admin_gui_url``).
    """

    def __init__(self, loopback: bool, names: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self.loopback = loopback
        self.origins = {origin.rstrip("/").lower() for origin in origins}
        self.names = {_name(name) for name in names} | {_name(urlsplit(origin).netloc) for origin in self.origins}

    def refusal(self, method: str, host: str | None, origin: str | None, fetch_site: str | None) -> str | None:
        """Why a request may not pass, as a sentence that says what to do; None if it may.

        Args:
            method: the request's.
            host: its Host header.
            origin: its Origin header.
            fetch_site: its Sec-Fetch-Site header (W3C Fetch Metadata).
        """
        if self.loopback and host is not None and not self._ours(_name(host)):
            return (
                f"the Admin API listens on this machine only and does not answer to the name '{_name(host)}'; "
                "use localhost, or set admin_gui_url or admin_listen to the name you use"
            )
        if method not in WRITING:
            return None
        if origin is not None and origin != "null" and self._own_origin(origin, host):
            return None
        if origin is not None or fetch_site in ("cross-site", "same-site"):
            return "writes from another site's web page are refused; if this page is yours, add its origin to admin_gui_url"
        return None

    def _ours(self, name: str) -> bool:
        return name in self.names or _is_loopback(name)

    def _own_origin(self, origin: str, host: str | None) -> bool:
        if origin.lower() in self.origins:
            return True
        return host is not None and urlsplit(origin).netloc.lower() == host.lower()
