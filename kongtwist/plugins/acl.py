"""acl: let consumers in, or keep them out, by the groups they are in. Kong 3.9 `acl`."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.chain.plugin import Plugin
from ..core.exchange import Answer, Exchange, Row
from ..core.http.headers import PreparedChanges, encoded
from ..entities.checks import AtLeastOneOf, ExactlyOneOf
from ..entities.entity import Entity
from ..entities.schema import Array, Boolean, Foreign, String, Timestamp, Uuid
from ..entities.typedefs import tags

__all__ = ["GROUPS", "Acl"]

GROUPS = Entity(
    "acls",
    {
        "id": Uuid(),
        "created_at": Timestamp(),
        "consumer": Foreign("consumers", on_delete="cascade", required=True, text="Who is in the group."),
        "group": String(required=True, text="Name of the group."),
        "tags": tags(),
    },
    cache_key=("consumer", "group"),
    found_by=("consumer",),
    plugin="acl",
    text="A consumer's place in a group, for the plugin acl.",
    example={"group": "gold", "consumer": {"username": "alice"}},
)
"""Which consumer is in which group."""

REMEMBERED = 16384
"""Sets of groups whose verdict is remembered for each configuration."""

_FORBIDDEN = "You cannot consume this service"

Verdict = bytes | None
"""What the upstream is told of the groups; None: kept out."""


class _Remembered:
    """A verdict on a consumer.

    Attributes:
        rows: its groups.
        verdict: on them.
        before, after: changes to the request that came with the consumer, and those with its groups; None: none seen yet.
    """

    __slots__ = ("after", "before", "rows", "verdict")

    def __init__(self, rows: tuple[Row, ...], verdict: Verdict) -> None:
        self.rows, self.verdict = rows, verdict
        self.before: PreparedChanges | None = None
        self.after: PreparedChanges | None = None


class Config:
    """A configuration, ready for requests; remembers its verdicts on groups."""

    __slots__ = ("always_authenticated", "denies", "groups", "hide", "verdicts")

    def __init__(self, conf: Row) -> None:
        self.denies = bool(conf["deny"])
        self.groups = frozenset(conf["deny"] or conf["allow"] or ())
        self.hide: bool = conf["hide_groups_header"]
        self.always_authenticated: bool = conf["always_use_authenticated_groups"]
        # By the consumer's id. The rows, not the tuple of them, are the same objects as long as none of them has changed.
        self.verdicts: dict[str, _Remembered] = {}

    def verdict(self, groups: Iterable[str]) -> Verdict:
        """What becomes of who is in these groups."""
        groups = list(groups)
        if self.groups.isdisjoint(groups) is not self.denies:
            return None
        return encoded(", ".join(groups).encode("utf-8", "surrogatepass"))


class Acl(Plugin):
    """Compare the groups of whoever was recognised with those configured; tell the upstream all of them."""

    name = "acl"
    priority = 950
    scopes = ("service", "route")
    example = {"allow": ["gold", "staff"]}
    config = {
        "allow": Array(String(), text="Groups that are let in; this or deny must be given."),
        "deny": Array(String(), text="Groups that are kept out; this or allow must be given."),
        "hide_groups_header": Boolean(
            required=True, default=False,
            text="Do not tell the upstream the groups in X-Consumer-Groups or X-Authenticated-Groups.",
        ),
        "always_use_authenticated_groups": Boolean(
            required=True, default=False,
            text="Where another plugin has told groups (a session's), those count, not the consumer's own.",
        ),
    }  # fmt: skip
    config_checks = (ExactlyOneOf("config.allow", "config.deny"), AtLeastOneOf("config.allow", "config.deny"))
    entities = (GROUPS,)

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def access(self, exchange: Exchange, conf: Config) -> Answer | None:
        consumer, credential = exchange.consumer, exchange.credential
        told = exchange.authenticated_groups
        if consumer is None or (told is not None and (credential is None or conf.always_authenticated)):
            if told is None:
                return exchange.error(401, "Unauthorized") if credential is None else exchange.error(403, _FORBIDDEN)
            return self._go_on(exchange, conf, conf.verdict(told), b"x-authenticated-groups")
        rows = exchange.snapshot.all_by("acls", "consumer", consumer["id"])
        if not rows and not conf.denies:
            return exchange.error(401, "Unauthorized") if credential is None else exchange.error(403, _FORBIDDEN)
        known = conf.verdicts.get(consumer["id"])
        if known is None or known.rows != rows:
            if len(conf.verdicts) >= REMEMBERED:
                conf.verdicts.clear()
            known = conf.verdicts[consumer["id"]] = _Remembered(rows, conf.verdict([row["group"] for row in rows]))
        changes = exchange.request_changes
        if known.before is not None and changes is known.before:
            exchange.request_changes = known.after
            return None
        if isinstance(changes, PreparedChanges) and known.verdict is not None and not conf.hide:
            # Whoever recognised the consumer says the same each time; what it says with the groups is made once.
            known.before, known.after = changes, PreparedChanges({**changes, b"x-consumer-groups": known.verdict})
            exchange.request_changes = known.after
            return None
        return self._go_on(exchange, conf, known.verdict, b"x-consumer-groups")

    @staticmethod
    def _go_on(exchange: Exchange, conf: Config, verdict: Verdict, header: bytes) -> Answer | None:
        if verdict is None:
            return exchange.error(403, _FORBIDDEN)
        if not conf.hide:
            exchange.set_upstream_header(header, verdict)
        return None
