"""Mappings that change a little at a time: each change gives a new one, and the old one stays as it is.

A large mapping is kept as a base, which many versions share, and a small layer of what differs from it. A change copies the
layer alone; a layer that has grown to about the square root of the base is worked into a new base. So a change of one key
costs about as much with 100 keys as with 100,000, and a hundred versions that are still in use cost little more than one.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from typing import Any, TypeVar

__all__ = ["Layers"]

K = TypeVar("K")
V = TypeVar("V")

_LEAST = 32
"""Keys of a layer that is kept however small the base is."""

_GONE: Any = object()
_MISSING: Any = object()


class Layers(Mapping[K, V]):
    """An immutable mapping; `changed` gives another one.

    Args:
        base: what it holds. Nobody may change it afterwards.
        make: makes the mappings that keys are looked up in; a test counts in them.
    """

    __slots__ = ("_base", "_make", "_over", "_size")

    def __init__(
        self, base: MutableMapping[K, V] | None = None, make: Callable[[], MutableMapping[K, V]] = dict
    ) -> None:
        self._base: MutableMapping[K, V] = make() if base is None else base
        self._over: MutableMapping[K, V] = make()
        self._make = make
        self._size = len(self._base)

    def changed(self, put: Mapping[K, V], gone: Iterable[K] = ()) -> Layers[K, V]:
        """A mapping without the keys ``gone`` and with what is in ``put``."""
        base, size = self._base, self._size
        over = self._make()
        over.update(self._over)
        for key in gone:
            known = over.get(key, _MISSING)
            if key in base:
                size -= known is not _GONE
                over[key] = _GONE
            elif known is not _MISSING:
                size -= 1
                del over[key]
        for key, value in put.items():
            known = over.get(key, _MISSING)
            size += known is _GONE or (known is _MISSING and key not in base)
            over[key] = value
        other: Layers[K, V] = Layers.__new__(Layers)
        other._base, other._over, other._make, other._size = base, over, self._make, size
        if len(over) > _LEAST and len(over) ** 2 > 4 * len(base):
            other._settle()
        return other

    def _settle(self) -> MutableMapping[K, V]:
        """Work the layer into a base of its own. What the mapping holds stays the same."""
        if self._over:
            base = self._make()
            base.update(self._base)
            for key, value in self._over.items():
                if value is not _GONE:
                    base[key] = value
                else:
                    del base[key]
            self._base, self._over = base, self._make()
        return self._base

    # -- looking up --------------------------------------------------------------------------------------------------

    def __getitem__(self, key: K) -> V:
        found = self._over.get(key, _MISSING) if self._over else _MISSING
        if found is _MISSING:
            return self._base[key]
        if found is _GONE:
            raise KeyError(key)
        return found  # type: ignore[no-any-return]

    def get(self, key: K, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        over = self._over
        if over:
            found = over.get(key, _MISSING)
            if found is not _MISSING:
                return default if found is _GONE else found
        return self._base.get(key, default)

    def __contains__(self, key: object) -> bool:
        over: Any = self._over
        if over:
            found = over.get(key, _MISSING)
            if found is not _MISSING:
                return found is not _GONE
        return key in self._base

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[K]:
        return iter(self._settle())

    def items(self) -> ItemsView[K, V]:
        """Keys with their values."""
        return self._settle().items()

    def values(self) -> ValuesView[V]:
        """The values."""
        return self._settle().values()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Layers):
            return self is other or self._settle() == other._settle()
        return self._settle() == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Layers({self._settle()!r})"
