"""Ids of topics for consumers of librdkafka, which tell none: a topic that was deleted and made anew is known by its other id.

An admin client of the same library tells them. Consumers of one connection share one; it ends with the last of them. It does not wait
but where a consumer begins: then its reader waits for brokers anyway.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from twisted.logger import Logger

from .positions import topic_mark

__all__ = ["SharedTopicIds", "TopicIds"]

_log = Logger(namespace="kongtwist.kafka")

_AGE = 5.0
"""Seconds for which an id holds before it is asked for again: so late it may be known that a topic is another."""
_ANSWER = 5.0
"""Seconds in which brokers have to tell."""
_FORGET = 60.0
"""Seconds after which nothing is kept of a topic that nobody asks about."""
_NOT_THERE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)


class TopicIds:
    """Those of one connection. Called in threads of readers; answers come in one of the library's.

    Args:
        options: of the library.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._admin: Any = None
        self._lock = threading.Lock()
        self._asked: dict[str, float] = {}
        self._marks: dict[str, str] = {}
        self._is_silent = False  # brokers have not answered the last question that was waited for

    def ask(self, topic: str) -> None:
        """Ask brokers for the id, and wait. Where they do not tell, nobody waits for them again before they have told something."""
        (told,) = self._look([topic])
        if self._is_silent:
            return
        error = told.exception()
        if error is not None and not _is_final(error):  # the broker that was asked has gone: another one is
            (told,) = self._look([topic])
            error = told.exception()
        if error is not None and not _is_not_there(error):
            self._is_silent = True
            _log.warn(
                "brokers do not tell the id of the topic {topic}: that it was made anew may stay unnoticed. {error}",
                topic=topic,
                error=error,
            )

    def known(self, topics: Iterable[str]) -> dict[str, str]:
        """Ids as brokers have told them lately; asks again for what is old, and does not wait."""
        topics = tuple(topics)
        late = time.monotonic() - _AGE
        with self._lock:
            old = [topic for topic in topics if self._asked.get(topic, late) <= late]
        if old:
            self._look(old)
        return {topic: mark for topic in topics if (mark := self._marks.get(topic)) is not None}

    def expire(self) -> None:
        """Something is amiss: ask again as soon as somebody wants to know."""
        with self._lock:
            self._asked.clear()

    def _look(self, topics: list[str]) -> list[Future[Any]]:
        now = time.monotonic()
        with self._lock:
            for each in [topic for topic, at in self._asked.items() if at < now - _FORGET]:
                del self._asked[each]
                self._marks.pop(each, None)
            self._asked.update(dict.fromkeys(topics, now))
            if self._admin is None:
                self._admin = AdminClient(self._options)
            self._admin.poll(0)  # takes what the library has to say, which would wait in memory for ever
            told = self._admin.describe_topics(TopicCollection(topics), request_timeout=_ANSWER)
        for topic, answer in told.items():
            answer.add_done_callback(partial(self._told, topic))
        return [told[topic] for topic in topics]

    def _told(self, topic: str, answer: Future[Any]) -> None:
        error = answer.exception()
        if error is None:
            self._is_silent = False
            mark = _mark(answer.result().topic_id)
            if mark is not None:
                self._marks[topic] = mark
        elif _is_not_there(error):
            self._is_silent = False
            self._marks.pop(topic, None)
        # Other failures change nothing: brokers that are away are told of by who reads, and are asked again.

    def close(self) -> None:
        """Give the connections back."""
        with self._lock:
            self._admin = None  # that is how the library ends a client


def _is_not_there(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in _NOT_THERE


def _is_final(error: BaseException) -> bool:
    """Whether asking once more would tell no more, or take as long again."""
    return not isinstance(error, KafkaException) or error.args[0].code() in (*_NOT_THERE, KafkaError._TIMED_OUT)


def _mark(told: Any) -> str | None:
    """The mark of the library's id; None: brokers before Kafka 2.8 have none."""
    if told is None:
        return None
    high, low = told.get_most_significant_bits(), told.get_least_significant_bits()
    number = ((high & (1 << 64) - 1) << 64) | (low & (1 << 64) - 1)
    return topic_mark(uuid.UUID(int=number)) if number else None


class SharedTopicIds:
    """One `TopicIds` for each connection that somebody uses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: dict[object, tuple[TopicIds, int]] = {}

    def take(self, key: object, options: dict[str, Any]) -> TopicIds:
        """That of a connection.

        Args:
            key: the same for the same connection; `give` wants it, too.
            options: of the library.
        """
        with self._lock:
            ids, users = self._used.get(key, (None, 0))
            if ids is None:
                ids = TopicIds(options)
            self._used[key] = (ids, users + 1)
        return ids

    def give(self, key: object) -> None:
        """It is not wanted any more."""
        with self._lock:
            ids, users = self._used.pop(key)
            if users > 1:
                self._used[key] = (ids, users - 1)
                return
        ids.close()
