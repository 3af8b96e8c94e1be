"""TLS versions, and commands of OpenSSL's configuration: which are taken, and what they come to."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.load import Conf, ConfError
from kongtwist.config.shown import shown
from kongtwist.config.tls_kinds import TLS_COMMAND, VERSIONS, TLSCommand

NEW = ("TLSv1.2", "TLSv1.3")


class CommandTests(SynchronousTestCase):
    """``ssl_conf_command``."""

    def test_read(self) -> None:
        """Names in any case, values as they are, in quotation marks or not."""
        for text, name, value in (
            ("Ciphersuites TLS_AES_128_GCM_SHA256", "Ciphersuites", "TLS_AES_128_GCM_SHA256"),
            ("cipherstring  'DEFAULT:@SECLEVEL=0'", "CipherString", "DEFAULT:@SECLEVEL=0"),
            ('MINPROTOCOL "TLSv1.3"', "MinProtocol", "TLSv1.3"),
            ("MaxProtocol None", "MaxProtocol", "None"),
            ("Protocol -ALL, TLSv1.2", "Protocol", "-ALL, TLSv1.2"),
            ("Options -SessionTicket,PrioritizeChaCha", "Options", "-SessionTicket,PrioritizeChaCha"),
        ):
            self.assertEqual(TLS_COMMAND.parse(text), TLSCommand(name, value))

    def test_refused(self) -> None:
        """One sentence each."""
        for text, sentence in (
            ("MinProtocol", "is not a command and its value, such as 'MinProtocol TLSv1.3': 'MinProtocol'"),
            ("Groups X25519", "cannot be 'Groups': of OpenSSL's commands only CipherString, Ciphersuites, .* are built"),
            ("MinProtocol TLSv9", r"has an invalid value: 'TLSv9' \(None, TLSv1, TLSv1.1, TLSv1.2, TLSv1.3\)"),
            ("MinProtocol SSLv3", "has an invalid value: 'SSLv3'"),
            ("Ciphersuites A; ssl_verify_client on", "has no list of ciphers, divided by colons: 'A; ssl_verify_client on'"),
            ("Options KTLS", r"has an invalid value: 'KTLS' \(with \+ or -: SessionTicket, .*\)"),
            ("Options Compression", "has an invalid value: 'Compression'"),
            ("Options -NoRenegotiation", "cannot be 'Options -NoRenegotiation': it stays as it is"),
            ("Protocol -SSLv2", "has an invalid value: '-?SSLv2'"),
        ):  # fmt: skip
            with self.assertRaisesRegex(ConfError, f"^nginx_http_ssl_conf_command {sentence}"):
                Conf({"nginx_http_ssl_conf_command": text})

    def test_versions(self) -> None:
        """Bounds take away; Protocol gives, too."""
        for text, allowed, left in (
            ("MinProtocol TLSv1.3", NEW, ("TLSv1.3",)),
            ("MinProtocol TLSv1", NEW, NEW),
            ("MinProtocol None", NEW, NEW),
            ("MaxProtocol TLSv1.2", VERSIONS, VERSIONS[:3]),
            ("MaxProtocol TLSv1.1", NEW, ()),
            ("Protocol TLSv1.1", NEW, VERSIONS[1:]),
            ("Protocol -TLSv1.2", NEW, ("TLSv1.3",)),
            ("Protocol -ALL,+TLSv1.3", VERSIONS, ("TLSv1.3",)),
            ("Protocol ALL,-TLSv1", NEW, VERSIONS[1:]),
            ("Options ServerPreference", NEW, NEW),
        ):
            self.assertEqual(TLS_COMMAND.parse(text).versions(allowed), left, text)

    def test_shown(self) -> None:
        """As it was written."""
        given = {"nginx_http_ssl_conf_command": "MinProtocol TLSv1.3"}
        self.assertEqual(shown(Conf(given))["nginx_http_ssl_conf_command"], "MinProtocol TLSv1.3")
        self.assertNotIn("nginx_http_ssl_conf_command", shown(Conf({})))


class VersionTests(SynchronousTestCase):
    """``lua_ssl_protocols``, ``nginx_stream_ssl_protocols``."""

    def test_refused(self) -> None:
        for name, text, sentence in (
            (
                "lua_ssl_protocols",
                "TLSv1.2 TLSv9",
                r"has an invalid value: 'TLSv9' \(TLSv1, TLSv1.1, TLSv1.2, TLSv1.3\)",
            ),
            ("lua_ssl_protocols", "SSLv3", "has an invalid value: 'SSLv3'"),
            ("lua_ssl_protocols", "TLSv1.1 TLSv1.3", "leaves out a version between others: 'TLSv1.1 TLSv1.3'"),
            ("nginx_stream_ssl_protocols", "TLSv9", r"has an invalid value: 'TLSv9' \(SSLv3, TLSv1, "),
        ):
            with self.assertRaisesRegex(ConfError, f"^{name} {sentence}"):
                Conf({name: text})
        self.assertEqual(Conf({"lua_ssl_protocols": "TLSv1.3 TLSv1.2"}).lua_ssl_protocols, "TLSv1.3 TLSv1.2")
