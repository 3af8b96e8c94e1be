"""The cluster of a plugin's configuration (Kong 3.15, plugins ``kafka-*``)."""

from __future__ import annotations

import re
from typing import Any

from ..core.chain.host_basics import TLSSettings
from ..core.chain.host_kafka import KafkaConnection, KafkaOAuth
from ..core.rows import Row
from ..entities.schema import Array, Boolean, Field, Integer, Map, Record, Set, String, Uuid

__all__ = ["Servers", "kafka_connection", "kafka_fields"]

_MECHANISMS = ["OAUTHBEARER", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
_HOST_PORT = re.compile(r"\[?([^\[\]\s,]+?)\]?:([0-9]{1,5})\Z")


class Servers(Array):
    """Brokers: Kong's records of host and port, or texts ``host:port``, also several in one, joined by commas."""

    def filled(self, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            parts: list[Any] = []
            for each in value:
                parts += each.split(",") if isinstance(each, str) else [each]
            value = [_server(each.strip()) if isinstance(each, str) else each for each in parts]
        return super().filled(value)


def _server(text: str) -> Any:
    found = _HOST_PORT.match(text)
    return {"host": found[1], "port": int(found[2])} if found else text


def kafka_fields() -> dict[str, Field]:
    """Members of the configuration that say which cluster it is, and how its brokers are reached."""
    return {
        "bootstrap_servers": Servers(
            Record({
                "host": String(required=True, text="Host of a broker."),
                "port": Integer(required=True, between=[0, 65535], text="Its port."),
            }),
            required=True, len_min=1,
            text="Brokers that are asked for all others: host and port, or texts host:port, joined by commas.",
        ),
        "cluster_name": String(text="A name for the cluster, shown in the log."),
        "security": Record({
            "ssl": Boolean(text="Speak TLS with the brokers."),
            "ssl_verify": Boolean(default=True, text="Verify the brokers' certificates."),
            "certificate_id": Uuid(auto=False, required=False, text="Certificate that brokers are shown (mTLS)."),
        }, text="TLS to the brokers."),
        "authentication": Record({
            "strategy": String(one_of=["sasl"], text="sasl: log in; null: do not."),
            "mechanism": String(one_of=_MECHANISMS, text="How to log in."),
            "tokenauth": Boolean(text="User and password are a delegation token's (SCRAM); not built."),
            "user": String(encrypted=True, referenceable=True, text="User of PLAIN and SCRAM."),
            "password": String(encrypted=True, referenceable=True, text="Password of PLAIN and SCRAM."),
            "oauthbearer": Record({
                "token_endpoint_url": String(referenceable=True, text="URL that gives tokens (RFC 6749 4.4)."),
                "token_endpoint_tls_verify": Boolean(default=True, text="Verify the endpoint's certificate."),
                "client_id": String(referenceable=True, text="Client that asks for tokens."),
                "client_secret": String(encrypted=True, referenceable=True, text="Its secret."),
                "scopes": Set(String(), text="Scopes of the tokens."),
                "extensions": Map(String(), String(), text="Names and values that brokers are sent with the token."),
            }, required=False, text="Tokens of OAUTHBEARER."),
        }, text="Login at the brokers."),
    }  # fmt: skip


def kafka_connection(conf: Row, certificate: Row | None = None, keepalive: int | None = None) -> KafkaConnection:
    """What the host reaches the cluster by.

    Args:
        conf: the plugin's configuration.
        certificate: the row of ``security.certificate_id``.
        keepalive: see `KafkaConnection`.
    """
    security, login = conf["security"], conf["authentication"]
    tls = None
    if security["ssl"]:
        shown = (certificate["cert"], certificate["key"]) if certificate is not None else ("", "")
        tls = TLSSettings(verify=security["ssl_verify"] is not False, certificate=shown[0], key=shown[1])
    mechanism, bearer = (login["mechanism"] if login["strategy"] == "sasl" else None), login["oauthbearer"]
    oauth = None
    if mechanism == "OAUTHBEARER" and bearer is not None:
        oauth = KafkaOAuth(
            bearer["token_endpoint_url"] or "", bearer["client_id"] or "", bearer["client_secret"] or "",
            tuple(bearer["scopes"] or ()), tuple((bearer["extensions"] or {}).items()),
            bearer["token_endpoint_tls_verify"] is not False,
        )  # fmt: skip
    servers = tuple(
        f"[{each['host']}]:{each['port']}" if ":" in each["host"] else f"{each['host']}:{each['port']}"
        for each in conf["bootstrap_servers"]
    )
    return KafkaConnection(
        servers, tls, mechanism, login["user"] or "", login["password"] or "", oauth, keepalive,
        conf["cluster_name"] or "",
    )  # fmt: skip
