"""The kit for testing plugins: no reactor, no sockets, no gateway, a clock that stands still.

    harness = PluginHarness(KeyAuth, hide_credentials=True)
    harness.store("consumers", id="c1", username="bob")
    harness.store("keyauth_credentials", id="k1", key="secret", consumer={"id": "c1"})
    outcome = harness.send("GET", "/?apikey=secret")
    assert outcome.answer is None and outcome.consumer["username"] == "bob"

The configuration goes through the plugin's own schema, so defaults are filled in and a wrong one raises
`kongtwist.entities.errors.EntityError`, whose `body` is what the Admin API would answer. What a plugin raises comes out as it is.

Where a plugin waits, the outcome is `Outcome.waiting` until what it waits for has come; `PluginHarness.advance` makes time pass.
``harness.host`` is what a configuration is opened with: each of its services keeps what is asked of it, and answers as told.
"""

from __future__ import annotations

from .grpc_stand_ins import GRPCRequest, StandInCall, StandInGRPC
from .harness import NOW, Configured, PluginHarness, StandInStream
from .outcome import Outcome, StoredRows, finished
from .stand_ins import (
    HTTPRequest,
    StandInConnection,
    StandInDatagrams,
    StandInHost,
    StandInHTTP,
    StandInMetrics,
    StandInQueue,
    StandInRedis,
    StandInRows,
    StandInTallies,
)

__all__ = [
    "NOW", "Configured", "GRPCRequest", "HTTPRequest", "Outcome", "PluginHarness", "StandInCall", "StandInConnection", "StandInDatagrams",
    "StandInGRPC", "StandInHTTP", "StandInHost", "StandInMetrics", "StandInQueue", "StandInRedis", "StandInRows", "StandInStream",
    "StandInTallies", "StoredRows", "finished",
]  # fmt: skip
