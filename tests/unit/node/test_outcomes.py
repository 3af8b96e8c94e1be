"""What a node tells of its last reload."""

from __future__ import annotations

import errno
import os
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.node.outcomes import (
    Drained,
    DrainOrder,
    Outcome,
    drain_ordered,
    forget_order,
    forget_outcomes,
    how_drained,
    last_outcome,
    order_drain,
    take_drain_order,
    write_drained,
    write_outcome,
)


class OutcomeTests(SynchronousTestCase):
    """Written and read."""

    def setUp(self) -> None:
        self.prefix = self.mktemp()
        os.mkdir(self.prefix)

    def test_there_and_back(self) -> None:
        """What was written is read; for its owner only; nothing else is left."""
        outcome = Outcome(3, 2, "/etc/kong.conf", "bad:\nworse", ("prefix", "database"))
        write_outcome(self.prefix, outcome)
        self.assertEqual(last_outcome(self.prefix), outcome)
        (name,) = os.listdir(self.prefix)
        self.assertEqual(os.stat(os.path.join(self.prefix, name)).st_mode & 0o777, 0o600)
        forget_outcomes(self.prefix)
        self.assertIsNone(last_outcome(self.prefix))
        forget_outcomes(self.prefix)

    def test_full_disk(self) -> None:
        """There is no room for another file: a command that waits is told all the same, where a file is there."""
        full = patch("os.replace", side_effect=OSError(errno.ENOSPC, "No space left on device"))
        with full:
            self.assertRaises(OSError, write_outcome, self.prefix, Outcome(1))
        write_outcome(self.prefix, Outcome(3, 3, "/etc/kong.conf", "a long sentence that says why"))
        for outcome in (Outcome(4, 3, "/etc/kong.conf", "one that is longer than what is there, " * 9), Outcome(4, 4)):
            with full:
                write_outcome(self.prefix, outcome)
            self.assertEqual(last_outcome(self.prefix), outcome)
        with patch("os.replace", side_effect=OSError(errno.EROFS, "Read-only file system")):
            self.assertRaises(OSError, write_outcome, self.prefix, Outcome(5))
        self.assertEqual(last_outcome(self.prefix), Outcome(4, 4))

    def test_nobody_has_told(self) -> None:
        """A file of something else is no outcome; a folder that is not there is none, either."""
        self.assertIsNone(last_outcome(self.prefix + "/none"))
        write_outcome(self.prefix, Outcome())
        (name,) = os.listdir(self.prefix)
        for text in ("", "[]", "{}", '{"asked": 1, "number": 1, "source": null, "error": null, "later": 1}'):
            with open(os.path.join(self.prefix, name), "w") as file:
                file.write(text)
            self.assertIsNone(last_outcome(self.prefix))

    def test_orders(self) -> None:
        """An order is taken once; what is no order is none, and is gone; one can be taken back."""
        self.assertIsNone(take_drain_order(self.prefix))
        order_drain(self.prefix, DrainOrder(1.5, 60, False))
        self.assertTrue(drain_ordered(self.prefix))
        self.assertEqual(take_drain_order(self.prefix), DrainOrder(1.5, 60, False))
        self.assertFalse(drain_ordered(self.prefix))
        self.assertIsNone(take_drain_order(self.prefix))
        order_drain(self.prefix, DrainOrder(1, 2))
        forget_order(self.prefix)
        self.assertIsNone(take_drain_order(self.prefix))
        for text in ("", "{}", '{"delay": "x", "timeout": 1, "stop": true}'):
            with open(os.path.join(self.prefix, "drain.json"), "w") as file:
                file.write(text)
            self.assertIsNone(take_drain_order(self.prefix))
            self.assertEqual(os.listdir(self.prefix), [])

    def test_drained(self) -> None:
        """How a drain ended."""
        self.assertIsNone(how_drained(self.prefix))
        write_drained(self.prefix, Drained(2, 3))
        self.assertEqual(how_drained(self.prefix), Drained(2, 3))
        forget_outcomes(self.prefix)
        self.assertIsNone(how_drained(self.prefix))
