"""The command kongtwist where it starts and stops nothing."""

from __future__ import annotations

import os
import re
import signal
from unittest.mock import patch

from kongtwist import KONG_VERSION, VERSION
from kongtwist.commands import main as cli
from kongtwist.node.outcomes import Outcome, write_outcome
from kongtwist.node.prefix import Prefix

from .cli_kit import CommandTestCase

HINT = "\n\n  Run with --v (verbose) or --vv (debug) for more details\n"


class CommandTests(CommandTestCase):
    """Outputs and exit codes."""

    def test_no_command(self) -> None:
        """Without a command: all of them, and 1."""
        code, _, err = self.run_command()
        self.assertEqual(code, 1)
        for name in ("start", "stop", "quit", "restart", "reload", "check", "health", "version"):
            self.assertRegex(err, rf"(?m)^ +{name} ")

    def test_unknown_command(self) -> None:
        """A command that is not there is named."""
        code, _, err = self.run_command("roar")
        self.assertEqual((code, err.splitlines()[0]), (1, "No such command: roar"))

    def test_wrong_option(self) -> None:
        """Wrong usage returns 1."""
        code, _, err = self.run_command("stop", "--force")
        self.assertEqual((code, err.splitlines()[-1]), (1, "Error: unrecognized arguments: --force"))

    def test_usage(self) -> None:
        """A command's usage is what one types, its actions included."""
        code, out, _ = self.run_command("stop", "--help")
        self.assertEqual((code, out.split("[")[0]), (0, "usage: kongtwist stop "))
        for name, actions in (
            ("config", "init|db_import|db_export|parse"),
            ("migrations", "bootstrap|up|finish|list|reset|status"),
        ):
            code, _, err = self.run_command(name)
            self.assertEqual(code, 1)
            self.assertIn(f"usage: kongtwist {name} ", err)
            self.assertEqual(err.splitlines()[-1], f"Error: the following arguments are required: {actions}")

    def test_another_user(self) -> None:
        """Who may not look into a prefix, or not signal its node, is told to be who started it."""
        prefix: str = self.mktemp()
        owner = Prefix.claim(prefix)
        self.addCleanup(owner.release)
        conf = self.file("log_level = debug")
        with patch("os.kill", side_effect=PermissionError):
            for command in ("stop", "quit"):
                code, _, err = self.run_command(command, "-p", prefix)
                self.assertEqual(code, 1)
                self.assertIn("is another user's; run this command as the user who started it", err)
        with patch("kongtwist.commands.main.running_pid", side_effect=PermissionError(13, "Permission denied")):
            for words in (["stop"], ["quit"], ["health"], ["drain"], ["reload", "-c", conf]):
                code, _, err = self.run_command(*words, "-p", prefix)
                self.assertEqual(code, 1)
                self.assertIn(f"Error: cannot look into prefix {os.path.abspath(prefix)}: Permission denied; name", err)
                self.assertIn("as the user who started the node", err)

    def test_python_that_may_not_be_run(self) -> None:
        """A sentence, no traceback."""
        with patch("sys.executable", "/none/python"):
            code, _, err = self.run_command("start", "-p", self.mktemp())
        self.assertEqual(code, 1)
        self.assertIn("Error: cannot run /none/python: No such file or directory; see that this user may run it", err)

    def test_version(self) -> None:
        """Our version and Kong's; with -a also what it runs on."""
        self.assertEqual(self.run_command("version"), (0, f"{VERSION} (Kong {KONG_VERSION})\n", ""))
        code, out, _ = self.run_command("version", "-a")
        self.assertEqual(code, 0)
        self.assertEqual(
            [line.split(":")[0] for line in out.splitlines()][:4], ["kongtwist", "Python", "Twisted", "Autobahn"]
        )
        self.assertTrue(all(re.search(r": .*[0-9]", line) for line in out.splitlines()))

    def test_check_good(self) -> None:
        """A good file is valid; what has no effect is said. What a start needs beside it is tried in a live test."""
        self.patch(cli, "_faults", lambda conf: [])
        path = self.file("log_level = debug\nkic = on\n")
        code, out, err = self.run_command("check", path)
        self.assertEqual((code, out), (0, f"configuration at {path} is valid\n"))
        self.assertRegex(
            err,
            r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[warn\] kic has no effect here: an ingress controller is a client .*\n$",
        )

    def test_check_refused(self) -> None:
        """What a start would refuse beside the file."""
        self.patch(
            cli, "_faults", lambda conf: ["plugin nope: not there", "declarative_config: Failed parsing:\nin 'x': y"]
        )
        code, out, err = self.run_command("check", self.file("log_level = debug"))
        self.assertEqual((code, out), (1, ""))
        self.assertRegex(
            err, r"^\S+ \S+ \[error\] plugin nope: not there\n\S+ \S+ \[error\] declarative_config: .*\nin 'x': y\n$"
        )

    def test_check_bad(self) -> None:
        """Each problem is a line."""
        code, out, err = self.run_command("check", self.file("log_level = loud\ndatabase = zz"))
        self.assertEqual((code, out), (1, ""))
        stamp = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[error\] "
        self.assertRegex(
            err,
            rf"^{stamp}log_level has an invalid value: 'loud' \(debug, .*\)\n"
            rf"{stamp}database has an invalid value: 'zz' \(sqlite, off, postgres\)\n$",
        )

    def test_check_once(self) -> None:
        """What is wrong for several listeners is one line."""
        text = "proxy_listen = 127.0.0.1:1 ssl\nadmin_listen = 127.0.0.1:2 ssl\nssl_cipher_suite = custom\nssl_ciphers = NONSENSE"
        code, _, err = self.run_command("check", self.file(text))
        self.assertEqual((code, err.count("ssl_ciphers has no cipher that OpenSSL knows: 'NONSENSE'")), (1, 1))

    def test_check_tells_no_secret(self) -> None:
        """A value of a reference that is wrong only where it is used is named by its reference."""
        os.environ["KONGTWIST_TEST_PW"] = "geheim-1234"
        self.addCleanup(os.environ.pop, "KONGTWIST_TEST_PW")
        text = "proxy_listen = 127.0.0.1:1 ssl\nssl_dhparam = {vault://env/kongtwist-test-pw}"
        code, out, err = self.run_command("check", self.file(text))
        self.assertEqual((code, out), (1, ""))
        self.assertIn("ssl_dhparam refers to {vault://env/kongtwist-test-pw}", err)
        self.assertNotIn("geheim", err)

    def test_check_missing(self) -> None:
        """A file that is not there is an error of the command."""
        self.assertEqual(self.run_command("check", "/none.conf"), (1, "", f"Error: no file at: /none.conf{HINT}"))

    def test_start_with_missing_file(self) -> None:
        """start does not try."""
        code, _, err = self.run_command("start", "-c", "/none.conf")
        self.assertEqual((code, err), (1, f"Error: no file at: /none.conf{HINT}"))

    def test_hint_is_for_the_quiet(self) -> None:
        """With --v the hint goes."""
        code, _, err = self.run_command("start", "-c", "/none.conf", "--v")
        self.assertEqual((code, err), (1, "Error: no file at: /none.conf\n"))

    def test_no_such_prefix(self) -> None:
        """Commands for a running node want its directory."""
        for command in ("stop", "quit", "health"):
            code, _, err = self.run_command(command, "-p", "/none")
            self.assertEqual((code, err), (1, f"Error: no such prefix: /none{HINT}"))

    def test_not_running(self) -> None:
        """A directory where nothing runs."""
        conf = self.file("log_level = info")
        prefix = os.path.abspath(self.mktemp())
        os.mkdir(prefix)
        for words, sentence in (
            (("stop", "-p", prefix), f"kongtwist is not running in {prefix}"),
            (("quit", "-p", prefix), f"kongtwist is not running in {prefix}"),
            (("health", "-p", prefix), f"kongtwist is not running at {prefix}"),
            (("reload", "-c", conf, "-p", prefix), f"kongtwist not running in {prefix}"),
        ):
            self.assertEqual(self.run_command(*words), (1, "", f"Error: {sentence}{HINT}"))

    def test_running(self) -> None:
        """health sees who holds the directory, and start refuses it."""
        prefix = Prefix.claim(os.path.abspath(self.mktemp()))
        self.addCleanup(prefix.release)
        code, out, _ = self.run_command("health", "-p", prefix.path)
        self.assertEqual((code, out), (0, f"kongtwist...running\n\nkongtwist is healthy at {prefix.path}\n"))
        conf = self.file("log_level = info")
        code, _, err = self.run_command("start", "-c", conf, "-p", prefix.path)
        self.assertEqual((code, err.splitlines()[0]), (1, f"Error: kongtwist is already running in {prefix.path}"))
        self.assertIn(f"It is process {os.getpid()}. End it with 'kongtwist stop -p {prefix.path}'", err)
        self.assertTrue(err.endswith(HINT))

    def test_stopped_while_it_restarts(self) -> None:
        """Where another process takes the place of the one that got the signal, stop ends that one, too."""
        prefix = Prefix.claim(os.path.abspath(self.mktemp()))
        self.addCleanup(prefix.release)
        first, second = os.getpid(), os.getppid()
        signalled = []

        def kill(pid: int, number: int) -> None:
            signalled.append((pid, number))
            if pid == first:
                os.pwrite(prefix.fileno(), f"{second}\n".encode(), 0)
                os.ftruncate(prefix.fileno(), len(str(second)))
            else:
                prefix.release()

        self.patch(os, "kill", kill)
        self.assertEqual(self.run_command("stop", "-p", prefix.path), (0, "kongtwist stopped\n", ""))
        self.assertEqual(signalled, [(first, signal.SIGTERM), (second, signal.SIGTERM)])

    def test_reloaded_while_it_restarts(self) -> None:
        """The signal may have come to the process that was on its way out."""
        prefix = Prefix.claim(os.path.abspath(self.mktemp()))
        self.addCleanup(prefix.release)
        write_outcome(prefix.path, Outcome(asked=3, number=3))
        self.patch(os, "kill", lambda pid, number: os.pwrite(prefix.fileno(), b"1" + b" " * 30, 0) and None)
        code, _, err = self.run_command("reload", "-p", prefix.path)
        self.assertEqual(code, 1)
        self.assertIn("Error: the node was restarted meanwhile, and did not reload; give this command again", err)

    def test_not_allowed(self) -> None:
        """A node of another user's: a sentence, no traceback."""
        prefix = Prefix.claim(os.path.abspath(self.mktemp()))
        self.addCleanup(prefix.release)
        write_outcome(prefix.path, Outcome())

        def refuse(pid: int, number: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(os, "kill", refuse)
        for command in ("quit", "reload", "drain"):
            code, _, err = self.run_command(command, "-p", prefix.path)
            sentence = f"Error: process {os.getpid()} in {prefix.path} is another user's; run this command as the user"
            self.assertEqual((code, err.startswith(sentence)), (1, True), err)
