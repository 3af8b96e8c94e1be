"""Who ends, and who serves on, where something else is ordered around a restart: a stop, another restart, a reload."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from kongtwist.node import restart_socket
from kongtwist.node.outcomes import DrainOrder, drain_ordered, forget_order, order_drain
from kongtwist.node.take_over import Successor
from kongtwist.node.worker_link import MessageReader, encode
from tests.live.restart_kit import Clients, RestartCase, one_request
from tests.live.support import PATIENCE, LiveTestCase, wait_until

GOES_ON = "was to take over, has ended; this one goes on"


class EndTests(RestartCase):
    """One process."""

    def slow(self) -> socket.socket:
        """A request that keeps the process that it has begun in."""
        client = socket.create_connection(("127.0.0.1", self.proxy_port), PATIENCE)
        self.addCleanup(client.close)
        client.sendall(b"GET /echo?delay=300 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: self.admin("GET", "/status").json["server"]["connections_writing"] >= 1, "the request")
        return client

    def test_stopped_meanwhile(self) -> None:
        """A stop ends the process that is on its way out as well, before the command returns: nothing serves on, no port is left."""
        self.node(nginx_main_worker_shutdown_timeout="1s")
        self.echo()
        self.slow()
        self.restart()
        self.assertEqual(self.command("stop", "-p", self.prefix), (0, "kongtwist stopped\n"))
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", self.proxy_port), PATIENCE)
        wait_until(lambda: not self.processes(), "the end of all processes")
        self.assertNotIn(GOES_ON, self.log())
        self.assertEqual(self.command("start", "-c", str(self.conf_path)), (0, "kongtwist started\n"))
        self.serves()

    def test_stopped_behind_two(self) -> None:
        """The stop reaches who handed over before the last restart."""
        self.node(nginx_main_worker_shutdown_timeout="1s", goodbye_deadline="200s")
        self.echo()
        self.slow()
        self.restart()
        self.slow()
        self.restart()
        self.assertEqual(self.command("stop", "-p", self.prefix), (0, "kongtwist stopped\n"))
        wait_until(lambda: not self.processes(), "the end of all processes")

    def test_two_in_a_row(self) -> None:
        """The process of before two restarts does not take the place of the one in the middle, which ends before it."""
        self.node(goodbye_deadline="200s")
        self.echo()
        first, client = self.pid(), self.slow()
        self.restart()
        middle = self.pid()
        self.restart()
        wait_until(lambda: middle not in self.processes(), "the end of the one in the middle")
        self.serves()
        client.close()
        wait_until(lambda: first not in self.processes(), "the end of the first one")
        self.settled()
        self.assertNotIn(GOES_ON, self.log())
        self.restart()
        self.settled()

    def test_failed_start(self) -> None:
        """A new process that cannot serve what is stored leaves the way for the next one, which comes without a gap."""
        self.node(router_flavor="expressions")
        self.echo()
        self.assertEqual(self.admin("POST", "/services/s-echo/routes", expression='http.path == "/other"').status, 201)
        pid = self.pid()
        self.configure()
        code, output = self.command("restart", "-c", str(self.conf_path))
        self.assertEqual(code, 1, output)
        self.assertIn("router_flavor is traditional_compatible", output)
        self.assertIn("The node runs on as it was", output)
        self.assertEqual(self.pid(), pid)
        wait_until(lambda: GOES_ON in self.log(), "the old one to notice")
        self.serves()
        clients = Clients(one_request(self.proxy_port), 2)
        self.configure(router_flavor="expressions")
        self.restart()
        clients.some()
        clients.stop()
        self.assertEqual(clients.failures, [])
        self.assertIn("wants to take over", self.log().partition(GOES_ON)[2])
        self.settled()

    def test_reload_meanwhile(self) -> None:
        """A reload that is ordered while a new process is at it is refused with a sentence; behind it, reloads work."""
        self.node()
        self.echo()
        successor = Successor.begin(self.prefix)
        assert successor is not None
        self.configure(goodbye_rate=77)
        code, output = self.command("reload", "-p", self.prefix)
        self.assertEqual(code, 1, output)
        self.assertIn("the node restarts; try again when that is over", output)
        self.assertIn("Nothing was reloaded, the node goes on with its configuration as it was.", output)
        self.assertEqual(self.admin("GET", "/").json["configuration"]["goodbye_rate"], 500)
        os.close(successor.prefix_fd)
        successor.forget()
        wait_until(lambda: GOES_ON in self.log(), "the old one to notice")
        self.reload()
        self.assertEqual(self.admin("GET", "/").json["configuration"]["goodbye_rate"], 77)
        self.serves()

    def test_drain_meanwhile(self) -> None:
        """A drain that is ordered while a new process is at it has its way: that one may not take over any more."""
        self.node()
        successor = Successor.begin(self.prefix)
        assert successor is not None
        os.close(successor.prefix_fd)
        drained = self.command("drain", "-p", self.prefix, "--delay", "0", "--timeout", "1")
        self.assertEqual((drained[0], drained[1].splitlines()[-1]), (0, "kongtwist drained and stopped"))
        (told,) = MessageReader().feed(successor._socket.recv(65536))
        self.assertEqual(told, {"type": "refused", "why": "the node is being drained; it stops when that is over"})
        successor.forget()
        wait_until(lambda: not self.processes(), "the end of all processes")

    def test_signal_to_the_old_one(self) -> None:
        """SIGHUP and SIGWINCH to a process that has handed over do nothing, and the node reloads as before."""
        self.node()
        self.echo()
        old = self.pid()
        self.slow()
        self.restart()
        order_drain(self.prefix, DrainOrder(0, 0))
        os.kill(old, signal.SIGWINCH)
        os.kill(old, signal.SIGHUP)
        wait_until(lambda: "nothing is reloaded here" in self.log(), "the signals to arrive")
        self.assertTrue(drain_ordered(self.prefix))
        forget_order(self.prefix)
        self.reload()

    def test_at_the_same_moment(self) -> None:
        """Who orders a restart when another process has just taken over, and does not say so yet, is told that one is under way."""
        self.node()
        self.echo()
        pid = self.pid()  # which does not end, though nothing is open: it does not know yet that the other one serves
        successor = Successor.begin(self.prefix)
        assert successor is not None
        for kind, answer in (("pause", "paused"), ("serving", "left")):
            self.asked(successor, kind, answer)
        code, output = self.command("restart", "-c", str(self.conf_path))
        self.assertEqual(code, 1, output)
        self.assertIn("another restart of this node is under way", output)
        os.close(successor.prefix_fd)
        successor.forget()
        wait_until(lambda: GOES_ON in self.log(), "the old one to notice")
        self.assertEqual(self.pid(), pid)
        self.serves()
        self.restart()
        self.settled()

    def asked(self, successor: Successor, kind: str, answer: str) -> None:
        """Say something as a successor does, and wait for the answer."""
        successor._socket.sendall(encode({"type": kind, "pid": os.getpid()}))
        reader = MessageReader()
        while True:
            data = successor._socket.recv(65536)
            self.assertTrue(data, f"no {answer}")
            if any(message["type"] == answer for message in reader.feed(data)):
                return


class EndWorkersTests(EndTests):
    """Several workers."""

    workers = 2

    def test_new_one_gives_up(self) -> None:
        """Where the workers of the new process die as fast as they start, the old one serves again, and is the node for commands."""
        self.node()
        self.echo()
        old = self.pid()
        self.slow()
        self.restart()
        new = self.pid()
        folder = Path(f"/proc/{new}")

        def given_up() -> bool:
            for pid in self.processes():
                try:
                    if f"\nPPid:\t{new}\n" in Path(f"/proc/{pid}/status").read_text():
                        os.kill(pid, signal.SIGKILL)
                except (FileNotFoundError, ProcessLookupError):
                    pass
            return not folder.exists()

        wait_until(given_up, "the new one to give up", 3 * PATIENCE)
        wait_until(lambda: GOES_ON in self.log(), "the old one to notice")
        wait_until(lambda: self.pid() == old, "the old one to be the node")
        wait_until(lambda: self.get().status == 200, "it to serve")
        self.serves()
        self.assertEqual(self.command("health", "-p", self.prefix)[0], 0)
        self.restart()
        self.assertEqual(self.command("stop", "-p", self.prefix), (0, "kongtwist stopped\n"))
        wait_until(lambda: not self.processes(), "the end of all processes")


class SocketTests(LiveTestCase):
    """The socket in the prefix."""

    def test_full_backlog(self) -> None:
        """A node that does not come to accept is waited for; it is not taken for one that cannot hand over."""
        prefix = self.folder()
        listening = restart_socket.listen(prefix)
        self.addCleanup(listening.close)
        waiting: list[socket.socket] = []
        with self.assertRaises(TimeoutError):
            while len(waiting) < 100:
                found = restart_socket.connect(prefix, 0.2)
                assert found is not None
                self.addCleanup(found.close)
                waiting.append(found)
        accepted, _ = listening.accept()
        self.addCleanup(accepted.close)
        found = restart_socket.connect(prefix, PATIENCE)
        assert found is not None
        found.close()
