"""The harness of live tests: gateways and peers as real processes on free ports, always cleaned up.

Tests are synchronous (they block on sockets), for everything they talk to runs in processes of its own. What a test
starts it starts through its `LiveTestCase`, which ends all of it, whatever happened, and adds the ends of the logs to a
failure's report.
"""

from __future__ import annotations

import http.client
import json as jsonlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from unittest import SkipTest
from urllib.parse import urlencode

from twisted.trial.unittest import SynchronousTestCase

__all__ = [
    "PATIENCE", "ROOT", "Answer", "EventStream", "GatewayProcess", "LiveTestCase", "Process", "free_port", "group_sockets",
    "request", "wait_until",
]  # fmt: skip

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds that anything may take: a generous deadline, never a measure."""

T = TypeVar("T")

_LISTENS = "0A"
"""State of a listening socket in /proc/net/tcp (proc_pid_net(5))."""


_claims: deque[socket.socket] = deque()
"""Names of the ports that were given last: no process of any test run is given one that another is about to take."""


def free_port() -> int:
    """A TCP port that nobody listens on now, outside the range that outgoing connections take theirs from."""
    for _ in range(1000):
        port = 10_000 + int.from_bytes(os.urandom(2)) % 20_000
        claim = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            try:
                claim.bind(f"\0kongtwist-test-port-{port}")  # a name without a file, gone with this process (unix(7))
                probe.bind(("0.0.0.0", port))
            except OSError:
                claim.close()
                continue
        _claims.append(claim)
        if len(_claims) > 100:  # somebody listens there by now, or never will
            _claims.popleft().close()
        return port
    raise AssertionError("no free port")


def group_sockets(group: int) -> set[str]:
    """Inodes of the sockets that the processes of a group hold."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[2]) == group:
                found |= {os.readlink(each) for each in (stat.parent / "fd").iterdir()}
        except OSError:
            pass  # it has ended, or closed one
    return {name[8:-1] for name in found if name.startswith("socket:[")}


def listens_alone(group: int, port: int) -> bool:
    """Whether sockets listen on a port, and all of them are held by a group of processes."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    sockets = {each[9] for each in lines if each[3] == _LISTENS and int(each[1].rpartition(":")[2], 16) == port}
    return bool(sockets) and sockets <= group_sockets(group)


def wait_until(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Wait until ``condition`` returns something true, and return that.

    Raises:
        AssertionError: it did not within ``patience`` seconds; with the last exception, if there was one.
    """
    until = time.monotonic() + patience
    problem: Exception | None = None
    while time.monotonic() < until:
        try:
            value = condition()
            if value:
                return value
            problem = None
        except (OSError, http.client.HTTPException) as error:
            problem = error
        time.sleep(0.02)
    raise AssertionError(f"not in time: {what}") from problem


class Answer:
    """An HTTP answer, read to its end."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()

    @property
    def json(self) -> Any:
        return jsonlib.loads(self.body)

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.body[:500]!r}>"


def request(
    port: int,
    method: str,
    target: str,
    *,
    json: Any = None,
    form: Mapping[str, Any] | Sequence[tuple[str, str]] | None = None,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
) -> Answer:
    """One HTTP/1.1 request on a connection of its own."""
    sent = dict(headers or {})
    if json is not None:
        body = jsonlib.dumps(json).encode()
        sent.setdefault("Content-Type", "application/json")
    elif form is not None:
        body = urlencode(form).encode()
        sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request(method, target, body, sent)
        return Answer(connection.getresponse())
    finally:
        connection.close()


class EventStream:
    """A Server-Sent Events client (WHATWG HTML 9.2.6) that tells an ended stream from one that was cut.

    Args:
        port: where to connect to.
        target: the request target.
        headers: further request headers, such as Last-Event-ID.
    """

    def __init__(self, port: int, target: str, headers: Mapping[str, str] | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._file = self._socket.makefile("rb")
        fields = {"Host": f"127.0.0.1:{port}", "Accept": "text/event-stream", **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._socket.sendall(f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode())
        self.status = int(self._file.readline().split()[1])
        self.headers = http.client.parse_headers(self._file)
        self.comments: list[str] = []
        self.retry: int | None = None  #: milliseconds that the server told
        self._pending = b""

    def _line(self) -> str | None:
        """The next line of the body without its end; None when the stream ended as it should.

        Raises:
            ConnectionError: the connection ended within the body.
        """
        while b"\n" not in self._pending:
            if self.headers["Transfer-Encoding"] != "chunked":
                piece = self._file.readline()
                if not piece:
                    return None
            else:
                size = self._file.readline()
                if size == b"0\r\n":
                    return None
                piece = self._file.read(int(size, 16) + 2)[:-2] if size else b""
                if not piece:
                    raise ConnectionError("the stream was cut")
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def __iter__(self) -> Iterator[dict[str, str]]:
        return self

    def __next__(self) -> dict[str, str]:
        """The next event's fields; ``data`` lines joined."""
        event: dict[str, str] = {}
        while (line := self._line()) is not None:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "retry":
                self.retry = int(value)
            elif not line:
                if "data" in event:
                    return event
                event = {}
            elif not name:
                self.comments.append(value)
            else:
                event[name] = f"{event[name]}\n{value}" if name == "data" and name in event else value
        raise StopIteration

    def close(self) -> None:
        """Leave, as a browser does whose page is closed."""
        self._file.close()
        self._socket.close()


class Process:
    """A child process in a group of its own, its output in a file.

    Args:
        words: program and arguments.
        folder: where its output goes, and its working directory.
        name: what to call it in reports.
        env: environment variables beside our own.
    """

    def __init__(
        self, words: Sequence[str], folder: str, name: str = "process", env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._output_path = os.path.join(folder, f"{name}.out")
        with open(self._output_path, "ab") as output:
            self.popen = subprocess.Popen(
                list(words),
                cwd=folder,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def output(self) -> str:
        """All it has printed so far."""
        with open(self._output_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def signal(self, number: int) -> None:
        """Send a signal to the process, not to its children."""
        self.popen.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for its end; returns the exit code."""
        return self.popen.wait(patience)

    def kill(self) -> None:
        """Kill it and all its children with SIGKILL, at once."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()


class GatewayProcess:
    """A gateway under twistd, configured by a file in a prefix of its own.

    Args:
        case: the test it belongs to.
        conf: properties of kong.conf beside or in place of the harness's own (ports, logs).
        demo: start it with ``--demo``.
        env: environment variables beside our own.
        tls: listen with TLS too, on ``tls_port``.
        http2: speak HTTP/2 there.
    """

    def __init__(
        self,
        case: LiveTestCase,
        conf: Mapping[str, object] | None = None,
        *,
        demo: bool = False,
        env: Mapping[str, str] | None = None,
        tls: bool = False,
        http2: bool = False,
    ) -> None:
        self._case = case
        self._demo = demo
        self._env = dict(env or {})
        self.folder = case.folder()
        self.prefix = os.path.join(self.folder, "prefix")
        self.proxy_port, self.admin_port, self.status_port, self.tls_port = (free_port() for _ in range(4))
        listen = [
            f"127.0.0.1:{self.proxy_port}",
            *([f"127.0.0.1:{self.tls_port} {'http2 ' if http2 else ''}ssl"] if tls else []),
        ]
        self.conf: dict[str, object] = {
            "proxy_listen": ", ".join(listen),
            "admin_listen": f"127.0.0.1:{self.admin_port}",
            "status_listen": "off",
            "log_level": "info",
            **(conf or {}),
        }
        self.process: Process | None = None

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> GatewayProcess:
        """Start it and wait until its Admin API answers."""
        self.launch()
        wait_until(self._answers, "the gateway's Admin API")
        return self

    def launch(self) -> Process:
        """Start it without waiting: for starts that are to fail."""
        path = os.path.join(self.folder, "kong.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{name} = {value}\n" for name, value in self.conf.items())
        words = [
            sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=",
            "kongtwist", "--conf", path, "--prefix", self.prefix, *(["--demo"] if self._demo else []),
        ]  # fmt: skip
        kept = {name: "" for name in os.environ if name.startswith("KONG_")}
        env = {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **self._env}
        self.process = self._case.start(words, "gateway", env=env, folder=self.folder)
        return self.process

    def _answers(self) -> bool:
        assert self.process is not None
        if not self.process.running:
            raise AssertionError(f"the gateway ended with {self.process.popen.returncode}:\n{self.report()}")
        if self.conf["admin_listen"] == "off":
            socket.create_connection(("127.0.0.1", self.proxy_port), 1).close()
            return True
        return request(self.admin_port, "GET", "/status").status in (200, 401)  # 401: it wants a token

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """Kill the gateway and its workers with SIGKILL: nothing is told, nothing is saved."""
        if self.process is not None:
            self.process.kill()

    def stop(self) -> int:
        """Stop it gracefully; returns the exit code."""
        assert self.process is not None
        self.process.signal(signal.SIGTERM)
        return self.process.wait()

    def report(self) -> str:
        """The ends of its output and of its logs."""
        shown = []
        if self.process is not None:
            shown.append(f"-- gateway output\n{self.process.output()[-4000:]}")
        logs = os.path.join(self.prefix, "logs")
        for name in sorted(os.listdir(logs)) if os.path.isdir(logs) else []:
            shown.append(f"-- {name}\n{self.log(name)[-4000:]}")
        return "\n".join(shown)

    def log(self, name: str = "error.log") -> str:
        """What one of its logs holds now."""
        with open(os.path.join(self.prefix, "logs", name), encoding="utf-8", errors="replace") as file:
            return file.read()

    # -- talking to it -----------------------------------------------------------------------------------------------

    def admin(self, method: str, path: str, **arguments: Any) -> Answer:
        """One request to the Admin API."""
        return request(self.admin_port, method, path, **arguments)

    def create(self, path: str, **fields: Any) -> Any:
        """Create an entity by POST; returns it as the Admin API answers it. Fails unless that is a 201."""
        answer = self.admin("POST", path, json=fields)
        if answer.status != 201:
            raise AssertionError(f"POST {path} {fields}: {answer}")
        return answer.json

    def route(self, path: str, url: str, name: str | None = None, **route: Any) -> Any:
        """Create a service at ``url`` with a route at ``path``; returns the route."""
        service = self.create("/services", name=name or f"s{path.replace('/', '-')}", url=url)
        return self.create(f"/services/{service['id']}/routes", paths=[path], **route)

    def get(self, target: str, **arguments: Any) -> Answer:
        """One GET through the gateway."""
        return request(self.proxy_port, "GET", target, **arguments)

    def url(self, path: str, scheme: str = "http") -> str:
        """The address of ``path`` behind the gateway."""
        return f"{scheme}://127.0.0.1:{self.proxy_port}{path}"


def _reporting(method: Callable[[LiveTestCase], None]) -> Callable[[LiveTestCase], None]:
    """A test method, made to print the ends of all logs when it fails."""

    @wraps(method)
    def test(self: LiveTestCase) -> None:
        try:
            method(self)
        except SkipTest:
            raise
        except BaseException:
            sys.stderr.write(f"\n== {self.id()}\n{self.report()}\n")
            raise

    return test


class LiveTestCase(SynchronousTestCase):
    """A test with processes; all it starts ends with it."""

    def __init__(self, methodName: str = "runTest") -> None:
        super().__init__(methodName)
        self._gateways: list[GatewayProcess] = []
        self._processes: list[Process] = []

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in dir(cls):
            if name.startswith("test") and not hasattr(getattr(cls, name), "__wrapped__"):
                setattr(cls, name, _reporting(getattr(cls, name)))

    def report(self) -> str:
        """The ends of the output of all processes, and of the gateways' logs."""
        others = [each for each in self._processes if each.name != "gateway"]
        shown = [gateway.report() for gateway in self._gateways]
        shown += [f"-- {each.name} output\n{each.output()[-2000:]}" for each in others if each.output()]
        return "\n".join(shown)

    def folder(self) -> str:
        """A new directory that is removed after the test."""
        path = tempfile.mkdtemp(prefix="kongtwist-live-")
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path

    def start(
        self, words: Sequence[str], name: str, env: Mapping[str, str] | None = None, folder: str | None = None
    ) -> Process:
        """Start a process that is killed, with its children, after the test at the latest."""
        process = Process(words, folder or self.folder(), name, env)
        self._processes.append(process)
        self.addCleanup(self._processes.remove, process)
        self.addCleanup(process.kill)
        return process

    def gateway(self, conf: Mapping[str, object] | None = None, **options: Any) -> GatewayProcess:
        """Start a gateway and wait until it is ready (see `GatewayProcess`)."""
        gateway = GatewayProcess(self, conf, **options)
        self._gateways.append(gateway)
        self.addCleanup(self._gateways.remove, gateway)
        return gateway.start()

    def upstream(self, kind: str, *arguments: str) -> int:
        """Start one of the servers of `upstreams` and wait until it listens; returns its port."""
        port = free_port()
        words = [sys.executable, str(ROOT / "tests" / "live" / "upstreams.py"), kind, str(port), *arguments]
        self.last_upstream = self.start(words, f"upstream-{kind}")
        self.wait_for_port(port, self.last_upstream)
        return port

    def wait_for_port(self, port: int, process: Process) -> None:
        """Wait until ``process``, or a child of it, listens on ``port``, and nobody else."""

        def listening() -> bool:
            if not process.running:
                raise AssertionError(f"{process.name} ended:\n{process.output()}")
            socket.create_connection(("127.0.0.1", port), 1).close()
            if not listens_alone(process.pid, port):
                raise AssertionError(f"another process listens on port {port} of {process.name}")
            return True

        wait_until(listening, f"{process.name} on port {port}")

    def nginx(self, server: str, http: str = "") -> int:
        """Start nginx with one server that has these directives, and ``http`` beside it; returns its port.

        Its output: its errors, and for each request who answered it.
        """
        path = shutil.which("nginx") or "/usr/sbin/nginx"
        folder, port = self.folder(), free_port()
        temporary = " ".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = (
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log stderr; events {{}}\n"
            f"http {{ log_format from '$remote_port $request $status of $upstream_addr'; access_log /dev/stderr from; "
            f"{temporary} {http} server {{ listen 127.0.0.1:{port}; {server} }} }}\n"
        )
        Path(folder, "nginx.conf").write_text(text, encoding="utf-8")
        process = self.start([path, "-p", folder, "-c", f"{folder}/nginx.conf", "-e", "stderr"], "nginx")
        self.wait_for_port(port, process)
        return port
