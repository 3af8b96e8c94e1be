"""Entities of Kong's own housekeeping: described as Kong describes them, never stored here (Kong 3.9)."""

from __future__ import annotations

from . import typedefs as rule
from .entity import Entity
from .schema import Field, Integer, Map, Number, Record, Set, String, Timestamp, Uuid

__all__ = ["CLUSTERING_DATA_PLANES", "PARAMETERS", "WORKSPACES"]

_CORE = [
    "workspaces", "consumers", "certificates", "services", "routes", "snis", "upstreams", "targets", "plugins", "tags",
    "ca_certificates", "clustering_data_planes", "parameters", "vaults", "key_sets", "keys", "filter_chains",
]  # fmt: skip


def _record(text: str) -> Record:
    return Record({}, required=True, text=text)


WORKSPACES = Entity(
    "workspaces",
    {
        "id": Uuid(),
        "name": String(
            required=True, unique=True, not_one_of=_CORE, len_min=1, checks=(rule.utf8_name,), text="Its name, unique."
        ),
        "comment": String(text="What it is for; null: nothing said."),
        **rule.stamps(),
        "meta": _record("Facts about it: none."),
        "config": _record("Its configuration: none."),
    },
    endpoint_key="name",
    text="A part of a configuration. There is one, 'default', and no Admin API path leads to it.",
    stored=False,
)  # fmt: skip

PARAMETERS = Entity(
    "parameters",
    {
        "created_at": Timestamp(),
        "key": String(required=True, unique=True, text="Its name, unique."),
        "value": String(required=True, text="Its value, as text."),
    },
    endpoint_key="key",
    text="A fact about a cluster that Kong's nodes keep in the database. There are none here.",
    stored=False,
)

_VERSION: dict[str, object] = {
    "match_none": [{"err": "must not have empty version segments", "pattern": "%.%."}],
    "match_any": {
        "err": "invalid version number: must be in format of X.Y.Z",
        "patterns": ["^%d+[%.%d]*$", "^%d+[%.%d]*%-?.*$"],
    },
}

_DETAILS: dict[str, Field] = {
    "expiry_timestamp": Number(required=False, timestamp=True, text="Epoch seconds at which it ends; null: unknown.")
}

CLUSTERING_DATA_PLANES = Entity(
    "clustering_data_planes",
    {
        "id": Uuid(required=True),
        "last_seen": Integer(auto=True, timestamp=True, text="Epoch seconds of its last message."),
        "updated_at": Timestamp(),
        "ip": String(required=True, checks=(rule.ip,), text="Its address."),
        "config_hash": String(len_eq=32, text="Hash of its configuration; null: unknown."),
        "hostname": String(required=True, checks=(rule.host,), text="Name of its machine."),
        "version": String(text="Its version; null: unknown.", **_VERSION),
        "sync_status": String(
            required=True, default="unknown", text="Whether it can use the control plane's configuration.",
            one_of=["unknown", "normal", "kong_version_incompatible", "plugin_set_incompatible",
                    "plugin_version_incompatible", "filter_set_incompatible"],
        ),
        "labels": Map(String(), String(), text="Labels of the operator's; null: none."),
        "cert_details": Record(_DETAILS, required=True, text="Facts about its certificate."),
        "rpc_capabilities": Set(String(), text="What it can be asked; null: nothing."),
    },
    admin_name="clustering/data-planes",
    ttl=True,
    text="A node that gets its configuration from a control plane. There are no control planes here, so there is none.",
    stored=False,
)  # fmt: skip
