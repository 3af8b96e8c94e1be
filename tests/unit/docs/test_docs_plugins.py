"""docs/plugins.md: what it shows is run."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import types
import unittest
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist import api
from kongtwist.core.chain import phases
from kongtwist.core.chain.host import Host
from kongtwist.core.chain.phases import PHASES
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.testing import finished
from tests.documents import blocks, page_text
from tests.places import ROOT

DOCUMENT = (ROOT / "docs" / "plugins.md").read_text()
CONTRACT_DOCUMENT = "docs/plugin-contract.md"


class PluginGuideTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.plugin_code, self.test_code = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
        self.load(self.plugin_code)

    def load(self, code: str) -> None:
        """Make it the module that the test imports."""
        self.module: Any = types.ModuleType("opening_hours")
        self.patch(sys, "modules", {**sys.modules, "opening_hours": self.module})
        exec(compile(code, "docs/plugins.md: plugin", "exec"), vars(self.module))

    def outcome(self) -> unittest.TestResult:
        """What the test shown finds."""
        test: Any = types.ModuleType("test_opening_hours")
        exec(compile(self.test_code, "docs/plugins.md: test", "exec"), vars(test))
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(test.OpeningHoursTests).run(result)
        self.assertEqual(result.testsRun, 1)
        return result

    def test_twenty_lines(self) -> None:
        """The plugin shown fits in about twenty lines, and so does its test."""
        self.assertLessEqual(len(self.plugin_code.splitlines()), 24)
        self.assertLessEqual(len(self.test_code.splitlines()), 20)

    def test_the_test_passes(self) -> None:
        """The test shown runs, and finds nothing wrong with the plugin shown."""
        result = self.outcome()
        self.assertEqual(result.errors + result.failures, [])

    def test_the_test_can_fail(self) -> None:
        """The same test on a plugin that lets everybody pass fails."""
        broken = self.plugin_code.replace('conf["opens"] * 3600', "0")
        self.assertNotEqual(broken, self.plugin_code)
        self.load(broken)
        self.assertFalse(self.outcome().wasSuccessful())

    def test_it_loads(self) -> None:
        """The value of ``plugins`` shown works."""
        (names,) = re.findall(r"^plugins = (bundled,\S+:\S+)$", DOCUMENT, re.MULTILINE)
        self.assertIn("opening-hours", load_plugins(names.split(",")))

    def test_phases(self) -> None:
        """The table has every phase, in the order they run."""
        table = DOCUMENT.partition("| phase | when |")[2].partition("\n\n")[0]
        self.assertEqual(tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)), PHASES)

    def test_table_of_bundled_plugins(self) -> None:
        """Name and priority of each bundled plugin, in the order they run."""
        rows = re.findall(r"^\| `([a-z0-9-]+)` \| (-?\d+) \|", DOCUMENT, re.MULTILINE)
        loaded = [(name, str(plugin.priority)) for name, plugin in load_plugins(["bundled"]).items()]
        self.assertEqual(rows, loaded)


class ContractTests(SynchronousTestCase):
    """docs/plugin-contract.md: each example is a program that checks itself."""

    def test_examples(self) -> None:
        """They run, and what they assert holds."""
        examples = [block for block in blocks(CONTRACT_DOCUMENT) if block.language == "python"]
        self.assertGreater(len(examples), 4)
        for block in examples:
            self.assertIn("\nassert ", block.text, block.where)
            code = compile(block.text, block.where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            run = types.FunctionType(code, {"__name__": "example"})()
            if inspect.isawaitable(run):
                finished(run)

    def test_every_phase(self) -> None:
        """Each phase is explained in one of the two documents; what may be returned is in kongtwist.api."""
        text = DOCUMENT + page_text(CONTRACT_DOCUMENT)
        for phase in PHASES:
            self.assertTrue(f"`{phase}`" in text, phase)
        for name in phases.__all__:
            if name != "PHASES":
                self.assertTrue(name in text, name)
                self.assertIn(name, api.__all__)

    def test_host(self) -> None:
        """The table has everything that a host gives."""
        table = page_text(CONTRACT_DOCUMENT).partition("| of the host |")[2].partition("\n\n")[0]
        told = set(re.findall(r"`(\w+)", "".join(line.split("|")[1] for line in table.splitlines()[2:])))
        given = {name for name in vars(Host) if not name.startswith("_")}
        self.assertEqual(told - {"now", "report"}, given)
