"""The requests that decK makes, made again.

``tests/contract/deck_traffic.json`` has every request of a decK 1.64.0 that worked on this gateway (`tests.live.deck_program`
drives one): ``gateway ping``, ``validate``, ``sync`` of a file with an entity of every kind, a ``diff`` that was empty,
``sync`` of four changes, another empty ``diff``, ``validate`` of a file with a plugin that is not there, ``dump`` and
``reset``. Beside each request is how it was answered; where rows were listed, the rows, times left out. A diff is empty as
long as these rows are, for decK compares them by itself.
"""

from __future__ import annotations

import json
from typing import Any

from kongtwist.storage.postgres.postgres_migrations import PostgresMigrations
from tests.live.postgres_server import shared_server
from tests.live.support import Answer, GatewayProcess, LiveTestCase
from tests.places import CONTRACT

RECORDED = json.loads((CONTRACT / "deck_traffic.json").read_text())
TIMES = ("created_at", "updated_at")
COMING = frozenset(("/acls", "/basic-auths", "/hmac-auths", "/jwts", "/oauth2"))
"""Credentials of plugins that were not built when this was recorded: listing them is a 404, or an empty list."""
KEPT = ("services", "routes", "consumers", "plugins", "upstreams", "key-auths", "certificates", "snis")


class DeckTrafficTests(LiveTestCase):
    """On SQLite."""

    def started(self) -> GatewayProcess:
        """A gateway with an empty storage."""
        return self.gateway()

    def rows(self, at: GatewayProcess) -> list[Any]:
        """What is stored, times of changes included."""
        return [at.admin("GET", f"/{kind}").json["data"] for kind in KEPT]

    def compare(self, call: dict[str, Any], answer: Answer) -> None:
        """Fail unless a request is answered as it was."""
        name = f"{call['method']} {call['path']}"
        if call["path"].partition("?")[0] in COMING and answer.status == 200:
            self.assertEqual(answer.json["data"], [], name)
            return
        self.assertEqual(answer.status, call["status"], f"{name}: {answer}")
        if "rows" in call:
            page = answer.json
            self.assertIsNone(page["next"], name)
            rows = [{member: row[member] for member in row if member not in TIMES} for row in page["data"]]
            self.assertEqual(sorted(rows, key=lambda row: str(row["id"])), call["rows"], name)
        if "answer" in call:
            self.assertEqual(answer.json, call["answer"], name)

    def test_commands(self) -> None:
        """Each request is answered as when decK made it; commands that only look change nothing."""
        at = self.started()
        made = 0
        for step in RECORDED["steps"]:
            before = self.rows(at)
            for call in step["calls"]:
                self.compare(call, at.admin(call["method"], call["path"], json=call.get("body")))
                made += 1
            changes = step["command"] in ("sync", "change", "reset")
            self.assertEqual(self.rows(at) != before, changes, step["command"])
        self.assertGreater(made, 250)
        self.assertEqual(self.rows(at), [[]] * len(KEPT))


class DeckTrafficOnPostgresTests(DeckTrafficTests):
    """On PostgreSQL."""

    def started(self) -> GatewayProcess:
        server = shared_server()
        settings = server.settings(schema=server.new_schema())
        PostgresMigrations(settings, self.fail).bootstrap()
        return self.gateway(server.conf(pg_schema=settings.schema))
