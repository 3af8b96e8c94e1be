"""What signals ask for, without sending any."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.logger import LogEvent
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.node import signals
from kongtwist.node.signals import SignalDuties


class Reactor:
    """Keeps what is to be called in the reactor's thread."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def callFromThread(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.calls.append((function, arguments))


class SignalTests(SynchronousTestCase):
    """`SignalDuties`."""

    def setUp(self) -> None:
        self.done: list[str] = []
        self.reactor = Reactor()
        self.duties = SignalDuties(
            self.reactor,
            stop=lambda: self.done.append("stop"),
            force=lambda: self.done.append("force"),
            reload=lambda: self.done.append("reload"),
            reopen_logs=lambda: self.done.append("reopen"),
            drain=lambda: self.done.append("drain"),
        )

    def test_first_stops_second_forces(self) -> None:
        """Any two of the stopping signals."""
        self.duties.received(signal.SIGTERM)
        self.assertEqual(self.done, ["stop"])
        self.duties.received(signal.SIGINT)
        self.duties.received(signal.SIGQUIT)
        self.assertEqual(self.done, ["stop", "force", "force"])

    def test_others_do_not_count(self) -> None:
        """Reload and log rotation happen as often as asked for and are no stop."""
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
            self.duties.received(number)
        self.assertEqual(self.done, ["reload", "reopen", "reload", "stop"])

    def test_window_change(self) -> None:
        """A terminal that is resized sends it, too: whether it means anything is for the callee to see, no line is said."""
        events: list[LogEvent] = []
        self.patch(signals._log, "observer", events.append)
        self.duties.received(signal.SIGWINCH)
        self.assertEqual((self.done, events), (["drain"], []))

    def test_installed_and_given_back(self) -> None:
        """A caught signal is handed to the reactor; handlers of before come back."""
        before = signal.getsignal(signal.SIGUSR1)
        self.duties.install()
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        signal.raise_signal(signal.SIGUSR1)
        self.assertEqual(self.done, [])
        for function, arguments in self.reactor.calls:
            function(*arguments)
        self.assertEqual(self.done, ["reopen"])
        self.duties.uninstall()
        self.assertEqual(signal.getsignal(signal.SIGUSR1), before)

    def test_installed_again(self) -> None:
        """The reactor puts its own handlers over ours when it starts; those of before ours come back all the same."""
        before = signal.getsignal(signal.SIGUSR1)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        self.duties.install()
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
        self.duties.install()
        signal.raise_signal(signal.SIGUSR1)
        self.assertEqual(len(self.reactor.calls), 1)
        self.duties.uninstall()
        self.assertEqual(signal.getsignal(signal.SIGUSR1), before)
