"""``kongtwist migrations`` on real databases: outputs, exit codes, locks, and upgrades in two steps."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from kongtwist.storage.base import StorageError
from kongtwist.storage.postgres.postgres_migrations import MIGRATIONS, Migration, PostgresMigrations
from kongtwist.storage.postgres.sql_connections import Connection
from tests.live.postgres_server import PASSWORD, PostgresServer, shared_server
from tests.live.support import PATIENCE, ROOT, LiveTestCase, free_port, wait_until

HINT = "\n\n  Run with --v (verbose) or --vv (debug) for more details\n"
NAMES = [each.name for each in MIGRATIONS]
ALL = ", ".join(NAMES)
COMMAND = [sys.executable, "-c", "import sys; from kongtwist.commands.main import main; sys.exit(main())"]


class CommandCase(LiveTestCase):
    """The command with a configuration file of its own."""

    def configure(self, **conf: object) -> None:
        """Write the file."""
        self.prefix = os.path.join(self.folder(), "prefix")
        self.conf = os.path.join(self.folder(), "kong.conf")
        given = {"prefix": self.prefix, "proxy_listen": f"127.0.0.1:{free_port()}", "admin_listen": "off", **conf}
        Path(self.conf).write_text("".join(f"{name} = {value}\n" for name, value in given.items()))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KONG_")}
        self.environ = {**kept, "PYTHONPATH": str(ROOT)}

    def run_command(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        done = subprocess.run(
            [*COMMAND, *words, "-c", self.conf],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, env=self.environ,
        )  # fmt: skip
        self.assertNotIn("Traceback", done.stderr)
        self.assertNotIn(PASSWORD, done.stdout + done.stderr)
        return done.returncode, done.stdout, done.stderr

    def migrations(self, *words: str) -> tuple[int, str]:
        """Exit code and output of ``migrations``; errors without their hint."""
        code, out, err = self.run_command("migrations", *words)
        return code, out + err.removesuffix(HINT)


class SQLiteTests(CommandCase):
    """The commands on a file."""

    def setUp(self) -> None:
        self.configure()
        self.where = f"the database {self.prefix}/kongtwist.sqlite"

    def test_life(self) -> None:
        """From nothing to tables and back."""
        self.assertEqual(
            self.migrations("list"), (3, "Database needs bootstrapping; run 'kongtwist migrations bootstrap'\n")
        )
        self.assertEqual(self.migrations("status"), (0, '{"needs_bootstrap":true}\n'))
        for words in (["up"], ["finish"]):
            code, told = self.migrations(*words)
            self.assertEqual(
                (code, told), (1, f"Error: {self.where} has no tables yet; run 'kongtwist migrations bootstrap'")
            )
        self.assertEqual(self.migrations("reset", "--yes"), (1, "Database not bootstrapped, nothing to reset\n"))
        self.assertEqual(self.migrations("bootstrap"), (0, f"Bootstrapped {self.where}: {ALL}\n"))
        self.assertEqual(self.migrations("bootstrap"), (0, "Database already bootstrapped\n"))
        self.assertEqual(self.migrations("up"), (0, "Database is already up-to-date\n"))
        self.assertEqual(self.migrations("up", "-f"), (0, f"Migrated {self.where}: {ALL}\n"))
        self.assertEqual(self.migrations("finish"), (0, "No pending migrations to finish\n"))
        self.assertEqual(self.migrations("list"), (0, f"Executed migrations:\n    core: {ALL}\n"))
        code, told = self.migrations("status")
        executed = [{"namespace": "kongtwist.storage", "subsystem": "core", "migrations": NAMES}]
        self.assertEqual((code, json.loads(told)), (0, {"executed_migrations": executed, "needs_bootstrap": False}))
        self.assertEqual(self.migrations("list", "--quiet"), (0, ""))
        self.assertEqual(self.migrations("reset", "-y"), (0, f"Dropped everything in {self.where}\n"))
        self.assertEqual(self.migrations("list", "-q")[0], 3)

    def test_questions(self) -> None:
        """Reset asks, unless told not to; without a terminal it does not guess."""
        self.migrations("bootstrap")
        self.assertEqual(
            self.migrations("reset"), (1, "Error: not a tty: confirm with --yes that everything is to be dropped")
        )
        for answer, code in (("n", 1), ("y", 0)):
            ours, theirs = pty.openpty()
            process = subprocess.Popen(
                [*COMMAND, "migrations", "reset", "-c", self.conf],
                stdin=theirs,
                stdout=subprocess.PIPE,
                env=self.environ,
            )
            os.close(theirs)
            os.write(ours, f"{answer}\n".encode())
            out, _ = process.communicate(timeout=PATIENCE)
            os.close(ours)
            self.assertEqual(process.returncode, code, out)

    def test_file_in_use(self) -> None:
        """The file of a running gateway is neither dropped nor made anew."""
        gateway = self.gateway()
        self.configure(prefix=gateway.prefix)
        for words in (["reset", "-y"], ["bootstrap", "--force"], ["up", "--force"]):
            code, told = self.migrations(*words)
            self.assertEqual(code, 1)
            self.assertIn("in use by another gateway", told)
        self.assertEqual(self.migrations("list")[0], 0)
        gateway.create("/services", name="a", host="h")

    def test_no_database(self) -> None:
        """database = off has none."""
        self.configure(database="off")
        self.assertEqual(self.migrations("up"), (1, "Error: database = off has no tables: there is nothing to migrate"))

    def test_usage(self) -> None:
        """Wrong words return 1."""
        for words in ([], ["roar"], ["list", "--db-timeout", "soon"], ["list", "--lock-timeout", "0"]):
            done = subprocess.run([*COMMAND, "migrations", *words], capture_output=True, text=True, env=self.environ)
            self.assertEqual(done.returncode, 1)
            self.assertIn("usage: ", done.stderr)


class PostgresTests(CommandCase):
    """The commands on a server."""

    def setUp(self) -> None:
        self.database = shared_server()
        self.schema = self.database.new_schema()
        self.configure(**self.database.conf(pg_schema=self.schema))
        self.where = f"the database kong at {self.database.folder}"

    def steps(self, *migrations: Migration) -> PostgresMigrations:
        """Migrations of a later version."""
        settings = self.database.settings(schema=self.schema)
        return PostgresMigrations(settings, self.fail, migrations=[*MIGRATIONS, *migrations])

    def test_life(self) -> None:
        """From nothing to tables and back; the rows of other programs are let be."""
        self.assertEqual(self.migrations("list")[0], 3)
        self.assertEqual(self.migrations("bootstrap"), (0, f"Bootstrapped {self.where}: {ALL}\n"))
        self.assertEqual(self.migrations("bootstrap"), (0, "Database already bootstrapped\n"))
        with closing(Connection(self.database.settings(schema=self.schema))) as connection:
            connection.execute("CREATE TABLE routes (id text)")
            connection.execute("INSERT INTO kongtwist_rows VALUES ('services', 'x', '{}')")
            self.assertEqual(self.migrations("up", "--force"), (0, f"Migrated {self.where}: {ALL}\n"))
            self.assertEqual(connection.execute("SELECT count(*) FROM kongtwist_rows"), [(1,)])
            self.assertEqual(self.migrations("bootstrap", "--force")[0], 0)
            self.assertEqual(connection.execute("SELECT count(*) FROM kongtwist_rows"), [(0,)])
            self.assertEqual(self.migrations("reset", "--yes")[0], 0)
            self.assertEqual(
                connection.execute(
                    "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
                ),
                [("routes",)],
            )
        self.assertEqual(self.migrations("list", "-q")[0], 3)

    def test_upgrade(self) -> None:
        """New steps are begun by up and finished by finish; nodes of both versions run in between."""
        self.migrations("bootstrap")
        later = self.steps(
            Migration("801_more", "ALTER TABLE kongtwist_rows ADD COLUMN IF NOT EXISTS more text", "SELECT 1"),
            Migration("802_most", "SELECT 1"),
        )
        self.assertEqual(later.state().new, ["801_more", "802_most"])
        self.assertEqual(later.up(), ["801_more", "802_most"])
        state = later.state()
        self.assertEqual((state.executed, state.pending, state.new), ([*NAMES, "802_most"], ["801_more"], []))
        self.assertEqual(later.up(force=True), [*NAMES, "801_more", "802_most"])
        self.assertEqual(later.state(), state)
        self.assertEqual(later.finish(), ["801_more"])
        self.assertEqual((later.state().executed, later.finish()), ([*NAMES, "801_more", "802_most"], []))
        for command in ("bootstrap", "up", "finish"):
            code, told = self.migrations(command)
            self.assertEqual(code, 1)
            self.assertIn("was migrated by a newer kongtwist (it has 801_more, 802_most)", told)
        self.assertIn(
            "Migrations of a newer kongtwist: upgrade this one\n    core: 801_more, 802_most",
            self.migrations("list")[1],
        )

    def test_upgrade_of_the_first_tables(self) -> None:
        """What was made before there were tallies: a new node says what to do, and up does it beside nodes that run."""
        self.migrations("bootstrap")
        with closing(Connection(self.database.settings(schema=self.schema))) as connection:
            connection.execute("DROP TABLE kongtwist_tallies")
            connection.execute("DELETE FROM kongtwist_migrations WHERE name = '001_tallies'")
            connection.execute("INSERT INTO kongtwist_rows VALUES ('services', 'x', '{}')")
            code, _, told = self.run_command("start")
            self.assertEqual(code, 1)
            self.assertIn("needs the migrations 001_tallies; run 'kongtwist migrations up'", told)
            self.assertEqual(self.migrations("list")[0], 5)
            self.assertEqual(self.migrations("up"), (0, f"Migrated {self.where}: 001_tallies\n"))
            self.assertEqual(self.migrations("list"), (0, f"Executed migrations:\n    core: {ALL}\n"))
            self.assertEqual(connection.execute("SELECT count(*) FROM kongtwist_tallies"), [(0,)])
            self.assertEqual(connection.execute("SELECT count(*) FROM kongtwist_rows"), [(1,)])

    def test_states(self) -> None:
        """What list and up say of steps that wait."""
        self.migrations("bootstrap")
        with closing(Connection(self.database.settings(schema=self.schema))) as connection:
            connection.execute("UPDATE kongtwist_migrations SET finished = false")
            self.assertEqual(
                self.migrations("list"),
                (4, f"Pending migrations: run 'kongtwist migrations finish'\n    core: {ALL}\n"),
            )
            self.assertEqual(
                self.migrations("up"), (1, "Error: there are pending migrations; run 'kongtwist migrations finish'")
            )
            self.assertEqual(self.migrations("finish"), (0, f"Finished on {self.where}: {ALL}\n"))
            self.assertEqual(self.migrations("list")[0], 0)
            connection.execute("UPDATE kongtwist_migrations SET name = '-1_before' WHERE name = '000_base'")
        self.assertEqual(self.migrations("list")[0], 5)

    def test_a_step_that_fails(self) -> None:
        """Nothing of the command is done."""
        self.migrations("bootstrap")
        later = self.steps(Migration("801_fine", "CREATE TABLE extra ()"), Migration("802_bad", "SELECT 1/0"))
        self.assertRaises(StorageError, later.up)
        self.assertEqual(later.state().new, ["801_fine", "802_bad"])
        with closing(Connection(self.database.settings(schema=self.schema))) as connection:
            self.assertEqual(connection.execute("SELECT to_regclass('extra')"), [(None,)])

    def test_many_at_once(self) -> None:
        """Of several that bootstrap one database one does it; the others say so, and all succeed."""
        with ThreadPoolExecutor(4) as crowd:
            found = list(crowd.map(lambda _: self.migrations("bootstrap"), range(4)))
        self.assertEqual([code for code, _ in found], [0] * 4)
        last = sorted(told.splitlines()[-1] for _, told in found)
        self.assertEqual(last, [f"Bootstrapped {self.where}: {ALL}", *["Database already bootstrapped"] * 3])

    def test_lock(self) -> None:
        """A command waits for another one, and not for ever."""
        self.migrations("bootstrap")
        holder = self.steps()
        with closing(Connection(self.database.settings(schema=self.schema))) as connection:
            with connection.session.transaction():
                holder._lock(connection)
                code, told = self.migrations("up", "--lock-timeout", "0.2")
                self.assertEqual(code, 1)
                self.assertIn(f"another command changes {self.where}; waiting for it, 0.2 s at the most", told)
                self.assertIn("still changes", told)
                waiting = self.start([*COMMAND, "migrations", "up", "-c", self.conf], "waiting", env=self.environ)
                wait_until(lambda: "waiting for it" in waiting.output(), "the command to wait")
            self.assertEqual(waiting.wait(), 0)
            self.assertTrue(waiting.output().endswith("Database is already up-to-date\n"), waiting.output())

    def test_rights(self) -> None:
        """A user who may not create tables is told what to do."""
        server = PostgresServer()
        self.addCleanup(server.discard)
        server.execute("CREATE USER weak")
        self.configure(**server.conf(pg_user="weak"))
        code, told = self.migrations("bootstrap")
        self.assertEqual(code, 1)
        self.assertIn("permission denied for schema public; let the user weak create tables", told)
        server.execute("CREATE SCHEMA own AUTHORIZATION weak")
        self.configure(**server.conf(pg_user="weak", pg_schema="own"))
        self.assertEqual(self.migrations("bootstrap")[0], 0)

    def test_odd_schema(self) -> None:
        """Any name of a schema will do."""
        self.configure(**self.database.conf(pg_schema=f'Odd "{self.schema}" name%s'))
        for words, code in ((["bootstrap"], 0), (["list"], 0), (["reset", "-y"], 0), (["list"], 3)):
            self.assertEqual(self.migrations(*words)[0], code)

    def test_unreachable(self) -> None:
        """One sentence."""
        self.configure(**self.database.conf(pg_host="/nowhere"))
        for words in (["list"], ["bootstrap"], ["reset", "-y"]):
            code, told = self.migrations(*words)
            self.assertEqual(code, 1)
            self.assertRegex(told, r"^Error: the database kong at /nowhere cannot be reached: .*$")

    def test_start_with_migrations(self) -> None:
        """start names the remedy; with --run-migrations it does it itself."""
        code, _, told = self.run_command("start")
        self.assertEqual(
            (code, told), (1, f"Error: {self.where} has no tables yet; run 'kongtwist migrations bootstrap'{HINT}")
        )
        try:
            code, told, _ = self.run_command("start", "--run-migrations")
            self.assertEqual((code, told), (0, f"migrated {self.where}: {ALL}\nkongtwist started\n"))
        finally:
            subprocess.run([*COMMAND, "stop", "-p", self.prefix], check=True, env=self.environ, capture_output=True)
