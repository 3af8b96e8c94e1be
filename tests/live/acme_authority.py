"""A certificate authority for tests: pebble, with a name server that sends every name to this machine."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from tests.live.pki import authority
from tests.live.programs import find_program
from tests.live.support import LiveTestCase, free_port

__all__ = ["AcmeAuthority"]


class AcmeAuthority:
    """Runs until the test is over.

    Args:
        case: the test.

    Attributes:
        directory: its URL.
        trusted: the file of the authority that signed its own certificate.
    """

    def __init__(self, case: LiveTestCase) -> None:
        self._case = case
        self._folder = case.folder()
        ca = authority("the authority's authority")
        self.trusted = ca.write(self._folder, "ca")[0]
        self._pair = ca.sign("localhost").write(self._folder, "server")
        self.port, self._management = free_port(), free_port()
        self.directory = f"https://127.0.0.1:{self.port}/dir"

    def start(self, http_port: int) -> AcmeAuthority:
        """Start it. ``http_port``: where it looks for answers to its challenges."""
        dns, control = free_port(), free_port()
        case, folder = self._case, self._folder
        words = [
            find_program("pebble-challtestsrv", "pebble"), "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1", "-dns01", f"127.0.0.1:{dns}",
            "-http01", "", "-https01", "", "-tlsalpn01", "", "-management", f"127.0.0.1:{control}",
        ]  # fmt: skip
        case.wait_for_port(control, case.start(words, "names"))
        config = Path(folder, "pebble.json")
        told = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": self._pair[0],
            "privateKey": self._pair[1],
            "httpPort": http_port,
            "tlsPort": free_port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
        }
        config.write_text(json.dumps({"pebble": told}))
        env = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "25"}  # of a hundred nonces
        words = [find_program("pebble", "pebble"), "-config", str(config), "-dnsserver", f"127.0.0.1:{dns}"]
        case.wait_for_port(self.port, case.start(words, "pebble", env))
        return self


def shown_certificate(port: int, name: str) -> bytes:
    """The certificate (DER) that a server shows a client who asks for a name."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        found = secure.getpeercert(True)
    assert found is not None
    return found
