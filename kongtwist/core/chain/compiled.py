"""Plugin rows made ready to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..answers import Answer
from ..exchange import Exchange
from ..rows import Row
from ..stream_session import StreamSession
from .failures import UNEXPECTED
from .lifetimes import Life, Lifetimes, has_life
from .plugin import Plugin
from .secrets import Secrets, Unusable

__all__ = ["Certificate", "Compiled", "Refused"]


class Refused(Plugin):
    """Stands in for a configured plugin that cannot run. Answers every request with 500 instead of letting it pass."""

    name = "refused"
    priority = 1 << 62

    def access(self, exchange: Exchange, conf: Any) -> Answer:
        if not conf["reported"]:
            conf["reported"] = True
            exchange.report(conf["why"])
        return Answer.error(500, UNEXPECTED)

    def preread(self, session: StreamSession, conf: Any) -> Answer:
        return self.access(session, conf)


_REFUSED = Refused()

Certificate = Callable[[str], Row | None]
"""Gives the row of a certificate by its id, with the values of its references."""


class Compiled:
    """One plugin row, ready to run: ``plugin`` and the ``conf`` its phases get. Compared by identity.

    Attributes:
        row: the row as stored, with its references to secrets.
        emptied: sentences about fields whose references stand for nothing.
        life: counts who runs with it; None for plugins that open nothing, and where nothing is opened.
        refers: there are references in it: it has to be compiled again when what they stand for may have changed.
        uses: ids of the certificates that it uses: so it has to when one of these changes.
    """

    __slots__ = ("conf", "emptied", "life", "name", "plugin", "priority", "refers", "row", "uses")

    def __init__(
        self,
        row: Row,
        plugin: Plugin | None,
        secrets: Secrets | None = None,
        lifetimes: Lifetimes | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.row = row
        self.uses: tuple[str, ...] = ()
        self.emptied: list[str] = []
        self.life: Life | None = None
        self.refers = secrets is not None and plugin is not None and secrets.refers("plugins", row)
        self.name: str = row["name"]
        self.plugin: Plugin = _REFUSED
        self.priority = _REFUSED.priority if plugin is None else plugin.priority
        if plugin is None:
            self.conf = self._refusal("no such plugin is loaded; name it in the property 'plugins'")
            return
        try:
            if secrets is not None and self.refers:
                row, self.emptied = secrets.resolved("plugins", row)
            self.uses = tuple(plugin.certificates(row["config"]))
            self.conf = plugin.compile(row["config"], row)
            if lifetimes is not None and has_life(plugin) and plugin.opens(self.conf):
                self.life = lifetimes.open(plugin, self.conf, row, self._found(certificate))
                self.conf = self.life.conf
        except Exception as error:  # noqa: BLE001 - a broken configuration closes its routes, not the gateway
            self.conf = self._refusal(self._words(error))
        else:
            self.plugin = plugin

    def _found(self, certificate: Certificate | None) -> dict[str, Row]:
        if certificate is None:
            return {}
        return {key: row for key in self.uses if (row := certificate(key)) is not None}

    def _words(self, error: Exception) -> str:
        """What an error says, unless a secret may be in it."""
        if self.refers and not isinstance(error, Unusable):
            return f"{type(error).__name__} with the values of its references (what it says may hold one)"
        return str(error) or repr(error)

    def _refusal(self, why: str) -> dict[str, Any]:
        what = f"plugin {self.name} ({self.row.get('id')}) cannot run, its requests are answered 500"
        sentence = f"{what}: {why}; set that right, or disable or remove the plugin"
        return {"why": sentence, "reported": False}

    @property
    def faults(self) -> list[str]:
        """Sentences about why this row cannot run, or runs without a field."""
        if self.plugin is _REFUSED:
            return [str(self.conf["why"])]
        return [f"plugin {self.name} ({self.row.get('id')}): {sentence}" for sentence in self.emptied]
