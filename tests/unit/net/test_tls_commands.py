"""What properties and OpenSSL's commands do to TLS, in handshakes in memory; no sockets."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.clients.tls import Contexts, Trust
from kongtwist.config.load import Conf, ConfError
from kongtwist.config.tls_kinds import TLS_COMMAND
from kongtwist.core.chain.host import TLSSettings
from kongtwist.net.server_tls import KeyPair, TLSRules, _write_self_signed
from kongtwist.net.tls_commands import only_versions, set_up
from kongtwist.node.shown_certificate import shown_certificate
from kongtwist.upstream.client_tls import ClientConnections, TLSDefaults, TLSFacts

LISTENERS = ("proxy_listen", "admin_listen", "status_listen", "stream_listen")


def shake(server: SSL.Context, client: SSL.Context | SSL.Connection) -> tuple[str, str | None] | None:
    """Version and cipher of a handshake; None: there was none."""
    ends = [
        SSL.Connection(server, None),
        client if isinstance(client, SSL.Connection) else SSL.Connection(client, None),
    ]
    ends[0].set_accept_state()
    ends[1].set_connect_state()
    for _ in range(4):
        for one, other in ((ends[1], ends[0]), (ends[0], ends[1])):
            try:
                one.do_handshake()
            except SSL.WantReadError:
                pass  # it waits for the other
            except SSL.Error:
                return None
            try:
                other.bio_write(one.bio_read(1 << 16))
            except SSL.WantReadError:
                pass  # it has nothing to say
    return ends[1].get_protocol_version_name(), ends[1].get_cipher_name()


class TLSCase(SynchronousTestCase):
    """A certificate, and plain contexts."""

    def setUp(self) -> None:
        base = self.mktemp()
        _write_self_signed(base, ec.generate_private_key(ec.SECP256R1()))
        with open(f"{base}.crt", "rb") as certificate, open(f"{base}.key", "rb") as key:
            self.pair = KeyPair.from_pem(certificate.read(), key.read())

    def client(self, *versions: str, ciphersuites: str = "", ciphers: str = "DEFAULT:@SECLEVEL=0") -> SSL.Context:
        """A client that speaks these versions, or all."""
        context = SSL.Context(SSL.TLS_METHOD)
        set_up(context, None, versions or ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"), 0, ciphers)
        context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
        if ciphersuites:
            context.set_tls13_ciphersuites(ciphersuites.encode())
        return context

    def server(self, *versions: str) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        set_up(context, None, versions, 0, "DEFAULT:@SECLEVEL=0")
        context.use_certificate(self.pair.chain[0])
        context.use_privatekey(self.pair.key)
        return context

    def listener(self, name: str = "proxy_listen", **conf: str) -> SSL.Context:
        """What clients of a listener property meet."""
        return TLSRules.from_conf(Conf(conf), name).context([self.pair])

    def version(self, server: SSL.Context, client: Any = None) -> str | None:
        found = shake(server, client or self.client())
        return None if found is None else found[0]


class ListenerTests(TLSCase):
    """``nginx_*_ssl_conf_command``."""

    def test_which_listeners(self) -> None:
        """That of a block stands in place of the one for HTTP; streams have one of their own."""
        for given, wanted in (
            ({}, ("TLSv1.3",) * 4),
            ({"http": "MaxProtocol TLSv1.2"}, ("TLSv1.2", "TLSv1.2", "TLSv1.2", "TLSv1.3")),
            ({"http": "MaxProtocol TLSv1.2", "admin": "Options -SessionTicket"}, ("TLSv1.2", "TLSv1.3", "TLSv1.2", "TLSv1.3")),
            ({"proxy": "MaxProtocol TLSv1.2"}, ("TLSv1.2", "TLSv1.3", "TLSv1.3", "TLSv1.3")),
            ({"status": "MaxProtocol TLSv1.2"}, ("TLSv1.3", "TLSv1.3", "TLSv1.2", "TLSv1.3")),
            ({"stream": "MaxProtocol TLSv1.2"}, ("TLSv1.3", "TLSv1.3", "TLSv1.3", "TLSv1.2")),
        ):  # fmt: skip
            conf = {f"nginx_{block}_ssl_conf_command": text for block, text in given.items()}
            self.assertEqual(tuple(self.version(self.listener(name, **conf)) for name in LISTENERS), wanted, given)

    def test_versions(self) -> None:
        server = self.listener(nginx_http_ssl_conf_command="MinProtocol TLSv1.3")
        self.assertIsNone(self.version(server, self.client("TLSv1.2")))
        self.assertEqual(self.version(server), "TLSv1.3")
        server = self.listener(nginx_http_ssl_conf_command="Protocol -TLSv1.3")
        self.assertEqual(self.version(server), "TLSv1.2")

    def test_ciphers(self) -> None:
        for text, version, cipher in (
            ("Ciphersuites TLS_CHACHA20_POLY1305_SHA256", "TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
            ("CipherString ECDHE-ECDSA-AES256-SHA384", "TLSv1.2", "ECDHE-ECDSA-AES256-SHA384"),
        ):
            server = self.listener(nginx_http_ssl_conf_command=text)
            self.assertEqual(shake(server, self.client(version)), (version, cipher))
        self.assertIsNone(shake(server, self.client("TLSv1.2", ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")))

    def test_options(self) -> None:
        """Whose order of ciphers counts, and whose ChaCha20; bits that pyOpenSSL has no names for."""
        mine = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"
        for text, cipher in (
            ("Options ServerPreference", "TLS_AES_256_GCM_SHA384"),
            ("Options ServerPreference,PrioritizeChaCha", "TLS_CHACHA20_POLY1305_SHA256"),
            ("Options -ServerPreference", "TLS_CHACHA20_POLY1305_SHA256"),
        ):
            server = self.listener(nginx_http_ssl_conf_command=text)
            self.assertEqual(shake(server, self.client(ciphersuites=mine)), ("TLSv1.3", cipher), text)
        bits = []
        for text in (
            "Options -SessionTicket",
            "Options SessionTicket",
            "Options -EncryptThenMac,-ExtendedMasterSecret,AllowNoDHEKEX",
        ):
            server = self.listener(ssl_session_tickets="off", nginx_http_ssl_conf_command=text)
            bits.append(server.set_options(0))
        self.assertEqual([each & SSL.OP_NO_TICKET for each in bits], [SSL.OP_NO_TICKET, 0, SSL.OP_NO_TICKET])
        self.assertEqual(bits[2] & (1 << 19 | 1 | 1 << 10), 1 << 19 | 1 | 1 << 10)
        self.assertTrue(all(each & SSL.OP_NO_RENEGOTIATION for each in bits))

    def test_refused(self) -> None:
        """What cannot be done stops the start, and names its property."""
        for name, text, listener, sentence in (
            ("nginx_http_ssl_conf_command", "Ciphersuites NONSENSE", "proxy_listen", "has no cipher that OpenSSL knows: 'NONSENSE'"),
            ("nginx_admin_ssl_conf_command", "CipherString NONSENSE", "admin_listen", "has no cipher that OpenSSL knows: 'NONSENSE'"),
            ("nginx_http_ssl_conf_command", "MaxProtocol TLSv1.1", "proxy_listen", "leaves no TLS version; allow TLSv1.2 or"),
            ("nginx_stream_ssl_conf_command", "Protocol -ALL", "stream_listen", "leaves no TLS version; allow TLSv1.2 or"),
            ("ssl_protocols", "SSLv3", "proxy_listen", "leaves no TLS version; allow TLSv1.2 or TLSv1.3"),
            ("nginx_stream_ssl_protocols", "SSLv3", "stream_listen", "leaves no TLS version; allow TLSv1.2 or TLSv1.3"),
            ("nginx_stream_ssl_dhparam", "no such", "stream_listen", "'no such' is none of ffdhe2048"),
        ):  # fmt: skip
            with self.assertRaisesRegex(ConfError, f"^{name} {sentence}"):
                self.listener(listener, **{name: text})

    def test_contradiction(self) -> None:
        """Both properties are named where one leaves nothing of what the other allows."""
        for given, other in (
            ({"ssl_protocols": "TLSv1.2"}, "TLSv1.2, which ssl_protocols"),
            ({"ssl_cipher_suite": "modern"}, "TLSv1.3, which ssl_cipher_suite"),
        ):
            text = "MinProtocol TLSv1.3" if "ssl_protocols" in given else "MaxProtocol TLSv1.2"
            with self.assertRaisesRegex(
                ConfError, f"^nginx_http_ssl_conf_command leaves no TLS version of {other} allows; allow one in both$"
            ):
                self.listener("proxy_listen", nginx_http_ssl_conf_command=text, **given)


class StreamTests(TLSCase):
    """``nginx_stream_ssl_*``: by default as the properties ``ssl_*``."""

    def test_each(self) -> None:
        given = {"ssl_protocols": "TLSv1.2", "ssl_prefer_server_ciphers": "off", "ssl_session_timeout": "10s"}
        self.assertEqual(self.version(self.listener("stream_listen", **given)), "TLSv1.2")
        own = {
            "nginx_stream_ssl_protocols": "TLSv1.3", "nginx_stream_ssl_prefer_server_ciphers": "on",
            "nginx_stream_ssl_session_tickets": "off", "nginx_stream_ssl_session_timeout": "20s",
            "nginx_stream_ssl_dhparam": "ffdhe2048",
        }  # fmt: skip
        rules = TLSRules.from_conf(Conf({**given, **own}), "stream_listen")
        self.assertEqual(
            (rules.protocols, rules.prefer_server_ciphers, rules.tickets, rules.session_timeout, rules.dh[:27]),
            (("TLSv1.3",), True, False, 20, b"-----BEGIN DH PARAMETERS---"),
        )
        others = TLSRules.from_conf(Conf({**given, **own}), "proxy_listen")
        self.assertEqual(
            (others.protocols, others.prefer_server_ciphers, others.tickets, others.session_timeout, others.dh),
            (("TLSv1.2",), False, True, 10, b""),
        )


class UpstreamTests(TLSCase):
    """``nginx_*_proxy_ssl_conf_command`` and ``nginx_http_grpc_ssl_conf_command``."""

    def test_which(self) -> None:
        """Each for its kind of connection: told by what it asks for in ALPN."""
        web, calls, sessions = (TLS_COMMAND.parse(f"MaxProtocol {each}") for each in ("TLSv1.2", "TLSv1.3", "None"))
        defaults = TLSDefaults(http=web, grpc=calls, stream=sessions)
        found = [defaults.command(alpn) for alpn in (b"http/1.1", b"h2,http/1.1", b"h2", b"")]
        self.assertEqual(found, [defaults.http, defaults.http, defaults.grpc, defaults.stream])

    def test_done(self) -> None:
        server = self.server("TLSv1.1", "TLSv1.2", "TLSv1.3")
        for text, wanted in (
            (None, "TLSv1.3"),
            ("MaxProtocol TLSv1.2", "TLSv1.2"),
            ("Protocol -ALL,TLSv1.1", None),  # not with OpenSSL's level of security
            ("CipherString DEFAULT:@SECLEVEL=0", "TLSv1.3"),
        ):
            facts = TLSFacts("x.test", False, 1, "", "", (), command=TLS_COMMAND.parse(text) if text else None)
            connection = ClientConnections(facts).clientConnectionForTLS(None)
            self.assertEqual(self.version(server, connection), wanted, text)

    def test_refused(self) -> None:
        names = {
            "nginx_http_proxy_ssl_conf_command": "http", "nginx_http_grpc_ssl_conf_command": "grpc",
            "nginx_stream_proxy_ssl_conf_command": "stream",
        }  # fmt: skip
        for name, field in names.items():
            for text, sentence in (
                ("Ciphersuites NONSENSE", "has no cipher"),
                ("MaxProtocol TLSv1", "leaves no TLS version"),
            ):
                with self.assertRaisesRegex(ConfError, f"^{name} {sentence}"):
                    shown_certificate(Conf({name: text}))
            made = shown_certificate(Conf({name: "MinProtocol TLSv1.3"}))
            command = TLS_COMMAND.parse("MinProtocol TLSv1.3")
            self.assertEqual(
                {each: getattr(made, each) for each in names.values()},
                {**dict.fromkeys(names.values()), field: command},
            )


class PluginTests(TLSCase):
    """``lua_ssl_protocols``."""

    def test_versions(self) -> None:
        every = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
        for spoken, server, wanted in (
            (("TLSv1.2", "TLSv1.3"), every, "TLSv1.3"),
            (("TLSv1.2",), every, "TLSv1.2"),
            (("TLSv1.3",), ("TLSv1.2",), None),
            (("TLSv1.2", "TLSv1.3"), ("TLSv1.1",), None),
            (("TLSv1.1", "TLSv1.2"), ("TLSv1.1",), "TLSv1.1"),
            (("TLSv1",), every, "TLSv1"),
        ):
            contexts = Contexts(Trust(versions=spoken))
            connection = contexts.creator(TLSSettings(verify=False), "x.test").clientConnectionForTLS(None)
            self.assertEqual(self.version(self.server(*server), connection), wanted, (spoken, server))

    def test_forbidden(self) -> None:
        self.assertEqual(only_versions(("TLSv1.2", "TLSv1.3")), SSL.OP_NO_SSLv3 | SSL.OP_NO_TLSv1 | SSL.OP_NO_TLSv1_1)
