"""What acme is configured with, and the rows it keeps (Kong 3.9.3, ``kong/plugins/acme/schema.lua``, ``daos.lua``)."""

from __future__ import annotations

from typing import Any

from ...core.rows import Row
from ...entities.checks import Conditional, Custom
from ...entities.entity import Config as ConfigRecord
from ...entities.entity import Entity
from ...entities.errors import ErrorTree
from ...entities.schema import Any_, Array, Boolean, Integer, Number, Record, String, Timestamp, Uuid
from ...entities.typedefs import host, url, wildcard_host
from .._redis_fields import redis_fields

__all__ = ["ACME_STORAGE", "CONFIG", "CONFIG_CHECKS"]

ACME_STORAGE = Entity(
    "acme_storage",
    {
        "id": Uuid(),
        "key": String(required=True, unique=True, text="What the value is found by."),
        "value": String(required=True, text="An account's key, a challenge, when a certificate is renewed."),
        "created_at": Timestamp(),
    },
    endpoint_key="key",
    cache_key=("key",),
    ttl=True,
    plugin="acme",
    exported=False,
    text="What the plugin acme keeps in the database.",
    example={"key": "kong_acme:renew_last_run", "value": "1767225600"},
)
"""Rows of ``storage`` kong; of shm too, where there is a database."""

_DEPRECATED = {
    "auth": (String, {"len_min": 0}, ("password",)),
    "ssl_server_name": (String, {}, ("server_name",)),
    "namespace": (String, {"len_min": 0}, ("extra_options", "namespace")),
    "scan_count": (Integer, {}, ("extra_options", "scan_count")),
}
"""Former names of members of the Redis record: type, rules, what they stand for."""


class _Redis(Record):
    """The record of a Redis server, which may be given by former names."""

    def filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            value = dict(value)
            for name, (_, _, path) in _DEPRECATED.items():
                given = value.get(name)
                if name in value and (given is None or isinstance(given, str | int)):
                    del value[name]
                    if given is not None:
                        inner = value
                        for step in path[:-1]:
                            inner[step] = dict(inner.get(step) or {})
                            inner = inner[step]
                        if inner.get(path[-1]) is None:
                            inner[path[-1]] = given
        return super().filled(value)

    def describe(self) -> Row:
        shown = []
        for name, (kind, attrs, path) in _DEPRECATED.items():
            start = "acme: config.storage_config.redis."
            message = f"{start}{name} is deprecated, please use {start[6:]}{'.'.join(path)} instead"
            told = {"message": message, "removal_in_version": "4.0", "replaced_with": [{"path": list(path)}]}
            shown.append({name: kind(deprecation=told, **attrs).describe()})
        return super().describe() | {"shorthand_fields": shown}


def _with_former_names(config: Row) -> Row:
    """A configuration as answers show it: the Redis record has its former names beside those of now."""
    storages: Any = config.get("storage_config")
    redis = storages.get("redis") if isinstance(storages, dict) else None
    if not isinstance(redis, dict):
        return config
    told = dict(redis)
    for name, (_, _, path) in _DEPRECATED.items():
        value: Any = redis
        for step in path:
            value = (value or {}).get(step)
        told[name] = value
    return config | {"storage_config": storages | {"redis": told}}


def _namespace(value: str) -> str | None:
    """No namespace may look like one of the plugin's own keys."""
    return "namespace can't be prefixed with reserved keyword: kong_acme:" if value.startswith("kong_acme") else None


def _redis() -> Record:
    extra = Record(
        {
            "namespace": String(
                required=True, default="", len_min=0, checks=(_namespace,), text="What all keys in Redis begin with."
            ),
            "scan_count": Number(required=False, default=10, text="Keys that one SCAN looks at."),
        },
        text="More about Redis.",
    )
    return _Redis({**redis_fields("storage redis"), "extra_options": extra}, text="For storage redis.")


def _elsewhere(kind: str, port: int, **more: Any) -> Record:
    return Record(
        {
            "https": Boolean(default=False, text="Talk to it with TLS."),
            "host": String(checks=(host,), text="Host of the server; null: 127.0.0.1."),
            "port": Integer(between=[0, 65535], text=f"Its TCP port; null: {port}."),
            "kv_path": String(text="Where in it the keys are; null: acme."),
            "timeout": Number(text="Milliseconds for a call; null: 2000."),
            "token": String(referenceable=True, text="What the server lets us in with."),
            **more,
        },
        text=f"For storage {kind}.",
    )


def _has_role(row: Row) -> ErrorTree:
    """Kong looks at the storage here, too: whether it can be shared in its hybrid mode."""
    vault = row["config"].get("storage_config", {}).get("vault") or {}
    if (
        row["config"].get("storage") == "vault"
        and vault.get("auth_method") == "kubernetes"
        and not vault.get("auth_role")
    ):
        return "storage vault with auth_method kubernetes needs a role: set config.storage_config.vault.auth_role"
    return None


def _required(then_field: str) -> Conditional:
    shown = {
        "if_field": "config.storage", "if_match": {"eq": "redis"}, "then_field": then_field,
        "then_match": {"required": True},
    }  # fmt: skip
    return Conditional("config.storage", String(one_of=["redis"]), then_field, Any_(required=True), shown)


_LETS_ENCRYPT = ["https://acme-v02.api.letsencrypt.org", "https://acme-staging-v02.api.letsencrypt.org"]
_TERMS = "terms of service must be accepted, see https://letsencrypt.org/repository/"

CONFIG = ConfigRecord(
    {
        "account_email": String(
            required=True, match="%w*%p*@+%w*%.?%w*", encrypted=True, referenceable=True, text="Address of the account."
        ),
        "account_key": Record(
            {
                "key_id": String(required=True, text="Its kid, among the keys."),
                "key_set": String(text="Name of its key set; null: none."),
            },
            required=False, text="The account's private key, among the keys; null: one is made.",
        ),
        "api_uri": String(
            default="https://acme-v02.api.letsencrypt.org/directory", checks=(url,), text="The authority's directory (RFC 8555 7.1.1)."
        ),
        "tos_accepted": Boolean(default=False, text="Whether you have accepted the authority's terms of service."),
        "eab_kid": String(encrypted=True, referenceable=True, text="Key id for external account binding (RFC 8555 7.3.4)."),
        "eab_hmac_key": String(encrypted=True, referenceable=True, text="Its key, base64url."),
        "cert_type": String(one_of=["rsa", "ecc"], default="rsa", text="Kind of the certificates' keys; ecc: P-256."),
        "rsa_key_size": Number(one_of=[2048, 3072, 4096], default=4096, text="Bits of RSA keys."),
        "renew_threshold_days": Number(default=14, text="Days before its end at which a certificate is renewed."),
        "domains": Array(
            String(
                match_all=[{"pattern": "^[^*]*%*?[^*]*$", "err": "invalid wildcard: must have at most one wildcard"}],
                match_any={
                    "patterns": ["^%*%.", "%.%*$", "^[^*]*$"],
                    "err": "invalid wildcard: must be placed at leftmost or rightmost label",
                },
                checks=(wildcard_host,),
            ),
            text="Names for which certificates may be asked for; *.x and x.* stand for all names below or beside.",
        ),
        "allow_any_domain": Boolean(default=False, text="Ask for certificates for every name that clients connect to."),
        "fail_backoff_minutes": Number(default=5, text="Minutes for which nothing is tried for a name that has failed."),
        "storage": String(
            one_of=["kong", "shm", "redis", "consul", "vault"], default="shm",
            text="Where accounts and challenges are kept: kong, the database; redis; consul; vault, or OpenBao; shm, the database where"
            " there is one, else the memory of this process.",
        ),
        "storage_config": Record(
            {
                "shm": Record(
                    {"shm_name": String(default="kong", text="A shared memory by Kong's name; it names no memory of its own.")},
                    text="For storage shm.",
                ),
                "kong": Record({}, text="For storage kong: nothing."),
                "redis": _redis(),
                "consul": _elsewhere("consul", 8500),
                "vault": _elsewhere(
                    "vault",
                    8200,
                    tls_verify=Boolean(default=True, text="Verify the server's certificate."),
                    tls_server_name=String(text="Name that the server's certificate is for, and the Host of requests; null: the host."),
                    auth_method=String(default="token", one_of=["token", "kubernetes"], text="How to log in."),
                    auth_path=String(text="Where the login is mounted; null: kubernetes."),
                    auth_role=String(text="Role to log in as."),
                    jwt_path=String(text="File of the service account's token; null: where Kubernetes puts it."),
                ),
            },
            text="Settings of the storages.",
        ),
        "preferred_chain": String(text="Common name of the issuer whose chain is taken where there are several; null: any."),
        "enable_ipv4_common_name": Boolean(default=True, text="Ask for certificates for IPv4 addresses, too."),
    },
    shown=_with_former_names,
)  # fmt: skip

CONFIG_CHECKS = (
    Conditional(
        "config.api_uri", String(one_of=_LETS_ENCRYPT), "config.tos_accepted", Any_(eq=True),
        {
            "if_field": "config.api_uri", "if_match": {"one_of": _LETS_ENCRYPT}, "then_field": "config.tos_accepted",
            "then_match": {"eq": True}, "then_err": _TERMS,
        },
        _TERMS,
    ),
    _required("config.storage_config.redis.host"),
    _required("config.storage_config.redis.port"),
    Custom(("config.storage",), _has_role),
)  # fmt: skip
