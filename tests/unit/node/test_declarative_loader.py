"""How long reading a declarative configuration may take."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.node.declarative_loader import LARGE, PATIENCE, time_for


class TimeTests(SynchronousTestCase):
    def test_with_the_size(self) -> None:
        """A hundred thousand consumers (12 MB) are not given up on a busy machine as if they were ten."""
        self.assertEqual(time_for(0), PATIENCE)
        self.assertEqual(time_for(LARGE), PATIENCE)
        self.assertEqual(time_for(3 * LARGE), 3 * PATIENCE)
