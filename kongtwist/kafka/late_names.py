"""Names of kafka-python, which is imported when the first of them is used: in a thread of the reader or producer that uses it. It
would keep the reactor's thread for a tenth of a second.

Use ``late_names.TopicPartition``: an import of the name from here would import the library at once.

One thread at a time may import it, whichever way (`LOADING`). Its modules import each other in circles: two threads that come in at
different ends get modules that are not complete, and the process can never use it again.
"""

from __future__ import annotations

from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING, Any

LOADING = RLock()
"""Held by who imports the library, or a module of ours that does."""

if TYPE_CHECKING:
    from kafka import ConsumerRebalanceListener as ConsumerRebalanceListener
    from kafka import KafkaConsumer as KafkaConsumer
    from kafka import TopicPartition as TopicPartition
    from kafka.errors import KafkaError as KafkaError
    from kafka.errors import OffsetOutOfRangeError as OffsetOutOfRangeError
    from kafka.net.compat import KafkaNetClient as KafkaNetClient
    from kafka.structs import OffsetAndMetadata as OffsetAndMetadata

    from .connection_settings import client_options as client_options
    from .repairs import finish_rejoining as finish_rejoining
    from .repairs import has_to_join as has_to_join
    from .repairs import topic_ids as topic_ids
else:
    _PLACES = {
        "ConsumerRebalanceListener": "kafka",
        "KafkaConsumer": "kafka",
        "KafkaError": "kafka.errors",
        "KafkaNetClient": "kafka.net.compat",
        "OffsetAndMetadata": "kafka.structs",
        "OffsetOutOfRangeError": "kafka.errors",
        "TopicPartition": "kafka",
        "client_options": "kongtwist.kafka.connection_settings",
        "finish_rejoining": "kongtwist.kafka.repairs",
        "has_to_join": "kongtwist.kafka.repairs",
        "topic_ids": "kongtwist.kafka.repairs",
    }

    def __getattr__(name: str) -> Any:
        place = _PLACES.get(name)
        if place is None:
            raise AttributeError(name)
        with LOADING:
            value = globals()[name] = getattr(import_module(place), name)
        return value
