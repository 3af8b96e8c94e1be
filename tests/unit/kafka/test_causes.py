"""What kafka-python writes into its log, as causes with remedies."""

from __future__ import annotations

import logging
import threading

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.kafka.causes import Causes, explained


class ExplainedTests(SynchronousTestCase):
    def test_known(self) -> None:
        lines = {
            "Connection failed: [Error 58] SaslAuthenticationFailedError: Invalid username": "login refused",
            "Handshake failed: [SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired": "certificate has expired",
            "Handshake failed: [SSL: CERTIFICATE_VERIFY_FAILED] self-signed": "not trusted",
            "Bootstrap connection to bootstrap-0 failed: [Errno 111] ECONNREFUSED": "connection refused",
            "<KafkaTCPTransport>: Request timed out after 2000 ms. Closing connection.": "no answer in time",
            "<KafkaConnection (disconnected)>: Connection lost: RequestTimedOutError": "no answer in time",
            "ValueError: Unrecognized partition 77 for topic t": "no such partition",
            "_UNKNOWN_PARTITION: Local: Unknown partition": "no such partition",
            "<KafkaTCPTransport>: Abort (InvalidReceiveError: Invalid frame length: 352518912)": "speaks TLS",
        }
        for line, cause in lines.items():
            self.assertIn(cause, explained(line).text)
        self.assertEqual(explained("some thing").text, "some thing")

    def test_every_cause_has_a_remedy(self) -> None:
        self.assertTrue(explained("some thing").remedy)
        self.assertIn("config.authentication", explained("[Error 58]").remedy)


class CausesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.causes = Causes()
        self.logger = logging.Logger("library")
        self.logger.addHandler(self.causes)

    def test_most_telling_line(self) -> None:
        """What follows a refused login does not hide it."""
        self.logger.warning("[Error 58] SaslAuthenticationFailedError")
        self.logger.error("socket disconnected")
        cause = self.causes.taken(threading.get_ident())
        assert cause is not None
        self.assertIn("login refused", cause.text)
        self.assertIsNone(self.causes.taken(threading.get_ident()))

    def test_listener_of_another_kind(self) -> None:
        """A listener that wants TLS or a login closes each connection; that the library tried for long does not hide it."""
        self.logger.error("<KafkaTCPTransport>: socket disconnected")
        self.logger.error("Bootstrap failed: KafkaTimeoutError: Unable to bootstrap from ['127.0.0.1:9093']")
        cause = self.causes.taken(threading.get_ident())
        assert cause is not None
        self.assertIn("closed the connection", cause.text)
        self.assertIn("config.authentication", cause.remedy)

    def test_of_another_thread(self) -> None:
        self.logger.warning("[Errno 111] ECONNREFUSED")
        self.assertIsNone(self.causes.taken(-1, None))
        self.assertIsNotNone(self.causes.taken(-1, threading.get_ident()))

    def test_bounded(self) -> None:
        for number in range(1000):
            record = logging.LogRecord("kafka", logging.ERROR, "", 0, "lost", None, None)
            record.thread = number
            self.causes.emit(record)
        self.assertIsNone(self.causes.taken(0))
        self.assertIsNotNone(self.causes.taken(999))
