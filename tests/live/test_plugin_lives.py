"""A configuration is closed when the last request or stream that began with it is over, and not before."""

from __future__ import annotations

import json
import os
import socket

from websockets.sync.client import connect

from .ground_plugins import read_journal
from .support import PATIENCE, GatewayProcess, LiveTestCase, wait_until

WORKERS = 2


class LifeTests(LiveTestCase):
    def setUp(self) -> None:
        self.running: GatewayProcess = self.gateway(
            {"plugins": "bundled,tests.live.rows_plugin:LifePlugin", "nginx_main_worker_shutdown_timeout": "5s"}
        )
        self.file = os.path.join(self.running.folder, "lives")
        route = self.running.route("/x", f"ws://127.0.0.1:{self.upstream('websocket')}")
        self.row = self.running.create(
            f"/routes/{route['id']}/plugins", name="life-plugin", config={"file": self.file, "mark": "one"}
        )

    def lives(self) -> list[list[str]]:
        """[mark, opened or closed], in order."""
        with open(self.file, encoding="utf-8") as file:
            told = [json.loads(line)[1:3] for line in file]
        return [each for each in told if each[1] in ("opened", "closed")]

    def change(self, mark: str) -> None:
        answer = self.running.admin("PATCH", f"/plugins/{self.row['id']}", json={"config": {"mark": mark}})
        self.assertEqual(answer.status, 200, answer)

    def test_a_stream_keeps_what_it_began_with(self) -> None:
        """Through many changes of its row, each of which closes as soon as nobody uses it."""
        with connect(self.running.url("/x", "ws"), proxy=None) as client:
            for number in range(20):
                self.change(str(number))
            self.change("last")
            wait_until(lambda: self.lives().count(["19", "closed"]) == 1, f"all but the last to close: {self.lives()}")
            client.send("hello")
            self.assertEqual(client.recv(), "hello")
            self.assertNotIn(["one", "closed"], self.lives())
        wait_until(lambda: ["one", "closed"] in self.lives(), f"the stream's to close: {self.lives()}")
        self.running.stop()
        marks = ["one", *map(str, range(20)), "last"]
        self.assertEqual(sorted(self.lives()), sorted([mark, what] for mark in marks for what in ("opened", "closed")))

    def test_a_row_that_goes(self) -> None:
        self.running.get("/x")
        self.assertEqual(self.running.admin("DELETE", f"/plugins/{self.row['id']}").status, 204)
        wait_until(lambda: self.lives() == [["one", "opened"], ["one", "closed"]], f"it to close: {self.lives()}")


class RudeTests(LiveTestCase):
    """Two workers whose plugins behave badly."""

    def setUp(self) -> None:
        self.running: GatewayProcess = self.gateway(
            {
                "plugins": "bundled,tests.live.rude_plugins:Rude",
                "nginx_worker_processes": WORKERS,
                "nginx_main_worker_shutdown_timeout": "1s",
            }
        )
        self.journal = os.path.join(self.running.folder, "journal")

    def does(self, what: str) -> None:
        """Make a route ``/what`` whose plugin does ``what``, and wait until all workers have it."""
        route = self.running.route(f"/{what}", "http://127.0.0.1:1")
        config = {"does": what, "journal": self.journal}
        self.running.create(f"/routes/{route['id']}/plugins", name="rude", config=config)
        self.saw("opened", WORKERS)

    def lines(self) -> list[str]:
        """What plugins wrote down, without the process's number."""
        return [line.rpartition(" ")[0] for line in read_journal(self.journal)]

    def saw(self, line: str, count: int = 1) -> None:
        wait_until(lambda: self.lines().count(line) >= count, f"{count} times {line}: {self.lines()}")

    def ask(self, target: str) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.running.proxy_port), PATIENCE)
        self.addCleanup(client.close)
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        return client

    def stopped(self) -> None:
        """A stop that ends by itself, not by force."""
        self.assertEqual(self.running.stop(), 0)
        self.assertNotIn("ended by", self.running.log())

    def test_cut_requests_are_logged(self) -> None:
        """A stop whose time is over cuts requests: one that waits in access, one whose answer goes on for ever. What they
        wait for is cancelled, and their log phase comes before the plugin closes."""
        self.does("waits")
        self.ask("/waits")
        self.saw("waiting")
        self.stopped()
        lines = read_journal(self.journal)
        pid = next(line for line in lines if line.startswith("waiting")).split()[1]
        mine = [line.rpartition(" ")[0] for line in lines if line.endswith(f" {pid}")]
        self.assertEqual(sorted(mine[2:4]), ["log 499", "over"])
        self.assertEqual(mine[4:], ["closing", "closed"])

    def test_cut_answers_are_logged(self) -> None:
        """The same for an answer that goes on for ever."""
        self.does("endless")
        self.ask("/endless").recv(1000)
        self.stopped()
        self.assertEqual(self.lines().count("over"), 1)
        self.assertEqual(self.lines().count("log 200"), 1)

    def test_a_close_that_cannot_be_cancelled(self) -> None:
        """It is left, with a line in the log, and the rest of the stop goes on."""
        self.does("close-swallows")
        self.stopped()
        self.assertEqual(self.lines().count("cancelled"), WORKERS)
        self.assertEqual(self.running.log().count("plugins still close, although they were cancelled"), WORKERS)

    def test_a_close_that_hangs(self) -> None:
        """It is cancelled, and the log says whose it is."""
        self.does("close-hangs")
        self.stopped()
        self.assertEqual(self.running.log().count("took too long and was given up"), WORKERS)
