"""Request headers looked up by a configured name, where ``_`` may stand for ``-``.

Kong's plugins read headers in two ways that differ here: from a table, in which a name is looked for as it is and then
with ``-`` for each ``_`` (lua-resty-core, ``resty/core/request.lua``), and from nginx's variables ``$http_name``, where
``-`` and ``_`` are the same on both sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .head import HeaderBlock

__all__ = ["all_spellings", "named", "variable"]


def named(block: HeaderBlock, name: bytes) -> list[bytes]:
    """All values of the field ``name`` (lower case), else of the one with ``-`` for each ``_``; do not change the list."""
    values = block.all(name)
    if not values and b"_" in name:
        values = block.all(name.replace(b"_", b"-"))
    return values


def variable(block: HeaderBlock, name: bytes) -> list[bytes]:
    """The same, else of the first field whose name differs in nothing but ``-`` and ``_``."""
    values = named(block, name)
    if not values and (b"-" in name or b"_" in name):
        wanted = name.replace(b"_", b"-")
        for each in block.names:
            if b"_" in each and each.replace(b"_", b"-") == wanted:
                return block.all(each)
    return values


def all_spellings(block: HeaderBlock, name: bytes) -> list[bytes]:
    """All values of the fields whose names differ in nothing but ``-`` and ``_``: many upstreams read them as one field."""
    wanted = name.replace(b"_", b"-")
    return [value for each in block.names if each.replace(b"_", b"-") == wanted for value in block.all(each)]
