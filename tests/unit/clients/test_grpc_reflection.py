"""Server reflection with servers that tell nonsense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2 as messages
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.clients.grpc_reflection import described
from kongtwist.core.chain.host import GRPCFailed

Answer = messages.ServerReflectionResponse
FILE = descriptor_pb2.FileDescriptorProto(
    name="a.proto", package="a", service=[descriptor_pb2.ServiceDescriptorProto(name="S")]
)


class Channel:
    """The library's channel to a server.

    Args:
        tell: the raw descriptors that it answers to each question about a symbol or a file.
        times: how often it says each answer.
    """

    def __init__(self, tell: Callable[[Any], list[bytes]], times: int = 1) -> None:
        self._tell = tell
        self._times = times
        self.said = 0

    def stream_stream(self, path: str, *_: Any) -> Callable[..., Iterator[Any]]:
        """One method."""

        def call(questions: Iterator[Any], timeout: float) -> Iterator[Any]:
            for question in questions:
                for _ in range(self._times):
                    self.said += 1
                    yield self._answer(question)

        return call

    def _answer(self, question: Any) -> Any:
        if question.WhichOneof("message_request") == "list_services":
            return Answer(list_services_response={"service": [{"name": "a.S"}]})
        return Answer(file_descriptor_response={"file_descriptor_proto": self._tell(question)})


class DescribedTests(SynchronousTestCase):
    """What a server tells is checked, and bounded while it comes."""

    def refused(self, channel: Channel) -> str:
        """The message of the failure."""
        return str(self.assertRaises(GRPCFailed, described, channel, 10.0).text)

    def test_told(self) -> None:
        found = descriptor_pb2.FileDescriptorSet.FromString(
            described(Channel(lambda _: [FILE.SerializeToString()]), 10.0)
        )
        self.assertEqual([(each.name, each.service[0].name) for each in found.file], [("a.proto", "S")])

    def test_garbage(self) -> None:
        self.assertEqual(self.refused(Channel(lambda _: [b"\xff\xff\xff"])), "the server tells what is no descriptor")

    def test_more_answers_than_questions(self) -> None:
        """The first one too many is the last one that is read."""
        channel = Channel(lambda _: [FILE.SerializeToString()], times=1000)
        self.assertEqual(self.refused(channel), "the server tells too much of itself")
        self.assertEqual(channel.said, 2)

    def test_no_answers(self) -> None:
        channel = Channel(lambda _: [FILE.SerializeToString()], times=0)
        self.assertEqual(self.refused(channel), "the server does not answer all that it is asked")
