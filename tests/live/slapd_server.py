"""A real LDAP server for tests: OpenLDAP's slapd (apt slapd), with and without TLS."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from tests.live.pki import Signed
from tests.live.programs import find_program
from tests.live.support import PATIENCE, Process, free_port, wait_until

__all__ = ["SlapdServer"]

_CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
TLSCACertificateFile {ca}
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
allow bind_anon_cred bind_anon_dn
database mdb
suffix "dc=example"
rootdn "cn=root,dc=example"
rootpw root
directory {folder}/data
"""
"""It agrees to binds without a password, as RFC 4513 5.1.2 allows: whoever sends one is nobody, and let in."""

_PERSON = """
dn: uid={uid},ou=people,dc=example
objectClass: inetOrgPerson
uid: {name}
cn: {name}
sn: {name}
userPassword: {password}
"""


class SlapdServer:
    """A server on ports of its own.

    Args:
        folder: its files.
        signed: its certificate, and ``ca`` the authority's.
        people: name to password; ``escaped`` of it: the name as it stands in the distinguished name.

    Attributes:
        port, tls_port: for ldap (and StartTLS), and for ldaps.
    """

    def __init__(self, folder: str, signed: Signed, ca: Signed, people: dict[str, str]) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self._folder = folder
        certificate, key = signed.write(folder, "slapd")
        Path(folder, "data").mkdir()
        conf = _CONF.format(folder=folder, ca=ca.write(folder, "ca")[0], certificate=certificate, key=key)
        Path(folder, "slapd.conf").write_text(conf)
        entries = [
            "dn: dc=example\nobjectClass: domain\ndc: example\n",
            "\ndn: ou=people,dc=example\nobjectClass: organizationalUnit\nou: people\n",
        ]
        for name, password in people.items():
            uid = "".join(f"\\{each}" if each in ',+"\\<>;=' else each for each in name)
            entries.append(_PERSON.format(uid=uid, name=name, password=password))
        Path(folder, "people.ldif").write_text("".join(entries))
        words = [find_program("slapadd"), "-f", f"{folder}/slapd.conf", "-l", f"{folder}/people.ldif"]
        subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE)
        self._process: Process | None = None

    def start(self) -> SlapdServer:
        """Start it, and wait until it takes connections."""
        urls = f"ldap://127.0.0.1:{self.port}/ ldaps://127.0.0.1:{self.tls_port}/"
        words = [find_program("slapd"), "-f", f"{self._folder}/slapd.conf", "-h", urls, "-d", "256"]
        self._process = Process(words, self._folder, "slapd")
        wait_until(self._answers, "slapd")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        if not self._process.running:
            raise AssertionError(f"slapd ended:\n{self._process.output()}")
        for port in (self.port, self.tls_port):
            socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    def log(self) -> str:
        """What it was asked."""
        assert self._process is not None
        return self._process.output()

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
