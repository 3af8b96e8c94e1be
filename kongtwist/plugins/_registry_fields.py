"""``schema_registry`` of a plugin's configuration (Kong 3.15, plugins ``kafka-*`` and ``confluent*``)."""

from __future__ import annotations

from typing import Any

from ..core.chain.host_schemas import RegistryOAuth, RegistrySettings, Subject
from ..core.rows import Row
from ..entities.schema import Array, Boolean, Field, Integer, Map, Number, Record, String
from ..entities.typedefs import url

__all__ = ["registry_field", "registry_settings", "subject_of"]

_TTL = 300.0
"""Seconds, where the configuration says nothing."""


def _no_proxy(_value: Any) -> str:
    return "proxies on the way to a token endpoint are not built; leave the field out"


def _version(value: str) -> str | None:
    return None if value == "latest" or (value.isascii() and value.isdigit()) else "a number, or latest"


def _shows_itself(value: Row) -> str | None:
    """Whether the mode has what it needs."""
    mode = value.get("mode")
    if mode in ("basic", "oauth2") and not value.get(mode):
        return f"mode {mode} needs the record {mode}"
    oauth = value.get("oauth2") or {}
    client = value.get("oauth2_client") or {}
    if mode == "oauth2" and oauth.get("grant_type") == "password" and not oauth.get("username"):
        return "grant_type password needs a username"
    if mode == "oauth2" and client.get("auth_method") == "client_secret_jwt" and not oauth.get("client_secret"):
        return "auth_method client_secret_jwt needs a client_secret"
    return None


def _has_url(value: Row) -> str | None:
    return None if value.get("url") else "a registry needs a url"


def _has_subject(value: Row) -> str | None:
    if any((value.get(name) or {}).get("subject_name") for name in ("value_schema", "key_schema")):
        return _has_url(value)
    return "value_schema.subject_name or key_schema.subject_name is needed: nothing would be checked or encoded"


def _authentication() -> Field:
    secret = {"encrypted": True, "referenceable": True}
    return Record({
        "mode": String(default="none", one_of=["basic", "none", "oauth2"], text="What the registry is shown of us."),
        "basic": Record({
            "username": String(required=True, **secret, text="Name that the registry knows."),
            "password": String(required=True, **secret, text="Password of that name."),
        }, required=False, text="Of mode basic (RFC 7617)."),
        "oauth2": Record({
            "token_endpoint": String(required=True, checks=(url,), text="URL that gives tokens."),
            "grant_type": String(
                default="client_credentials", one_of=["client_credentials", "password"], text="How a token is asked for (RFC 6749)."
            ),
            "client_id": String(**secret, text="Id of the client."),
            "client_secret": String(**secret, text="Secret of the client."),
            "username": String(**secret, text="Of grant_type password."),
            "password": String(**secret, text="Of grant_type password."),
            "audience": Array(String(), default=[], text="Each is sent as audience."),
            "scopes": Array(String(), default=["openid"], text="Scopes that are asked for."),
            "token_headers": Map(String(), String(referenceable=True), text="Further header fields of the request for a token."),
            "token_post_args": Map(String(), String(referenceable=True), text="Further members of its form."),
        }, required=False, text="Of mode oauth2. A token is used for four fifths of its life, and asked for again when it is refused."),
        "oauth2_client": Record({
            "auth_method": String(
                default="client_secret_post",
                one_of=["client_secret_basic", "client_secret_jwt", "client_secret_post", "none"],
                text="How the token endpoint is shown the client's secret.",
            ),
            "client_secret_jwt_alg": String(default="HS512", one_of=["HS256", "HS512"], text="Of client_secret_jwt."),
            "http_proxy": String(checks=(_no_proxy,), text="Refused: not built."),
            "http_proxy_authorization": String(checks=(_no_proxy,), text="Refused: not built."),
            "http_version": Number(default=1.1, text="Has no effect: HTTP/1.1 is spoken."),
            "https_proxy": String(checks=(_no_proxy,), text="Refused: not built."),
            "https_proxy_authorization": String(checks=(_no_proxy,), text="Refused: not built."),
            "keep_alive": Boolean(default=True, text="Keep the connection to the token endpoint."),
            "no_proxy": String(text="Has no effect: there are no proxies."),
            "ssl_verify": Boolean(default=True, text="Verify the certificate of the token endpoint."),
            "timeout": Integer(default=10000, between=[0, 2147483646], text="Milliseconds for its answer; 0: 10000."),
        }, required=False, text="How the token endpoint of mode oauth2 is asked."),
    }, required=False, checks=(_shows_itself,), text="What the registry is shown of us; null: nothing.")  # fmt: skip


def _schema(what: str) -> Field:
    return Record({
        "subject_name": String(text=f"Subject of the schema; null: the {what} is sent as it is."),
        "schema_version": String(checks=(_version,), text="Number of the version, or latest (null too)."),
    }, required=False, text=f"Schema of the {what}.")  # fmt: skip


def registry_field(writes: bool = False) -> Field:
    """``schema_registry``.

    Args:
        writes: for a plugin that puts records into topics; else for one that reads them.
    """
    fields: dict[str, Field] = {
        "url": String(checks=(url,), text="URL of the registry, before /subjects and /schemas."),
        "ttl": Number(
            between=[0, 3600],
            text="Seconds after which it is asked again which schema a version is; null: 300. Where it does not answer, what is known"
            " is used on.",
        ),
        "ssl_verify": Boolean(default=True, text="Verify the registry's certificate and name."),
        "authentication": _authentication(),
    }
    if writes:
        fields |= {"value_schema": _schema("value"), "key_schema": _schema("key")}
    text = "A registry with Confluent's REST interface, and the schemas that records are " + (
        "written with." if writes else "read with."
    )
    check = _has_subject if writes else _has_url
    return Record(
        {"confluent": Record(fields, required=False, checks=(check,), text=text)},
        required=False,
        text="Registry of schemas; null: none.",
    )


def registry_settings(conf: Row | None) -> RegistrySettings | None:
    """The registry that ``schema_registry`` names."""
    confluent = (conf or {}).get("confluent")
    if not confluent:
        return None
    shown = confluent["authentication"] or {}
    mode = shown.get("mode")
    basic = shown["basic"] if mode == "basic" else None
    return RegistrySettings(
        url=confluent["url"],
        verify=bool(confluent["ssl_verify"]),
        ttl=_TTL if confluent["ttl"] is None else float(confluent["ttl"]),
        username=None if basic is None else basic["username"],
        password="" if basic is None else basic["password"],
        oauth=_oauth(shown["oauth2"], shown["oauth2_client"] or {}) if mode == "oauth2" else None,
    )


def _oauth(conf: Row, client: Row) -> RegistryOAuth:
    return RegistryOAuth(
        token_endpoint=conf["token_endpoint"],
        grant_type=conf["grant_type"],
        client_id=conf["client_id"] or "",
        client_secret=conf["client_secret"] or "",
        username=conf["username"] or "",
        password=conf["password"] or "",
        audience=tuple(conf["audience"] or ()),
        scopes=tuple(conf["scopes"] or ()),
        headers=tuple(sorted((conf["token_headers"] or {}).items())),
        arguments=tuple(sorted((conf["token_post_args"] or {}).items())),
        auth_method=client.get("auth_method") or "client_secret_post",
        algorithm=client.get("client_secret_jwt_alg") or "HS512",
        timeout=(client.get("timeout") or 10000) / 1000,
        keepalive=client.get("keep_alive") is not False,
        verify=client.get("ssl_verify") is not False,
    )


def subject_of(conf: Row, name: str) -> Subject | None:
    """The schema of keys or values.

    Args:
        conf: ``schema_registry``, with a registry.
        name: ``value_schema`` or ``key_schema``.
    """
    schema = conf["confluent"].get(name) or {}
    subject = schema.get("subject_name")
    return Subject(subject, schema.get("schema_version") or "latest") if subject else None
