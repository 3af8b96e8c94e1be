"""The documents are true: every command and every example in them is run, in order, as a reader would.

Each document is walked through on a machine of its own (`fresh_machine`): commands are typed into a shell, what is said
to be a file is written, what belongs into a browser's console is typed there. What cannot be run is named in
`EXCEPTIONS`, with the reason; an exception that nothing needs any more fails.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest import SkipTest

from kongtwist.node.prefix import running_pid
from tests.documents import PAGES, ROOT, Block, blocks, commands, status_of
from tests.live.browser import Browser, chromium
from tests.live.fresh_machine import COMMAND_PATIENCE, Machine, Shell, other_ports, private_network
from tests.live.kafka_server import KafkaCluster
from tests.live.postgres_server import PASSWORD, PostgresServer
from tests.live.support import PATIENCE, LiveTestCase, request, wait_until


@dataclass(frozen=True)
class Exempt:
    """Commands that are not run.

    Attributes:
        page: the document.
        pattern: what they begin with, as a regular expression.
        why: the reason.
        needed: whether it holds here; where it does not, they are run.
    """

    page: str
    pattern: str
    why: str
    needed: Callable[[], bool] = lambda: True


def no_builder() -> bool:
    """Whether no container engine answers on this machine."""
    return not (shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0)


EXCEPTIONS: tuple[Exempt, ...] = (
    Exempt("README.md", "make test", "runs all tests, this one among them"),
    Exempt("docs/deployment.md", "sudo ", "changes the machine; test_deployment.py runs what the unit runs"),
    Exempt("docs/deployment.md", "docker ", "test_deployment.py builds the image by hand instead", no_builder),
    Exempt("docs/kafka.md", "docker ", "the test has brokers of its own"),
    Exempt("docs/logs.md", "tail -f ", "goes on; test_websocket_lines.py reads the same lines"),
    Exempt("docs/clients.md", "deck ", "there is no decK here", lambda: not shutil.which("deck")),
    Exempt("examples/README.md", "grpcurl ", "there is no grpcurl here", lambda: not shutil.which("grpcurl")),
    Exempt("docs/security.md", "deck ", "there is no decK here", lambda: not shutil.which("deck")),
)
"""Named one by one; everything else is run."""

CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=shop.example -addext subjectAltName=DNS:shop.example"
    " -keyout shop.key -out shop.crt"
)
"""As docs/tls.md makes it."""

GIVEN: dict[str, str] = {
    "docs/clients.md": f"{CERTIFICATE}\nkongtwist config init kong.yaml",
    "docs/deployment.md": f"export KONG_PG_PASSWORD={PASSWORD}",
    "docs/secrets.md": CERTIFICATE,
    "docs/security.md": "kongtwist config init kong.yaml",
}
"""What a document takes for granted beside a running gateway: commands that are run before it is read."""

SERVERS = (
    (r"make run|(?:\S*/)?twistd (?:-n|--nodaemon)", ("8001", "8444")),
    (r"\S*python\S* examples/chat\.py", ("9100",)),
    (r"\S*python\S* examples/ticker\.py", ("9200",)),
    (r"\S*python\S* examples/embed\.py", ("8080",)),
    (r"\S*python\S* examples/sensors/sensor_service\.py", ("50051",)),
    (r"\S*python\S* -m http\.server 9300", ("9300",)),
)
"""Commands that go on until Ctrl-C, and ports of which one answers when they are up."""

PROGRAMS = ((r"\S*python\S* examples/analytics/event_counter\.py", "counts user-events into event-counts"),)
"""Commands that go on until Ctrl-C without a port of their own, and what they print when they are up."""

STREAMS = r"curl (?:.* )?(?:-N|--no-buffer)\b"
"""Commands that print until Ctrl-C."""

STARTS = r"make run|(?:\S*/)?twistd\b.*kongtwist|kongtwist start|\S*python\S* examples/embed\.py"
"""Commands that start a gateway: a document without one finds one running."""


class Reader:
    """Somebody who does what a document says.

    Args:
        case: the test.
        page: the document.
        machine: the reader's.
    """

    def __init__(self, case: DocumentTests, page: str, machine: Machine) -> None:
        self.case, self.page, self.machine = case, page, machine
        self.folder = machine.clone(f"clone-of-{page.replace('/', '-')}")
        self.terminals: list[Shell] = []
        self.open_terminal()
        self.shown = ""  #: what the commands of the last block have printed
        self.said: dict[str, str] = {}  #: what commands have printed that went on until Ctrl-C
        self.browser_missing = False

    def open_terminal(self) -> None:
        """Go on in a new one; what was exported in the others is not known there."""
        self.shell = Shell(self.machine, self.folder)
        self.case.addCleanup(self.shell.close)
        self.terminals.append(self.shell)

    def prepare(self) -> None:
        """Give what a document about a part of the gateway takes for granted: the README was followed."""
        environment = self.folder / ".venv"
        self.machine.environment(environment, self.folder)
        self.enter(". .venv/bin/activate")
        for command in GIVEN.get(self.page, "").splitlines():
            self.enter(command)
        told = [command for block in blocks(self.page) if block.language == "sh" for command in commands(block)]
        if not any(re.match(STARTS, command) for command in told):
            self.enter("twistd -n kongtwist")

    def read(self) -> None:
        """Do all that the document says."""
        last: Block | None = None
        for block in blocks(self.page):
            if block.language == "text":
                if block.follows and last is not None and last.language == "sh":
                    self.compare(block)
            else:
                {"sh": self.type, "js": self.type_into_browser}.get(block.language, self.keep)(block)
            last = block

    # -- shell -------------------------------------------------------------------------------------------------------

    def type(self, block: Block) -> None:
        """Type the commands of a block."""
        self.shown = ""
        if "Press Ctrl-C" in block.before:
            self.press_ctrl_c()
        for command in commands(block):
            if any(re.match(each.pattern, command) and each.needed() for each in EXCEPTIONS if each.page == self.page):
                continue
            try:
                self.enter(self.machine.translated(command))
            except AssertionError as error:
                raise AssertionError(f"{block.where}: {error}") from error

    def enter(self, command: str) -> None:
        """Type a command and see that it does what it should."""
        for pattern, ports in SERVERS:
            if re.match(pattern, command):
                self._serve(command, ports)
                return
        for pattern, text in PROGRAMS:
            if re.match(pattern, command):
                self._go_on(command, lambda output, text=text: text in output.read_text())  # type: ignore[misc]
                return
        if re.match(STREAMS, command):
            self._stream(command)
            return
        code, shown = self.shell.run(command)
        self.shown += shown
        statuses = [int(each) for each in re.findall(r"@@status (\d+)", shown)]
        expected = status_of(command)
        if expected is not None:
            self.case.assertEqual(statuses[-1:], [expected], f"{command}\n{shown}")
            return
        self.case.assertEqual(code, 0, f"{command}\n{shown}")
        for status in statuses:
            self.case.assertIn(status // 100, (2, 3), f"{command}\n{shown}")

    def _serve(self, command: str, ports: tuple[str, ...]) -> None:
        self.case.assertFalse(self._listens(ports), f"{command}: what was started before still has the port")
        self._go_on(command, lambda _: self._listens(ports))

    def _go_on(self, command: str, is_up: Callable[[Path], bool]) -> None:
        """Start a command that goes on, wait until it is up by its output or otherwise, and open another terminal."""
        shell = self.shell
        output = shell.start(command)
        _, group, _ = shell.background[-1]

        def answers() -> bool:
            self.case.assertTrue(shell.goes_on(group), f"{command}\n{output.read_text()}")
            return is_up(output)

        wait_until(answers, command, COMMAND_PATIENCE)
        self.open_terminal()
        if self.page != "README.md":  # which is read before there is something to activate
            self.enter(". .venv/bin/activate")

    def _listens(self, ports: tuple[str, ...]) -> bool:
        """Whether one of the ports answers: a gateway has them before it can."""
        for port in map(int, map(self.machine.translated, ports)):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)):
                    continue
                if port == int(self.machine.translated("8001")):
                    request(port, "GET", "/status")
                return True
        return False

    def _stream(self, command: str) -> None:
        output = self.shell.start(command)
        wait_until(lambda: re.search(r"^(data|id|event): ?\S", output.read_text(), re.MULTILINE), command)
        self.shell.interrupt()
        self.shown += output.read_text()

    def compare(self, block: Block) -> None:
        """What a block of output says, the commands before it have printed; ``...`` stands for anything."""
        for line in filter(str.strip, block.text.splitlines()):
            wanted = r".*".join(re.escape(part) for part in self.machine.translated(line.strip()).split("..."))
            self.case.assertRegex(self.shown, wanted, block.where)

    # -- everything else ---------------------------------------------------------------------------------------------

    def keep(self, block: Block) -> None:
        """Write a file, or see that a piece of one is understood."""
        text = self.machine.translated(block.text)
        if block.file and not block.file.startswith("/"):
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if block.language == "yaml":
            (self.folder / "shown.yml").write_text(text, encoding="utf-8")
            code, shown = self.shell.run("kongtwist config parse shown.yml")
            self.case.assertEqual(code, 0, f"{block.where}\n{shown}")
        elif block.language == "python" and not block.file:
            self._run_python(block, text)

    def _run_python(self, block: Block, text: str) -> None:
        """A piece of a program of examples/ is found there; anything else is run."""
        lines = [line.split("  #")[0].strip() for line in text.splitlines() if line.strip()]
        for example in (ROOT / "examples").glob("*.py"):
            source = example.read_text(encoding="utf-8")
            if all(line in source for line in lines):
                return
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        program = (
            f"import asyncio, inspect, types\ncode = compile({text!r}, {block.where!r}, 'exec', {flags})\n"
            "run = types.FunctionType(code, {'__name__': '__main__'})()\n"
            "if inspect.isawaitable(run): asyncio.run(asyncio.wait_for(run, 60))\n"
        )
        (self.folder / "shown.py").write_text(program, encoding="utf-8")
        code, shown = self.shell.run("python shown.py")
        self.case.assertEqual(code, 0, f"{block.where}\n{shown}")

    def type_into_browser(self, block: Block) -> None:
        """Open the page that the text names, type into its console, and see what is printed there."""
        if chromium() is None:
            self.browser_missing = True
            return
        page = re.findall(r"https?://[^\s`<>)]+", block.before)
        self.case.assertTrue(page, f"{block.where}: the text before does not say which page to open")
        self.case.assertEqual(
            block.text.strip(), block.text.strip().replace("\n\n", "\n"), f"{block.where}: paste it whole"
        )
        wanted = {
            found[1]
            for line in block.text.splitlines()
            if not re.search(r"onclose|onerror", line) and (found := re.search(r"console\.log\('([^']+)'", line))
        }
        self.case.assertTrue(wanted, f"{block.where}: nothing would be shown")
        browser = Browser(PATIENCE)
        try:
            browser.open(self.machine.translated(page[-1]))
            browser.wait("document.readyState === 'complete'")
            browser.type(self.machine.translated(block.text))
            until = time.monotonic() + PATIENCE
            while not wanted <= {line.split()[0] for line in browser.printed}:
                self.case.assertLess(time.monotonic(), until, f"{block.where}: {browser.printed} {browser.complaints}")
                time.sleep(0.1)
                browser.run("1")  # reads what has come meanwhile
        finally:
            browser.close()
        # The page itself may be an answer that there is none.
        complaints = [
            each for each in browser.complaints if not re.search(r"status of 404 .*:\d+/(favicon\.ico)?$", each)
        ]
        self.case.assertEqual(complaints, [], block.where)

    def press_ctrl_c(self) -> None:
        """Do so in every terminal, and see that nothing went wrong behind the reader's back."""
        for command, shown in (each for terminal in reversed(self.terminals) for each in terminal.interrupt()):
            self.case.assertNotIn("Traceback", shown, f"{self.page}: {command}\n{shown}")
            self.said[command] = shown

    def leave(self) -> None:
        """Stop what still runs; nothing that was put into the background may be left."""
        self.press_ctrl_c()
        for claimed in self.folder.rglob("kongtwist.pid"):
            self.case.fail(f"{self.page}: a gateway still runs in {claimed.parent}")


class DocumentTests(LiveTestCase):
    """One method for each document, made below."""

    def walk(self, page: str) -> None:
        """Read a document and do what it says."""
        with ExitStack() as network:
            private = network.enter_context(private_network())
            ports = other_ports(private)
            if any("pg_host" in block.text for block in blocks(page)):
                server = PostgresServer(tcp=True)
                network.callback(server.discard)
                ports["5432"] = str(server.port)
            if any("event_counter.py" in block.text for block in blocks(page)):
                cluster = KafkaCluster(self.folder())
                network.callback(cluster.kill_all)
                ports["9092"] = cluster.start().servers.rpartition(":")[2]
            machine = Machine(self.folder(), ports)
            reader = Reader(self, page, machine)
            try:
                if page != "README.md":
                    reader.prepare()
                reader.read()
                reader.leave()
                if page == "README.md":  # which says that it does
                    self.assertIn(machine.translated("http://localhost:8000/demo/"), reader.said["make run"])
            finally:
                for claimed in reader.folder.rglob("kongtwist.pid"):
                    if (pid := running_pid(str(claimed.parent))) is not None:
                        os.kill(pid, signal.SIGKILL)
        if reader.browser_missing:
            raise SkipTest("needs Chromium for what is typed into a browser")


class ExceptionTests(LiveTestCase):
    """What is not run."""

    def test_needed(self) -> None:
        """Each exception is about commands that a document still has."""
        for each in EXCEPTIONS:
            told = [command for block in blocks(each.page) if block.language == "sh" for command in commands(block)]
            self.assertTrue(any(re.match(each.pattern, command) for command in told), each)
        self.assertLessEqual(set(GIVEN), set(PAGES))


def _make(page: str) -> None:
    def test(self: DocumentTests) -> None:
        self.walk(page)

    test.__doc__ = f"{page}: everything it says to do can be done."
    name = re.sub(r"\W+", "_", page.removesuffix(".md")).lower()
    setattr(DocumentTests, f"test_{name}", test)


for _page in PAGES:
    if any(True for _ in blocks(_page)):
        _make(_page)
