"""kongtwist config with real databases: files in and out again, beside gateways that run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.live.support import PATIENCE, ROOT, GatewayProcess, wait_until
from tests.live.test_declarative import DECK
from tests.live.test_postgres_nodes import NodesTestCase

KINDS = ("services", "routes", "plugins", "consumers", "key-auths", "upstreams", "upstreams/backend/targets")


class ConfigCommandTests(NodesTestCase):
    def run_config(self, gateway: GatewayProcess, *words: str) -> tuple[int, str, str]:
        """``kongtwist config`` with the gateway's configuration: exit code, output, complaints."""
        program = "import sys; from kongtwist.commands.main import main; sys.exit(main())"
        conf = os.path.join(gateway.folder, "kong.conf")
        done = subprocess.run(
            [sys.executable, "-c", program, "config", *words, "-c", conf, "-p", gateway.prefix],
            capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=gateway.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def file(self, gateway: GatewayProcess, text: str) -> str:
        path = Path(gateway.folder, "given.yml")
        path.write_text(text)
        return str(path)

    def rows(self, gateway: GatewayProcess) -> dict[str, Any]:
        return {kind: gateway.admin("GET", f"/{kind}").json["data"] for kind in KINDS}

    def test_sqlite(self) -> None:
        """Import is refused while a gateway uses the file, export is not; what is exported is imported as the same rows."""
        gateway = self.gateway()
        path = self.file(gateway, DECK)
        code, out, err = self.run_config(gateway, "db_import", path)
        self.assertEqual((code, out), (1, "parse successful, beginning import\n"))
        self.assertIn("is in use by another gateway", err)
        gateway.stop()
        self.assertEqual(
            self.run_config(gateway, "db_import", path),
            (0, "parse successful, beginning import\nimport successful\n", ""),
        )
        gateway.start()
        rows = self.rows(gateway)
        self.assertEqual([row["tags"] for found in rows.values() for row in found], [["team-a"]] * 8)
        gateway.create("/services", name="later", host="h")
        self.assertEqual(self.run_config(gateway, "db_export", "out.yml"), (0, "", ""))
        exported = Path(gateway.folder, "out.yml")
        self.assertEqual(exported.stat().st_mode & 0o777, 0o600)
        self.assertIn("name: later", exported.read_text())
        self.assertEqual(self.run_config(gateway, "parse", str(exported))[0], 0)
        rows = self.rows(gateway)
        gateway.stop()
        self.assertEqual(self.run_config(gateway, "db_import", str(exported))[0], 0)
        self.assertEqual(self.run_config(gateway, "db_export", "again.yml")[0], 0)
        self.assertEqual(Path(gateway.folder, "again.yml").read_text(), exported.read_text())
        Path(gateway.prefix, "kongtwist.sqlite").unlink()  # into an empty one, too
        self.assertEqual(self.run_config(gateway, "db_import", str(exported))[0], 0)
        gateway.start()
        self.assertEqual(self.rows(gateway), rows)

    def test_sqlite_all_or_nothing(self) -> None:
        """A row that is in the way of another one's name stops the import, and nothing of it is written."""
        gateway = self.gateway()
        gateway.create("/services", name="chat", host="h")
        gateway.stop()
        code, _, err = self.run_config(gateway, "db_import", self.file(gateway, DECK))
        self.assertEqual(
            (code, err.splitlines()[:2]),
            (1, ["Error: Failed importing:", "in 'services' 'chat': UNIQUE violation detected on '{name=\"chat\"}'"]),
        )
        gateway.start()
        self.assertEqual(
            [len(gateway.admin("GET", f"/{kind}").json["data"]) for kind in KINDS[:-1]], [1, 0, 0, 0, 0, 0]
        )

    def test_postgres(self) -> None:
        """Import and export while a gateway runs, which sees the rows as it sees any other node's."""
        gateway = self.gateway(self.database())
        self.assertEqual(self.run_config(gateway, "db_import", self.file(gateway, DECK))[0], 0)
        wait_until(lambda: gateway.admin("GET", "/consumers/alice/key-auth").json.get("data"), "the import on the node")
        rows = self.rows(gateway)
        self.assertEqual(sum(map(len, rows.values())), 8)
        self.assertEqual(self.run_config(gateway, "db_export", "out.yml"), (0, "", ""))
        self.assertEqual(self.run_config(gateway, "db-import", "out.yml")[0], 0)
        self.assertEqual(self.rows(gateway), rows)
