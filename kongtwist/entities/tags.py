"""The view of tags: which rows carry a label (Kong 3.9)."""

from __future__ import annotations

from . import typedefs as rule
from .entity import Entity
from .schema import String

__all__ = ["TAGS"]

TAGS = Entity(
    "tags",
    {
        "tag": String(required=True, checks=(rule.tag,), text="The label."),
        "entity_name": String(required=True, text="Kind of row that carries it."),
        "entity_id": String(required=True, auto=True, uuid=True, text="Id of the row that carries it."),
    },
    endpoint_key="tag",
    text="A label and a row that carries it.",
    example={"tag": "gold", "entity_name": "consumers", "entity_id": "5f1e2d3c-0000-4000-8000-000000000001"},
    stored=False,
)
