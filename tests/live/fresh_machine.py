"""What a user has who has just unpacked the source: a copy of it, a shell, ports of their own, and no Python packages.

`python3 -m venv` and `pip install` work as ever, but nothing is downloaded: a new environment sees the packages that
the tests run with, as if an index had given them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.live.support import PATIENCE, ROOT, free_port

__all__ = ["COMMAND_PATIENCE", "Machine", "Shell", "private_network", "seed"]

COMMAND_PATIENCE = 10 * PATIENCE
"""Seconds that a command may take: some install a package, or run a program that works for a while."""

LEFT_OUT = shutil.ignore_patterns(
    ".git", ".ci", ".venv", ".*_cache", "build", "dist", "*.egg-info", "_trial_temp*", "node_modules", "__pycache__",
    "kongtwist-data", "embed-data", ".hypothesis",
)  # fmt: skip

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PORTS = (
    "8000",
    "8001",
    "8002",
    "8007",
    "8010",
    "8011",
    "8080",
    "8443",
    "8444",
    "9100",
    "9092",
    "9101",
    "9200",
    "9300",
    "50051",
)
"""Ports that documents name. Without a network of its own a test takes others where one of them is in use."""

_numbers = count(1)
"""Of shells, so that their outputs and marks differ."""

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


@contextmanager
def private_network() -> Iterator[bool]:
    """A network of its own for this thread and the processes that it starts: loopback alone, all ports free.

    Yields:
        whether there is one; making it is a privilege (network_namespaces(7)).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as before:
        if libc.unshare(_CLONE_NEWNET):
            yield False
            return
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
            yield True
        finally:
            if libc.setns(before.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "the network of before is gone")


def other_ports(private: bool) -> dict[str, str]:
    """Which port stands for which that documents name: none for another in a network of its own, or where all are free."""
    if private or all(_is_free(int(port)) for port in PORTS):
        return {}
    return {port: str(free_port()) for port in PORTS}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


class Machine:
    """A fresh machine.

    Args:
        folder: an empty folder, in which everything happens.
        ports: port -> port that stands for it, in the copied source too.
    """

    def __init__(self, folder: str, ports: Mapping[str, str]) -> None:
        self.folder, self._ports = Path(folder), dict(ports)
        self.home = self.folder / "home"
        self.home.mkdir()
        # Every request says how it was answered, whatever else is printed.
        (self.home / ".curlrc").write_text(
            'silent\nshow-error\nmax-time = 60\nwrite-out = "%{stderr}@@status %{http_code}\\n"\n', encoding="ascii"
        )
        tools = self.folder / "tools"
        tools.mkdir()
        base = getattr(sys, "_base_executable", sys.executable)
        python = tools / "python3"
        python.write_text(
            f'#!/bin/sh\n{base} "$@" || exit\n[ "$1 $2" = "-m venv" ] || exit 0\nfor folder; do :; done\n'
            f'PYTHONPATH={ROOT} exec {sys.executable} -m tests.live.fresh_machine "$folder"\n',
            encoding="utf-8",
        )
        python.chmod(0o755)
        self.environ = {
            "PATH": f"{tools}:{SYSTEM_PATH}", "HOME": str(self.home), "LANG": "C.UTF-8", "TERM": "dumb",
            # No index and no isolated builds, which would ask one.
            "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }  # fmt: skip

    def translated(self, text: str) -> str:
        """A text with the ports that stand for those it names."""
        if not self._ports:
            return text
        return re.sub(rf"(?<![\d.])({'|'.join(self._ports)})(?!\d)", lambda found: self._ports[found[1]], text)

    def clone(self, name: str) -> Path:
        """A copy of the source tree."""
        copy = self.folder / name
        shutil.copytree(ROOT, copy, symlinks=True, ignore=LEFT_OUT)
        if self._ports:
            named = (copy / "kongtwist" / "config/properties.py", copy / "examples" / "embed.py")
            for path in (*named, *(copy / "kongtwist" / "demo").glob("*.py")):
                path.write_text(self.translated(path.read_text(encoding="utf-8")), encoding="utf-8")
        return copy

    def environment(self, folder: Path, source: Path) -> None:
        """An environment in ``folder`` in which the gateway is installed from ``source``, made without the commands."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        seed(str(folder))
        site = next((folder / "lib").glob("python*")) / "site-packages"
        (site / "gateway.pth").write_text(f"{source}\n", encoding="utf-8")
        command = folder / "bin" / "kongtwist"
        command.write_text(
            f"#!{folder}/bin/python\nimport sys\nfrom kongtwist.commands.main import main\nsys.exit(main())\n",
            encoding="utf-8",
        )
        command.chmod(0o755)


def seed(environment: str) -> None:
    """Let a new environment have the packages of this one, and the commands they bring; the gateway is not among them."""
    folders = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    site = next(Path(environment, "lib").glob("python*")) / "site-packages"
    # An environment is born with the interpreter's setuptools. An index would give a newer one to who asks (grpcio-tools does).
    for own in (*site.glob("setuptools*"), site / "pkg_resources", site / "_distutils_hack"):
        shutil.rmtree(own, ignore_errors=True)
    (site / "distutils-precedence.pth").unlink(missing_ok=True)
    (site / "packages-of-the-tests.pth").write_text("".join(f"{each}\n" for each in folders), encoding="utf-8")
    python = f"{environment}/bin/python"
    for program in Path(sysconfig.get_path("scripts")).iterdir():
        head = program.read_bytes()[:200] if program.is_file() else b""
        if program.name == "kongtwist" or not re.match(rb"#!\S*python", head) or program.name.startswith("pip"):
            continue
        _, _, rest = program.read_text(encoding="utf-8").partition("\n")
        made = Path(environment, "bin", program.name)
        made.write_text(f"#!{os.path.abspath(python)}\n{rest}", encoding="utf-8")
        made.chmod(0o755)


class Shell:
    """A shell that commands are typed into.

    Args:
        machine: what it has.
        folder: where it starts.
    """

    def __init__(self, machine: Machine, folder: Path) -> None:
        self._machine, self._folder = machine, folder
        self._number = next(_numbers) * 1000
        self.background: list[tuple[str, int, Path]] = []  #: commands that go on: text, process group, output
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=folder, env=machine.environ, start_new_session=True, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        # Job control: what is started in the background gets a process group, and Ctrl-C of its own.
        self._type("set -m -o pipefail")

    def _type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n".encode())

    def run(self, command: str, patience: float = COMMAND_PATIENCE) -> tuple[int, str]:
        """Run a command to its end; returns exit code and output. Raises AssertionError when it does not end."""
        mark = self._mark()
        self._type(f"{{\n{command}\n}} </dev/null; printf '\\n{mark} %d\\n' $?")
        shown, _, code = self._read(mark, command, patience).rpartition(f"\n{mark} ")
        return int(code), shown

    def start(self, command: str) -> Path:
        """Start a command that goes on; returns the file that its output goes to."""
        mark = self._mark()
        output = self._machine.folder / f"{self._folder.name}-output-{self._number}"
        self._type(f"{{\n{command}\n}} </dev/null >{output} 2>&1 &\nprintf '\\n{mark} %d\\n' $!")
        group = int(self._read(mark, command, PATIENCE).rpartition(" ")[2])
        self.background.append((command, group, output))
        return output

    def _mark(self) -> str:
        self._number += 1
        return f"@@end-{os.getpid()}-{self._number}"

    def _read(self, mark: str, command: str, patience: float) -> str:
        """What is printed up to the line that begins with ``mark``, that line included."""
        assert self._process.stdout is not None
        found, until = b"", time.monotonic() + patience
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not re.search(rb"\n%b \d+\n\Z" % mark.encode(), found):
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise AssertionError(f"does not end: {command}\n{found.decode(errors='replace')}")
                piece = os.read(self._process.stdout.fileno(), 65536)
                if not piece:
                    raise AssertionError(f"ended the shell: {command}\n{found.decode(errors='replace')}")
                found += piece
        return found.decode(errors="replace").rstrip("\n")

    def interrupt(self, number: int = signal.SIGINT) -> list[tuple[str, str]]:
        """Press Ctrl-C in each terminal; returns the commands with all that they have printed.

        Raises:
            AssertionError: one goes on.
        """
        ended = []
        for command, group, output in reversed(self.background):
            _signal(group, number)
            until = time.monotonic() + PATIENCE
            while self.goes_on(group):
                assert time.monotonic() < until, f"Ctrl-C does not end: {command}\n{output.read_text(errors='replace')}"
                time.sleep(0.05)
            ended.append((command, output.read_text(encoding="utf-8", errors="replace")))
        self.background.clear()
        return ended

    def goes_on(self, group: int) -> bool:
        """Whether a command that was started still runs."""
        self.run(":")  # the shell reaps what has ended
        return _signal(group, 0)

    def close(self) -> None:
        """End everything at once."""
        for _, group, _ in self.background:
            _signal(group, signal.SIGKILL)
        _signal(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group; False when there is none."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    seed(sys.argv[1])
