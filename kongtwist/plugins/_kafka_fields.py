"""The cluster of a plugin's configuration (Kong 3.15, plugins ``kafka-*``): brokers, TLS, login."""

from __future__ import annotations

import re
from typing import Any

from ..core.chain.host import Scope, TLSSettings
from ..core.chain.host_kafka import KafkaConnection, KafkaOAuth
from ..core.rows import Row
from ..entities.schema import Array, Boolean, Field, Integer, Map, Record, String
from ..entities.typedefs import host

__all__ = ["cluster_fields", "confluent_fields", "kafka_connection", "used_certificates"]

_SERVER = re.compile(r"\s*(?:\[([0-9a-fA-F:.]+)\]|([^\s:,]+)):([0-9]{1,5})\s*\Z")
_MECHANISMS = ["OAUTHBEARER", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class Servers(Array):
    """Records of host and port. Text ``host:port`` stands for such a record, and several may be joined by commas."""

    def filled(self, value: Any) -> Any:
        """See `Field.filled`. What is no address stays as it is, and is refused for its type."""
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            value = [made for each in value for made in _servers(each)]
        return super().filled(value)


def _servers(given: Any) -> list[Any]:
    if not isinstance(given, str):
        return [given]
    found = [_SERVER.match(part) for part in given.split(",")]
    if not all(found):
        return [given]
    return [{"host": each[1] or each[2], "port": int(each[3])} for each in found if each]


def _no_delegation(value: bool) -> str | None:
    return "logins with delegation tokens are not built" if value else None


def cluster_fields() -> dict[str, Field]:
    """``bootstrap_servers``, ``authentication``, ``security`` and ``cluster_name``."""
    oauth = {
        "token_endpoint_url": String(referenceable=True, text="URL that gives tokens (client credentials)."),
        "client_id": String(referenceable=True, text="Id of the client at that endpoint."),
        "client_secret": String(referenceable=True, encrypted=True, text="Its secret."),
        "scopes": Array(String(), text="Scopes that are asked for."),
        "extensions": Map(String(), String(), text="Names and values that brokers are sent with the token."),
        "token_endpoint_tls_verify": Boolean(default=True, text="Verify the certificate of the endpoint."),
    }
    return {
        "bootstrap_servers": Servers(
            Record(
                {
                    "host": String(required=True, checks=(host,), text="Name or address of a broker."),
                    "port": Integer(required=True, between=[0, 65535], text="The TCP port of a listener of it."),
                }
            ),
            text="Brokers that tell of all others: records, or host:port as text, one or several joined by commas.",
        ),
        "authentication": Record(
            {
                "strategy": String(one_of=["sasl"], text="How we log in; null: not at all."),
                "mechanism": String(one_of=_MECHANISMS, text="The SASL mechanism."),
                "tokenauth": Boolean(checks=(_no_delegation,), text="Log in with a delegation token; refused."),
                "user": String(encrypted=True, referenceable=True, text="Name for PLAIN and SCRAM."),
                "password": String(encrypted=True, referenceable=True, text="Password for PLAIN and SCRAM."),
                "oauthbearer": Record(oauth, required=False, text="Where tokens for OAUTHBEARER come from."),
            },
            text="How we log in at brokers.",
        ),
        "security": Record(
            {
                "certificate_id": String(uuid=True, text="Id of the certificate that brokers are shown (mTLS)."),
                "ssl": Boolean(text="Speak TLS with brokers."),
                "ssl_verify": Boolean(default=True, text="Verify brokers' certificates and names."),
            },
            text="TLS with brokers.",
        ),
        "cluster_name": String(text="Name of the cluster, for logs; clusters are told apart by their brokers."),
    }  # fmt: skip


def used_certificates(conf: Row) -> tuple[str, ...]:
    """What `Plugin.certificates` says of such a configuration."""
    shown = conf["security"].get("certificate_id")
    return () if shown is None else (shown,)


def confluent_fields() -> dict[str, Field]:
    """What stands in place of `cluster_fields` for Confluent Cloud: SASL and TLS always."""
    secret = {"encrypted": True, "referenceable": True}
    fields = cluster_fields()
    login = fields.pop("authentication")
    assert isinstance(login, Record)
    oauth = login.fields["oauthbearer"]
    oauth.text = "Where tokens for OAUTHBEARER come from, in place of cluster_api_key."
    fields["security"] = Record(
        {"ssl_verify": Boolean(default=True, text="Verify brokers' certificates and names.")},
        text="TLS with brokers, which is always spoken.",
    )
    none = "Taken and without effect: nothing is managed there."
    return {
        **fields,
        "cluster_api_key": String(**secret, text="Key of the cluster: the name for SASL PLAIN."),
        "cluster_api_secret": String(**secret, text="Its secret: the password for SASL PLAIN."),
        "confluent_cloud_api_key": String(**secret, text=none),
        "confluent_cloud_api_secret": String(**secret, text=none),
        "oauthbearer": oauth,
    }  # fmt: skip


def kafka_connection(conf: Row, host: Scope) -> KafkaConnection:
    """How the cluster of a configuration is reached.

    Args:
        conf: with the `cluster_fields` or the `confluent_fields`, and ``keepalive`` where the plugin has it.
        host: has the certificate that ``security.certificate_id`` names (`used_certificates`).

    Raises:
        ValueError: the configuration names no broker, no login or no certificate that there is.
    """
    servers = conf["bootstrap_servers"] or []
    if not servers:
        raise ValueError("config.bootstrap_servers names no broker")
    if "cluster_api_key" in conf:
        return _confluent(conf)
    login, security = conf["authentication"], conf["security"]
    mechanism = login["mechanism"] if login["strategy"] else None
    if login["strategy"] and not mechanism:
        raise ValueError("config.authentication.mechanism is not set")
    oauth = login["oauthbearer"] if mechanism == "OAUTHBEARER" else None
    if mechanism == "OAUTHBEARER" and not (oauth and oauth["token_endpoint_url"]):
        raise ValueError("config.authentication.oauthbearer.token_endpoint_url is not set")
    return KafkaConnection(
        servers=_servers_of(conf),
        tls=_tls(security, host) if security["ssl"] else None,
        mechanism=mechanism,
        username=login["user"] or "",
        password=login["password"] or "",
        oauth=None if oauth is None else _oauth(oauth),
        keepalive=conf.get("keepalive"),
        cluster=conf["cluster_name"] or "",
    )


def _confluent(conf: Row) -> KafkaConnection:
    oauth = conf["oauthbearer"]
    by_token = bool(oauth and oauth["token_endpoint_url"])
    if not by_token and not (conf["cluster_api_key"] and conf["cluster_api_secret"]):
        raise ValueError("config.cluster_api_key and config.cluster_api_secret, or config.oauthbearer, are not set")
    return KafkaConnection(
        servers=_servers_of(conf),
        tls=TLSSettings(verify=bool(conf["security"]["ssl_verify"])),
        mechanism="OAUTHBEARER" if by_token else "PLAIN",
        username=conf["cluster_api_key"] or "",
        password=conf["cluster_api_secret"] or "",
        oauth=_oauth(oauth) if by_token else None,
        keepalive=conf.get("keepalive"),
        cluster=conf["cluster_name"] or "",
    )


def _servers_of(conf: Row) -> tuple[str, ...]:
    return tuple(_joined(each["host"], each["port"]) for each in conf["bootstrap_servers"])


def _joined(name: str, port: int) -> str:
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _oauth(conf: Row) -> KafkaOAuth:
    return KafkaOAuth(
        token_endpoint=conf["token_endpoint_url"],
        client_id=conf["client_id"] or "",
        client_secret=conf["client_secret"] or "",
        scopes=tuple(conf["scopes"] or ()),
        extensions=tuple(sorted((conf["extensions"] or {}).items())),
        verify=bool(conf["token_endpoint_tls_verify"]),
    )


def _tls(security: Row, host: Scope) -> TLSSettings:
    shown = security["certificate_id"]
    if shown is None:
        return TLSSettings(verify=bool(security["ssl_verify"]))
    row = host.certificates.get(shown)
    if row is None:
        raise ValueError(f"config.security.certificate_id: there is no certificate {shown}")
    return TLSSettings(verify=bool(security["ssl_verify"]), certificate=row["cert"], key=row["key"])
