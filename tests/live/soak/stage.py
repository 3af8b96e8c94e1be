"""What a soak is played on: the gateway in one of its forms, its upstreams, its clients, and what is seen of them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from tests.live.pki import authority
from tests.live.soak.control import tell
from tests.live.support import PATIENCE, ROOT, GatewayProcess, LiveTestCase, Process, free_port, request, wait_until

__all__ = ["CONF", "LOOK", "WATCHING", "Seen", "Stage", "difference", "newcomers"]

CONF: dict[str, object] = {
    "nginx_http_client_header_timeout": "10s",
    "nginx_http_client_body_timeout": "10s",
    "nginx_http_send_timeout": "6s",
    "nginx_http_keepalive_timeout": "10s",
    "nginx_http_keepalive_requests": 50,
    "nginx_http_client_max_body_size": "20m",
    "upstream_keepalive_idle_timeout": 2,
}
"""Time-outs that make everything end within seconds, and leave the client that behaves its time on a busy machine."""
TIMEOUTS: dict[str, Any] = {"connect_timeout": 1000, "read_timeout": 2500, "write_timeout": 2500, "retries": 2}

LOOK = os.path.join(os.path.dirname(__file__), "look")
GAUGES = ("active", "reading", "writing", "waiting", "websocket", "sse")

Seen = Mapping[str, Any]
"""What `look.sitecustomize` wrote down of one process."""


def _comparable(seen: Seen) -> dict[str, Any]:
    """What must be the same before and after."""
    relays = []
    for relay in seen["relays"]:
        cells = relay["cells"]
        gauges = dict(zip(GAUGES, cells[3:9], strict=True))
        relays.append({name: value for name, value in relay.items() if name not in ("cells", "deadlines")} | gauges)
    return {
        "relays": relays,
        "peers": seen["peers"],
        "ours": seen["ours"],
        "below": seen["below"],
        "readers": seen["readers"],
        "writers": seen["writers"],
        "timers": seen["timers"],
        "sockets": seen["descriptors"].get("socket", 0),
    }


WATCHING = "Deadlines._look"
"""The timer that is there while anything has a deadline."""

LEFT = frozenset(
    ("Server", "_GenericHTTPChannelProtocol", "HTTPChannel", "BufferingTLSTransport", "Connection", "Request")
)
"""What stays of one TLS connection of a twisted.web Site when its channel raises while the connection is being lost:
Twisted's TLS then leaves its own end unfinished. Only the Site's; our own listeners end all the same."""
RAISED = "'HTTPChannel' object has no attribute '_version'"
"""What the channel of a Site raises for lines behind a request that it has refused."""


def difference(before: Mapping[int, Seen], now: Mapping[int, Seen], raised: int = 0) -> list[str]:
    """What is not as it was, in words; nothing if all is.

    Args:
        before: what was seen at first.
        now: what is seen now.
        raised: so many connections of a Site may have stayed (`LEFT`).
    """
    told = []
    if set(before) != set(now):
        told.append(f"processes: {sorted(before)} before, {sorted(now)} now")
    for pid in sorted(set(before) & set(now)):
        old, new = _comparable(before[pid]), _comparable(now[pid])
        for name in old:
            if old[name] == new[name]:
                continue
            was, is_ = old[name], new[name]
            if name == "sockets" and 0 <= is_ - was <= raised:
                continue  # refused as well, and silent: without its close_notify Twisted's TLS waits for ever
            if isinstance(was, dict):
                stays = dict.fromkeys(LEFT, raised) if name in ("below", "readers") else {}
                if name == "timers":  # what was closed just before the first look may have been watched still
                    was = {key: min(count, is_.get(key, 0)) if key == WATCHING else count for key, count in was.items()}
                keys = [
                    key
                    for key in (*was, *(set(is_) - set(was)))
                    if not 0 <= is_.get(key, 0) - was.get(key, 0) <= stays.get(key, 0)
                ]
                was, is_ = {key: was.get(key, 0) for key in keys}, {key: is_.get(key, 0) for key in keys}
                if not keys:
                    continue
            told.append(f"process {pid}, {name}: {was} before, {is_} now")
        # Of what was closed just before the first look some may have been watched still: fewer is no fault.
        waiting = [sum(relay["deadlines"] for relay in seen[pid]["relays"]) for seen in (before, now)]
        if waiting[1] > waiting[0]:
            told.append(f"process {pid}, deadlines: {waiting[0]} before, {waiting[1]} now")
    return told


def newcomers(before: Mapping[int, Seen], now: Mapping[int, Seen]) -> list[str]:
    """Connections, requests and streams that are there now and were not before, as they are."""
    return [
        f"{pid}: {text}"
        for pid, seen in now.items()
        for key, text in seen["described"].items()
        if key not in before.get(pid, {"described": {}})["described"]
    ]


class Stage:
    """Starts everything.

    Args:
        case: the test; what is started ends with it.
        form: ``one``, ``workers`` or ``embedded``.
        seed: of the clients.
        at_once: clients at a time.
        kinds: only these kinds of transcripts; all if none.
    """

    def __init__(self, case: LiveTestCase, form: str, seed: str, at_once: int, kinds: list[str]) -> None:
        self.case = case
        self.folder = case.folder()
        self.looks = os.path.join(self.folder, "looks")
        os.mkdir(self.looks)
        self.certificate = authority().sign("localhost").write(self.folder, "server")
        self._env = {"PYTHONPATH": f"{LOOK}{os.pathsep}{ROOT}", "SOAK_LOOK": self.looks, "PYTHONDONTWRITEBYTECODE": "1"}
        self.ports = {name: free_port() for name in ("a", "b", "tls", "rude", "closed", "hole", "calm")}
        self._program("upstream", "wild-upstream", {
            "plain": [self.ports["a"], self.ports["b"]], "tls": [self.ports["tls"]], "rude": [self.ports["rude"]],
            "hole": [self.ports["hole"]], "certificate": self.certificate,
        })  # fmt: skip
        self._program("upstream", "calm-upstream", {"plain": [self.ports["calm"]]})
        self.gateway: GatewayProcess | None = None
        self.host: Process | None = None
        self.doors: dict[str, tuple[Any, bool, str]] = {}
        self.apis: dict[str, tuple[Any, bool, str]] = {}
        if form == "embedded":
            self._embed()
        else:
            self._start(2 if form == "workers" else 1)
        self._configure()
        self._program("calm", "calm", {"doors": self.doors, "admin": ["127.0.0.1", self.admin_port, self.mount]})
        self._program(
            "wild", "wild", {"doors": self.doors | self.apis, "seed": seed, "at_once": at_once, "kinds": kinds}
        )

    # -- beginning -----------------------------------------------------------------------------------------------------

    def _program(self, module: str, name: str, what: Mapping[str, Any]) -> None:
        words = [sys.executable, "-m", f"tests.live.soak.{module}", self.control(name), json.dumps(what)]
        env = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        process = self.case.start(words, name, env=env)

        def listening() -> bool:
            if not process.running:
                raise AssertionError(f"{name} ended:\n{process.output()}")
            return os.path.exists(self.control(name))

        wait_until(listening, name)

    def control(self, name: str) -> str:
        """The control socket of a program."""
        return os.path.join(self.folder, name)

    def tell(self, name: str, word: str) -> Any:
        """Tell a program something."""
        return tell(self.control(name), word)

    def _start(self, workers: int) -> None:
        """A node."""
        plain, secure, admin, status = (free_port() for _ in range(4))
        unix = os.path.join(self.folder, "proxy.sock")
        conf = {
            **CONF,
            "proxy_listen": f"127.0.0.1:{plain} reuseport, 127.0.0.1:{secure} ssl reuseport, unix:{unix}",
            "nginx_worker_processes": workers,
            "status_listen": f"127.0.0.1:{status}",
        }
        gateway = self.gateway = GatewayProcess(self.case, conf, env=self._env)
        self.case._gateways.append(gateway)
        gateway.conf["admin_listen"] = f"127.0.0.1:{gateway.admin_port}, 127.0.0.1:{admin} ssl"
        gateway.start()
        self.admin_port, self.mount = gateway.admin_port, ""
        self.doors = {
            "plain": (["127.0.0.1", plain], False, ""), "tls": (["127.0.0.1", secure], True, ""), "unix": (unix, False, ""),
        }  # fmt: skip
        self.apis = {
            "admin": (["127.0.0.1", self.admin_port], False, ""), "admin-tls": (["127.0.0.1", admin], True, ""),
            "status": (["127.0.0.1", status], False, ""),
        }  # fmt: skip

    def _embed(self) -> None:
        """A program with the gateway in it."""
        names = ("site", "site-tls", "owner", "owner-tls")
        ports = [free_port() for _ in names]
        prefix = os.path.join(self.folder, "prefix")
        os.mkdir(prefix)
        words = [
            sys.executable, "-m", "tests.live.soak.host", prefix, json.dumps({name: str(value) for name, value in CONF.items()}),
            *self.certificate, *map(str, ports),
        ]  # fmt: skip
        self.host = self.case.start(words, "host", env=self._env)
        host = self.host
        wait_until(lambda: "ready" in host.output() or not host.running, "the embedding program")
        self.admin_port, self.mount = ports[0], "/admin"
        self.doors = {
            name: (["127.0.0.1", port], "tls" in name, "/api" if "site" in name else "")
            for name, port in zip(names, ports, strict=True)
        }

    def _create(self, path: str, **fields: Any) -> None:
        answer = request(self.admin_port, "POST", self.mount + path, json=fields)
        if answer.status != 201:
            raise AssertionError(f"POST {path} {fields}: {answer}")

    def _pool(self, name: str, algorithm: str, *targets: str) -> None:
        self._create("/upstreams", name=name, algorithm=algorithm)
        for target in targets:
            weight = 20 if target in ("closed", "hole") else 100
            self._create(f"/upstreams/{name}/targets", target=f"127.0.0.1:{self.ports[target]}", weight=weight)

    def _service(self, name: str, preserve_host: bool = False, **service: Any) -> None:
        self._create("/services", name=name, **service)
        self._create(f"/services/{name}/routes", name=name, paths=[f"/{name}"], preserve_host=preserve_host)

    def _configure(self) -> None:
        self._pool("least-pool", "least-connections", "a", "b", "closed", "hole")
        self._pool("secure-pool", "round-robin", "tls", "rude")
        self._pool("calm-pool", "least-connections", "calm")
        self._service("least", host="least-pool", **TIMEOUTS)
        self._service("kept-host", True, host="least-pool", **TIMEOUTS)
        self._service("keyed", host="least-pool", **TIMEOUTS)
        self._service("answered", host="least-pool", **TIMEOUTS)
        self._service("secure", host="secure-pool", protocol="https", **TIMEOUTS)
        self._service("direct", url=f"http://127.0.0.1:{self.ports['a']}", **TIMEOUTS)
        self._service("named", url=f"http://localhost:{self.ports['b']}", **TIMEOUTS)
        self._service("aside", url="http://127.0.0.1:1")
        for number in range(200):
            self._create(
                "/services", name=f"aside-{number}", url="http://127.0.0.1:1", tags=[f"tag{n}" for n in range(20)]
            )
        self._service("calm", host="calm-pool")
        self._create("/services/keyed/plugins", name="key-auth")
        self._create("/services/keyed/plugins", name="correlation-id", config={"echo_downstream": True})
        self._create("/services/named/plugins", name="rate-limiting", config={"second": 1_000_000, "policy": "local"})
        self._create("/services/answered/plugins", name="request-termination", config={"status_code": 403})

    # -- looking -------------------------------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """The gateway's processes."""
        if self.host is not None:
            return [self.host.pid]
        assert self.gateway is not None
        first = self.gateway.pid
        with open(f"/proc/{first}/task/{first}/children", encoding="ascii") as file:
            return [first, *map(int, file.read().split())]

    def look(self) -> dict[int, Seen]:
        """What each of them holds now."""
        for _ in range(10):
            seen = self._look()
            errors = [
                f"process {pid} cannot say what it holds: {each['error']}"
                for pid, each in seen.items()
                if "error" in each
            ]
            if not errors:
                return seen
            time.sleep(0.1)  # the signal came in the middle of a change of what is looked at
        raise AssertionError("; ".join(errors))

    def _look(self) -> dict[int, Seen]:
        pids = self.pids()
        for pid in pids:
            path = os.path.join(self.looks, f"{pid}.json")
            if os.path.exists(path):
                os.remove(path)
            os.kill(pid, signal.SIGUSR2)
        seen = {}
        for pid in pids:
            path = os.path.join(self.looks, f"{pid}.json")
            wait_until(lambda path=path: os.path.exists(path), f"what process {pid} holds")  # type: ignore[misc]
            with open(path, encoding="utf-8") as file:
                seen[pid] = json.load(file)
        return seen

    def quiet(self) -> dict[int, Seen]:
        """What they hold as soon as nothing changes any more."""
        before = self.look()
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            time.sleep(1.5)  # longer than an access log waits for more lines
            now = self.look()
            if not difference(before, now, self.raised()):
                return now
            before = now
        raise AssertionError("there is no quiet")

    def settle(self, before: Mapping[int, Seen], patience: float) -> tuple[list[str], dict[int, Seen]]:
        """Wait until everything is as it was; gives what is not after ``patience`` seconds, and what was seen last."""
        until = time.monotonic() + patience
        while True:
            now = self.look()
            left = difference(before, now, self.raised())
            if not left or time.monotonic() > until:
                return left, now
            time.sleep(1)  # a look takes the process longer than many a request

    def forget_peaks(self) -> None:
        """Begin to measure anew how much memory the processes take at most (proc(5): clear_refs)."""
        for pid in self.pids():
            with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
                file.write("5")

    def peaks(self) -> dict[int, int]:
        """Bytes of memory that each process had at most since."""
        found = {}
        for pid in self.pids():
            with open(f"/proc/{pid}/status", encoding="ascii") as file:
                found[pid] = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
        return found

    def raised(self) -> int:
        """How often the channel of an embedding program's Site has raised."""
        return 0 if self.host is None else self.error_log().count(f"AttributeError: {RAISED}")

    def access_log(self) -> str:
        """What the gateway answered."""
        prefix = os.path.join(self.folder, "prefix") if self.gateway is None else self.gateway.prefix
        path = os.path.join(prefix, "logs", "access.log")
        if not os.path.exists(path):
            return ""  # an embedding program's own
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def error_log(self) -> str:
        """What the gateway complained of."""
        if self.gateway is not None:
            return self.gateway.log()
        with open(os.path.join(self.folder, "prefix", "error.log"), encoding="utf-8", errors="replace") as file:
            return file.read()
