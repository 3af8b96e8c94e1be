"""What a service manager is told."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.node.service_manager import ServiceManager


class ServiceManagerTests(SynchronousTestCase):
    """`ServiceManager`."""

    def setUp(self) -> None:
        self.sent: list[tuple[bytes, str]] = []

    def send(self, data: bytes, address: str) -> None:
        self.sent.append((data, address))

    def test_nobody_asks(self) -> None:
        """Without the variable nothing is sent."""
        manager = ServiceManager({}, self.send)
        manager.tell_ready()
        manager.tell_stopping()
        self.assertEqual(self.sent, [])

    def test_told(self) -> None:
        """Readiness, the end, and a failure as one line; children do not inherit the socket's address."""
        environ = {"NOTIFY_SOCKET": "/run/notify", "OTHER": "x"}
        manager = ServiceManager(environ, self.send)
        self.assertEqual(environ, {"OTHER": "x"})
        manager.tell_ready()
        manager.tell_failed("a sentence\nREADY=1")
        manager.tell_stopping()
        lines = [b"READY=1", b"STATUS=a sentence READY=1", b"STOPPING=1"]
        self.assertEqual(self.sent, [(line, "/run/notify") for line in lines])

    def test_abstract_address(self) -> None:
        """An address that begins with @ has no file (unix(7))."""
        ServiceManager({"NOTIFY_SOCKET": "@/org/x"}, self.send).tell_ready()
        self.assertEqual(self.sent, [(b"READY=1", "\0/org/x")])

    def test_nobody_listens(self) -> None:
        """A socket that is gone stops nothing."""

        def refuse(data: bytes, address: str) -> None:
            raise FileNotFoundError(2, "No such file or directory")

        ServiceManager({"NOTIFY_SOCKET": "/run/gone"}, refuse).tell_ready()
