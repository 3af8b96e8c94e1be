"""Events as Server-Sent Events and as messages of WebSockets."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_reading import EVENTS, MESSAGES
from kongtwist.kafka.event_window import Event
from kongtwist.kafka.feed_forms import ServerSentEvents, SocketMessages, form_of, text_frame


class FormTests(SynchronousTestCase):
    def test_frames(self) -> None:
        for size, head in (
            (0, b"\x81\x00"), (125, b"\x81\x7d"), (126, b"\x81\x7e\x00\x7e"), (65535, b"\x81\x7e\xff\xff"),
            (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ):  # fmt: skip
            self.assertEqual(text_frame(b"x" * size), head + b"x" * size)

    def test_messages(self) -> None:
        form = form_of(MESSAGES)
        self.assertIsInstance(form, SocketMessages)
        for body, shown in (
            (b'"value":"x"}', {"id": "t:1", "value": "x"}),
            (form.place, {"id": "t:1", "event": "position"}),
            (form.resync("retention", 'a "b"'), {"id": "t:1", "event": "resync", "reason": "retention", "detail": 'a "b"'}),
        ):  # fmt: skip
            frame = form.event(b"t:1", body)
            self.assertEqual((frame[0], frame[1]), (0x81, len(frame) - 2))
            self.assertEqual(json.loads(frame[2:]), shown)
        events = [Event("t", 0, n, None, b'"value":%d}' % n, b"t:%d" % (n + 1)) for n in range(2)]
        self.assertEqual(form.joined(events), form.event(b"t:1", b'"value":0}') + form.event(b"t:2", b'"value":1}'))
        self.assertEqual(form.chunk(b"x"), b"x")

    def test_server_sent_events(self) -> None:
        form = form_of(EVENTS)
        self.assertIsInstance(form, ServerSentEvents)
        self.assertEqual(form.event(b"t:1", form.place), b"id: t:1\n\n")
        self.assertEqual(
            form.event(b"t:1", form.resync("a", "b")),
            b'id: t:1\nevent: resync\ndata: {"reason":"a","detail":"b"}\n\n',
        )
        self.assertEqual(form.chunk(b"x" * 17), b"11\r\n" + b"x" * 17 + b"\r\n")
