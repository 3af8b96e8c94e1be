"""What the tests of the transforming plugins share: an answer's way through one plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kongtwist.core.chain.phases import WholeBody
from kongtwist.core.exchange import Answer
from kongtwist.core.http.head import HeaderBlock
from kongtwist.testing import Outcome, PluginHarness

__all__ = ["Sent", "answer_of", "respond"]


@dataclass
class Sent:
    """What the client gets."""

    returned: Any  #: what header_filter gave
    fields: dict[bytes, tuple[bytes, ...]]
    body: bytes
    answer: Answer | None = None  #: in place of the upstream's


def answer_of(harness: PluginHarness, outcome: Outcome, body: bytes = b"") -> Answer | None:
    """The plugin's answer: of access, or of its filter when the body passes in pieces of 100 bytes."""
    if outcome.answer is not None:
        return outcome.answer
    if not body:
        return None
    harness.upload(outcome, [body[at : at + 100] for at in range(0, len(body), 100)])
    assert outcome.answer is not None or outcome.passed == body
    return outcome.answer


def respond(harness: PluginHarness, outcome: Outcome, status: int, headers: Mapping[str, str], body: bytes) -> Sent:
    """The upstream answers."""
    exchange = outcome.exchange
    exchange.status = exchange.upstream_status = status
    exchange.response_fields = HeaderBlock.from_pairs([(n.encode(), v.encode()) for n, v in headers.items()])
    returned: Any = harness.plugin.header_filter(exchange, harness.conf)
    answer = None
    if isinstance(returned, WholeBody):
        if len(body) > returned.limit:
            answer = returned.too_large() if returned.too_large is not None else None
        else:
            made = returned.call(body)
            if isinstance(made, Answer):
                answer = made
            else:
                body = made
    return Sent(returned, exchange.answer_fields(), body, answer)
