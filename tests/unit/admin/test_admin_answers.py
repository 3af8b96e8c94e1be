"""Answers of the Admin API that take long to write: beside the reactor, and the same text as those that do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin.openapi.path import OpenAPI
from kongtwist.admin.replies import encoded, refusal_of
from kongtwist.core.long_work import AtOnce
from kongtwist.entities import EntityError

from .test_openapi import admin, resolve

MANY = {f"k{number}": "unknown field" for number in range(5000)}


class Noting(AtOnce):
    """Does at once what is asked for, and counts what would have gone to the thread."""

    def __init__(self) -> None:
        self.asked = 0

    async def aside(self, work: Callable[..., Any], *args: Any) -> Any:
        self.asked += 1
        return work(*args)


class LongAnswerTests(SynchronousTestCase):
    def told(self, error: EntityError) -> tuple[bytes, int]:
        work = Noting()
        body = self.successResultOf(Deferred.fromCoroutine(refusal_of(error, work))).body
        return body if isinstance(body, bytes) else encoded(body), work.asked

    def test_refusals(self) -> None:
        for fields, asked in (
            ({"host": "required field missing"}, 0),
            ({"config": {"a\n\u6f22": ["x", {"b": None}]}, "@entity": ["y"]}, 0),
            (MANY, 1),
            ({"host": "z", "config": MANY, "paths": ["w"] * 5000}, 1),
            ({"config": {"redis": MANY, "a": []}}, 1),
        ):
            error = EntityError.schema_violation(fields)
            text, times = self.told(error)
            self.assertEqual((text, times), (encoded(error.body()), asked))

    def test_the_openapi_document_is_made_once(self) -> None:
        resource, work = cast(OpenAPI, resolve(admin(), "/openapi.json")), Noting()
        call = cast(Any, type("Call", (), {"long_work": work}))
        for _ in range(2):
            reply = self.successResultOf(Deferred.fromCoroutine(resource._get(call)))
            self.assertEqual(json.loads(reply.body)["openapi"], "3.1.0")
        self.assertEqual(work.asked, 1)
