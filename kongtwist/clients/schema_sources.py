"""Schemas of Protobuf from a registry, as files for protoc."""

from __future__ import annotations

import os
import shutil
import tempfile

from ..core.chain.host_schemas import SchemaFailed
from ..kafka.codec_basics import SchemaText

__all__ = ["SchemaSources"]


class SchemaSources:
    """A folder with a schema and what it imports. Its methods block, and run in threads.

    Args:
        schema: of Protobuf.

    Attributes:
        path: of the schema, once it is written.
    """

    def __init__(self, schema: SchemaText) -> None:
        self._schema = schema
        self._folder = ""
        self.path = ""

    def write(self) -> None:
        """Write the files. Raises SchemaFailed: an import has a name that is no place below a folder."""
        self._folder = tempfile.mkdtemp(prefix="kongtwist-schema-")
        self.path = os.path.join(self._folder, "_schema.proto")
        for name, text in self._schema.references:
            parts = name.split("/")
            if "\0" in name or any(part in ("", ".", "..") for part in parts) or name == "_schema.proto":
                raise SchemaFailed(f"a schema refers to {name!r}, which is no file", "register another", final=True)
            place = os.path.join(self._folder, *parts)
            try:
                os.makedirs(os.path.dirname(place), exist_ok=True)
                _write(place, text)
            except OSError as error:
                raise SchemaFailed(
                    f"a schema refers to {name!r}: {error.strerror}", "register another", final=True
                ) from error
        _write(self.path, self._schema.text)

    def hidden(self, text: str) -> str:
        """A text without the name of the folder."""
        return text.replace(self._folder + os.sep, "") if self._folder else text

    def remove(self) -> None:
        """Remove the folder."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
