"""The plugin: what is allowed passes, what is denied does not, and of the rest no known bot does."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, Exchange, Row
from ...core.http.lookups import named
from ...core.routing.patterns import BoundedPattern, PatternClock
from ...entities.schema import Array, String
from .known_bots import is_bot

__all__ = ["BotDetection"]

_REMEMBERED = 10_000
"""User-Agents whose verdict a configuration remembers, as in Kong."""

_LONG = 256
"""Bytes from which on a digest stands for a User-Agent that is remembered."""


class Config:
    """A configuration, ready for requests; remembers what it said of User-Agents."""

    __slots__ = ("_verdicts", "allow", "deny")

    def __init__(self, conf: Row) -> None:
        self.allow = _patterns(conf["allow"])
        self.deny = _patterns(conf["deny"])
        self._verdicts: dict[bytes, bool] = {}

    def passes(self, agent: bytes, exchange: Exchange) -> bool:
        """Whether who says so of itself may pass."""
        key = agent if len(agent) <= _LONG else blake2b(agent, digest_size=16).digest()
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._judged(agent.strip(), exchange)
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            self._verdicts[key] = verdict
        return verdict

    def _judged(self, agent: bytes, exchange: Exchange) -> bool:
        clock = PatternClock()
        try:
            if any(pattern.find(agent, clock) is not None for pattern in self.allow):
                return True
            if any(pattern.find(agent, clock) is not None for pattern in self.deny):
                return False
        except TimeoutError:
            exchange.report(
                "bot-detection keeps a User-Agent out that it cannot judge: a regular expression takes too long",
                "simplify config.allow and config.deny",
            )
            return False
        return not is_bot(agent)


def _patterns(texts: Sequence[str] | None) -> list[BoundedPattern]:
    return [BoundedPattern(text.encode("utf-8", "surrogatepass"), search=True) for text in texts or ()]


class BotDetection(Plugin):
    """Refuse bots with 403. Who does not say what it is passes."""

    name = "bot-detection"
    priority = 2500
    scopes = ("service", "route")
    example = {"allow": ["Googlebot"], "deny": ["^curl/"]}
    config = {
        "allow": Array(
            String(is_regex=True),
            default=[],
            text="Regular expressions of User-Agents that pass, known bots among them.",
        ),
        "deny": Array(
            String(is_regex=True),
            default=[],
            text="Regular expressions of User-Agents that are kept out; allow is stronger.",
        ),
    }

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def access(self, exchange: Exchange, conf: Config) -> Answer | None:
        agents = named(exchange.block, b"user-agent")
        if not agents:
            return None
        if len(agents) > 1:
            return exchange.error(400, "Only one User-Agent header allowed")
        if conf.passes(agents[0], exchange):
            return None
        return exchange.error(403, "Forbidden")
