"""A configuration is closed when the last request or stream that began with it is over, and not before."""

from __future__ import annotations

import json
import os

from websockets.sync.client import connect

from .support import GatewayProcess, LiveTestCase, wait_until


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
