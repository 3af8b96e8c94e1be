"""Restarts and reloads below gRPC calls, plain and over TLS: none fails, and calls that are open go on to their end."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from tests.live.grpc_kit import METHOD, echo_server
from tests.live.pki import authority
from tests.live.restart_kit import Clients, RestartCase
from tests.live.support import PATIENCE, free_port, wait_until


class Talk:
    """A call both ways, for which each message is an echo."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._questions: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._answers = channel.stream_stream(METHOD)(iter(self._questions.get, None), timeout=3 * PATIENCE)
        self._count = 0

    def say(self) -> bool:
        """Send the next number; whether it comes back."""
        self._count += 1
        self._questions.put(b"%d" % self._count)
        return bool(next(self._answers) == b"%d" % self._count)

    def end(self) -> grpc.StatusCode:
        self._questions.put(None)
        assert list(self._answers) == []
        return self._answers.code()  # type: ignore[no-any-return]


class GRPCTests(RestartCase):
    def test_calls(self) -> None:
        """Two restarts with a reload in between."""
        ca = authority("restart test authority")
        signed = ca.sign("localhost")
        pair = Path(self.conf_folder, "server.pem"), Path(self.conf_folder, "server.key")
        pair[0].write_text(signed.pem)
        pair[1].write_text(signed.key_pem)
        tls_port, upstream = free_port(), free_port()
        server = echo_server(upstream)
        self.addCleanup(lambda: server.stop(None).wait())
        self.node(
            proxy_listen=f"127.0.0.1:{self.proxy_port} http2, 127.0.0.1:{tls_port} http2 ssl",
            goodbye_deadline="60s", ssl_cert=pair[0], ssl_cert_key=pair[1],
        )  # fmt: skip
        self.echo()
        self.assertEqual(self.admin("POST", "/services", name="grpc", url=f"grpc://127.0.0.1:{upstream}").status, 201)
        made = self.admin("POST", "/services/grpc/routes", protocols=["grpc", "grpcs"], paths=["/sensor"])
        self.assertEqual(made.status, 201)
        credentials = grpc.ssl_channel_credentials(ca.pem.encode())
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        channels = [
            grpc.insecure_channel(f"localhost:{self.proxy_port}", options),
            grpc.secure_channel(f"localhost:{tls_port}", credentials, options),
        ]
        for each in channels:
            self.addCleanup(each.close)
            wait_until(partial(self.answers, each), "the route")
        unary = [Clients(self.unary(each), 2) for each in channels]
        streaming = [Clients(self.many(each), 1) for each in channels]
        talks: list[Talk] = []
        for change in (self.restart, self.reload, self.restart):
            talks += [Talk(each) for each in channels]
            self.assertTrue(all(each.say() for each in talks))
            change()
            for clients in (*unary, *streaming):
                clients.some(30)
            self.assertTrue(all(each.say() for each in talks))
        for clients in (*unary, *streaming):
            clients.stop()
            self.assertEqual(clients.failures, [])
        self.assertEqual([each.end() for each in talks], [grpc.StatusCode.OK] * len(talks))
        self.settled()

    def answers(self, channel: grpc.Channel) -> bool:
        try:
            self.unary(channel)()
        except grpc.RpcError:
            return False
        return True

    @staticmethod
    def unary(channel: grpc.Channel) -> Callable[[], None]:
        call = channel.unary_unary(METHOD)

        def work() -> None:
            assert call(b"one", timeout=PATIENCE) == b"one"

        return work

    @staticmethod
    def many(channel: grpc.Channel) -> Callable[[], None]:
        call = channel.stream_stream(METHOD)

        def questions() -> Iterator[bytes]:
            for number in range(50):
                yield b"%d" % number * 100

        def work() -> None:
            found: list[Any] = list(call(questions(), timeout=PATIENCE))
            assert found == [b"%d" % number * 100 for number in range(50)], found

        return work


class GRPCWorkerTests(GRPCTests):
    workers = 2
