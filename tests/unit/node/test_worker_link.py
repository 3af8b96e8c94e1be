"""The pair between parent and worker: framing, order, pace."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.storage_contract import Change
from kongtwist.node.worker_link import (
    BATCH,
    Link,
    Message,
    MessageReader,
    MessageTooLarge,
    changes_packets,
    dataset_messages,
    encode,
)


class MessageTests(SynchronousTestCase):
    messages: list[Message] = [
        {"type": "served", "version": 7},
        {"type": "rows", "rows": [{"name": "ä\ud800", "tags": None}]},
        {},
    ]

    def test_split_anywhere(self) -> None:
        """Messages come out whole and in order however the bytes are cut."""
        data = b"".join(map(encode, self.messages))
        for size in (1, 2, 3, 5, 7, len(data)):
            reader = MessageReader()
            found = [m for at in range(0, len(data), size) for m in reader.feed(data[at : at + size])]
            self.assertEqual(found, self.messages)

    def test_impossible_length(self) -> None:
        """A stream out of step is noticed before anything is collected."""
        self.assertRaises(MessageTooLarge, list, MessageReader().feed(b"\xff\xff\xff\xff"))

    def test_dataset(self) -> None:
        """A dataset arrives whole in bounded batches, its version last."""
        rows = {str(number): {"id": str(number)} for number in range(2 * BATCH + 1)}
        messages = list(dataset_messages(9, {"routes": rows, "services": {}}))
        self.assertEqual(messages[-1], {"type": "dataset", "version": 9})
        batches = [m["rows"] for m in messages if m.get("entity") == "routes"]
        self.assertLessEqual(max(map(len, batches)), BATCH)
        self.assertEqual([row["id"] for batch in batches for row in batch], list(rows))
        self.assertIn({"type": "rows", "entity": "services", "rows": []}, messages)


class PacketTests(SynchronousTestCase):
    row = {"id": "r1", "name": "r", "paths": ["/" + "x" * 1000]}

    def test_rows_of_before_stay_here(self) -> None:
        """A worker has them: a change is as long as what is new."""
        old = {**self.row, "name": "old"}
        (packet,) = changes_packets(7, [Change("update", "routes", self.row, old)])
        self.assertLess(len(packet.data), len(encode(self.row)) + 100)
        self.assertNotIn(b"old", packet.data)
        (packet,) = changes_packets(7, [Change("delete", "routes", None, old)])
        self.assertLess(len(packet.data), 120)
        (message,) = MessageReader().feed(packet.data)
        self.assertEqual(message["changes"], [["delete", "routes", None, {"id": "r1"}]])

    def test_many_changes_are_several_messages(self) -> None:
        """All but the last say that there are more; nothing is one message too."""
        changes = [Change("create", "routes", {"id": str(number)}, None) for number in range(2 * BATCH + 1)]
        packets = changes_packets(7, changes)
        messages = [message for packet in packets for message in MessageReader().feed(packet.data)]
        self.assertEqual([message.get("more", False) for message in messages], [True, True, False])
        self.assertEqual([len(message["changes"]) for message in messages], [BATCH, BATCH, 1])
        self.assertEqual(len(changes_packets(7, [])), 1)

    def test_heavy_rows_are_not_sent_with_others_behind_them(self) -> None:
        """Encoding a message must not stall anybody; packets are made when somebody comes to them."""
        heavy = {"id": "h", "tags": [str(number) for number in range(1000)]}
        rows = [self.row, heavy, self.row, heavy, heavy]
        packets = changes_packets(7, [Change("create", "routes", row, None) for row in rows])
        first = next(iter(packets))
        self.assertEqual(len(packets._made), 1)
        messages = [message for packet in packets for message in MessageReader().feed(packet.data)]
        self.assertEqual([len(message["changes"]) for message in messages], [2, 2, 1])
        self.assertEqual([message.get("more", False) for message in messages], [True, True, False])
        self.assertIs(next(iter(packets)), first)
        batches = [
            message.get("rows")
            for message in dataset_messages(1, {"routes": {str(n): row for n, row in enumerate(rows)}})
        ]
        self.assertEqual([len(batch) for batch in batches if batch is not None], [2, 2, 1, 0])

    def test_encoded_once_for_all(self) -> None:
        (packet,) = changes_packets(7, [Change("create", "routes", self.row, None)])
        links = [Link(lambda message: None, lambda: None) for _ in range(3)]
        for link in links:
            link.makeConnection(StringTransport())
            link.send_all([packet])
        self.assertEqual({link.transport.value() for link in links}, {packet.data})
        self.assertIs(packet.data, packet.data)


class LinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.received: list[Message] = []
        self.gone = 0
        self.link = Link(self.received.append, self._count)
        self.transport = StringTransport()

    def _count(self) -> None:
        self.gone += 1

    def sent(self) -> list[Any]:
        found = list(MessageReader().feed(self.transport.value()))
        self.transport.clear()
        return found

    def test_order(self) -> None:
        """What is sent before the connection is there, and after, arrives in order."""
        self.link.send({"n": 1})
        self.link.send_all({"n": number} for number in (2, 3))
        self.link.makeConnection(self.transport)
        self.link.send({"n": 4})
        self.assertEqual([m["n"] for m in self.sent()], [1, 2, 3, 4])

    def test_pace(self) -> None:
        """While the other side does not read, no further message is even made."""
        made: list[int] = []

        def numbers() -> Any:
            for number in range(4):
                made.append(number)
                if number == 1:
                    self.link.pauseProducing()
                yield {"n": number}

        self.link.makeConnection(self.transport)
        self.link.send_all(numbers())
        self.link.send({"n": "last"})
        self.assertEqual(made, [0, 1])
        self.assertEqual(len(self.sent()), 2)
        self.link.resumeProducing()
        self.assertEqual([m["n"] for m in self.sent()], [2, 3, "last"])

    def test_close_after_the_rest(self) -> None:
        """Closing waits for what is still to be sent."""
        self.link.makeConnection(self.transport)
        self.link.pauseProducing()
        self.link.send({"n": 1})
        self.link.close()
        self.assertFalse(self.transport.disconnecting)
        self.link.resumeProducing()
        self.assertEqual(self.sent(), [{"n": 1}])
        self.assertTrue(self.transport.disconnecting)

    def test_gone_once(self) -> None:
        """The end of the pair is told, and nothing is sent any more."""
        self.link.makeConnection(self.transport)
        self.link.connectionLost()
        self.link.send({"n": 1})
        self.assertEqual((self.gone, self.sent()), (1, []))

    def test_out_of_step(self) -> None:
        """Nonsense ends the pair instead of being waited for."""
        self.link.makeConnection(self.transport)
        self.link.dataReceived(encode({"n": 1}) + b"\xff\xff\xff\xff")
        self.assertEqual(self.received, [{"n": 1}])
        self.assertTrue(self.transport.disconnected)
