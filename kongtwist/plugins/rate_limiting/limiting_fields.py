"""What a rate-limiting plugin is configured with (Kong 3.9, ``kong/plugins/rate-limiting/schema.lua``)."""

from __future__ import annotations

from typing import Any

from ...core.rows import Row
from ...entities.checks import AtLeastOneOf, Conditional
from ...entities.entity import Config as ConfigRecord
from ...entities.entity import Shorthand
from ...entities.schema import Any_, Boolean, Field, Integer, Number, Record, String
from ...entities.typedefs import SEGMENTS, header_name, path
from .._redis_fields import redis_fields
from .windows import PERIODS

__all__ = ["CONFIG", "CONFIG_CHECKS", "REDIS", "former_names", "lower_later", "requires"]

REDIS: dict[str, Field] = redis_fields("policy redis")


def former_names(plugin: str) -> dict[str, Shorthand]:
    """The deprecated ``redis_<name>`` beside ``redis.<name>``, in Kong's order, of this plugin."""
    kinds: tuple[tuple[str, type[Field], dict[str, Any]], ...] = (
        ("host", String, {}), ("port", Integer, {}), ("password", String, {"len_min": 0}), ("username", String, {}),
        ("ssl", Boolean, {}), ("ssl_verify", Boolean, {}), ("server_name", String, {}), ("timeout", Integer, {}),
        ("database", Integer, {}),
    )  # fmt: skip
    return {f"redis_{name}": _former_name(plugin, name, kind, attrs) for name, kind, attrs in kinds}


def _former_name(plugin: str, name: str, kind: type[Field], attrs: dict[str, Any]) -> Shorthand:
    words = f"{plugin}: config.redis_{name} is deprecated, please use config.redis.{name} instead"
    deprecation = {"message": words, "removal_in_version": "4.0", "replaced_with": [{"path": ["redis", name]}]}
    return Shorthand(
        kind(deprecation=deprecation, **attrs),
        lambda value: {"redis": {name: value}},
        lambda config: config["redis"][name],
    )


def lower_later(limits: Row) -> str | None:
    """What is wrong where a longer period has a lower limit than a shorter one."""
    periods = [name for name in PERIODS if isinstance(limits.get(name), int | float)]
    for at, shorter in enumerate(periods):
        for longer in periods[at + 1 :]:
            if limits[longer] < limits[shorter]:
                return (
                    f"limit for {longer}({limits[longer]:.1f}) cannot be lower than"
                    f" the limit for {shorter}({limits[shorter]:.1f})"
                )
    return None


def _limits_in_order(conf: Row) -> str | None:
    """No lower limit for a longer period; a sync_rate only with policy redis."""
    lower = lower_later(conf)
    if lower is not None:
        return f"The {lower}"
    rate = conf.get("sync_rate")
    if conf.get("policy") != "redis" and rate != -1:
        return "sync_rate can only be used with the redis policy"
    if conf.get("policy") == "redis" and rate != -1 and (rate is None or rate < 0.02):
        return "sync_rate must be greater than 0.02, or -1 to disable"
    return None


def requires(if_field: str, value: str, then_field: str) -> Conditional:
    """Where ``if_field`` has the value, ``then_field`` must have one."""
    shown = {
        "if_field": if_field, "if_match": {"eq": value}, "then_field": then_field, "then_match": {"required": True},
    }  # fmt: skip
    return Conditional(if_field, String(one_of=[value]), then_field, Any_(required=True), shown)


CONFIG = ConfigRecord(
    {
        **{name: Number(gt=0, text=f"Requests let through per {name}; null: no limit.") for name in PERIODS},
        "limit_by": String(
            default="consumer", one_of=["consumer", "credential", "ip", "service", "header", "path"],
            text="What is counted apart; where a request has none such its client's address counts.",
        ),
        "header_name": String(checks=(header_name,), text="The header for limit_by header."),
        "path": String(
            starts_with="/", match_none=SEGMENTS, checks=(path,), text="The request path for limit_by path."
        ),
        "policy": String(
            default="local", one_of=["local", "cluster", "redis"], len_min=0,
            text="Where requests are counted: on each node, for all nodes in the database, or for all in Redis.",
        ),
        "fault_tolerant": Boolean(
            required=True, default=True, text="Let requests pass where the counts are not to be had; false: answer 500."
        ),
        "redis": Record(REDIS, text="The Redis server of policy redis."),
        "hide_client_headers": Boolean(required=True, default=False, text="Tell clients nothing about their limits."),
        "error_code": Number(default=429, gt=0, text="HTTP status of refusals."),
        "error_message": String(default="API rate limit exceeded", text="Message of refusals."),
        "sync_rate": Number(
            required=True, default=-1, text="Seconds between updates of Redis (policy redis), at least 0.02; -1: at each request."
        ),
    },
    checks=(_limits_in_order,),
    shorthands=former_names("rate-limiting"),
)  # fmt: skip


CONFIG_CHECKS = (
    AtLeastOneOf(*(f"config.{name}" for name in PERIODS)),
    requires("config.policy", "redis", "config.redis.host"),
    requires("config.policy", "redis", "config.redis.port"),
    requires("config.policy", "redis", "config.redis.timeout"),
    requires("config.limit_by", "header", "config.header_name"),
    requires("config.limit_by", "path", "config.path"),
)
