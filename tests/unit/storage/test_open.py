"""Which back end a configuration names, and how the properties of PostgreSQL are understood."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.load import Conf, ConfError
from kongtwist.config.shown import shown as shown_conf
from kongtwist.storage.open import check_database, migrations_for, postgres_settings, storage_for
from kongtwist.storage.postgres.sql_connections import PostgresSettings, reason

PEM = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"


class DatabaseCase(SynchronousTestCase):
    """Configurations in a folder of the test's own."""

    def setUp(self) -> None:
        self.prefix = os.path.abspath(self.mktemp())

    def conf(self, **given: str) -> Conf:
        """A configuration with these properties."""
        return Conf({"prefix": self.prefix, "database": "postgres", **given})

    def file(self, text: str) -> str:
        """A file with this text."""
        path: str = os.path.abspath(self.mktemp())
        Path(path).write_text(text)
        return path


class BackEndTests(DatabaseCase):
    """``database``."""

    def test_each(self) -> None:
        reactor: Any = Clock()
        for name in ("off", "sqlite", "postgres"):
            self.assertEqual(storage_for(self.conf(database=name), {}, reactor).kind, name)

    def test_migrations(self) -> None:
        """What can be migrated, and what cannot."""
        told: list[str] = []
        self.assertIn("kongtwist.sqlite", migrations_for(self.conf(database="sqlite"), dict, 1, 1, told.append).where)
        self.assertEqual(
            migrations_for(self.conf(pg_database="d"), dict, 1, 1, told.append).where,
            "the database d at 127.0.0.1:5432",
        )
        self.assertRaises(ConfError, migrations_for, self.conf(database="off"), dict, 1, 1, told.append)


class PostgresTests(DatabaseCase):
    """``pg_*``."""

    def test_defaults(self) -> None:
        """Nothing set: Kong's values, and our own where Kong has none."""
        self.assertEqual(postgres_settings(self.conf()), PostgresSettings())

    def test_units(self) -> None:
        """Milliseconds become seconds; numbers that are there replace those that are not."""
        settings = postgres_settings(
            self.conf(
                pg_host="h", pg_port="1", pg_database="d", pg_user="u", pg_password="p", pg_schema="s", pg_timeout="1500",
                pg_pool_size="9", pg_max_concurrent_queries="3", pg_semaphore_timeout="250", pg_backlog="0",
                pg_keepalive_timeout="500", db_update_frequency="0.5", pg_changes_kept="7",
            )
        )  # fmt: skip
        expected = PostgresSettings(
            host="h", port=1, database="d", user="u", password="p", schema="s", timeout=1.5, pool_size=9,
            max_concurrent_queries=3, semaphore_timeout=0.25, backlog=0, keepalive=0.5, poll=0.5, changes_kept=7,
        )  # fmt: skip
        self.assertEqual(settings, expected)

    def test_tls(self) -> None:
        """Never less than was asked for."""
        file = self.file(PEM)
        for given, mode in (
            ({}, "disable"),
            ({"pg_ssl_verify": "on"}, "disable"),
            ({"pg_ssl": "on"}, "require"),
            ({"pg_ssl": "on", "pg_ssl_verify": "on", "lua_ssl_trusted_certificate": file}, "verify-full"),
        ):
            parameters = postgres_settings(self.conf(**given)).parameters()
            self.assertEqual(parameters["sslmode"], mode)
            self.assertEqual(parameters.get("sslrootcert"), file if mode == "verify-full" else None)
        for text, versions in (("TLSv1.3 TLSv1.2", ("TLSv1.2", "TLSv1.3")), ("TLSv1.3", ("TLSv1.3", "TLSv1.3"))):
            parameters = postgres_settings(self.conf(pg_ssl="on", lua_ssl_protocols=text)).parameters()
            found = parameters["ssl_min_protocol_version"], parameters["ssl_max_protocol_version"]
            self.assertEqual(found, versions)
        self.assertNotIn("ssl_min_protocol_version", postgres_settings(self.conf()).parameters())

    def test_copy(self) -> None:
        """Each property of the copy that is not set is the database's own."""
        given = {
            "pg_host": "h", "pg_port": "1", "pg_database": "d", "pg_user": "u", "pg_password": "p", "pg_schema": "s",
            "pg_timeout": "1500", "pg_ssl": "on", "pg_pool_size": "9", "pg_max_concurrent_queries": "3",
            "pg_semaphore_timeout": "250", "pg_backlog": "0", "pg_keepalive_timeout": "500", "db_update_propagation": "0.5",
        }  # fmt: skip
        self.assertIsNone(postgres_settings(self.conf(**given, pg_ro_port="2")).copy)
        whole = postgres_settings(self.conf(**given, pg_ro_host="r"))
        self.assertEqual((whole.host, whole.read_only, whole.propagation), ("h", False, 0.5))
        self.assertEqual(whole.copy, replace(whole, host="r", read_only=True, copy=None))
        other = self.conf(
            **given, pg_ro_host="r", pg_ro_port="2", pg_ro_database="d2", pg_ro_user="u2", pg_ro_password="p2",
            pg_ro_schema="s2", pg_ro_timeout="2500", pg_ro_ssl="off", pg_ro_pool_size="8",
            pg_ro_max_concurrent_queries="0", pg_ro_semaphore_timeout="350", pg_ro_backlog="7", pg_ro_keepalive_timeout="600",
        )  # fmt: skip
        expected = PostgresSettings(
            host="r", port=2, database="d2", user="u2", password="p2", schema="s2", timeout=2.5, ssl=False, pool_size=8,
            max_concurrent_queries=0, semaphore_timeout=0.35, backlog=7, keepalive=0.6, read_only=True, propagation=0.5,
        )  # fmt: skip
        self.assertEqual(postgres_settings(other).copy, expected)
        self.assertEqual(expected.where, "the read-only database d2 at r:2")
        self.assertEqual(expected.parameters()["target_session_attrs"], "any")
        self.assertEqual(shown_conf(other)["pg_ro_password"], "******")

    def test_tls_of_the_copy(self) -> None:
        """It is verified by itself; authorities that cannot be read stop the start."""
        file = self.file(PEM)
        given = {"pg_ssl": "on", "pg_ro_host": "r", "lua_ssl_trusted_certificate": file}
        copy = postgres_settings(self.conf(**given, pg_ro_ssl_verify="on")).copy
        assert copy is not None
        self.assertEqual((copy.parameters()["sslmode"], copy.trusted), ("verify-full", file))
        for verify in ({"pg_ro_ssl_verify": "on"}, {"pg_ssl_verify": "on"}):
            conf = self.conf(**{**given, "lua_ssl_trusted_certificate": "/none"}, **verify)
            with self.assertRaisesRegex(ConfError, "lua_ssl_trusted_certificate"):
                check_database(conf)
        check_database(self.conf(**{**given, "lua_ssl_trusted_certificate": "/none"}, pg_ro_ssl_verify="off"))

    def test_several_authorities(self) -> None:
        """They are put together in one file, each time anew."""
        one, two = self.file(PEM), self.file(PEM.replace("MA", "MB"))
        for files in (f"{one},{two}", f"{two},{one}"):
            conf = self.conf(pg_ssl="on", pg_ssl_verify="on", lua_ssl_trusted_certificate=files)
            trusted = postgres_settings(conf).trusted
            assert trusted is not None
            self.assertEqual(
                Path(trusted).read_text().split(), "".join(Path(f).read_text() for f in files.split(",")).split()
            )

    def test_unusable_authorities(self) -> None:
        """A sentence that names the property."""
        for file, sentence in (("/none", "cannot be read"), (self.file("x"), "without certificates")):
            conf = self.conf(pg_ssl="on", pg_ssl_verify="on", lua_ssl_trusted_certificate=file)
            with self.assertRaisesRegex(ConfError, f"lua_ssl_trusted_certificate .*{sentence}"):
                postgres_settings(conf)

    def test_password(self) -> None:
        """Nothing that is shown or said has it."""
        conf = self.conf(pg_password="geheim")
        self.assertEqual(shown_conf(conf)["pg_password"], "******")
        settings = postgres_settings(conf)
        self.assertNotIn("geheim", f"{settings} {settings!r} {settings.where}")

    def test_reasons(self) -> None:
        """One line of a driver's many."""
        text = "connection failed: connection to server failed: Connection refused\n\tIs the server running?\n"
        self.assertEqual(reason(OSError(text)), "connection to server failed: Connection refused")
        self.assertEqual(reason(TimeoutError()), "TimeoutError")
