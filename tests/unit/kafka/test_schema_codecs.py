"""What schemas make of JSON, and JSON of it."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_schemas import SchemaFailed
from kongtwist.kafka.codec_basics import Codec, NotFitting, SchemaText
from kongtwist.kafka.schema_codecs import make_codec

USER = {
    "type": "record", "name": "ex.User", "fields": [
        {"name": "id", "type": "long"},
        {"name": "nick", "type": ["null", "string"], "default": None},
        {"name": "raw", "type": "bytes", "default": ""},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}, "default": "\u0001\u0000"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 0},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}, "default": "A"},
        {"name": "more", "type": ["null", {"type": "record", "name": "More", "fields": [{"name": "x", "type": "int"}]},
                                  {"type": "array", "items": "string"}, "Kind"], "default": None},
    ],
}  # fmt: skip
NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"], "default": None}]}


def codec(kind: str, schema: Any, *references: tuple[str, Any]) -> Codec:
    return make_codec(
        SchemaText(kind, json.dumps(schema), tuple((name, json.dumps(each)) for name, each in references))
    )


class CodecCase(SynchronousTestCase):
    def fails(self, codec: Codec, value: Any, text: str) -> None:
        self.assertIn(text, str(self.assertRaises(NotFitting, codec.encode, value)))

    def unusable(self, kind: str, schema: Any, text: str, *references: tuple[str, Any]) -> None:
        error = self.assertRaises(SchemaFailed, codec, kind, schema, *references)
        self.assertIn(text, str(error))
        self.assertTrue(error.final)

    def back(self, codec: Codec, value: Any) -> Any:
        return json.loads(codec.decode(codec.encode(value)))


class AvroTests(CodecCase):
    def test_defaults(self) -> None:
        """What is left out stands there as the schema says; the default of a decimal is bytes."""
        self.assertEqual(
            self.back(codec("AVRO", USER), {"id": 1}),
            {"id": 1, "nick": None, "raw": "", "price": "2.56", "at": 0, "kind": "A", "more": None},
        )

    def test_there_and_back(self) -> None:
        given = {
            "id": -1,
            "nick": "ö",
            "raw": "\xff\0",
            "price": "-1.50",
            "at": 1700000000000,
            "kind": "B",
            "more": {"x": 3},
        }
        avro = codec("AVRO", USER)
        self.assertEqual(self.back(avro, given), given)
        for more in (["a", "b"], "B", None):
            self.assertEqual(self.back(avro, {"id": 1, "more": more})["more"], more)
        self.assertEqual(self.back(codec("AVRO", {"type": "map", "values": "double"}), {"a": 1}), {"a": 1.0})

    def test_bytes(self) -> None:
        """As the specification writes them (Avro 1.12, binary encoding)."""
        record = {
            "type": "record",
            "name": "t",
            "fields": [{"name": "a", "type": "long"}, {"name": "b", "type": "string"}],
        }
        self.assertEqual(codec("AVRO", record).encode({"a": 27, "b": "foo"}), bytes.fromhex("3606666f6f"))

    def test_named_unions(self) -> None:
        """Avro's own JSON encoding, which names branches."""
        avro = codec("AVRO", USER)
        given = {"id": 1, "nick": {"string": "a"}, "more": {"ex.More": {"x": 1}}}
        self.assertEqual(avro.encode(given), avro.encode({"id": 1, "nick": "a", "more": {"x": 1}}))

    def test_misfits(self) -> None:
        """The text says where, and nothing of the value."""
        avro = codec("AVRO", USER)
        for value, text in (
            ({}, "at the top: the field id is not there"), ({"id": "secret"}, "at /id: it is no long"),
            ({"id": True}, "at /id"), ({"id": 1 << 63}, "at /id"), ({"id": 1.5}, "at /id"), ([], "at the top: it is no object"),
            ({"id": 1, "extra": 1}, "the schema has no field extra"), ({"id": 1, "nick": 5}, "at /nick: it is no string"),
            ({"id": 1, "raw": "\u0100"}, "at /raw"), ({"id": 1, "price": "1.234"}, "at /price"), ({"id": 1, "kind": "C"}, "at /kind"),
            ({"id": 1, "price": "12345.67"}, "at /price"), ({"id": 1, "more": 5}, "at /more: it is none of null, ex.More, array"),
        ):  # fmt: skip
            self.fails(avro, value, text)
        self.assertNotIn("secret", str(self.assertRaises(NotFitting, avro.encode, {"id": "secret"})))
        self.assertEqual(avro.encode({"id": 2.0}), avro.encode({"id": 2}))

    def test_hostile_data(self) -> None:
        """Nesting without end, cut data and data behind the end are told; the reader in C would end the process at the first."""
        node = codec("AVRO", NODE)
        self.assertEqual(self.back(node, {"next": {"next": None}}), {"next": {"next": None}})
        for data in (b"\x02" * 200_000 + b"\0", b"", b"\0\0", b"\x08"):
            self.assertRaises(NotFitting, node.decode, data)
        self.assertRaises(NotFitting, codec("AVRO", "string").decode, b"\xfe\xff\xff\xff\xff\x7fx")
        self.assertRaises(NotFitting, codec("AVRO", "double").decode, b"\0\0\0\0\0\0\xf8\x7f")

    def test_ways(self) -> None:
        """Unions within unions: each value is tried once as each branch, not once for each way that leads there."""
        fields = [{"name": "n", "type": ["int", "A", "B"]}]
        second = {"type": "record", "name": "B", "fields": fields}
        first = {"type": "record", "name": "A", "fields": [{"name": "n", "type": ["int", "A", second]}]}
        either = codec("AVRO", [first, "B"])
        value: Any = "no int"
        for _ in range(60):
            value = {"n": value}
        self.fails(either, value, "it is none of")
        for _ in range(400):
            value = {"n": value}
        self.fails(either, value, "nested too deeply")

    def test_unusable(self) -> None:
        self.unusable("AVRO", {"type": "nope"}, "UnknownType")
        self.unusable("AVRO", {"type": "record", "name": "X", "fields": [{"name": "y", "type": "Y"}]}, "Y")
        # Six bytes could stand for a billion of them.
        self.unusable("AVRO", {"type": "array", "items": "null"}, "take no bytes")
        empty = {"type": "record", "name": "E", "fields": [{"name": "n", "type": "null"}]}
        self.unusable("AVRO", {"type": "array", "items": empty}, "take no bytes")

    def test_references(self) -> None:
        inner = {"type": "record", "name": "ex.Inner", "fields": [{"name": "z", "type": "string"}]}
        outer = {"type": "record", "name": "ex.Outer", "fields": [{"name": "a", "type": "ex.Inner"}]}
        self.assertEqual(self.back(codec("AVRO", outer, ("inner", inner)), {"a": {"z": "q"}}), {"a": {"z": "q"}})


class JSONSchemaTests(CodecCase):
    RULES: dict[str, Any] = {
        "type": "object", "required": ["id"], "additionalProperties": False,
        "properties": {"id": {"type": "integer"}, "list": {"type": "array", "items": {"type": "string"}}},
    }  # fmt: skip

    def test_checked(self) -> None:
        rules = codec("JSON", self.RULES)
        self.assertEqual(rules.encode({"id": 1, "list": ["ö"]}), '{"id":1,"list":["ö"]}'.encode())
        self.assertEqual(rules.decode(b'{"id": 1}'), b'{"id": 1}')
        self.fails(rules, {"id": 1, "list": ["a", 5]}, "at /list/1: the value is not of type")
        self.fails(rules, {}, "at the top")
        for wrong in (b"{", b'{"id":"x"}', b"\xff"):
            self.assertRaises(NotFitting, rules.decode, wrong)

    def test_ways(self) -> None:
        """A schema within itself: where data do not fit is not told, since finding it out would double in time with each level."""
        link = {"type": "object", "properties": {"n": {"$ref": "#/definitions/link"}}, "required": ["n"]}
        rules = {
            "$ref": "#/definitions/link",
            "definitions": {"link": {"anyOf": [link, {**link, "title": "b"}, {"type": "integer"}]}},
        }
        value: Any = "no int"
        for _ in range(200):
            value = {"n": value}
        self.fails(codec("JSON", rules), value, "it does not fit")
        # Which is not so where schemas are only shared.
        shared = {"properties": {"a": {"$ref": "#/definitions/x%20y"}}, "definitions": {"x y": {"type": "string"}}}
        self.fails(codec("JSON", shared), {"a": 1}, "at /a: the value is not of type")

    def test_drafts(self) -> None:
        """Without $schema it is draft 7, where `items` may be a list."""
        listed = {"items": [{"type": "string"}]}
        self.fails(codec("JSON", listed), [1], "at /0")
        newer = {"$schema": "https://json-schema.org/draft/2020-12/schema", "prefixItems": [{"type": "string"}]}
        self.fails(codec("JSON", newer), [1], "at /0")

    def test_references(self) -> None:
        """They come with the schema; nothing is fetched from elsewhere."""
        rules = {"$ref": "user.json"}
        self.fails(codec("JSON", rules, ("user.json", self.RULES)), {}, "at the top")
        self.unusable(
            "JSON", {"$ref": "http://127.0.0.1:9/x.json"}, "the registry has no reference http://127.0.0.1:9/x.json"
        )
        self.unusable("JSON", {"$ref": "file:///etc/hostname"}, "the registry has no reference")
        self.unusable("JSON", {"type": "nope"}, "is not valid under any")


class ProtobufTests(CodecCase):
    def codec(self) -> Codec:
        file = FileDescriptorProto(name="_schema.proto", package="ex", syntax="proto3")
        user = file.message_type.add(name="User")
        for number, (name, kind) in enumerate((("user_id", 3), ("nick", 9)), 1):
            user.field.add(name=name, number=number, type=kind, label=1)
        inner = user.nested_type.add(name="Inner")
        inner.field.add(
            name="x", number=1, type=FieldDescriptorProto.TYPE_BOOL, label=FieldDescriptorProto.LABEL_OPTIONAL
        )
        return make_codec(SchemaText("PROTOBUF", ""), FileDescriptorSet(file=[file]).SerializeToString())

    def test_there_and_back(self) -> None:
        """The first message of the file is written, after its index; names stay as the schema has them."""
        proto = self.codec()
        self.assertEqual(proto.encode({"user_id": 1, "nick": "a"}), b"\0\x08\x01\x12\x01a")
        self.assertEqual(proto.encode({"userId": "1", "nick": "a"}), b"\0\x08\x01\x12\x01a")
        self.assertEqual(json.loads(proto.decode(b"\0\x08\x01\x12\x01a")), {"user_id": "1", "nick": "a"})
        self.assertEqual(json.loads(proto.decode(b"\x04\x00\x00\x08\x01")), {"x": True})

    def test_misfits(self) -> None:
        proto = self.codec()
        for value, text in (
            ({"user_id": "secret"}, "at /user_id: it does not fit"), ({"other": 1}, "there is no field other"), ([], "it is no object"),
        ):  # fmt: skip
            self.fails(proto, value, text)
            self.assertNotIn("secret", str(self.assertRaises(NotFitting, proto.encode, value)))
        for data in (b"", b"\x02\x08\x08\x01", b"\0\xff", b"\x02\x01"):
            self.assertRaises(NotFitting, proto.decode, data)


class KindTests(CodecCase):
    def test_unknown(self) -> None:
        self.unusable("XML", {}, "schemas of the type XML are not known")
