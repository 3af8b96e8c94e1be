"""gRPC clients of grpcio, sync and aio, through the gateway to a server of grpcio, and what becomes of calls that fail."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any

import grpc
import grpc.aio

from .support import GatewayProcess, LiveTestCase, free_port, wait_until

OK, CANCELLED, DEADLINE = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
SECONDS = 20.0
"""What anything may take."""


class Service(grpc.GenericRpcHandler):
    """Methods over plain bytes.

    Attributes:
        ended: names of calls that ended here, however.
        deadlines: seconds that were left to calls.
    """

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.deadlines: list[float | None] = []

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        method: Callable[..., Iterator[bytes]] = getattr(self, name.lower())

        def run(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            context.add_callback(lambda: self.ended.append(name))
            self.deadlines.append(context.time_remaining())
            return method(messages, context)

        return grpc.stream_stream_rpc_method_handler(run)

    def echo(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """What comes, as it comes."""
        yield from messages

    def watch(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Five messages for one."""
        for message in messages:
            for _ in range(5):
                yield message

    def count(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """How many came."""
        yield b"%d" % sum(1 for _ in messages)

    def fail(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """A status with everything, at once: the head is the trailers."""
        context.set_trailing_metadata((("x-end-bin", b"\0\xff"), ("x-two", "1"), ("x-two", "2")))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "50 % \u201cdone\u201d\n")
        yield b""

    def early(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Ends behind the first message, whatever the client still sends."""
        yield next(messages)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")

    def meta(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """The metadata of the call."""
        context.send_initial_metadata((("x-first-bin", b"\1\2"),))
        context.set_trailing_metadata((("x-last", "3"),))
        yield repr(sorted(tuple(each) for each in context.invocation_metadata())).encode()

    def wait(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Nothing, until the call is over."""
        while context.is_active():
            time.sleep(0.01)
        yield b""


class GRPCRelayTests(LiveTestCase):
    """One gateway, one server with the service ``a.B``."""

    def setUp(self) -> None:
        self.service = Service()
        pool = ThreadPoolExecutor(40)
        self.addCleanup(pool.shutdown)
        self.server = grpc.server(pool, options=(("grpc.max_receive_message_length", -1),))
        self.server.add_generic_rpc_handlers((self.service,))
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.addCleanup(lambda: self.server.stop(0).wait())
        self.relay: GatewayProcess = self.gateway()
        self.main = self.add("/a.B", port)
        self.channel = self.open()

    def add(self, path: str, port: int, **fields: Any) -> Any:
        """A service and its route; returns the route."""
        made = self.relay.create("/services", url=f"grpc://127.0.0.1:{port}", **fields)
        return self.relay.create("/routes", paths=[path], protocols=["grpc"], service={"id": made["id"]})

    def open(self, **options: Any) -> grpc.Channel:
        """A channel to the gateway, with a connection of its own."""
        all_options = [
            ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1), *options.items(),
        ]  # fmt: skip
        channel: grpc.Channel = grpc.insecure_channel(f"127.0.0.1:{self.relay.proxy_port}", all_options)
        self.addCleanup(channel.close)
        return channel

    def call(self, name: str, *messages: bytes, path: str = "/a.B", timeout: float = SECONDS, **options: Any) -> Any:
        """A call that gives a stream, with its messages sent."""
        return self.channel.stream_stream(f"{path}/{name}")(iter(messages), timeout=timeout, **options)

    def status(self, call: Any) -> tuple[grpc.StatusCode, str]:
        """How a call ends."""
        try:
            for _ in call:
                pass
        except grpc.RpcError:
            pass
        return call.code(), call.details()

    # -- what passes -------------------------------------------------------------------------------------------------

    def test_all_kinds(self) -> None:
        unary = self.channel.unary_unary("/a.B/Echo")
        self.assertEqual([unary(b"%d" % n, timeout=SECONDS) for n in range(5)], [b"0", b"1", b"2", b"3", b"4"])
        self.assertEqual(list(self.channel.unary_stream("/a.B/Watch")(b"w", timeout=SECONDS)), [b"w"] * 5)
        self.assertEqual(self.channel.stream_unary("/a.B/Count")(iter([b"a"] * 1000), timeout=SECONDS), b"1000")
        self.assertEqual(list(self.call("Echo", b"a", b"b", b"")), [b"a", b"b", b""])
        self.assertEqual(list(self.call("Echo")), [])

    def test_message_by_message(self) -> None:
        """Each message is answered before the next one is sent."""
        queue: Queue[bytes | None] = Queue()
        call = self.channel.stream_stream("/a.B/Echo")(iter(queue.get, None), timeout=SECONDS)
        for number in range(200):
            queue.put(b"%d" % number)
            self.assertEqual(next(call), b"%d" % number)
        queue.put(None)
        self.assertEqual(self.status(call), (OK, ""))

    def test_aio(self) -> None:
        async def many() -> list[list[bytes]]:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{self.relay.proxy_port}") as channel:

                async def messages(number: int) -> AsyncIterator[bytes]:
                    for _ in range(20):
                        yield b"%d" % number

                async def one(number: int) -> list[bytes]:
                    method: Any = channel.stream_stream("/a.B/Echo")
                    call = method(messages(number), timeout=SECONDS)
                    return [each async for each in call]

                return await asyncio.gather(*(one(number) for number in range(30)))

        self.assertEqual(asyncio.run(many()), [[b"%d" % number] * 20 for number in range(30)])

    def test_large_messages(self) -> None:
        """Larger than every window, both ways at once, compressed ones too."""
        large = [os.urandom(5_000_000) for _ in range(3)]
        self.assertEqual(list(self.call("Echo", *large)), large)
        self.assertEqual(
            list(self.call("Echo", b"x" * 3_000_000, compression=grpc.Compression.Gzip)), [b"x" * 3_000_000]
        )

    def test_metadata(self) -> None:
        call = self.call("Meta", metadata=(("x-one", "1"), ("x-raw-bin", b"\0\xfe"), ("x-two", "a"), ("x-two", "b")))
        (seen,) = call
        for part in (
            "('x-one', '1')",
            r"('x-raw-bin', b'\x00\xfe')",
            "('x-two', 'a')",
            "('x-two', 'b')",
            "('x-forwarded-path', '/a.B/Meta')",
        ):
            self.assertIn(part, seen.decode())
        self.assertEqual(dict(call.initial_metadata())["x-first-bin"], b"\1\2")
        self.assertEqual(dict(call.trailing_metadata())["x-last"], "3")

    def test_statuses(self) -> None:
        for name in ("Fail", "Early"):
            call = self.call(name, b"a", b"b")
            code, details = self.status(call)
            if name == "Early":
                self.assertEqual((code, details), (grpc.StatusCode.RESOURCE_EXHAUSTED, "enough"))
            else:
                self.assertEqual((code, details), (grpc.StatusCode.FAILED_PRECONDITION, "50 % \u201cdone\u201d\n"))
                found = [pair for pair in call.trailing_metadata() if pair[0] in ("x-end-bin", "x-two")]
                self.assertEqual(found, [("x-end-bin", b"\0\xff"), ("x-two", "1"), ("x-two", "2")])
        self.assertEqual(self.status(self.call("Nothing"))[0], grpc.StatusCode.UNKNOWN)  # the handler raises

    # -- ends ----------------------------------------------------------------------------------------------------------

    def test_cancelled_by_the_client(self) -> None:
        call = self.call("Wait", b"a")
        wait_until(lambda: self.service.deadlines, "the call at the server")
        call.cancel()
        wait_until(lambda: self.service.ended == ["Wait"], "the end of the call at the server")
        self.assertEqual(call.code(), CANCELLED)

    def test_deadlines(self) -> None:
        """The server is told what is left, and told that nobody waits."""
        self.assertEqual(self.status(self.call("Wait", b"a", timeout=0.5))[0], DEADLINE)
        wait_until(lambda: self.service.ended == ["Wait"], "the end of the call at the server")
        (left,) = self.service.deadlines
        self.assertTrue(left is not None and left <= 0.5)

    def test_the_gateways_own_time(self) -> None:
        self.relay.admin("PATCH", f"/services/{self.main['service']['id']}", json={"read_timeout": 500})
        wait_until(
            lambda: self.status(self.call("Wait", b"a", timeout=5))[1] != "Deadline Exceeded", "the shorter time"
        )
        self.assertEqual(self.status(self.call("Wait", b"a")), (DEADLINE, "The upstream server is timing out"))

    def test_an_upstream_that_is_away(self) -> None:
        self.add("/c.D", free_port(), retries=0)
        code, details = self.status(self.call("Echo", b"a", path="/c.D"))
        self.assertEqual((code, details), (UNAVAILABLE, "An invalid response was received from the upstream server"))

    def test_the_server_dies(self) -> None:
        """Every call hears of it at once, and the gateway works on with the next server."""
        calls = [self.channel.stream_stream("/a.B/Echo")(iter(Queue().get, None), timeout=SECONDS) for _ in range(10)]
        wait_until(lambda: len(self.service.deadlines) == 10, "the calls at the server")
        self.server.stop(0)
        for call in calls:
            self.assertEqual(self.status(call)[0], UNAVAILABLE)

    def test_no_route(self) -> None:
        code, details = self.status(self.call("Echo", b"a", path="/x.Y"))
        self.assertEqual((code, details), (grpc.StatusCode.NOT_FOUND, "no Route matched with those values"))

    def test_plugins(self) -> None:
        """They refuse in gRPC's words, and change metadata as they change headers."""
        path = f"/routes/{self.main['id']}/plugins"
        made = self.relay.create(path, name="rate-limiting", config={"minute": 2, "policy": "local"})
        for _ in range(2):
            self.assertEqual(list(self.call("Echo", b"a")), [b"a"])
        refused = self.call("Echo", b"a")
        self.assertEqual(self.status(refused), (grpc.StatusCode.RESOURCE_EXHAUSTED, "API rate limit exceeded"))
        self.assertIn("retry-after", dict(refused.trailing_metadata()))
        self.relay.admin("DELETE", f"/plugins/{made['id']}")
        consumer = self.relay.create("/consumers", username="anna")
        self.relay.create(f"/consumers/{consumer['id']}/key-auth", key="secret")
        self.relay.create(path, name="key-auth")
        self.relay.create(path, name="correlation-id", config={"header_name": "x-number", "generator": "uuid"})
        unauthenticated = (grpc.StatusCode.UNAUTHENTICATED, "No API key found in request")
        self.assertEqual(self.status(self.call("Echo", b"a")), unauthenticated)
        (seen,) = self.call("Meta", metadata=(("apikey", "secret"),))
        self.assertIn("('x-consumer-username', 'anna')", seen.decode())
        self.assertIn("'x-number'", seen.decode())
