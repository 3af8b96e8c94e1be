"""TLS towards clients, shaken hands with by the openssl command."""

from __future__ import annotations

import base64
import datetime
import os
import re
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.protocols.wire import Echo
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kongtwist.config.kinds import ConfError, parse_listen
from kongtwist.config.load import Conf
from kongtwist.net.listeners import DescriptorRoom, listen_on, open_listeners
from kongtwist.net.server_tls import ServerContexts, TLSRules, contexts_for, default_pairs, read_pairs, reconfigure

PATIENCE = 30.0
"""Seconds that anything may take."""

_DAY = datetime.datetime(2020, 1, 1)


def certificate(name: str) -> tuple[str, str]:
    """A self-signed certificate for ``name`` and its key, as PEM text."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_DAY)
        .not_valid_after(_DAY.replace(year=2099))
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(encoding).decode(), secret.decode()


class FileTests(SynchronousTestCase):
    """Certificates from files and the self-made default."""

    def test_default_is_made_once(self) -> None:
        """One pair for each kind of key, kept, keys readable by the owner alone, good for localhost."""
        prefix = self.mktemp()
        first = default_pairs(prefix)
        self.assertEqual([isinstance(each.key, rsa.RSAPrivateKey) for each in first], [False, True])
        self.assertEqual(
            [each.chain[0].serial_number for each in default_pairs(prefix)],
            [each.chain[0].serial_number for each in first],
        )
        for name in os.listdir(os.path.join(prefix, "ssl")):
            self.assertEqual(os.stat(os.path.join(prefix, "ssl", name)).st_mode & 0o777, 0o600)
        names = first[0].chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["localhost"])

    def test_forms(self) -> None:
        """A property holds a file name, PEM text or base64."""
        text, key = certificate("a.example")
        file = self.mktemp()
        Path(file).write_text(text)
        encoded = base64.b64encode(key.encode()).decode()
        for form in (file, text):
            (pair,) = read_pairs("ssl_cert", [form], [encoded])
            self.assertEqual(pair.chain[0].subject.rfc4514_string(), "CN=a.example")

    def test_refusals(self) -> None:
        """Each thing that can be wrong has its sentence."""
        text, key = certificate("a.example")
        other = certificate("b.example")[1]
        missing = self.mktemp()
        for cert, secret, sentence in (
            (missing, key, f"ssl_cert cannot read '{missing}': No such file or directory"),
            (text, missing, f"ssl_cert_key cannot read '{missing}': No such file or directory"),
            (key, key, "ssl_cert given as text holds no certificate in PEM form"),
            (text, text, "ssl_cert given as text has a key that is not in PEM form without password"),
            (text, other, "ssl_cert given as text and its key do not belong together"),
        ):
            error = self.assertRaises(ConfError, read_pairs, "ssl_cert", [cert], [secret])
            self.assertEqual(str(error), sentence)

    def test_ciphers_that_do_not_exist(self) -> None:
        """A custom list that OpenSSL does not know stops the start."""
        conf = Conf({"ssl_cipher_suite": "custom", "ssl_ciphers": "NONSENSE"})
        error = self.assertRaises(ConfError, TLSRules.from_conf, conf)
        self.assertEqual(str(error), "ssl_ciphers has no cipher that OpenSSL knows: 'NONSENSE'")


class HandshakeTests(TestCase):
    """Handshakes with the openssl command."""

    def setUp(self) -> None:
        self.rows: dict[str | None, Any] = {}
        self.asked: list[str | None] = []
        self.prefix = self.mktemp()

    def certificate_for(self, name: str | None) -> Any:
        self.asked.append(name)
        return self.rows.get(name)

    def serve(self, **conf: str) -> ServerContexts:
        """Serve an echo with TLS on a free port."""
        contexts = contexts_for(Conf({"prefix": self.prefix, **conf}), "proxy_listen", self.certificate_for)
        (opened,) = open_listeners([("proxy_listen", parse_listen("127.0.0.1:0 ssl"))])
        room = DescriptorRoom(4096)
        port = listen_on(reactor, opened.sockets[0], Factory.forProtocol(Echo), room, contexts=contexts)
        self.port = opened.port
        self.addCleanup(room.close)
        self.addCleanup(opened.close)
        self.addCleanup(port.stopListening)
        return contexts

    async def shake(self, *options: str, name: str | None = None) -> str:
        """What openssl says of a handshake."""
        words = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", *options]
        words += ["-servername", name] if name else ["-noservername"]
        done = await deferToThread(
            subprocess.run, words, input="hello\n", capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return str(done.stdout + done.stderr)

    async def subject(self, name: str | None = None) -> str:
        """The common name of the certificate shown for a server name."""
        found = re.search(r"^subject=.*CN ?= ?(.*)$", await self.shake(name=name), re.MULTILINE)
        return found[1] if found else ""

    async def test_default_certificate(self) -> None:
        """Without SNI entity the self-made certificate is shown: ECDSA, or RSA for clients that know no other."""
        self.serve()
        self.assertEqual(await self.subject(), "localhost")
        self.assertEqual(await self.subject("nobody.example"), "localhost")
        self.assertIn("Server public key is 256 bit", await self.shake())
        self.assertIn("Server public key is 2048 bit", await self.shake("-tls1_2", "-cipher", "aRSA"))
        self.assertEqual(set(self.asked), {None, "nobody.example"})

    async def test_bytes_pass(self) -> None:
        """A client that trusts the certificate for localhost gets its bytes back."""
        self.serve()

        def talk() -> bytes:
            context = ssl.create_default_context(cafile=os.path.join(self.prefix, "ssl", "default-ecdsa.crt"))
            with (
                socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as client,
            ):
                client.sendall(b"hello")
                return client.recv(10)

        self.assertEqual(await deferToThread(talk), b"hello")

    async def test_server_name_picks_certificate(self) -> None:
        """The row for the server name is shown; a changed row from the next handshake on."""
        self.serve()
        cert, key = certificate("a.example")
        self.rows["a.example"] = {"id": "1", "cert": cert, "key": key, "cert_alt": None, "key_alt": None}
        self.assertEqual(await self.subject("a.example"), "a.example")
        self.assertEqual(await self.subject("b.example"), "localhost")
        cert, key = certificate("renewed.example")
        self.rows["a.example"] = {"id": "1", "cert": cert, "key": key}
        self.assertEqual(await self.subject("a.example"), "renewed.example")

    async def test_row_for_nameless_clients(self) -> None:
        """The asking function also decides for clients without server name (the SNI ``*``)."""
        self.serve()
        cert, key = certificate("star.example")
        self.rows[None] = {"id": "1", "cert": cert, "key": key}
        self.assertEqual(await self.subject(), "star.example")

    async def test_broken_row(self) -> None:
        """A row that cannot be used is logged and the default shown."""
        self.serve()
        self.rows["a.example"] = {"id": "1", "cert": "x", "key": "y"}
        self.assertEqual(await self.subject("a.example"), "localhost")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_versions_and_alpn(self) -> None:
        """TLS 1.2 and 1.3 by default; http/1.1 is agreed on, and an unknown protocol is no reason to refuse."""
        self.serve()
        self.assertIn("Protocol  : TLSv1.2", await self.shake("-tls1_2"))
        self.assertIn("TLSv1.3", await self.shake("-tls1_3", "-alpn", "h2,http/1.1"))
        self.assertIn("ALPN protocol: http/1.1", await self.shake("-alpn", "h2,http/1.1"))
        self.assertIn("No ALPN negotiated", await self.shake("-alpn", "h2"))
        self.assertIn("no peer certificate", await self.shake("-tls1_1"))

    async def test_suites(self) -> None:
        """The suite modern refuses TLS 1.2, old takes TLS 1.0, custom has its own ciphers."""
        self.serve(ssl_cipher_suite="modern")
        self.assertIn("no peer certificate", await self.shake("-tls1_2"))
        self.serve(ssl_cipher_suite="old")
        self.assertRegex(await self.shake("-tls1", "-cipher", "ALL:@SECLEVEL=0"), r"Protocol  : TLSv1\n")
        self.serve(ssl_cipher_suite="custom", ssl_ciphers="ECDHE-ECDSA-CHACHA20-POLY1305", ssl_protocols="TLSv1.2")
        self.assertIn("Cipher    : ECDHE-ECDSA-CHACHA20-POLY1305", await self.shake())
        self.assertIn("no peer certificate", await self.shake("-tls1_3"))

    async def test_tickets(self) -> None:
        """ssl_session_tickets = off gives none."""
        self.serve(ssl_protocols="TLSv1.2")
        self.assertIn("TLS session ticket:", await self.shake())
        self.serve(ssl_protocols="TLSv1.2", ssl_session_tickets="off")
        self.assertNotIn("TLS session ticket:", await self.shake())

    async def test_configured_and_renewed(self) -> None:
        """ssl_cert is shown with its chain, and what a reload finds from then on; a broken one changes nothing."""
        cert, key = certificate("mine.example")
        extra = certificate("above.example")[0]
        contexts = self.serve(ssl_cert=self.file(cert + extra), ssl_cert_key=self.file(key))
        self.assertEqual(await self.subject(), "mine.example")
        self.assertEqual((await self.shake("-showcerts")).count("BEGIN CERTIFICATE"), 2)
        conf = Conf({"ssl_cert": self.file(extra), "ssl_cert_key": self.file(key)})
        self.assertRaises(ConfError, reconfigure, contexts, conf, "proxy_listen")
        self.assertEqual(await self.subject(), "mine.example")
        cert, key = certificate("next.example")
        reconfigure(contexts, Conf({"ssl_cert": self.file(cert), "ssl_cert_key": self.file(key)}), "proxy_listen")
        self.assertEqual(await self.subject(), "next.example")

    def file(self, text: str) -> str:
        """A file with this text."""
        path: str = self.mktemp()
        Path(path).write_text(text)
        return path

    async def test_both_kinds_of_a_row(self) -> None:
        """cert_alt and key_alt are shown to clients that want that kind of key."""
        self.serve()
        rsa_pair = next(each for each in default_pairs(self.prefix) if each.key.key_size == 2048)
        encoding = serialization.Encoding.PEM
        cert, key = certificate("a.example")
        self.rows["a.example"] = {
            "id": "1",
            "cert": cert,
            "key": key,
            "cert_alt": rsa_pair.chain[0].public_bytes(encoding).decode(),
            "key_alt": rsa_pair.key.private_bytes(
                encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
        }
        self.assertEqual(await self.subject("a.example"), "a.example")
        answer = await self.shake("-tls1_2", "-cipher", "aRSA", name="a.example")
        self.assertRegex(answer, "CN ?= ?localhost")
