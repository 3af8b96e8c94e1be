"""Keeps secrets out of the Admin API's logs: keys in paths, and values in the texts of exceptions."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from ...entities import Entity

__all__ = ["PathMask", "frames_of"]

_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SECRET_KEYS = ("key", "access_token")
"""Fields by which a credential may be named in a path and that let their bearer in."""


class PathMask:
    """Hides credentials in paths such as ``/key-auths/<key>`` and ``/consumers/bob/key-auth/<key>``.

    Args:
        registry: the entities; a plugin's entity that is addressed by its key is masked.
    """

    def __init__(self, registry: Mapping[str, Entity]) -> None:
        self._names = frozenset(
            name.encode()
            for entity in registry.values()
            if entity.plugin is not None and entity.endpoint_key in _SECRET_KEYS
            for name in (entity.admin_name, entity.nested_name)
        )

    def __call__(self, target: bytes) -> bytes:
        """A request target with such keys replaced by ``***``; ids stay."""
        path, question, query = target.partition(b"?")
        segments = path.split(b"/")
        for at in range(len(segments) - 1):
            if unquote_to_bytes(segments[at]) in self._names and not _UUID.fullmatch(segments[at + 1]):
                segments[at + 1] = segments[at + 1] and b"***"
        return b"/".join(segments) + question + query


def frames_of(error: BaseException | None) -> str:
    """An exception's kind and place, and those of its causes, without their texts: these may quote a private key or a password
    that somebody sent."""
    pieces: list[str] = []
    current = error
    while current is not None and len(pieces) < 5:
        kind = type(current)
        where = "".join(traceback.format_tb(current.__traceback__))
        pieces.append(f"{kind.__module__}.{kind.__qualname__}\n{where}")
        current = current.__cause__ or current.__context__
    return "because of ".join(pieces).rstrip()
