"""``kongtwist restart`` without a gap: under load, with streams, and whoever dies at whatever moment."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import time
from pathlib import Path

from kongtwist.node.take_over import Successor
from kongtwist.node.worker_link import MessageReader, encode
from tests.live.restart_kit import MARK, Clients, RestartCase, Streams, kept_requests, one_request
from tests.live.support import PATIENCE, ROOT, free_port, request, wait_until

ANOTHER = "another restart of this node is under way"


class RestartTests(RestartCase):
    """One process."""

    def test_under_load(self) -> None:
        """Two restarts: no connection is refused, no request fails, no acknowledged write is lost, nothing is left behind."""
        self.node()
        self.echo()
        single = Clients(one_request(self.proxy_port), 3)
        kept = Clients(kept_requests(self.proxy_port), 3)
        written: list[str] = []

        def write() -> None:
            name = f"c{len(written)}"
            answer = self.admin("POST", "/consumers", username=name)
            if answer.status != 201:
                raise AssertionError(str(answer))
            written.append(name)

        writers = Clients(write, 1)
        self.restart()
        self.settled()
        descriptors = self.descriptors()
        for _ in range(2):
            single.some()
            kept.some()
            writers.some(3)
            self.restart()
            single.some()
            kept.some()
            writers.some(3)
        for each in (single, kept, writers):
            each.stop()
        self.assertEqual([*single.failures, *kept.failures, *writers.failures], [])
        for name in written:
            self.assertEqual(self.admin("GET", f"/consumers/{name}").status, 200, name)
        self.settled()
        self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.prefix, "restart.sock")).st_mode), 0o600)
        wait_until(lambda: self.descriptors() <= descriptors + 8, "descriptors to be given back")
        self.serves()
        self.assertEqual(self.command("stop", "-p", self.prefix), (0, "kongtwist stopped\n"))
        wait_until(lambda: not self.processes(), "the end of all processes")
        self.assertFalse({"kongtwist.pid", "restart.sock", "restart.sock.new"} & set(os.listdir(self.prefix)))

    def test_goodbyes(self) -> None:
        """A stream ends as its protocol has it, and so that its client comes again; a request under way gets its answer."""
        tls = free_port()
        listen = f"127.0.0.1:{self.proxy_port} reuseport, 127.0.0.1:{tls} ssl"
        self.node(goodbye_retry="4s", goodbye_jitter="0.5", proxy_listen=listen)
        self.echo()
        for kind in ("websocket", "events"):
            self.route(f"/{kind}", f"http://127.0.0.1:{self.upstream(kind)}")
        streams = Streams(tls, 5, 5, tls=True)
        streams.start()
        wait_until(lambda: streams.all_open and streams.told > 20, "the streams")
        with socket.create_connection(("127.0.0.1", self.proxy_port), PATIENCE) as client:
            client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nha")
            self.restart()
            client.sendall(b"lf")
            got = b""
            while piece := client.recv(65536):
                got += piece
        self.assertTrue(got.startswith(b"HTTP/1.1 200 OK\r\n"), got)
        self.assertIn(b"\r\nConnection: close\r\n", got)
        wait_until(
            lambda: streams.all_open and sum(streams.codes.values()) == len(streams.retries) == 5, "them to come again"
        )
        streams.over = True
        streams.join(PATIENCE)
        self.assertEqual((dict(streams.codes), streams.cuts, streams.wrong), ({1012: 5}, [], []))
        for milliseconds in streams.retries:
            self.assertTrue(2000 <= milliseconds <= 6000, milliseconds)
        self.settled()

    def test_deadline(self) -> None:
        """What has not ended when ``goodbye_deadline`` is over is cut, and the process that leaves ends."""
        self.node(goodbye_deadline="2s")
        self.echo()
        with socket.create_connection(("127.0.0.1", self.proxy_port), PATIENCE) as client:
            client.sendall(b"GET /echo?delay=300 HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: self.admin("GET", "/status").json["server"]["connections_writing"] >= 1, "the request")
            self.restart()
            self.settled()
            try:
                self.assertEqual(client.recv(1), b"")
            except ConnectionResetError:
                pass
        self.serves()

    def test_wrong_configuration(self) -> None:
        """Whatever is wrong with it: exit code 1 with the sentence, and the node runs on."""
        self.node()
        self.echo()
        pid = self.pid()
        with socket.create_server(("127.0.0.1", taken := free_port())):
            for conf, sentence in (
                ({"log_level": "loud"}, "log_level has an invalid value: 'loud'"),
                ({"plugins": "bundled,nosuch"}, "nosuch"),
                ({"proxy_listen": f"127.0.0.1:{self.proxy_port}, 127.0.0.1:{taken}"}, "the port is in use"),
                ({"database": "off", "declarative_config": "/none.yml"}, "declarative_config cannot be read"),
            ):
                self.configure(**conf)
                code, output = self.command("restart", "-c", str(self.conf_path))
                self.assertEqual(code, 1, output)
                self.assertIn(sentence, output)
                if "log_level" not in conf:  # that says not even where the node is
                    self.assertIn("The node runs on as it was", output)
                self.assertEqual(self.pid(), pid)
                self.serves()
        self.configure()
        self.restart()
        self.settled()
        self.serves()

    def test_other_configuration(self) -> None:
        """Other ports, another number of workers, other plugins: all of it is there afterwards, and what stayed was never away."""
        self.node()
        self.echo()
        clients = Clients(one_request(self.proxy_port), 3)
        more, workers = free_port(), self.workers
        for number in (3, 2, 1, workers):
            self.workers = number
            listen = f"127.0.0.1:{self.proxy_port} reuseport"
            if number != workers:
                listen += f", 127.0.0.1:{more} reuseport, unix:{self.conf_folder}/{number}.sock"
            self.configure(proxy_listen=listen, plugins="bundled" if number != 2 else "key-auth, cors")
            clients.some()
            self.restart()
            self.settled()
            clients.some()
            if number != workers:
                self.assertEqual(request(more, "GET", "/echo").status, 200)
            found = self.admin("GET", "/").json["plugins"]["available_on_server"]
            self.assertEqual("rate-limiting" in found, number != 2)
        clients.stop()
        self.assertEqual(clients.failures, [])
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", more), PATIENCE)

    def test_two_at_once(self) -> None:
        """One of them does it, or both one after the other; whoever does not says why."""
        self.node()
        self.echo()
        clients = Clients(one_request(self.proxy_port), 2)
        commands = [self.begin("restart", "-c", str(self.conf_path)) for _ in range(2)]
        outcomes = [self.ended(each) for each in commands]
        self.assertIn(0, [code for code, _ in outcomes], outcomes)
        for code, output in outcomes:
            if code:
                self.assertIn(ANOTHER, output)
        self.settled()
        clients.some()
        clients.stop()
        self.assertEqual(clients.failures, [])
        self.serves()

    # -- whoever dies ------------------------------------------------------------------------------------------------------

    def asked(self, link: socket.socket, kind: str, answer: str) -> None:
        """Say something as a successor does, and wait for the answer."""
        link.sendall(encode({"type": kind, "pid": os.getpid()}))
        reader = MessageReader()
        while True:
            data = link.recv(65536)
            self.assertTrue(data, f"no {answer}")
            if any(message["type"] == answer for message in reader.feed(data)):
                return

    def test_new_one_dies(self) -> None:
        """At each step; what had been handed out comes back, what streams there are go on, and the next restart works."""
        self.node()
        self.echo()
        self.route("/websocket", f"http://127.0.0.1:{self.upstream('websocket')}")
        streams = Streams(self.proxy_port, 3, 0)
        streams.start()
        wait_until(lambda: streams.all_open and streams.told > 3, "the streams")
        pid = self.pid()
        for step in range(3):
            successor = Successor.begin(self.prefix)
            assert successor is not None
            self.assertEqual(successor.pid, pid)
            link = successor._socket
            if step > 0:
                self.asked(link, "pause", "paused")
            if step > 1:
                self.asked(link, "serving", "left")
            ended = sum(streams.codes.values())
            os.close(successor.prefix_fd)
            successor.forget()
            noticed = step + 1
            wait_until(lambda: self.log().count("was to take over, has ended") == noticed, "the old one to notice")  # noqa: B023
            self.serves()
            self.assertEqual(self.pid(), pid)
            if step < 2:
                self.assertEqual(sum(streams.codes.values()), ended)
        wait_until(lambda: streams.all_open, "the streams")
        streams.over = True
        streams.join(PATIENCE)
        self.assertEqual((streams.cuts, streams.wrong), ([], []))
        self.restart()
        self.settled()
        self.serves()

    def test_killed(self) -> None:
        """Either process is killed as soon as the log tells of a step: the other one serves."""
        self.node()
        self.echo()
        for line, old_one in (
            ("wants to take over", False),
            ("wants to take over", True),
            ("serves from now on", True),
            ("has handed over", True),
        ):
            old = self.pid()
            seen = self.log().count(line)
            before = self.processes()
            command = self.begin("restart", "-c", str(self.conf_path))
            wait_until(lambda line=line, seen=seen: self.log().count(line) > seen, line)  # type: ignore[misc]
            victims = {old} if old_one else self.processes() - before
            for pid in victims:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.ended(command)
            wait_until(lambda: self.get().status == 200, f"somebody to serve ({line})")
            self.settled()
            self.serves()
        self.restart()
        self.settled()

    def test_another_user_or_stranger(self) -> None:
        """Who says something else gets nothing, and disturbs nobody."""
        self.node()
        self.echo()
        for said in (b"\xff\xff\xff\xff", encode({"type": "serving", "pid": 1}), encode({}), encode({"type": "ask"})):
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(PATIENCE)
                link.connect(os.path.join(self.prefix, "restart.sock"))
                link.sendall(said)
                try:
                    self.assertEqual(link.recv(1), b"")
                except ConnectionResetError:
                    pass
        self.serves()
        self.restart()
        self.settled()

    # -- what is kept ------------------------------------------------------------------------------------------------------

    def test_rate_limits(self) -> None:
        """Counts of rate limits go on."""
        self.node()
        self.echo()
        self.admin("POST", "/plugins", name="rate-limiting", config={"hour": 1000, "policy": "local"})
        wait_until(lambda: "RateLimit-Remaining" in self.get().headers, "the plugin")
        before = int(self.get().headers["RateLimit-Remaining"])
        self.restart()
        self.settled()
        self.assertEqual(int(self.get().headers["RateLimit-Remaining"]), before - 1)

    def test_marks(self) -> None:
        """A target that was marked unhealthy is so afterwards."""
        self.node()
        self.admin("POST", "/upstreams", name="u")
        for port in (free_port(), free_port()):
            self.admin("POST", "/upstreams/u/targets", target=f"127.0.0.1:{port}")
        target = self.admin("GET", "/upstreams/u/targets").json["data"][0]["target"]
        self.admin("PATCH", "/upstreams/u", healthchecks={"passive": {"unhealthy": {"tcp_failures": 3}}})
        self.assertEqual(self.admin("PUT", f"/upstreams/u/targets/{target}/{target}/unhealthy").status, 204)

        def health() -> dict[str, str]:
            rows = self.admin("GET", "/upstreams/u/health").json["data"]
            return {row["target"]: row["health"] for row in rows}

        self.assertEqual(wait_until(lambda: health()[target] == "UNHEALTHY", "the mark"), True)
        before = health()
        self.restart()
        self.settled()
        self.assertEqual(health(), before)

    def test_without_database(self) -> None:
        """A configuration that was posted is there afterwards; one from a file is read again."""
        self.node(database="off")
        port = self.upstream("echo")
        posted = {"_format_version": "3.0", "services": [
            {"name": "s", "url": f"http://127.0.0.1:{port}", "routes": [{"name": "r", "paths": ["/echo"]}]}
        ]}  # fmt: skip
        self.assertEqual(request(self.admin_port, "POST", "/config", json=posted).status, 201)
        wait_until(lambda: self.get().status == 200, "the route")
        clients = Clients(one_request(self.proxy_port), 2)
        self.restart()
        clients.some()
        clients.stop()
        self.assertEqual(clients.failures, [])
        path = Path(self.conf_folder, "kong.yml")
        path.write_text('_format_version: "3.0"\nservices:\n- {name: other, url: http://localhost}\n')
        self.configure(database="off", declarative_config=path)
        self.restart()
        self.settled()
        self.assertEqual([row["name"] for row in self.admin("GET", "/services").json["data"]], ["other"])


class RestartWorkersTests(RestartTests):
    """Two workers."""

    workers = 2


class ManyStreamsTests(RestartCase):
    """Many at once: ``KONGTWIST_STREAMS=5000,1000`` takes more than the others are beside which tests run."""

    def test_through_changes_reloads_and_restarts(self) -> None:
        """WebSockets and event streams go on, and move with their sockets: none ends, none loses, doubles or misorders a message."""
        websockets, events = map(int, os.environ.get("KONGTWIST_STREAMS", "500,100").split(","))
        self.node(goodbye_rate=500)
        for kind in ("websocket", "events"):
            self.route(f"/{kind}", f"http://127.0.0.1:{self.upstream(kind)}")
        wait_until(lambda: request(self.proxy_port, "GET", "/websocket").status != 404, "the routes")
        streams = Streams(self.proxy_port, websockets, events)
        streams.start()
        wait_until(lambda: streams.all_open, "the streams", 6 * PATIENCE)
        streams.longest = 0.0
        longest = {}

        def whole_round(what: str) -> None:
            """Until each stream has had another message."""
            told = streams.told
            wait_until(lambda: streams.told > told + websockets + events, "messages", 3 * PATIENCE)
            longest[what] = round(streams.longest, 3)
            streams.longest = 0.0

        whole_round("nothing")
        for number in range(1, 8):
            for change in range(50 // 7 + 1):
                name = f"change-{number}-{change}"
                self.assertEqual(self.admin("POST", "/services", name=name, url="http://127.0.0.1:9/").status, 201)
                self.assertEqual(self.admin("POST", f"/services/{name}/routes", paths=[f"/{name}"]).status, 201)
            if number in (3, 6):
                self.restart()
                self.settled()
            else:
                self.assertEqual(self.command("reload", "-p", self.prefix)[0], 0)
            whole_round(f"{number} {'restart' if number in (3, 6) else 'reload'}")
        self.assertTrue(streams.all_open)
        streams.over = True
        streams.join(2 * PATIENCE)
        print(f"seconds of the longest wait for an answer: {longest}; {streams.told} messages")
        self.assertEqual((streams.cuts, streams.wrong, dict(streams.codes), streams.retries), ([], [], {}, []))


class ManyStreamsWorkersTests(ManyStreamsTests):
    """From workers to workers."""

    workers = 2


class ServiceManagerTests(RestartCase):
    """A node in the foreground that a service manager watches over."""

    def test_main_pid(self) -> None:
        """The node starts its successor itself, and tells the manager which process it is from now on."""
        self.configure()
        address = os.path.join(self.conf_folder, "notify")
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.bind(address)
        manager.settimeout(PATIENCE)
        words = [
            sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=",
            "kongtwist", "--conf", str(self.conf_path), "--prefix", self.prefix,
        ]  # fmt: skip
        env = {"PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": address, MARK: self.mark}
        process = self.start(words, "gateway", env=env, folder=self.conf_folder)
        self.assertEqual(manager.recv(4096), b"READY=1")
        self.echo()
        clients = Clients(one_request(self.proxy_port), 2)
        self.restart()
        self.assertEqual(manager.recv(4096), f"MAINPID={self.pid()}".encode())
        self.assertEqual(manager.recv(4096), b"READY=1")
        self.assertEqual(process.wait(), 0)
        self.settled()
        clients.some()
        self.configure(log_level="loud")
        code, output = self.command("restart", "-p", self.prefix)
        self.assertEqual(code, 1, output)
        self.assertIn("log_level has an invalid value: 'loud'", output)
        clients.some()
        clients.stop()
        self.assertEqual(clients.failures, [])
        os.kill(self.pid(), signal.SIGTERM)
        self.assertEqual(manager.recv(4096), b"STOPPING=1")
        until = time.monotonic() + PATIENCE
        while self.processes() and time.monotonic() < until:
            time.sleep(0.05)
        self.assertEqual(self.processes(), set())
