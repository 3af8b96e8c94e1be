"""What a session plugin is configured with, and the rows it stores (Kong 3.9.3, ``kong/plugins/session``)."""

from __future__ import annotations

from ...entities.entity import Config as ConfigRecord
from ...entities.entity import Entity, Shorthand
from ...entities.schema import Boolean, Field, Integer, Number, Set, String, Timestamp, Uuid
from ...entities.typedefs import cookie_name, header_value
from .._made_secret import MadeSecret

__all__ = ["CONFIG", "SESSIONS"]


def _attribute(value: str) -> str | None:
    """Text that stands in a cookie's attribute: nothing in it may end the attribute (RFC 6265 4.1.1)."""
    return "must not contain ;" if ";" in value else header_value(value)


def _words() -> Field:
    return String(
        one_of=["id", "audience", "subject", "timeout", "idling-timeout", "rolling-timeout", "absolute-timeout"]
    )


CONFIG = ConfigRecord(
    {
        "secret": MadeSecret(
            required=False, encrypted=True, referenceable=True,
            text="What the keys of cookies and rows are made from; made at random where it is not given or null. Nodes and"
            " restarts share sessions only where they share it.",
        ),
        "storage": String(
            one_of=["cookie", "kong"], default="cookie",
            text="Where the session's data is: in the cookie, encrypted; or encrypted in the database, where a logout ends it"
            " for every copy of the cookie.",
        ),
        "audience": String(default="default", text="Who the session is for; one cookie may hold sessions of several."),
        "idling_timeout": Number(default=900, text="Seconds without a request after which a session is over; 0: never."),
        "rolling_timeout": Number(
            default=3600, text="Seconds for which a session holds without being renewed; renewed after three quarters; 0: for ever."
        ),
        "absolute_timeout": Number(default=86400, text="Seconds after which a session is over in any case; 0: never."),
        "stale_ttl": Number(
            default=10, text="Seconds for which a stored session can still be used once a renewed one has replaced it."
        ),
        "cookie_name": String(default="session", checks=(cookie_name,), text="Name of the cookie."),
        "cookie_path": String(default="/", checks=(_attribute,), text="Path of the cookie."),
        "cookie_domain": String(checks=(_attribute,), text="Domain of the cookie; null or localhost: the host alone."),
        "cookie_same_site": String(
            one_of=["Strict", "Lax", "None", "Default"], default="Strict",
            text="When browsers send the cookie with requests that come from other sites. None makes it Secure.",
        ),
        "cookie_http_only": Boolean(default=True, text="Keep the cookie from scripts."),
        "cookie_secure": Boolean(default=True, text="Let browsers send the cookie over https only."),
        "remember": Boolean(
            default=False, text="Set a second cookie that outlives the browser, and make a new session of it when one is over."
        ),
        "remember_cookie_name": String(default="remember", checks=(cookie_name,), text="Name of the second cookie."),
        "remember_rolling_timeout": Number(
            default=604800, text="Seconds for which the second cookie holds without being used; 0: for ever (400 days in browsers)."
        ),
        "remember_absolute_timeout": Number(
            default=2592000, text="Seconds after which the second cookie is over in any case; 0: never."
        ),
        "response_headers": Set(_words(), text="What clients are told of their session, as Session-Id and the like; null: nothing."),
        "request_headers": Set(
            _words(),
            text="What upstreams are told of the session, as Session-Id and the like; what clients claim there is taken out.",
        ),
        "read_body_for_logout": Boolean(
            default=False, text="Look for the logout argument in bodies, too, not larger than client_body_buffer_size."
        ),
        "logout_methods": Set(
            String(one_of=["GET", "POST", "DELETE"]), default=["POST", "DELETE"],
            text="Methods of requests that may log out; null or empty: none.",
        ),
        "logout_query_arg": String(default="session_logout", text="Query argument that logs out, whatever its value."),
        "logout_post_arg": String(
            default="session_logout", text="Field of forms and JSON bodies that logs out, where read_body_for_logout is on."
        ),
    },
    shorthands={
        "cookie_lifetime": Shorthand(
            Number(text="Former name of rolling_timeout."), lambda value: {"rolling_timeout": value}
        ),
        "cookie_idletime": Shorthand(
            Number(text="Former name of idling_timeout; null: 0."), lambda value: {"idling_timeout": value or 0}
        ),
        "cookie_renew": Shorthand(Number(text="Has no effect any more."), lambda value: {}),
        "cookie_discard": Shorthand(Number(text="Former name of stale_ttl."), lambda value: {"stale_ttl": value}),
        "cookie_samesite": Shorthand(
            String(text="Former name of cookie_same_site; off: Lax."),
            lambda value: {"cookie_same_site": "Lax" if value == "off" else value},
        ),
        "cookie_httponly": Shorthand(
            Boolean(text="Former name of cookie_http_only."), lambda value: {"cookie_http_only": value}
        ),
        "cookie_persistent": Shorthand(Boolean(text="Former name of remember."), lambda value: {"remember": value}),
    },
)  # fmt: skip

SESSIONS = Entity(
    "sessions",
    {
        "id": Uuid(),
        "session_id": String(unique=True, required=True, text="What the session's cookie finds it by."),
        "expires": Integer(text="Epoch seconds at which it is over."),
        "data": String(text="The session, encrypted."),
        "created_at": Timestamp(),
    },
    endpoint_key="session_id",
    cache_key=("session_id",),
    ttl=True,
    plugin="session",
    exported=False,
    text="A session that the plugin session keeps in the database. Deleting it logs the client out.",
    example={"session_id": "hM4nVq0sYJ8w", "expires": 1767225600, "ttl": 3600},
)
"""Rows of sessions whose configuration has ``storage`` kong."""
