"""``kongtwist check`` and ``reload`` tell the truth: what a start refuses they refuse, with the same words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.live.support import PATIENCE, ROOT, LiveTestCase, free_port, request, wait_until

GOOD = """\
_format_version: "3.0"
services:
- name: s
  host: 127.0.0.1
  routes:
  - {name: r, paths: [/s]}
"""
BAD = """\
_format_version: "3.0"
services:
- name: "a b"
  port: x
  routes:
  - {name: r, paths: [/s], protocols: [nope]}
"""
BAD_LINES = (
    "Failed parsing:", "in 'services':", "  - in entry 1 of 'services':", "    in 'host': required field missing",
    "    in 'port': expected an integer", "      - in entry 1 of 'routes':",
)  # fmt: skip


class _Commands(LiveTestCase):
    def setUp(self) -> None:
        self.conf_folder = self.folder()
        self.prefix = os.path.join(self.conf_folder, "prefix")
        self.conf = os.path.join(self.conf_folder, "kong.conf")
        self.proxy_port, self.admin_port = free_port(), free_port()
        self.addCleanup(self.command, "stop", "-p", self.prefix)

    def write(self, **properties: object) -> None:
        """Write the configuration file."""
        listens = {"proxy_listen": f"127.0.0.1:{self.proxy_port}", "admin_listen": f"127.0.0.1:{self.admin_port}"}
        wanted = {"prefix": self.prefix, **listens, **properties}
        Path(self.conf).write_text("".join(f"{name} = {value}\n" for name, value in wanted.items()))

    def file(self, name: str, text: str) -> str:
        path = Path(self.conf_folder, name)
        path.write_text(text)
        return str(path)

    def command(self, *words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Exit code, output and error output of a command."""
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from kongtwist.commands.main import main; sys.exit(main())", *words],
            cwd=self.conf_folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr


class CheckTests(_Commands):
    """The command ``check`` beside the command ``start``."""

    def refused(self, *sentences: str, env: dict[str, str] | None = None) -> None:
        """Both refuse, with these sentences; ``check`` makes nothing, ``start`` runs nothing."""
        before = sorted(os.listdir(self.conf_folder))
        code, out, err = self.command("check", self.conf, env=env)
        self.assertEqual((code, out), (1, ""), err)
        self.assertEqual(sorted(os.listdir(self.conf_folder)), before)
        started, _, error = self.command("start", "-c", self.conf, env=env)
        self.assertEqual(started, 1)
        for sentence in sentences:
            self.assertIn(sentence, err)
            self.assertIn(sentence, error)
        for line in err.splitlines():
            if not line.startswith((" ", "in ", "-", "failed parsing")):
                self.assertRegex(line, r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(error|warn)\] ")
        self.assertNotIn("Traceback", err + error)

    def test_properties(self) -> None:
        """What a start refuses, one thing each."""
        in_the_way = self.file("in-the-way", "")
        pem = self.file("cert.pem", "nothing")
        port = self.proxy_port
        for properties, sentence in (
            ({"plugins": "bundled,no-such-plugin"}, "plugin no-such-plugin: "),
            ({"plugins": "no_such_module:Plugin"}, "plugin no_such_module:Plugin: cannot import no_such_module"),
            ({"admin_listen": f"0.0.0.0:{port}"},
             f"proxy_listen '127.0.0.1:{port}' and admin_listen '0.0.0.0:{port}' name the same port"),
            ({"status_listen": f"localhost:{port}"},
             f"proxy_listen '127.0.0.1:{port}' and status_listen 'localhost:{port}' name the same port"),
            ({"proxy_listen": f"[::]:{port} ipv6only=off, 127.0.0.1:{port}"}, "name the same port"),
            ({"status_listen": f"127.0.0.1:{port} reuseport"}, "name the same address"),
            ({"proxy_listen": "192.0.2.77:8000"}, "cannot listen on 192.0.2.77:8000 (proxy_listen): this machine has no such address"),
            ({"proxy_listen": f"no-such-host.invalid:{port}"}, "; write an address of this machine instead of a name"),
            ({"proxy_listen": f"unix:{in_the_way}"}, f"cannot listen on unix:{in_the_way} (proxy_listen): "),
            ({"proxy_listen": "unix:/no/such/folder/x.sock"}, "cannot listen on unix:/no/such/folder/x.sock (proxy_listen): "),
            ({"proxy_listen": f"127.0.0.1:{port} ssl", "ssl_cert": "/none.crt", "ssl_cert_key": "/none.key"},
             "ssl_cert cannot read '/none.crt': No such file or directory"),
            ({"admin_listen": f"127.0.0.1:{port + 1} ssl", "admin_ssl_cert": pem, "admin_ssl_cert_key": pem},
             f"admin_ssl_cert '{pem}' holds no certificate in PEM form"),
            ({"admin_listen": f"127.0.0.1:{port + 1} ssl", "admin_ssl_client_ca": "/none.pem"}, "admin_ssl_client_ca cannot read"),
            ({"prefix": "/proc/none"}, "cannot use prefix /proc/none: "),
            ({"prefix": in_the_way}, f"cannot use prefix {in_the_way}: "),
            ({"proxy_error_log": "/proc/none/error.log"}, "proxy_error_log cannot open /proc/none/error.log: "),
            ({"proxy_access_log": "/proc/none/access.log"}, "proxy_access_log cannot open /proc/none/access.log: "),
            ({"admin_access_log": "/proc/none/admin.log"}, "admin_access_log cannot open /proc/none/admin.log: "),
            ({"sqlite_path": "/proc/none/kong.sqlite"}, "sqlite_path cannot open /proc/none/kong.sqlite: "),
            ({"database": "off", "declarative_config": "/none.yml"}, "declarative_config cannot be read: /none.yml: No such file or"
             " directory; correct the path"),
        ):  # fmt: skip
            self.write(**properties)
            self.refused(sentence)

    def test_prefix_alone(self) -> None:
        """A prefix that cannot be used is told once, not for each file in it."""
        self.write(prefix="/proc/none", sqlite_path="/proc/other/kong.sqlite")
        code, _, err = self.command("check", self.conf)
        self.assertEqual(code, 1)
        self.assertEqual(err.count("/proc/none"), 1, err)
        self.assertIn("sqlite_path cannot open /proc/other/kong.sqlite", err)

    def test_declarative_faults(self) -> None:
        """All faults of a declarative file, a line each, as ``config parse`` has them."""
        path = self.file("bad.yml", BAD)
        self.write(database="off", declarative_config=path)
        self.refused(f"declarative_config {path}: ", *BAD_LINES)
        _, _, parsed = self.command("config", "parse", path, "-c", self.conf)
        for line in BAD_LINES:
            self.assertIn(line, parsed)
        self.write(database="off", declarative_config=self.file("odd.yml", "services: [\n"))
        self.refused("failed parsing declarative configuration")

    def test_driver(self) -> None:
        """A database whose driver is not installed."""
        hidden = os.path.join(self.folder(), "psycopg")
        os.mkdir(hidden)
        Path(hidden, "__init__.py").write_text("raise ImportError('No module named psycopg')\n")
        path = os.pathsep.join([os.path.dirname(hidden), str(ROOT)])
        self.write(database="postgres")
        self.refused("database = postgres needs the driver psycopg: pip install", env={"PYTHONPATH": path})

    def test_kafka_library(self) -> None:
        """A library for Kafka that is not installed."""
        hidden = os.path.join(self.folder(), "confluent_kafka")
        os.mkdir(hidden)
        Path(hidden, "__init__.py").write_text("raise ImportError('No module named confluent_kafka')\n")
        path = os.pathsep.join([os.path.dirname(hidden), str(ROOT)])
        self.write(database="off", plugin_kafka_client="librdkafka")
        self.refused(
            "plugin_kafka_client = librdkafka needs the package confluent-kafka: pip install 'kongtwist[librdkafka]'",
            env={"PYTHONPATH": path},
        )

    def test_everything_at_once(self) -> None:
        """All faults in one run."""
        self.write(plugins="nope", proxy_error_log="/proc/none/error.log", proxy_listen="192.0.2.77:8000")
        self.refused("plugin nope: ", "proxy_error_log cannot open", "cannot listen on 192.0.2.77:8000")

    def test_valid(self) -> None:
        """A file that a start takes is valid, before and while the node runs; nothing is made by the check."""
        self.write(
            database="off", declarative_config=self.file("good.yml", GOOD),
            proxy_listen=f"127.0.0.1:{self.proxy_port} ssl reuseport", proxy_access_log="logs/deep/access.log",
        )  # fmt: skip
        before = sorted(os.listdir(self.conf_folder))
        valid = (0, f"configuration at {self.conf} is valid\n", "")
        self.assertEqual(self.command("check", self.conf), valid)
        self.assertEqual(sorted(os.listdir(self.conf_folder)), before)
        self.assertEqual(self.command("start", "-c", self.conf), (0, "kongtwist started\n", ""))
        self.assertEqual(self.command("check", self.conf), valid)

    def test_restart_keeps_what_runs(self) -> None:
        """A restart by a configuration that would not start leaves the node running."""
        self.write()
        self.assertEqual(self.command("start", "-c", self.conf)[0], 0)
        pid = Path(self.prefix, "kongtwist.pid").read_text()
        self.write(plugins="nope")
        code, _, err = self.command("restart", "-c", self.conf)
        self.assertEqual(code, 1)
        self.assertIn("Error: plugin nope: ", err)
        self.assertIn("The node runs on", err)
        self.assertEqual(request(self.admin_port, "GET", "/status").status, 200)
        self.assertEqual(Path(self.prefix, "kongtwist.pid").read_text(), pid)


class ReloadTests(_Commands):
    """``kongtwist reload`` says what became of it."""

    workers = 1

    def log(self) -> str:
        return Path(self.prefix, "logs", "error.log").read_text()

    def status(self, path: str) -> int:
        return request(self.proxy_port, "GET", path).status

    def begin(self, **properties: object) -> None:
        self.properties = {"nginx_worker_processes": self.workers, **properties}
        self.write(**self.properties)
        code, _, err = self.command("start", "-c", self.conf)
        self.assertEqual(code, 0, err)

    def test_declarative(self) -> None:
        """A faulty file is refused with all its faults, and what was served is served on; a good one is served when the
        command returns."""
        path = self.file("kong.yml", GOOD)
        self.begin(database="off", declarative_config=path)
        self.assertNotEqual(self.status("/s"), 404)
        Path(path).write_text(BAD)
        code, out, err = self.command("reload", "-c", self.conf)
        self.assertEqual((code, out), (1, ""))
        for line in (f"Error: declarative_config {path}: ", *BAD_LINES, "Nothing was reloaded"):
            self.assertIn(line, err)
        self.assertNotEqual(self.status("/s"), 404)
        log = self.log()
        self.assertIn(f"reload refused, everything stays as it was: declarative_config {path}: Failed parsing:", log)
        self.assertIn("in 'host': required field missing", log)
        os.unlink(path)
        code, _, err = self.command("reload", "-c", self.conf)
        self.assertEqual(code, 1)
        self.assertIn("declarative_config cannot be read: ", err)
        for name in ("one", "two"):
            Path(path).write_text(GOOD.replace("/s", f"/{name}"))
            self.assertEqual(self.command("reload", "-c", self.conf), (0, "kongtwist reloaded\n", ""))
            self.assertNotEqual(self.status(f"/{name}"), 404)
            self.assertEqual(self.status("/s"), 404)

    def test_large_file(self) -> None:
        """One that is read by a process of its own, which finds the same plugins; its path is relative to where the node
        was started."""
        self.file(
            "mine.py",
            "from kongtwist.core.chain.plugin import Plugin\nclass Mine(Plugin):\n    name, priority = 'mine', 7\n",
        )
        services = "".join(
            f"- {{name: s{at}, host: h, routes: [{{name: r{at}, paths: [/r{at}/]}}]}}\n" for at in range(2000)
        )
        path = self.file("kong.yml", f'_format_version: "3.0"\nplugins: [{{name: mine}}]\nservices:\n{services}')
        self.begin(database="off", declarative_config="kong.yml", plugins="bundled,mine:Mine")
        Path(path).write_text(Path(path).read_text().replace("/r1999/", "/changed").replace("host: h,", "host: h2,"))
        self.assertEqual(self.command("reload", "-c", self.conf), (0, "kongtwist reloaded\n", ""))
        self.assertEqual(self.status("/r1999/"), 404)
        self.assertNotEqual(self.status("/changed"), 404)
        Path(path).write_text(Path(path).read_text() + "- {name: s0}\n")
        code, _, err = self.command("reload", "-c", self.conf)
        self.assertEqual(code, 1)
        self.assertIn("Failed parsing:", err)
        self.assertIn("in entry 2001 of 'services':", err)

    def test_properties(self) -> None:
        """A faulty configuration file or certificate is refused; what needs a restart is named."""
        self.begin()
        for properties, words in (
            ({"log_level": "loud"}, "log_level has an invalid value: 'loud'"),
            ({"admin_listen": "nonsense"}, "admin_listen must be of form"),
        ):
            self.write(**self.properties | properties)
            code, out, err = self.command("reload", "-p", self.prefix)
            self.assertEqual((code, out), (1, ""))
            self.assertIn(words, err)
        self.write(**self.properties, log_level="debug", mem_cache_size="1g", sqlite_path="other.sqlite")
        code, out, err = self.command("reload", "-c", self.conf)
        self.assertEqual((code, out), (0, "kongtwist reloaded\n"))
        self.assertRegex(err, r"^\S+ \S+ \[warn\] these take effect at the next start: sqlite_path\n$|mem_cache_size")
        self.assertIn("reloaded; changed: log_level", self.log())

    def test_certificates(self) -> None:
        """One that cannot be read changes nothing, the declarative file included, which was good."""
        path = self.file("kong.yml", GOOD)
        ports = {"proxy_listen": f"127.0.0.1:{self.proxy_port}, 127.0.0.1:{free_port()} ssl"}
        self.begin(database="off", declarative_config=path, **ports)
        Path(path).write_text(GOOD.replace("/s", "/other"))
        self.write(**self.properties, ssl_cert="/none.crt", ssl_cert_key="/none.key")
        code, _, err = self.command("reload", "-c", self.conf)
        self.assertEqual(code, 1)
        self.assertIn("ssl_cert cannot read '/none.crt'", err)
        self.assertEqual(self.status("/other"), 404)
        self.assertNotEqual(self.status("/s"), 404)

    def test_hup_alone(self) -> None:
        """A signal from elsewhere does the same, and the log says so."""
        path = self.file("kong.yml", GOOD)
        self.begin(database="off", declarative_config=path)
        Path(path).write_text(BAD)
        os.kill(int(Path(self.prefix, "kongtwist.pid").read_text()), 1)
        wait_until(
            lambda: "reload refused, everything stays as it was: declarative_config" in self.log(), "the refusal"
        )
        found = re.search(r"\[error\].*reload refused.*\n((?:    .*\n)+)", self.log())
        assert found is not None
        self.assertIn("in 'services':", found[1])


class ReloadWorkersTests(ReloadTests):
    """The same with two worker processes."""

    workers = 2


class ReloadOtherTests(_Commands):
    """What a reload is not for."""

    def test_another_file(self) -> None:
        """A node reads its own file again: asking for another one is refused, not passed over."""
        self.write()
        self.assertEqual(self.command("start", "-c", self.conf)[0], 0)
        other = self.file("other.conf", Path(self.conf).read_text())
        code, out, err = self.command("reload", "-c", other)
        self.assertEqual((code, out), (1, ""))
        self.assertIn(f"was started with {self.conf}", err)
        self.assertIn(f"kongtwist restart -c {other}", err)
        self.assertEqual(self.command("reload", "-p", self.prefix)[:2], (0, "kongtwist reloaded\n"))
