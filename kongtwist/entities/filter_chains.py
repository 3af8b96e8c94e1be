"""Filter chains: WebAssembly filters of routes and services. Described, never stored: WebAssembly is not on (Kong 3.9)."""

from __future__ import annotations

from typing import Any

from . import typedefs as rule
from .checks import AtLeastOneOf, Custom, MutuallyExclusive
from .entity import Entity
from .schema import Array, Boolean, Field, Foreign, Record, Row, String, Uuid

__all__ = ["FILTER_CHAINS"]


class Json(Field):
    """Any JSON value."""

    kind = "json"

    def fits(self, value: Any) -> bool:
        return True


class _NotEnabled(Custom):
    with_faulty = True

    def describe(self) -> Row:
        return {"custom_entity_check": {"run_with_invalid_fields": True, "field_sources": ["filters"]}}


def _filter() -> Record:
    record = Record({
        "name": String(required=True, one_of=[], err="no such filter", text="The filter."),
        "enabled": Boolean(required=True, default=True, text="Whether it runs."),
        "config": Json(
            required=False, text="Its configuration, any JSON value.",
            json_schema={
                "optional": True, "parent_subschema_key": "name", "namespace": "proxy-wasm-filters",
                "default": {"$schema": "http://json-schema.org/draft-04/schema#", "type": ["string", "null"]},
            },
        ),
    }, text="One filter.")  # fmt: skip
    del record.attrs["required"]  # an element is there or not
    return record


FILTER_CHAINS = Entity(
    "filter_chains",
    {
        "id": Uuid(),
        "name": String(unique=True, checks=(rule.utf8_name,), text="Unique name; null: only the id addresses it."),
        "enabled": Boolean(required=True, default=True, text="Whether it runs."),
        "route": Foreign("routes", unique=True, on_delete="cascade", default=None, text="The route it is for; null: see service."),
        "service": Foreign("services", unique=True, on_delete="cascade", default=None, text="The service it is for; null: see route."),
        "filters": Array(_filter(), required=True, len_min=1, text="Filters in the order they run."),
        **rule.stamps(),
        "tags": rule.tags(),
    },
    endpoint_key="name",
    admin_name="filter-chains",
    cache_key=("route", "service"),
    checks=[
        MutuallyExclusive("service", "route"),
        AtLeastOneOf("service", "route"),
        _NotEnabled(("filters",), lambda row: "wasm support is not enabled", all_set=False),
    ],
    text="WebAssembly filters of a route or service. WebAssembly is not supported: none can be made.",
    stored=False,
)  # fmt: skip
