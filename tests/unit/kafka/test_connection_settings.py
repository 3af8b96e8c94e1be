"""Settings of a connection in the words of kafka-python."""

from __future__ import annotations

import ssl

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_basics import TLSSettings
from kongtwist.core.chain.host_kafka import KafkaConnection, KafkaOAuth
from kongtwist.kafka.connection_settings import Tokens, client_options, tls_context
from tests.live.pki import authority


class OptionTests(SynchronousTestCase):
    def test_plain(self) -> None:
        options = client_options(KafkaConnection(("one:9092", "two:9093"), keepalive=60000))
        self.assertEqual(options["bootstrap_servers"], ["one:9092", "two:9093"])
        self.assertEqual(options["security_protocol"], "PLAINTEXT")
        self.assertEqual(options["connections_max_idle_ms"], 60000)
        self.assertNotIn("sasl_mechanism", options)

    def test_security(self) -> None:
        for tls, mechanism, protocol in (
            (None, "PLAIN", "SASL_PLAINTEXT"),
            (TLSSettings(), None, "SSL"),
            (TLSSettings(verify=True), "SCRAM-SHA-512", "SASL_SSL"),
        ):
            options = client_options(
                KafkaConnection(("k:1",), tls=tls, mechanism=mechanism, username="u", password="p")
            )
            self.assertEqual(options["security_protocol"], protocol)
            self.assertEqual("ssl_context" in options, tls is not None)
            self.assertEqual(options.get("sasl_plain_password"), "p" if mechanism else None)

    def test_comes_back_soon(self) -> None:
        """A broker that was away is tried again within half a second; the library's own bound is half a minute."""
        self.assertEqual(client_options(KafkaConnection(("k:1",)))["reconnect_backoff_max_ms"], 500)

    def test_oauth(self) -> None:
        oauth = KafkaOAuth("http://127.0.0.1:1/token", extensions=(("logicalCluster", "lkc-1"),))
        options = client_options(KafkaConnection(("k:1",), mechanism="OAUTHBEARER", oauth=oauth))
        provider = options["sasl_oauth_token_provider"]
        self.assertIsInstance(provider, Tokens)
        self.assertEqual(provider.extensions(), {"logicalCluster": "lkc-1"})

    def test_refused(self) -> None:
        wrong = (
            KafkaConnection(()),
            KafkaConnection(("k:1",), mechanism="OAUTHBEARER"),
            KafkaConnection(("k:1",), tls=TLSSettings(certificate="none", key="none")),
            KafkaConnection(("k:1",), tls=TLSSettings(verify=True, authorities=("none",))),
        )
        for each in wrong:
            self.assertRaises(ValueError, client_options, each)

    def test_secrets_are_not_shown(self) -> None:
        shown = repr(
            KafkaConnection(("k:1",), password="secret-1", oauth=KafkaOAuth("http://x", client_secret="secret-2"))
        )
        self.assertNotIn("secret", shown.replace("client_secret", ""))


class TLSTests(SynchronousTestCase):
    def test_verify(self) -> None:
        self.assertEqual(tls_context(TLSSettings()).verify_mode, ssl.CERT_NONE)
        context = tls_context(TLSSettings(verify=True), (authority().pem,))
        self.assertEqual(context.verify_mode, ssl.CERT_REQUIRED)
        self.assertTrue(context.check_hostname)
        self.assertEqual(len(context.get_ca_certs()), 1)

    def test_certificate(self) -> None:
        signed = authority().sign("client", client=True)
        tls_context(TLSSettings(certificate=signed.pem, key=signed.key_pem))
