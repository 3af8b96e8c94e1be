"""Real worker processes: read your writes, death and succession, limits over all workers, stopping."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from typing import Any
from uuid import uuid4

from kongtwist.entities import registry
from kongtwist.node.plugin_loader import load_plugins

from .support import PATIENCE, ROOT, Answer, GatewayProcess, LiveTestCase, free_port, request, wait_until

ENTITIES = registry(load_plugins(["bundled"]))


class Node:
    """A parent with workers, told what to serve through its control port."""

    def __init__(self, case: LiveTestCase, workers: int) -> None:
        self.control, self.port = free_port(), free_port()
        program = str(ROOT / "tests" / "live" / "worker_parent.py")
        folder = case.folder()
        self.process = case.start(
            [sys.executable, program, str(self.control), str(self.port), str(workers), os.path.join(folder, "prefix")],
            "node", env={"PYTHONPATH": str(ROOT)}, folder=folder,
        )  # fmt: skip
        case.wait_for_port(self.control, self.process)
        self._socket = socket.create_connection(("127.0.0.1", self.control), PATIENCE)
        case.addCleanup(self._socket.close)
        self._lines = self._socket.makefile("rb")
        case.addCleanup(self._lines.close)

    def tell(self, line: str) -> Any:
        self._socket.sendall(line.encode() + b"\n")
        return json.loads(self._lines.readline())

    def publish(self, *changes: tuple[str, str, dict[str, Any]]) -> None:
        answer = self.tell(json.dumps(changes))
        if answer != "published":
            raise AssertionError(answer)

    def create(self, entity: str, **fields: Any) -> dict[str, Any]:
        """A complete row, served by all workers when this returns."""
        row = ENTITIES[entity].insert(fields, now=1700000000, new_id=lambda: str(uuid4()))
        self.publish(("create", entity, row))
        return row

    def route(self, path: str, port: int) -> dict[str, Any]:
        service = self.create("services", host="127.0.0.1", port=port)
        return self.create("routes", paths=[path], service={"id": service["id"]})

    def get(self, target: str) -> Answer:
        return request(self.port, "GET", target)

    @property
    def pids(self) -> list[int]:
        found: list[int] = self.tell("pids")
        return found

    @property
    def counters(self) -> dict[str, int]:
        found: dict[str, int] = self.tell("counters")
        return found


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class WorkersTests(LiveTestCase):
    def setUp(self) -> None:
        self.echo = self.upstream("echo")

    def test_read_your_writes(self) -> None:
        """A route created is met by the very next request, whichever worker gets it: a hundred times."""
        node = Node(self, 2)
        service = node.create("services", host="127.0.0.1", port=self.echo)
        for number in range(100):
            node.create("routes", paths=[f"/route{number:02}"], service={"id": service["id"]})
            self.assertEqual(node.get(f"/route{number:02}/x").json["target"], "/x")
        self.assertEqual(node.get("/other").status, 404)
        self.assertEqual(node.counters["requests"], 101)

    def test_both_workers_serve(self) -> None:
        """Connections are spread over processes, which tell the truth about who they are."""
        node = Node(self, 2)
        node.route("/", self.echo)
        node.create("plugins", name="request-termination", config={"status_code": 200, "echo": True})
        seen = {node.get("/").json["kong"]["worker_pid"] for _ in range(64)}
        self.assertEqual(seen, set(node.pids))

    def test_deleted_at_once(self) -> None:
        """What is deleted is gone in all workers when the writer is answered."""
        node = Node(self, 2)
        route = node.route("/gone", self.echo)
        self.assertEqual(node.get("/gone").status, 200)
        node.publish(("delete", "routes", route))
        self.assertEqual([node.get("/gone").status for _ in range(16)], [404] * 16)

    def test_killed_worker_is_replaced(self) -> None:
        """No connection is refused or lost in the gap, its counters are corrected, its successor knows everything."""
        node = Node(self, 2)
        node.route("/", self.echo)
        idle = [socket.create_connection(("127.0.0.1", node.port), PATIENCE) for _ in range(8)]
        for each in idle:
            self.addCleanup(each.close)
            each.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertTrue(each.recv(65536).startswith(b"HTTP/1.1 200"))
        wait_until(lambda: node.counters["active"] == 8, "all idle connections counted")
        victim, other = node.pids
        os.kill(victim, signal.SIGKILL)
        answers = [node.get(f"/{number}").status for number in range(40)]
        self.assertEqual(answers, [200] * 40)
        wait_until(lambda: len(node.pids) == 2 and victim not in node.pids, "a successor")
        self.assertIn(other, node.pids)
        node.create("plugins", name="request-termination", config={"status_code": 200, "echo": True})
        successor = next(pid for pid in node.pids if pid != other)
        wait_until(lambda: node.get("/").json["kong"]["worker_pid"] == successor, "the successor's answer")
        kept = sum(1 for each in idle if still_open(each))
        self.assertLess(kept, 8)
        wait_until(lambda: node.counters["active"] == kept, "only the living worker's connections counted")
        self.assertGreaterEqual(node.counters["requests"], 49)

    def test_limit_is_the_nodes(self) -> None:
        """Requests one after the other, over both workers: exactly the limit passes, and a death changes nothing."""
        node = Node(self, 2)
        route = node.route("/", self.echo)
        node.create("plugins", name="rate-limiting", route={"id": route["id"]}, config={"year": 20})
        self.assertEqual([node.get("/").status for _ in range(20)], [200] * 20)
        os.kill(node.pids[0], signal.SIGKILL)
        self.assertEqual([node.get("/").status for _ in range(10)], [429] * 10)

    def test_stop_finishes_requests(self) -> None:
        """A request being served gets its answer while new connections are refused; then the workers are gone."""
        node = Node(self, 2)
        node.route("/", self.echo)
        pids = node.pids
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(node.get("/?delay=3").status))
        thread.start()
        wait_until(lambda: node.counters["writing"] == 1, "the request is being served")
        stopping = threading.Thread(target=lambda: answers.append(node.tell("stop")))
        stopping.start()
        wait_until(lambda: refused(node.port), "new connections are refused")
        self.assertEqual(answers, [])
        stopping.join(PATIENCE)
        thread.join(PATIENCE)
        self.assertEqual(sorted(map(str, answers)), ["200", "stopped"])
        self.assertEqual(node.process.wait(), 0)
        self.assertEqual([alive(pid) for pid in pids], [False, False])

    def test_orphans_leave(self) -> None:
        """Workers whose parent was killed give the port back."""
        node = Node(self, 2)
        pids = node.pids
        node.process.signal(signal.SIGKILL)
        wait_until(lambda: not any(alive(pid) for pid in pids), "the orphans' end")

    def test_interrupt_leaves_workers_alone(self) -> None:
        """Ctrl-C reaches the whole group; ending is the parent's word."""
        node = Node(self, 2)
        node.route("/", self.echo)
        pids = node.pids
        for pid in pids:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
                os.kill(pid, number)
        self.assertEqual([node.get("/").status for _ in range(8)], [200] * 8)
        self.assertEqual(node.pids, pids)

    def test_crash_loop(self) -> None:
        """Workers that die again and again end the node, with a sentence."""
        node = Node(self, 1)
        killed: set[int] = set()

        def kill_on() -> bool:
            if node.process.running:
                for pid in set(node.pids) - killed:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
            return not node.process.running

        try:
            wait_until(kill_on, "the node gives up")
        except json.JSONDecodeError:
            node.process.wait()
        self.assertIn("gave up: 5 workers ended within 10 s", node.process.output())


class GatewayTests(LiveTestCase):
    """The whole gateway with two workers."""

    def test_admin_answer_means_served(self) -> None:
        """The request after a POST's answer meets the route, a hundred times; after a DELETE's it does not."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        gateway.create("/services", name="echo", url=f"http://127.0.0.1:{self.upstream('echo')}")
        for number in range(100):
            route = gateway.create("/services/echo/routes", paths=[f"/route{number:02}"])
            self.assertEqual(self.met(gateway, f"/route{number:02}/x", 200), 200)
        self.assertEqual(gateway.admin("DELETE", f"/routes/{route['id']}").status, 204)
        self.assertEqual([self.met(gateway, "/route99/x", 404) for _ in range(8)], [404] * 8)

    def met(self, gateway: GatewayProcess, target: str, expected: int) -> int:
        """The status of the very next request. On a machine so busy that the bounded wait ran out, which the log says,
        of one a little later."""
        status = gateway.get(target).status
        if status != expected and "not served by all workers" in gateway.log():
            wait_until(lambda: gateway.get(target).status == expected, "the change that was late")
            return expected
        return status

    def test_status_tells_of_the_node(self) -> None:
        """Counters are the sum of the workers', process ids are theirs; a killed one is replaced without a refusal."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        for _ in range(20):
            self.assertEqual(gateway.get("/echo").status, 200)
        status = gateway.admin("GET", "/status").json
        self.assertEqual(status["server"]["total_requests"], 20)
        before = gateway.admin("GET", "/").json["pids"]["workers"]
        self.assertEqual(len(before), 2)
        self.assertNotIn(gateway.pid, before)
        os.kill(before[0], signal.SIGKILL)
        self.assertEqual([gateway.get("/echo").status for _ in range(40)], [200] * 40)
        wait_until(
            lambda: len(set(gateway.admin("GET", "/").json["pids"]["workers"]) - {before[0]}) == 2, "a successor"
        )
        self.assertEqual(gateway.admin("GET", "/status").json["server"]["total_requests"], 60)
        self.assertIn(f"(pid {before[0]}) ended", gateway.report())

    def test_stop(self) -> None:
        """SIGTERM ends parent and workers, with exit code 0."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        pids = gateway.admin("GET", "/").json["pids"]["workers"]
        self.assertEqual(gateway.stop(), 0)
        self.assertEqual([alive(pid) for pid in pids], [False, False])

    def test_rotated_logs(self) -> None:
        """SIGUSR1 reaches the workers: their lines go to the new file."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        path = os.path.join(gateway.prefix, "logs", "access.log")
        gateway.get("/before")
        wait_until(lambda: "/before" in gateway.log("access.log"), "a line in the log")
        os.rename(path, f"{path}.1")
        assert gateway.process is not None
        gateway.process.signal(signal.SIGUSR1)
        wait_until(lambda: os.path.exists(path), "the new log")

        def all_in_new_file() -> bool:
            gateway.get("/after")
            with open(f"{path}.1", encoding="utf-8") as old:
                return "/after" not in old.read() and gateway.log("access.log").count("/after") >= 8

        wait_until(all_in_new_file, "lines in the new log")


def refused(port: int) -> bool:
    """Whether a connection is refused."""
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


def still_open(connection: socket.socket) -> bool:
    """Whether the other side has not closed."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
