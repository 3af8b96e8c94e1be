"""What plugins that send through a queue have in common: the record ``queue`` and its deprecated forerunners (Kong 3.9,
``kong/tools/queue_schema.lua``)."""

from __future__ import annotations

from typing import Any

from .schema import Field, Integer, Number, Record, Row

__all__ = ["batch_rules", "former_queue_fields", "queue_record"]


def queue_record(**attrs: Any) -> Record:
    """The configuration of a queue. ``attrs``: of the record, such as a default."""
    pause = [0.001, 1000000]
    return Record(
        {
            "max_batch_size": Integer(default=1, between=[1, 1000000], text="Most entries that are sent at once."),
            "max_coalescing_delay": Number(
                default=1, between=[0, 3600],
                text="Seconds after the first entry that a batch may wait to be filled; max_batch_size 1 never waits.",
            ),
            "max_entries": Integer(
                default=10000, between=[1, 1000000], text="Most entries that wait; for more the oldest are dropped."
            ),
            "max_bytes": Integer(text="Most bytes that wait; null: only max_entries counts."),
            "max_retry_time": Number(
                default=60, text="Seconds after which a batch that cannot be sent is given up; -1: it is tried once."
            ),
            "initial_retry_delay": Number(
                default=0.01, between=pause, text="Seconds before the first retry; each further one waits twice as long."
            ),
            "max_retry_delay": Number(default=60, between=pause, text="Seconds between two retries at the most."),
            "concurrency_limit": Integer(
                default=1, one_of=[-1, 1], text="1: batches are sent one after the other. -1: each entry at once, alone."
            ),
        },
        text="How entries wait and are sent again.",
        **attrs,
    )  # fmt: skip


def former_queue_fields(plugin: str) -> dict[str, Field]:
    """The forerunners of ``queue``, deprecated.

    Args:
        plugin: whose they are.
    """

    def deprecated(message: str, default: int) -> dict[str, Any]:
        return {"message": f"{plugin}: config.{message}", "removal_in_version": "4.0", "old_default": default}

    return {
        "retry_count": Integer(
            deprecation=deprecated("retry_count no longer works, please use config.queue.max_retry_time instead", 10),
            text="Has no effect.",
        ),
        "queue_size": Integer(
            deprecation=deprecated("queue_size is deprecated, please use config.queue.max_batch_size instead", 1),
            text="Stands for queue.max_batch_size unless it is 1; null: that one holds.",
        ),
        "flush_timeout": Number(
            deprecation=deprecated("flush_timeout is deprecated, please use config.queue.max_coalescing_delay instead", 2),
            text="Seconds; stands for queue.max_coalescing_delay unless it is 2; null: that one holds.",
        ),
    }  # fmt: skip


def batch_rules(conf: Row) -> tuple[Row, list[str]]:
    """The members of ``queue`` with what the deprecated fields say, and sentences about those that are used.

    Args:
        conf: the plugin's configuration with ``queue`` and some of the deprecated fields.
    """
    rules: dict[str, Any] = dict(conf["queue"])
    sentences = []
    if conf.get("retry_count") not in (None, 10):
        sentences.append("config.retry_count no longer works, use config.queue.max_retry_time instead")
    for old, former, new in (("queue_size", 1, "max_batch_size"), ("flush_timeout", 2, "max_coalescing_delay")):
        value = conf.get(old)
        if value is not None and value != former:
            rules[new] = value
            sentences.append(f"config.{old} is deprecated, use config.queue.{new} instead")
    return rules, sentences
