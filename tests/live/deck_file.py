"""A decK file with an entity of every kind and every plugin that is built."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.live.pki import authority

__all__ = ["everything"]

CERTIFICATE = "c6a5b1f0-1111-4111-8111-111111111111"
_PERIODS = ("second", "minute", "hour", "day", "month", "year")
"""decK fills in no defaults of values of a map, of what a record without fields holds, nor of credentials: they are said."""
AUTHORITY = "d6a5b1f0-1111-4111-8111-111111111111"


def everything(tag: str | None = None) -> dict[str, Any]:
    """The file's content.

    Args:
        tag: select only what has this tag (decK gives it to all of the file).
    """
    signer = authority()
    leaf = signer.sign("a.example")
    info = {} if tag is None else {"_info": {"select_tags": [tag]}}
    return {
        "_format_version": "3.0",
        **info,
        "services": _services(),
        "routes": [{"name": "alone", "paths": ["/alone"]}],
        "upstreams": _upstreams(),
        "consumers": _consumers(),
        "certificates": [
            {
                "id": CERTIFICATE,
                "cert": leaf.pem,
                "key": leaf.key_pem,
                "snis": [{"name": "a.example"}, {"name": "b.example"}],
            }
        ],
        "ca_certificates": [{"id": AUTHORITY, "cert": signer.pem}],
        "plugins": _plugins(),
        "vaults": [{"name": "env", "prefix": "my-env", "config": {"prefix": "SECRETS_"}, "description": "d"}],
        "key_sets": [{"name": "ring"}],
        "keys": [{"name": "key", "kid": "1", "set": {"name": "ring"}, "pem": _key_pair()}],
    }


def _kafka_plugins() -> list[dict[str, Any]]:
    return [
        {
            "name": "kafka-upstream",
            "config": {"topic": "t", "bootstrap_servers": [{"host": "k.example", "port": 9092}]},
            "enabled": False,
        },
        {
            "name": "confluent",
            "config": {
                "topic": "t",
                "bootstrap_servers": [{"host": "k.example", "port": 9092}],
                "cluster_api_key": "key",
                "cluster_api_secret": "secret",
                "schema_registry": {
                    "confluent": {
                        "url": "https://schemas.example",
                        "ttl": 60,
                        "authentication": {"mode": "basic", "basic": {"username": "u", "password": "p"}},
                        "value_schema": {"subject_name": "t-value", "schema_version": "latest"},
                    }
                },
            },
            "enabled": False,
        },
        {
            "name": "confluent-consume",
            "config": {
                "topics": [{"name": "t", "schema_registry": {"confluent": {"url": "https://schemas.example"}}}],
                "bootstrap_servers": [{"host": "k.example", "port": 9092}],
                "cluster_api_key": "key",
                "cluster_api_secret": "secret",
            },
            "enabled": False,
        },
        {
            "name": "kafka-log",
            "config": {"topic": "t", "bootstrap_servers": [{"host": "k.example", "port": 9092}]},
            "enabled": False,
        },
        {
            "name": "kafka-consume",
            "config": {"topics": [{"name": "t"}], "bootstrap_servers": [{"host": "k.example", "port": 9092}]},
            "enabled": False,
        },
    ]


def _plugins() -> list[dict[str, Any]]:
    return [
        *_kafka_plugins(),
        {"name": "correlation-id", "instance_name": "cid", "config": {"generator": "uuid#counter"}},
        {"name": "jwt", "config": {"claims_to_verify": ["exp"], "maximum_expiration": 600}, "enabled": False},
        {"name": "basic-auth", "config": {"realm": "r", "anonymous": "nobody"}, "enabled": False},
        {
            "name": "hmac-auth",
            "config": {"enforce_headers": ["date"], "algorithms": ["hmac-sha256"]},
            "enabled": False,
        },
        {"name": "acl", "config": {"deny": ["gold"]}, "enabled": False},
        {"name": "cors", "config": {"origins": ["https://a.example"], "max_age": 60}, "enabled": False},
        {"name": "bot-detection", "config": {"allow": ["Googlebot"]}, "enabled": False},
        {
            "name": "response-ratelimiting",
            "config": {"limits": {"video": {**dict.fromkeys(_PERIODS), "minute": 5}}, "policy": "local"},
            "enabled": False,
        },
        {"name": "redirect", "config": {"location": "https://b.example/"}, "enabled": False},
        {"name": "pre-function", "config": {"access": ["return 1"]}, "enabled": False},
        {"name": "post-function", "config": {"log": ["local n = 0 return function() n = n + 1 end"]}, "enabled": False},
        {"name": "standard-webhooks", "config": {"secret_v1": "s3cret"}, "enabled": False},
        {
            "name": "aws-lambda",
            "config": {"function_name": "f", "aws_key": "k", "aws_secret": "s", "aws_region": "eu-west-1"},
            "enabled": False,
        },
        {"name": "azure-functions", "config": {"appname": "a", "functionname": "f"}, "enabled": False},
        {"name": "ip-restriction", "config": {"deny": ["10.0.0.0/8"]}, "enabled": False},
        {"name": "file-log", "config": {"path": "/var/log/kong.json", "reopen": True}, "enabled": False},
        {"name": "tcp-log", "config": {"host": "l.example", "port": 9, "tls": True}, "enabled": False},
        {"name": "udp-log", "config": {"host": "l.example", "port": 9}, "enabled": False},
        {"name": "syslog", "config": {"facility": "local3", "log_level": "notice"}, "enabled": False},
        {
            "name": "statsd",
            "config": {"host": "s.example", "tag_style": "dogstatsd", "use_tcp": True},
            "enabled": False,
        },
        {"name": "datadog", "config": {"host": "d.example", "prefix": "edge"}, "enabled": False},
        {"name": "prometheus", "config": {"status_code_metrics": True, "latency_metrics": True}, "enabled": False},
        {
            "name": "zipkin",
            "config": {"http_endpoint": "http://z.example/api/v2/spans", "static_tags": [{"name": "a", "value": "b"}]},
            "enabled": False,
        },
        {
            "name": "opentelemetry",
            "config": {
                "traces_endpoint": "http://o.example/v1/traces",
                "resource_attributes": {"deployment.environment": "test"},
                "propagation": {"default_format": "w3c", "extract": ["w3c"], "inject": ["preserve", "b3"]},
            },
            "enabled": False,
        },
        {"name": "loggly", "config": {"key": "k", "tags": ["a", "b"]}, "enabled": False},
        {"name": "http-log", "config": {"http_endpoint": "http://logs.example/in"}, "enabled": False},
        {"name": "request-size-limiting", "config": {"allowed_payload_size": 8}, "enabled": False},
        {"name": "request-transformer", "config": {"add": {"headers": ["x-a:1"]}}, "enabled": False},
        {"name": "response-transformer", "config": {"remove": {"headers": ["x-b"]}}, "enabled": False},
        {
            "name": "ldap-auth",
            "config": {"ldap_host": "d.example", "base_dn": "dc=example", "attribute": "uid", "ldaps": True},
            "enabled": False,
        },
        {"name": "proxy-cache", "config": {"strategy": "memory", "vary_headers": ["x-b", "x-a"], "storage_ttl": 9}},
        {
            "name": "acme",
            "config": {
                "account_email": "a@b.example",
                "api_uri": "https://ca.example/dir",
                "domains": ["*.a.example"],
                "storage": "redis",
                "storage_config": {
                    "kong": {},
                    "redis": {"host": "r.example", "extra_options": {"namespace": "n:"}},
                },
            },
        },
    ]


def _services() -> list[dict[str, Any]]:
    return [
        {
            "name": "one",
            "url": "http://one.example:81/p",
            "retries": 3,
            "tags": ["x"],
            "routes": [
                {
                    "name": "first",
                    "paths": ["/one", "~/re(?<n>x)$"],
                    "methods": ["GET", "POST"],
                    "headers": {"x-a": ["1", "2"]},
                    "hosts": ["a.example", "*.b.example"],
                    "plugins": [
                        {"name": "key-auth", "instance_name": "keys", "config": {"key_names": ["apikey", "k2"]}},
                        {"name": "stream-lifetime", "config": {"ping_interval": 30, "max_stream_age": 3600}},
                        {"name": "stream-ticket", "config": {"secret": "shared", "ttl": 20}},
                    ],
                },
                {
                    "name": "second",
                    "paths": ["/two"],
                    "protocols": ["https"],
                    "snis": ["a.example"],
                    "strip_path": False,
                    "https_redirect_status_code": 301,
                },
            ],
            "plugins": [
                {"name": "rate-limiting", "tags": ["p"], "config": {"minute": 5, "policy": "local"}},
                {"name": "session", "config": {"secret": "s" * 32, "storage": "kong", "cookie_same_site": "Lax"}},
                {
                    "name": "oauth2",
                    "config": {"enable_client_credentials": True, "provision_key": "p", "scopes": ["a", "b"]},
                },
                {"name": "grpc-web", "config": {"allow_origin_header": "https://a.example"}},
                {"name": "grpc-gateway", "config": {}},
                {"name": "client-certificate", "config": {"anonymous": "nobody"}},
            ],
        },
        {
            "name": "two",
            "host": "up",
            "protocol": "https",
            "ca_certificates": [AUTHORITY],
            "client_certificate": CERTIFICATE,
            "tls_verify": True,
        },
    ]


def _upstreams() -> list[dict[str, Any]]:
    return [
        {
            "name": "up",
            "algorithm": "consistent-hashing",
            "hash_on": "header",
            "hash_on_header": "x-h",
            "slots": 100,
            "tags": ["u"],
            "healthchecks": {"active": {"http_path": "/h"}, "threshold": 10},
            "targets": [
                {"target": "127.0.0.1:9001", "weight": 10},
                {"target": "h.example:80", "weight": 0, "tags": ["t"]},
                {"target": "[::1]:81"},
            ],
        }
    ]


def _consumers() -> list[dict[str, Any]]:
    return [
        {
            "username": "bob",
            "custom_id": "5",
            "tags": ["c"],
            "keyauth_credentials": [{"key": "key-of-bob", "tags": ["k"]}, {"key": "other-of-bob"}],
            "jwt_secrets": [
                {"key": "iss-of-bob", "secret": "s3cr3t", "algorithm": "HS256", "tags": ["j"]},  # decK wants it said
                {
                    "key": "rsa-of-bob",
                    "algorithm": "RS256",
                    "rsa_public_key": _key_pair()["public_key"],
                    "secret": "unused",
                },
            ],
            "basicauth_credentials": [{"username": "bob", "password": "pw"}],  # of which decK compares the name only
            "hmacauth_credentials": [{"username": "bob", "secret": "hs"}],
            "acls": [{"group": "gold"}, {"group": "staff", "tags": ["g"]}],
            "oauth2_credentials": [
                {
                    "name": "app",
                    "client_id": "bobs-app",
                    "client_secret": "s",
                    "client_type": "confidential",
                    "hash_secret": False,
                    "redirect_uris": ["https://app.example/back"],
                },
            ],
            "plugins": [{"name": "request-termination", "config": {"status_code": 403, "message": "no"}}],
        },
        {"username": "\u00c5sa"},
    ]


def _key_pair() -> dict[str, str]:
    key = rsa.generate_private_key(65537, 2048)
    pem = serialization.Encoding.PEM
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {"public_key": public.decode(), "private_key": private.decode()}
