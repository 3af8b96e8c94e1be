"""The OpenAPI document: valid, of all resources and of nothing else, with examples and schemas that hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import jsonschema_rs
from openapi_spec_validator import OpenAPIV31SpecValidator
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin import row_resources as rows
from kongtwist.admin.admin_resource import AdminResource
from kongtwist.admin.endpoints import node_information as node
from kongtwist.admin.endpoints import runtime, target_health
from kongtwist.admin.facts import NodeFacts
from kongtwist.admin.json_resource import JSONResource, Missing
from kongtwist.admin.openapi.document import document
from kongtwist.core.chain.plugin import Plugin
from kongtwist.entities import Entity, EntityError, registry
from kongtwist.entities.json_schema import Use, field_schema
from kongtwist.entities.json_schema_entities import configurations, entity_schema
from kongtwist.entities.schema import Array, Field, Map, Record
from kongtwist.node.plugin_loader import load_plugins
from tests.places import CONTRACT

REGISTRY = registry(load_plugins(["bundled"]))


def admin(plugins: Mapping[str, Plugin] | None = None) -> AdminResource:
    """An Admin API whose resources are looked at and never asked."""
    unused = cast(Any, None)
    facts = cast(NodeFacts, SimpleNamespace(plugins=plugins or {}))
    return AdminResource(unused, REGISTRY, facts, gate=unused, published=unused, now=unused)


def resolve(resource: Any, path: str) -> Any:
    """The resource that answers a path, found as a request's is."""
    for segment in path.strip("/").split("/"):
        resource = resource.getChild(segment.encode(), None)
    return resource


def fields_of(fields: Mapping[str, Field], path: str) -> Iterator[tuple[str, Field]]:
    """All fields, those inside others too."""
    for name, field in fields.items():
        yield f"{path}.{name}", field
        inside: dict[str, Field] = {}
        if isinstance(field, Record):
            inside = field.fields
        elif isinstance(field, Array):
            inside = {"[]": field.elements}
        elif isinstance(field, Map):
            inside = {"keys": field.keys, "values": field.values}
        yield from fields_of(inside, f"{path}.{name}")


def every_field() -> Iterator[tuple[str, Field]]:
    """The fields of all entities and of all configurations of plugins and vaults."""
    for entity in REGISTRY.values():
        yield from fields_of(entity.fields, entity.name)
        for name, variant in configurations(entity).items():
            yield from fields_of(variant.fields, f"{entity.name}.{name}")


def tolerated(entity: Entity, body: Mapping[str, Any]) -> dict[str, Any]:
    """A body without what is taken although the schema says otherwise: {} for [], [] for {}, and duplicates in sets."""
    fields = entity.fields_of(dict(body))
    return {name: fields[name].filled(value) if name in fields else value for name, value in body.items()}


class DocumentTests(SynchronousTestCase):
    """The document as a whole."""

    def setUp(self) -> None:
        self.admin = admin()
        self.resources = dict(self.admin.paths())
        self.document = document(self.admin.paths(), REGISTRY)
        self.paths = self.document["paths"]

    def test_valid(self) -> None:
        """It is an OpenAPI 3.1 document, and JSON."""
        OpenAPIV31SpecValidator(json.loads(json.dumps(self.document))).validate()

    def test_every_resource(self) -> None:
        """Each class of resource that answers something is reached by a documented path, each method is documented."""
        classes = {
            each
            for module in (node, rows, runtime, target_health)
            for each in vars(module).values()
            if isinstance(each, type) and issubclass(each, JSONResource) and "methods" in dir(each)
        }
        unreached = classes - {base for resource in self.resources.values() for base in type(resource).__mro__}
        answering = {each for each in unreached if each not in (Missing, JSONResource) and _answers(each)}
        self.assertEqual({each.__name__ for each in answering}, set())
        for path, resource in self.resources.items():
            methods = {method.upper() for method in self.paths[path] if method != "parameters"}
            self.assertEqual(methods, set(resource.methods), path)

    def test_nothing_else(self) -> None:
        """Each documented path leads a request to a resource with these methods."""
        self.assertGreater(len(self.paths), 60)
        for path, item in self.paths.items():
            found = resolve(self.admin, re.sub(r"\{[^}]*\}", "5f1e2d3c-0000-4000-8000-000000000001", path))
            self.assertIs(type(found), type(self.resources[path]), path)
            self.assertEqual({name.upper() for name in item if name != "parameters"}, set(found.methods), path)

    def test_operation_ids(self) -> None:
        """They are unique."""
        ids = [each["operationId"] for item in self.paths.values() for key, each in item.items() if key != "parameters"]
        self.assertEqual(len(ids), len(set(ids)))

    def test_examples(self) -> None:
        """Each example fits the schema beside it."""
        count = 0
        for place, content in _contents(self.document, "#"):
            if "example" in content:
                schema = {**content["schema"], "components": self.document["components"]}
                problems = list(jsonschema_rs.Draft202012Validator(schema).iter_errors(content["example"]))
                self.assertEqual([each.message for each in problems], [], place)
                count += 1
        self.assertGreater(count, 300)

    def test_references(self) -> None:
        """Each reference leads somewhere, each component is referred to."""
        text = json.dumps(self.document)
        used = set(re.findall(r'"#/components/(\w+/\w+)"', text))
        components = self.document["components"]
        there = {f"{kind}/{name}" for kind in ("schemas", "responses") for name in components[kind]}
        self.assertEqual(used, there)


def _answers(kind: Any) -> bool:
    """Whether resources of a class have methods of their own."""
    named = next(each for each in kind.__mro__ if "methods" in vars(each))
    return named is not JSONResource and kind.__name__ not in ("_Get", "_EntityResource")


def _contents(value: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The media type objects of a document."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name == "content":
                yield from ((f"{place}/{kind}", content) for kind, content in each.items())
            yield from _contents(each, f"{place}/{name}")
    elif isinstance(value, list):
        for at, each in enumerate(value):
            yield from _contents(each, f"{place}/{at}")


class SchemaTests(SynchronousTestCase):
    """Schemas against what the declarations take."""

    def test_texts(self) -> None:
        """Each field says what it means; fields within lists and maps are said by those."""
        parts = ("[]", "keys", "values")
        silent = [path for path, field in every_field() if not field.text and path.rpartition(".")[2] not in parts]
        self.assertEqual(silent, [])

    def test_entities_speak(self) -> None:
        """Each entity says what it is; each that can be made has an example."""
        for entity in REGISTRY.values():
            self.assertTrue(entity.text, entity.name)
            self.assertEqual(
                bool(entity.example), (entity.stored and entity.in_admin) or entity.name == "tags", entity.name
            )

    def test_observed(self) -> None:
        """What a Kong took the schemas take too; what they refuse is refused."""
        accepted = refused = 0
        for vector in json.loads((CONTRACT / "vectors_validation.json").read_text())["cases"]:
            entity = REGISTRY.get(str(vector.get("entity")))
            if entity is None or not isinstance(vector.get("input"), dict):
                continue
            valid = self._fits(entity, vector["input"])
            try:
                entity.insert(vector["input"], now=1, new_id=lambda: "5f1e2d3c-0000-4000-8000-000000000001")
            except EntityError:
                refused += not valid
                continue
            self.assertTrue(valid, vector)
            accepted += 1
        self.assertGreater(accepted, 20)
        self.assertGreater(refused, 20)

    @staticmethod
    def _fits(entity: Entity, body: Any) -> bool:
        names = configurations(entity)
        body = tolerated(entity, body)
        schemas = [entity_schema(entity, Use.WRITE, variant=name) for name in names] or [
            entity_schema(entity, Use.WRITE)
        ]
        return any(jsonschema_rs.Draft202012Validator(each).is_valid(body) for each in schemas)

    def test_patterns(self) -> None:
        """Each schema is one, its patterns are of ECMA 262."""
        for path, field in every_field():
            for use in Use:
                schema = field_schema(field, use)
                try:
                    jsonschema_rs.Draft202012Validator(schema)
                except ValueError as error:
                    self.fail(f"{path}: {error}")
