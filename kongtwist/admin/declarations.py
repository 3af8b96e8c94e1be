"""The contract of a declarative configuration as the Admin API loads and shows it (``/config``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Busy", "DeclarationRefused", "Declarations", "LoadFailed"]


class Busy(Exception):
    """Another configuration is being loaded."""


class DeclarationRefused(Exception):
    """A configuration has faults.

    Args:
        status: HTTP status.
        body: the answer, as it is or as JSON: there may be a fault for each of very many rows.
        message: the sentence in it.

    Attributes:
        status: HTTP status.
        answer: the body as it was given.
    """

    def __init__(self, status: int, body: Mapping[str, Any] | bytes, message: str = "") -> None:
        super().__init__(message or (str(status) if isinstance(body, bytes) else str(body.get("message", status))))
        self.status, self.answer = status, body

    @property
    def body(self) -> Mapping[str, Any]:
        """The answer."""
        found: Mapping[str, Any] = json.loads(self.answer) if isinstance(self.answer, bytes) else self.answer
        return found


class LoadFailed(Exception):
    """A configuration could not be read to its end; carries status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Declarations(Protocol):
    """Loads and shows the configuration; `kongtwist.node.declarative_loader.DeclarativeLoader`."""

    async def load(self, given: bytes, content_type: str, *, flatten: bool, unless_same: bool) -> bytes | None:
        """Put a configuration in place; the rows as JSON, or None where nothing changed and ``unless_same``.

        Raises:
            Busy: another one is being loaded.
            DeclarationRefused: it has faults.
            LoadFailed: it could not be read.
        """
        ...

    async def shown(self) -> bytes:
        """The present configuration's YAML as a JSON text."""
        ...
