"""`kongtwist.streams.stream_errors`: which ends of a WebSocket are told, and as whose fault."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.streams.stream_errors import broken, fault_of
from kongtwist.streams.websocket_frames import FrameTracker, encode_close

MASK = b"abcd"


def ended(client: list[bytes] = [], upstream: list[bytes] = [], **changes: Any) -> Any:  # noqa: B006
    """A stream that is over: what went by from the client, then from the upstream."""
    ours, theirs = FrameTracker(), FrameTracker()
    order = (
        ((theirs, upstream), (ours, client))
        if changes.pop("upstream_first", False)
        else ((ours, client), (theirs, upstream))
    )
    for tracker, pieces in order:
        for piece in pieces:
            tracker.feed(piece)
    facts = {"fault": None, "left_first": None, "ended_here": False, **changes}
    return SimpleNamespace(client=SimpleNamespace(tracker=ours), upstream=SimpleNamespace(tracker=theirs), **facts)


class FaultTests(SynchronousTestCase):
    """What an end tells."""

    def test_in_order(self) -> None:
        """Codes of ordinary ends, and those of applications, are no fault; nor is what the gateway ends."""
        for code in (1000, 1001, 3000, 4400):
            stream = ended([encode_close(code, "", MASK)], [encode_close(code)], left_first=True)
            self.assertIsNone(fault_of(stream), code)
        self.assertIsNone(fault_of(ended([b"\x88\x80abcd"], [b"\x88\x00"])))
        self.assertIsNone(fault_of(ended([encode_close(1011, "", MASK)], ended_here=True)))
        self.assertIsNone(fault_of(ended()))

    def test_first_close_counts(self) -> None:
        """Who closes first tells; the answer repeats the code."""
        one, other = encode_close(1002, "", MASK), encode_close(1002)
        first = fault_of(ended([one], [other]))
        second = fault_of(ended([one], [other], upstream_first=True))
        assert first is not None and second is not None
        self.assertIn("the client closed it with 1002 (protocol error): the upstream sent", first.what)
        self.assertIn("the upstream closed it with 1002 (protocol error): the client sent", second.what)
        self.assertEqual((first.by_client, second.by_client), (False, True))

    def test_codes(self) -> None:
        """Each code of a failure is told with its number; who fails of himself is at fault himself."""
        for code in (1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014):
            fault = fault_of(ended([], [encode_close(code, "why")]))
            assert fault is not None
            self.assertTrue(fault.what.startswith(f"websocket broken: the upstream closed it with {code} ("), fault)
            self.assertTrue(fault.remedy)
            self.assertEqual(fault.by_client, code not in (1011, 1012, 1013, 1014))

    def test_no_close(self) -> None:
        """An end without a Close frame is told, unless something was told before."""
        for by_client, side in ((True, "client"), (False, "upstream")):
            fault = fault_of(ended(left_first=by_client))
            assert fault is not None
            self.assertEqual(fault.what, f"websocket broken: the {side} ended it without a Close frame (1006)")
            self.assertEqual(fault.by_client, by_client)
        told = broken(False, "reset")
        self.assertIs(fault_of(ended(left_first=True, fault=told)), told)
