"""PostgreSQL: the contract of storage with a real server, and several nodes on one database."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor

from kongtwist.storage.postgres import PostgresStorage
from kongtwist.storage.postgres_migrations import PostgresMigrations
from tests.live.postgres_server import shared_server
from tests.unit import storage_contract as contract


class PostgresTestCase(contract.StorageTestCase):
    """Tables of its own for each test."""

    def make_storage(self) -> PostgresStorage:
        self.server = shared_server()
        self.schema = self.server.new_schema()
        self.settings = self.server.settings(schema=self.schema)
        PostgresMigrations(self.settings, self.fail).bootstrap()
        return self.another()

    def another(self, **settings: Any) -> PostgresStorage:
        """Storage on the same tables."""
        return PostgresStorage(
            self.server.settings(schema=self.schema, **settings), self.entities, reactor, **self.options
        )


class PostgresWriteTests(PostgresTestCase, contract.WriteContract):
    """Single writes."""


class PostgresPageTests(PostgresTestCase, contract.PageContract):
    """Lists."""


class PostgresConcurrencyTests(PostgresTestCase, contract.ConcurrencyContract):
    """Writes that come together."""
