"""Which traces are sent."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.tracing.sampling import is_sampled


class SamplingTests(SynchronousTestCase):
    def test_id_decides(self) -> None:
        """The first 8 bytes, as a number whose last byte counts most, against the share."""
        for first, rate, expected in (
            (b"\xff" * 8, 1, True),
            (b"\x00" * 8, 0, False),
            (b"\xff" * 7 + b"\x7f", 0.5, True),
            (b"\x00" * 7 + b"\x80", 0.5, False),
            (b"\xff" * 7 + b"\x02", 0.0117, False),
            (b"\xff" * 7 + b"\x01", 0.0117, True),
            (b"\xff" * 8, 0.999, False),
        ):
            self.assertIs(is_sampled(first + b"\x01" * 8, rate), expected, (first, rate))
