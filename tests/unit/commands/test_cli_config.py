"""kongtwist config where it opens no database: checking files, the example, and what an import would write."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.commands.config_command import EXAMPLE, import_plan
from kongtwist.entities import EntityError, registry
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.storage.declarative.dataset import declared
from kongtwist.storage.row_store import RowStore
from tests.places import CONTRACT

from .cli_kit import CommandTestCase

RECORDED = CONTRACT / "observed_cli"
HINT = "\n\n  Run with --v (verbose) or --vv (debug) for more details\n"
BAD = '_format_version: "3.0"\nservices:\n- name: a b\n  port: x\n'
GOOD = '_format_version: "3.0"\nservices:\n- name: a\n  host: h\n'
NOW = 1_000_000


def recorded(name: str) -> tuple[int, str]:
    """Exit code and output of Kong's command, without what nginx says."""
    text = (RECORDED / f"{name}.txt").read_text()
    output, code = re.fullmatch(r"\$ [^\n]*\n(.*?)\n?rc=(\d+)\n*", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return int(code), re.sub(r"(?m)^\d{4}/.* \[warn\] .*\n", "", output)


class ConfigTests(CommandTestCase):
    environ = {"KONG_DATABASE": "off"}

    def run_command(self, *words: str) -> tuple[int, str, str]:
        """Of ``kongtwist config``."""
        return super().run_command("config", *words)

    def test_parse(self) -> None:
        """A good file; output and exit code as recorded."""
        code, output = recorded("parse-ok")
        self.assertEqual(self.run_command("parse", self.file(GOOD)), (code, output + "\n", ""))

    def test_parse_faults(self) -> None:
        """All faults with their places, as recorded."""
        code, output = recorded("parse-bad")
        self.assertEqual(self.run_command("parse", self.file(BAD)), (code, "", output.rstrip("\n") + "\n"))

    def test_parse_what_is_no_file(self) -> None:
        for text, words in (("a: [", "1:4: did not find expected node content"), ("- 1", "expected an object")):
            code, _, err = self.run_command("parse", self.file(text))
            self.assertEqual(
                (code, err), (1, f"Error: Failed parsing:\nfailed parsing declarative configuration: {words}{HINT}")
            )
        code, _, err = self.run_command("parse", "/nonexistent.yml")
        self.assertEqual((code, err), (1, f"Error: Failed parsing:\n/nonexistent.yml: No such file or directory{HINT}"))
        code, _, err = self.run_command("parse")
        self.assertIn("expected a declarative configuration file", err)
        code, _, err = self.run_command("parse", "-c", "/nonexistent.conf", self.file(GOOD))
        self.assertEqual(code, 1)

    def test_commands(self) -> None:
        """Each command of Kong's is there, and another one is refused."""
        help_ = self.run_command("--help")[1]
        for name in re.findall(r"(?m)^  (\w+) ", recorded("config-help")[1]):
            self.assertIn(name, help_)
        for words in ((), ("frob",), ("parse", "a", "b")):
            self.assertEqual(self.run_command(*words)[0], 1)

    def test_example(self) -> None:
        """It is a valid file, with and without what is commented out; one that is there is not overwritten."""
        path: str = self.mktemp()
        self.assertEqual(self.run_command("init", path), (0, "", ""))
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.assertEqual(self.run_command("parse", path)[0], 0)
        rows = re.sub(r"(?m)^# (services:|consumers:|plugins:|-|  )", r"\1", EXAMPLE.partition("_transform: true")[2])
        self.assertEqual(
            self.run_command("parse", self.file('_format_version: "3.0"\n' + rows))[:2], (0, "parse successful\n")
        )
        self.assertIn("keyauth_credentials", rows)
        code, _, err = self.run_command("init", path)
        self.assertEqual((code, err), (1, f"Error: {path} already exists; will not overwrite it{HINT}"))
        code, _, err = self.run_command("init", "/nonexistent/kong.yml")
        self.assertEqual(
            (code, err), (1, f"Error: /nonexistent/kong.yml cannot be written: No such file or directory{HINT}")
        )

    def test_without_a_database(self) -> None:
        for words in (("db_import", self.file(GOOD)), ("db_export", self.mktemp()), ("db-import", self.file(GOOD))):
            code, out, err = self.run_command(*words)
            self.assertEqual((code, out), (1, ""))
            self.assertIn("only works with a database", err)


class ImportTests(SynchronousTestCase):
    """What a file means for rows that are there."""

    def setUp(self) -> None:
        self.entities = registry(load_plugins(["bundled"]))
        self.store = RowStore(self.entities)

    def imported(self, now: int = NOW, **file: Any) -> int:
        """How many rows an import changes; they are changed then."""
        rows = declared({"_format_version": "3.0", **file}, self.entities, now=now)
        count, changes = import_plan(rows, now)(self.store)
        self.store.apply(changes)
        return count

    def rows(self) -> str:
        return json.dumps({name: dict(rows) for name, rows in self.store.dataset().items()}, sort_keys=True)

    def test_rows_are_replaced_or_created(self) -> None:
        """Rows that are not in the file stay; times are kept; an equal file changes nothing."""
        services: list[dict[str, Any]] = [
            {"name": "a", "host": "h", "routes": [{"paths": ["/"]}]},
            {"name": "b", "host": "h"},
        ]
        self.assertEqual(self.imported(services=services), 3)
        self.assertEqual(self.imported(NOW + 5, services=services), 0)
        services[0]["host"] = "other"
        self.assertEqual(self.imported(NOW + 9, services=services[:1], consumers=[{"username": "u"}]), 2)
        found = {row["name"]: row for row in self.store.dataset()["services"].values()}
        self.assertEqual([(row["host"], row["created_at"], row["updated_at"]) for row in (found["a"], found["b"])],
                         [("other", NOW, NOW + 9), ("h", NOW, NOW)])  # fmt: skip

    def test_all_or_nothing(self) -> None:
        """A row that cannot be written leaves everything as it was, and is named."""
        self.imported(services=[{"name": "a", "host": "h", "id": "0fc2b8a3-4d0a-4e4f-8a6a-3a3ad3cd5a01"}])
        before = self.rows()
        for services in ([{"name": "x", "host": "h"}, {"name": "a", "host": "h"}], [{"name": "a", "host": "h"}]):
            with self.assertRaises(EntityError) as refused:
                self.imported(services=services)
            self.assertEqual(
                refused.exception.message, "in 'services' 'a': UNIQUE violation detected on '{name=\"a\"}'"
            )
            self.assertEqual(self.rows(), before)
