"""What a node tells of its last reload."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.outcomes import Outcome, forget_outcome, last_outcome, write_outcome


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
        forget_outcome(self.prefix)
        self.assertIsNone(last_outcome(self.prefix))
        forget_outcome(self.prefix)

    def test_nobody_has_told(self) -> None:
        """A file of something else is no outcome; a folder that is not there is none, either."""
        self.assertIsNone(last_outcome(self.prefix + "/none"))
        write_outcome(self.prefix, Outcome())
        (name,) = os.listdir(self.prefix)
        for text in ("", "[]", "{}", '{"asked": 1, "number": 1, "source": null, "error": null, "later": 1}'):
            with open(os.path.join(self.prefix, name), "w") as file:
                file.write(text)
            self.assertIsNone(last_outcome(self.prefix))
