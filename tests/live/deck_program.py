"""decK itself against the Admin API, for machines that have it: ``python -m twisted.trial tests.live.deck_program``.

Not part of the suite, for the registries that CI installs from do not offer decK; the suite has the requests that it makes
(`tests.live.test_deck_traffic`). Set ``DECK`` to the program, if it is not in the path.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unittest import SkipTest

import yaml

from kongtwist.storage.postgres.postgres_migrations import PostgresMigrations
from tests.live.deck_file import everything
from tests.live.postgres_server import shared_server
from tests.live.support import PATIENCE, GatewayProcess, LiveTestCase

KINDS = (
    "services", "routes", "upstreams", "consumers", "plugins", "certificates", "snis", "ca_certificates", "key-auths",
    "jwts", "basic-auths", "hmac-auths", "acls", "oauth2", "vaults", "keys", "key-sets",
)  # fmt: skip


class Done:
    """A decK command that has ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.output = done.stdout + done.stderr
        found = dict(re.findall(r"(Created|Updated|Deleted): (\d+)", done.stdout))
        self.summary = tuple(int(found.get(name, -1)) for name in ("Created", "Updated", "Deleted"))

    def __repr__(self) -> str:
        return f"<Done {self.code} {self.output[-3000:]}>"


class DeckTests(LiveTestCase):
    """On SQLite."""

    def setUp(self) -> None:
        found = os.environ.get("DECK") or shutil.which("deck")
        if found is None:
            raise SkipTest("no deck")
        self.program = found
        self.home = self.folder()
        self.at = self.started()

    def started(self) -> GatewayProcess:
        """A gateway with an empty storage."""
        return self.gateway()

    def deck(self, *words: str, at: GatewayProcess | None = None) -> Done:
        """One decK command."""
        address = f"http://127.0.0.1:{(at or self.at).admin_port}"
        env = {**os.environ, "HOME": self.home, "DECK_ANALYTICS": "off", "DECK_KONG_ADDR": address}
        command = [self.program, *words, "--analytics=false"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE * 2, check=False)
        return Done(done)

    def ok(self, *words: str, at: GatewayProcess | None = None) -> Done:
        """One decK command that must succeed."""
        done = self.deck(*words, at=at)
        self.assertEqual(done.code, 0, done)
        return done

    def write(self, content: Any, name: str = "kong.yaml") -> str:
        """A file for decK; returns its path."""
        path = Path(self.home, name)
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        return str(path)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """All that is stored."""
        return {
            kind: sorted(self.at.admin("GET", f"/{kind}?size=1000").json["data"], key=lambda row: str(row["id"]))
            for kind in KINDS
        }

    def dumped(self, *words: str) -> str:
        """What ``deck gateway dump`` writes."""
        path = os.path.join(self.home, "dump.yaml")
        self.ok("gateway", "dump", "-o", path, "--yes", *words)
        return Path(path).read_text()

    def test_round_trip(self) -> None:
        """sync, diff, sync, dump, reset, sync, dump: nothing is left to do after each, and the dumps are the same."""
        self.assertIn("3.9.3", self.ok("gateway", "ping").output)
        wanted = everything()
        enabled = self.at.admin("GET", "/plugins/enabled").json["enabled_plugins"]
        nested = [
            each for kind in ("services", "consumers") for one in wanted[kind] for each in (one, *one.get("routes", []))
        ]
        used = {plugin["name"] for each in (wanted, *nested) for plugin in each.get("plugins", [])}
        self.assertEqual(used, set(enabled))
        path = self.write(wanted)
        self.ok("gateway", "validate", path)
        self.ok("file", "validate", path)
        made = self.ok("gateway", "sync", path)
        stored = self.rows()
        for kind, rows in stored.items():
            self.assertTrue(rows, kind)
        targets = self.at.admin("GET", "/upstreams/up/targets").json["data"]
        self.assertEqual(made.summary, (sum(map(len, stored.values())) + len(targets), 0, 0))
        self.assertEqual(self.ok("gateway", "diff", "--non-zero-exit-code", path).summary, (0, 0, 0))
        self.assertEqual(self.ok("gateway", "sync", path).summary, (0, 0, 0))
        self.assertEqual(self.rows(), stored)  # updated_at too
        first = self.dumped()
        self.ok("gateway", "reset", "--force")
        self.assertEqual({kind: rows for kind, rows in self.rows().items() if rows}, {})
        self.ok("gateway", "sync", self.write(yaml.safe_load(first), "again.yaml"))
        hashed = re.compile(r"(password: )[0-9a-f]{40}")  # decK sends a hash as a password, which is hashed again
        self.assertEqual(hashed.sub(r"\1", self.dumped()), hashed.sub(r"\1", first))
        self.assertEqual(self.ok("gateway", "diff", "--non-zero-exit-code", path).summary, (0, 0, 0))

    def test_dump_without_database(self) -> None:
        """What decK dumps loads unchanged as the declarative file of a gateway without a database."""
        self.ok("gateway", "sync", self.write(everything()))
        file = os.path.join(self.home, "dump.yaml")
        for words in ((), ("--with-id",)):
            self.dumped(*words)
            other = self.gateway({"database": "off", "declarative_config": file})
            for kind, rows in self.rows().items():
                loaded = other.admin("GET", f"/{kind}?size=1000").json["data"]
                self.assertEqual(len(loaded), len(rows), kind)
                if words:
                    self.assertEqual({row["id"] for row in loaded}, {row["id"] for row in rows}, kind)
            if not words:  # with ids decK finds the name of a key's set, which it writes itself, to be a difference
                found = self.ok("gateway", "diff", "--non-zero-exit-code", file, at=other)
                self.assertEqual(found.summary, (0, 0, 0))
            refused = self.deck("gateway", "reset", "--force", at=other)
            self.assertEqual(refused.code, 1, refused)
            self.assertIn("when not using a database", refused.output)

    def test_tags(self) -> None:
        """select_tags: the file's rows are tagged, others are left alone by sync, dump and reset."""
        kept = self.at.create("/services", name="not-decks", url="http://h.example")
        path = self.write(everything("team-a"))
        self.ok("gateway", "sync", path)
        self.assertEqual(self.ok("gateway", "diff", "--non-zero-exit-code", path).summary, (0, 0, 0))
        for kind, rows in self.rows().items():
            for row in rows:
                if row["id"] != kept["id"]:
                    self.assertIn("team-a", row["tags"], kind)
        self.assertNotIn("not-decks", self.dumped("--select-tag", "team-a"))
        self.ok("gateway", "reset", "--force", "--select-tag", "team-a")
        left = {kind: [row["id"] for row in rows] for kind, rows in self.rows().items() if rows}
        self.assertEqual(left, {"services": [kept["id"]]})

    def test_one_change(self) -> None:
        """One changed field is one update; of one row only the time of its change moves."""
        wanted = everything()
        self.ok("gateway", "sync", self.write(wanted))
        before = self.rows()
        changed = copy.deepcopy(wanted)
        changed["services"][0]["plugins"][0]["config"]["minute"] = 6
        path = self.write(changed)
        found = self.deck("gateway", "diff", "--non-zero-exit-code", path)
        self.assertEqual((found.code, found.summary), (2, (0, 1, 0)), found)
        self.assertEqual(self.rows(), before)
        self.assertEqual(self.ok("gateway", "sync", path).summary, (0, 1, 0))
        after = self.rows()
        differing = [
            (kind, {name for name in new if new[name] != old[name]})
            for kind in KINDS
            for old, new in zip(before[kind], after[kind], strict=True)
            if new != old
        ]
        self.assertLessEqual(differing[0][1], {"config", "updated_at"})
        self.assertEqual([kind for kind, _ in differing], ["plugins"])

    def test_deletes(self) -> None:
        """A service that leaves the file takes its routes and plugins along, in an order that Kong allows."""
        wanted = everything()
        self.ok("gateway", "sync", self.write(wanted))
        gone = {**wanted, "services": wanted["services"][1:]}
        path = self.write(gone)
        self.assertEqual(self.ok("gateway", "sync", path).summary, (0, 0, 11))
        self.assertEqual([row["name"] for row in self.rows()["services"]], ["two"])
        self.assertEqual(self.ok("gateway", "diff", "--non-zero-exit-code", path).summary, (0, 0, 0))

    def test_many_at_once(self) -> None:
        """300 services with a route each, by ten (decK's default), thirty and one connection."""
        many = [
            {"name": f"s{n}", "url": f"http://h{n}.example", "routes": [{"name": f"r{n}", "paths": [f"/p{n}"]}]}
            for n in range(300)
        ]
        content = {"_format_version": "3.0", "services": many}
        for parallel in ("10", "30", "1"):
            path = self.write(content)
            self.assertEqual(self.ok("gateway", "sync", "--parallelism", parallel, path).summary, (600, 0, 0))
            self.assertEqual(self.ok("gateway", "diff", "--non-zero-exit-code", path).summary, (0, 0, 0))
            self.ok("gateway", "reset", "--force")

    def test_faults(self) -> None:
        """What Kong would refuse is refused in its words, which decK shows."""
        unknown = {"_format_version": "3.0", "plugins": [{"name": "nonsense"}]}
        wrong = {"_format_version": "3.0", "plugins": [{"name": "rate-limiting", "config": {"minute": -1}}]}
        text = "plugin 'nonsense' not enabled; add it to the 'plugins' configuration property"
        for content, message in ((wrong, "value must be greater than 0"), (unknown, "nonsense")):
            path = self.write(content)
            for command in ("validate", "sync"):
                done = self.deck("gateway", command, path)
                self.assertEqual(done.code, 1, done)
                self.assertIn(message, done.output)
        self.assertEqual(self.rows()["plugins"], [])
        answer = self.at.admin("POST", "/plugins", json={"name": "nonsense"})
        self.assertIn(text, answer.json["message"])


class DeckOnPostgresTests(DeckTests):
    """On PostgreSQL."""

    def started(self) -> GatewayProcess:
        server = shared_server()
        settings = server.settings(schema=server.new_schema())
        PostgresMigrations(settings, self.fail).bootstrap()
        return self.gateway(server.conf(pg_schema=settings.schema))
