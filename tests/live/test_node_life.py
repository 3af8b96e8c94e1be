"""A node's life under twistd and under the command kongtwist: start, refusals, signals, reload, stop."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from threading import Thread

from tests.live.support import PATIENCE, ROOT, GatewayProcess, LiveTestCase, free_port, request, wait_until


class StartTests(LiveTestCase):
    """What a start says, and what it refuses."""

    def refusal(self, conf: dict[str, object]) -> str:
        """The whole output of a start that must fail with exit code 1."""
        process = GatewayProcess(self, conf).launch()
        self.assertEqual(process.wait(), 1)
        return process.output()

    def test_start_says_where(self) -> None:
        """Configuration file, prefix and every address are in the output and in the error log."""
        gateway = self.gateway({"lmdb_map_size": "1g", "log_level": "notice"}, tls=True)
        assert gateway.process is not None
        for text in (gateway.process.output(), gateway.log()):
            for expected in (
                f"configuration: {gateway.folder}/kong.conf",
                f"prefix: {gateway.prefix}",
                f"proxy listens on http://127.0.0.1:{gateway.proxy_port}",
                f"proxy listens on https://127.0.0.1:{gateway.tls_port}",
                f"Admin API listens on http://127.0.0.1:{gateway.admin_port}",
                "lmdb_map_size has no effect here: there is no such copy",
            ):
                self.assertIn(expected, text)

    def test_reactor(self) -> None:
        """The leaner reactor is in use; that and other things Twisted tells of itself are for log_level = debug."""
        gateway = self.gateway({"log_level": "debug"})
        assert gateway.process is not None
        self.assertIn("[debug] reactor class: kongtwist.net.reactor.LeanEPollReactor", gateway.process.output())

    def test_tls_listener(self) -> None:
        """An ssl address speaks TLS with the self-made certificate."""
        gateway = self.gateway(tls=True)
        trusted = ssl.create_default_context(cafile=os.path.join(gateway.prefix, "ssl", "default-ecdsa.crt"))
        connection = http.client.HTTPSConnection("localhost", gateway.tls_port, timeout=PATIENCE, context=trusted)
        self.addCleanup(connection.close)
        connection.request("GET", "/nowhere")
        self.assertEqual(connection.getresponse().status, 404)

    def test_port_in_use(self) -> None:
        """One sentence, exit code 1, nothing else: for the proxy's port and for the Admin API's."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for name in ("proxy_listen", "admin_listen"):
                self.assertRegex(
                    self.refusal({name: f"127.0.0.1:{port} reuseport"}),
                    rf"^kongtwist: cannot listen on 127\.0\.0\.1:{port} \({name}\): the port is in use by process {os.getpid()}"
                    rf" \(.+\); stop what uses it, or give {name} another port\n$",
                )

    def test_second_node_on_the_same_ports(self) -> None:
        """reuseport does not let a second node share the first one's port by accident."""
        port = free_port()
        self.gateway({"proxy_listen": f"127.0.0.1:{port} reuseport"})
        self.assertIn("the port is in use", self.refusal({"proxy_listen": f"127.0.0.1:{port} reuseport"}))

    def test_second_node_in_the_same_prefix(self) -> None:
        """A prefix belongs to one node."""
        gateway = self.gateway()
        second = GatewayProcess(self)
        second.prefix = gateway.prefix
        process = second.launch()
        self.assertEqual(process.wait(), 1)
        self.assertEqual(
            process.output(),
            f"kongtwist: kongtwist is already running in {gateway.prefix}\nIt is process {gateway.pid}. End it with"
            f" 'kongtwist stop -p {gateway.prefix}', or give this node a prefix of its own (-p, or the property prefix).\n",
        )
        self.assertEqual(gateway.admin("GET", "/status").status, 200)

    def test_refused_configurations(self) -> None:
        """One sentence each, no traceback."""
        for conf, sentence in (
            ({"log_level": "loud"}, r"log_level has an invalid value: 'loud' \(debug, .*\)"),
            ({"proxi_listen": "off"}, r".*/kong.conf line 5: there is no property 'proxi_listen'; did you mean '.*'\?"),
            ({"database": "cassandra"}, "database cannot be 'cassandra': Cassandra is not supported; use .*"),
            ({"plugins": "bundled,no-such-plugin"}, "plugin no-such-plugin: .*"),
            ({"ssl_cert": "/none.crt", "ssl_cert_key": "/none.key", "proxy_listen": "127.0.0.1:0 ssl"}, "ssl_cert .*"),
            ({"proxy_error_log": "/proc/none/error.log"}, "proxy_error_log cannot open /proc/none/error.log: .*"),
        ):
            output = self.refusal(dict(conf))
            self.assertRegex(output, rf"^kongtwist: {sentence}\n$")

    def test_failure_after_the_start(self) -> None:
        """What only shows when storage opens: the sentence comes last, without traceback, and the exit code is 1."""
        output = self.refusal({"database": "off", "declarative_config": "/none.yml"})
        self.assertRegex(output.splitlines()[-1], r"^kongtwist: declarative_config cannot be read: .*/none.yml")
        self.assertNotIn("Traceback", output)

    def test_help(self) -> None:
        """twistd explains our options."""
        words = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "kongtwist", "--help"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True)
        for option in ("--conf=", "--prefix=", "--demo"):
            self.assertIn(option, done.stdout)


class SignalTests(LiveTestCase):
    """Signals to a real node."""

    def test_stopping_signals(self) -> None:
        """Each of them ends the node with exit code 0, and its process id file goes."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            gateway = self.gateway()
            pid_file = Path(gateway.prefix, "kongtwist.pid")
            self.assertEqual(pid_file.read_text(), f"{gateway.pid}\n")
            assert gateway.process is not None
            gateway.process.signal(number)
            self.assertEqual(gateway.process.wait(), 0)
            self.assertFalse(pid_file.exists())

    def test_all_signals_have_handlers(self) -> None:
        """As process id 1 a signal without handler would be ignored by the kernel."""
        gateway = self.gateway()
        status = Path(f"/proc/{gateway.pid}/status").read_text()
        found = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
        assert found is not None
        caught = int(found[1], 16)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
            self.assertTrue(caught >> (number - 1) & 1, number)

    def open_request(self, gateway: GatewayProcess) -> tuple[socket.socket, Thread, list[int]]:
        """A request that its upstream has and does not answer: (the upstream's side, who waits, the status to come)."""
        upstream = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(upstream.close)
        upstream.settimeout(PATIENCE)
        gateway.route("/slow", f"http://127.0.0.1:{upstream.getsockname()[1]}")
        statuses: list[int] = []

        def ask() -> None:
            try:
                statuses.append(request(gateway.proxy_port, "GET", "/slow").status)
            except (OSError, http.client.HTTPException):
                statuses.append(0)

        asking = Thread(target=ask)
        asking.start()
        self.addCleanup(asking.join, PATIENCE)
        side, _ = upstream.accept()
        self.addCleanup(side.close)
        side.settimeout(PATIENCE)
        self.assertIn(b"GET / HTTP/1.1", side.recv(65536))
        return side, asking, statuses

    def test_graceful_stop(self) -> None:
        """The port closes, an open request gets its answer, then the node ends."""
        gateway = self.gateway({"nginx_main_worker_shutdown_timeout": "60s"})
        assert gateway.process is not None
        side, asking, statuses = self.open_request(gateway)
        gateway.process.signal(signal.SIGTERM)
        wait_until(lambda: _refused(gateway.proxy_port), "the port's end")
        self.assertTrue(gateway.process.running)
        side.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        asking.join(PATIENCE)
        self.assertEqual(statuses, [200])
        self.assertEqual(gateway.process.wait(), 0)

    def test_deadline(self) -> None:
        """An open request does not keep the node alive beyond nginx_main_worker_shutdown_timeout."""
        gateway = self.gateway({"nginx_main_worker_shutdown_timeout": "100ms"})
        self.open_request(gateway)
        self.assertEqual(gateway.stop(), 0)

    def test_second_signal_forces(self) -> None:
        """A second signal does not wait for the open request."""
        gateway = self.gateway({"nginx_main_worker_shutdown_timeout": "1h"})
        assert gateway.process is not None
        self.open_request(gateway)
        gateway.process.signal(signal.SIGTERM)
        wait_until(lambda: _refused(gateway.proxy_port), "the port's end")
        self.assertTrue(gateway.process.running)
        gateway.process.signal(signal.SIGTERM)
        self.assertEqual(gateway.process.wait(), 0)
        self.assertIn("stopping at once", gateway.log())

    def test_reload(self) -> None:
        """SIGHUP puts into effect what can be, says what needs a restart, and refuses what is wrong."""
        gateway = self.gateway()
        conf = Path(gateway.folder, "kong.conf")
        good = conf.read_text()
        assert gateway.process is not None
        other = free_port()
        conf.write_text(good + f"log_level = warn\nproxy_listen = 127.0.0.1:{other}\nsqlite_path = other.sqlite\n")
        gateway.process.signal(signal.SIGHUP)
        wait_until(lambda: "take effect at the next start: sqlite_path" in gateway.log(), "the reload")
        self.assertTrue(_refused(gateway.proxy_port))
        gateway.proxy_port = other
        good = conf.read_text()
        conf.write_text(good + "log_level = loud\n")
        gateway.process.signal(signal.SIGHUP)
        refused = "reload refused, everything stays as it was: log_level has an invalid value: 'loud'"
        wait_until(lambda: refused in gateway.log(), "the refusal")
        self.assertEqual(gateway.get("/nowhere").status, 404)

    def test_logs_are_reopened(self) -> None:
        """SIGUSR1 goes on in new files after a rotation."""
        gateway = self.gateway()
        log = Path(gateway.prefix, "logs", "error.log")
        log.rename(f"{log}.1")
        assert gateway.process is not None
        gateway.process.signal(signal.SIGUSR1)
        wait_until(log.exists, "the new log")
        self.assertEqual(gateway.stop(), 0)
        self.assertIn("stopped", log.read_text())


def _refused(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


class CommandTests(LiveTestCase):
    """The command kongtwist with real nodes in the background."""

    def setUp(self) -> None:
        self.conf_folder = self.folder()
        self.prefix = os.path.join(self.conf_folder, "prefix")
        self.admin_port = free_port()
        self.conf = Path(self.conf_folder, "kong.conf")
        self.conf.write_text(
            f"proxy_listen = 127.0.0.1:{free_port()}\nadmin_listen = 127.0.0.1:{self.admin_port}\n"
            f"prefix = {self.prefix}\n"
        )
        self.addCleanup(self.command, "stop", "-p", self.prefix)

    def command(self, *words: str) -> tuple[int, str]:
        """Exit code and output of a command."""
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from kongtwist.commands.main import main; sys.exit(main())", *words],
            cwd=self.conf_folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def pid(self) -> int:
        return int(Path(self.prefix, "kongtwist.pid").read_text())

    def test_life_in_the_background(self) -> None:
        """start, health, start again, reload, restart, quit, stop: Kong's outputs and codes."""
        conf = str(self.conf)
        self.assertEqual(self.command("start", "-c", conf), (0, "kongtwist started\n"))
        self.assertEqual(request(self.admin_port, "GET", "/status").status, 200)
        first = self.pid()
        self.assertEqual(
            self.command("health", "-p", self.prefix),
            (0, f"kongtwist...running\n\nkongtwist is healthy at {self.prefix}\n"),
        )
        code, output = self.command("start", "-c", conf)
        self.assertEqual((code, output.splitlines()[0]), (1, f"Error: kongtwist is already running in {self.prefix}"))
        self.assertEqual(self.command("reload", "-c", conf), (0, "kongtwist reloaded\n"))
        log = Path(self.prefix, "logs", "error.log")
        wait_until(lambda: "reloaded" in log.read_text(), "the reload")
        self.assertEqual(self.command("restart", "-c", conf), (0, "kongtwist started\n"))
        self.assertEqual(request(self.admin_port, "GET", "/status").status, 200)
        self.assertNotEqual(self.pid(), first)
        self.assertEqual(self.command("quit", "-p", self.prefix), (0, "kongtwist stopped (gracefully)\n"))
        code, output = self.command("stop", "-p", self.prefix)
        self.assertEqual((code, output.splitlines()[0]), (1, f"Error: kongtwist is not running in {self.prefix}"))

    def test_start_refused(self) -> None:
        """What refuses a start is the command's error."""
        with socket.create_server(("127.0.0.1", self.admin_port)):
            code, output = self.command("start", "-c", str(self.conf))
        sentence = f"cannot listen on 127.0.0.1:{self.admin_port} (admin_listen): the port is in use"
        self.assertEqual(code, 1)
        self.assertTrue(output.startswith(f"Error: {sentence} by process {os.getpid()} ("), output)
        self.assertFalse(os.path.exists(os.path.join(self.prefix, "kongtwist.pid")))

    def test_failure_after_the_start(self) -> None:
        """start waits until the node serves, and tells why it does not."""
        self.conf.write_text(self.conf.read_text() + "database = off\ndeclarative_config = /none.yml\n")
        code, output = self.command("start", "-c", str(self.conf))
        self.assertEqual(code, 1)
        self.assertRegex(output.splitlines()[0], "^Error: declarative_config cannot be read: .*/none.yml")

    def test_start_in_the_foreground(self) -> None:
        """With nginx_daemon = off the command becomes the node, as containers want it."""
        self.conf.write_text(self.conf.read_text() + "nginx_daemon = off\nproxy_error_log = /dev/stderr\n")
        process = self.start(
            [sys.executable, "-c", "from kongtwist.commands.main import main; main()", "start", "-c", str(self.conf)],
            "foreground",
            env={"PYTHONPATH": str(ROOT)},
        )
        wait_until(lambda: request(self.admin_port, "GET", "/status").status == 200, "the Admin API")
        self.assertEqual(self.pid(), process.pid)
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(), 0)
        self.assertRegex(process.output(), r"(?m)^\S+ \S+ \[notice\] .* stopped$")

    def test_foreground_says_what_happens(self) -> None:
        """So does it on a terminal, in the form for eyes, unless its error log goes there anyway."""
        self.conf.write_text(self.conf.read_text() + "nginx_daemon = off\nnginx_worker_processes = 2\n")
        process = self.start(
            [sys.executable, "-c", "from kongtwist.commands.main import main; main()", "start", "-c", str(self.conf)],
            "foreground",
            env={"PYTHONPATH": str(ROOT)},
        )
        wait_until(lambda: request(self.admin_port, "GET", "/status").status == 200, "the Admin API")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(), 0)
        lines = process.output().splitlines()
        for line in lines:
            self.assertRegex(line, r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(notice|warn)\] ")
        self.assertTrue(lines[-1].endswith("[notice] stopped"))
        self.assertTrue(any("proxy listens on http://127.0.0.1:" in line for line in lines))
