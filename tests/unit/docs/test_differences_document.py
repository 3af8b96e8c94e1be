"""docs/kong-differences.md: what the lists of the tests make."""

from __future__ import annotations

import json
import re

from twisted.trial.unittest import SynchronousTestCase

from tests.differences_document import CONTRACT, document
from tests.documents import ROOT


class DifferencesTests(SynchronousTestCase):
    """The page."""

    def test_not_stale(self) -> None:
        """The file is what the lists make; renew it with: make docs."""
        written = (ROOT / "docs" / "kong-differences.md").read_text(encoding="utf-8")
        self.assertEqual(written, document(), "run make docs")

    def test_complete(self) -> None:
        """Every reason of every list is told, and every wilful difference has its line or is counted."""
        page = document().replace("\\", "").lower()
        for name in ("deviations", "admin_differs", "dbless_differs"):
            cases = json.loads((CONTRACT / f"{name}.json").read_text(encoding="utf-8"))
            for case in cases:
                self.assertIn(case["why"].rstrip(".").lower(), page, case["case"])
        counted = sum(int(number) for number in re.findall(r":\*\* (\d+) recorded answers", page))
        shown = page.partition("answered otherwise")[2].count("\n- ")
        total = sum(
            len(json.loads((CONTRACT / f"{name}.json").read_text(encoding="utf-8")))
            for name in ("deviations", "admin_differs", "dbless_differs")
        )
        self.assertEqual(counted + shown, total)
