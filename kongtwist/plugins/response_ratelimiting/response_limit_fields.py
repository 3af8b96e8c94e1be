"""What response-ratelimiting is configured with (Kong 3.9, ``kong/plugins/response-ratelimiting/schema.lua``)."""

from __future__ import annotations

from ...core.rows import Row
from ...entities.checks import AtLeastOneOf
from ...entities.entity import Config as ConfigRecord
from ...entities.schema import Boolean, Map, Number, Record, String
from ...entities.typedefs import header_name
from ..rate_limiting.limiting_fields import REDIS, former_names, lower_later, requires
from ..rate_limiting.windows import PERIODS

__all__ = ["CONFIG", "CONFIG_CHECKS"]


def _in_order(limits: Row) -> str | None:
    lower = lower_later(limits)
    return None if lower is None else f"the {lower}"


CONFIG = ConfigRecord(
    {
        "header_name": String(
            default="x-kong-limit", checks=(header_name,), text="Header of answers that says what they cost: video=2, image=1."
        ),
        "limit_by": String(
            default="consumer", one_of=["consumer", "credential", "ip"],
            text="What is counted apart; where a request has none such its client's address counts.",
        ),
        "policy": String(
            default="local", one_of=["local", "cluster", "redis"],
            text="Where it is counted: on each node, for all nodes in the database, or for all in Redis.",
        ),
        "fault_tolerant": Boolean(
            required=True, default=True, text="Let requests pass where the counts are not to be had; false: answer 500."
        ),
        "redis": Record(REDIS, text="The Redis server of policy redis."),
        "block_on_first_violation": Boolean(
            required=True, default=False, text="Refuse requests where any limit is used up, whatever they would cost."
        ),
        "hide_client_headers": Boolean(required=True, default=False, text="Tell clients nothing about their limits."),
        "limits": Map(
            String(checks=(header_name,)),
            Record(
                {name: Number(gt=0, text=f"What answers may cost per {name}; null: no limit.") for name in PERIODS},
                entity_checks=(AtLeastOneOf(*PERIODS),), checks=(_in_order,), text="The limits of one name.",
            ),
            required=True, len_min=1, text="Names that answers say they cost something of, and the limits of each.",
        ),
    },
    shorthands=former_names("response-ratelimiting"),
)  # fmt: skip

CONFIG_CHECKS = (
    requires("config.policy", "redis", "config.redis.host"),
    requires("config.policy", "redis", "config.redis.port"),
    requires("config.policy", "redis", "config.redis.timeout"),
)
