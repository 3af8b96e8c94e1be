"""docs/reference: what the declarations make."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.commands.reference_pages import documents
from kongtwist.entities import registry
from kongtwist.node.plugin_loader import load_plugins
from tests.places import ROOT

FOLDER = ROOT / "docs" / "reference"


class ReferenceTests(SynchronousTestCase):
    """The pages."""

    def test_not_stale(self) -> None:
        """The files are what the declarations make, no more and no less; renew them with: make docs."""
        written = {str(path.relative_to(FOLDER)): path.read_text() for path in FOLDER.rglob("*.md")}
        made = documents()
        self.assertEqual(sorted(written), sorted(made))
        for name, text in made.items():
            self.assertEqual(written[name], text, f"{name}: run make docs")

    def test_complete(self) -> None:
        """Each entity and plugin has its page, each field its row with a meaning."""
        plugins, pages = load_plugins(["bundled"]), documents()
        for name, plugin in plugins.items():
            self.assertIn(f"Priority: {plugin.priority} ", pages[f"plugins/{name}.md"])
        for entity in registry(plugins).values():
            if not entity.stored:
                continue
            for field in entity.fields:
                self.assertRegex(pages[f"{entity.name}.md"], rf"(?m)^\| `{field}` \|.*\| \S[^|]*\|$")

    def test_tables(self) -> None:
        """Each row of a table has as many cells as its head."""
        for name, text in documents().items():
            width = 0
            for line in text.splitlines():
                cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
                if cells and width:
                    self.assertEqual(cells, width, f"{name}: {line}")
                width = cells

    def test_links(self) -> None:
        """Links between pages lead to pages."""
        pages = documents()
        for name, text in pages.items():
            for link in re.findall(r"\]\(([^)]*)\)", text):
                self.assertTrue((FOLDER / name).parent.joinpath(link).resolve().exists(), f"{name}: {link}")
