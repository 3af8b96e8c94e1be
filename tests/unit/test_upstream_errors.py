"""What the error log says of upstreams."""

from __future__ import annotations

from twisted.internet import error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.protocols.upstream_errors import reason_of


class ReasonTests(SynchronousTestCase):
    """`reason_of`."""

    def test_plain(self) -> None:
        self.assertEqual(reason_of(Failure(error.ConnectionRefusedError())), "Connection was refused by other side.")

    def test_wrapped(self) -> None:
        """One that ended while it was made: Twisted puts a failure where others have a text."""
        wrapped = Failure(error.ConnectError(string=Failure(error.ConnectionDone())))
        self.assertEqual(reason_of(wrapped), "Connection was closed cleanly.")
