"""The plugin client-certificate with the kit: names, times, consumers."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.plugins.client_certificate import ClientCertificate, names_of
from kongtwist.testing import Outcome, PluginHarness
from tests.live.pki import authority

CA = authority()
SIGNED = CA.sign("warehouse", client=True)


class CertificateTests(SynchronousTestCase):
    """Requests over connections on which a certificate was shown."""

    def made(self, **config: object) -> PluginHarness:
        harness = PluginHarness(ClientCertificate, **config)
        harness.store("consumers", id="w", username="warehouse", custom_id="localhost")
        return harness

    def send(self, harness: PluginHarness, certificate: x509.Certificate | bytes | None) -> Outcome:
        exchange = harness.request()
        shown = certificate.public_bytes(Encoding.DER) if isinstance(certificate, x509.Certificate) else certificate
        exchange.shown = shown  # type: ignore[attr-defined]
        return harness.run(exchange)

    def status(self, outcome: Outcome) -> int:
        return 200 if outcome.answer is None else outcome.answer.status

    def test_names(self) -> None:
        """Alternative names count; the common name where there are none."""
        self.assertEqual(names_of(SIGNED.certificate), ["warehouse", "localhost"])
        self.assertEqual(names_of(CA.certificate), ["test authority"])

    def test_who(self) -> None:
        """Who is named, by the field that is configured; who is not, and nonsense, are nobody."""
        harness = self.made()
        outcome = self.send(harness, SIGNED.certificate)
        self.assertIsNone(outcome.answer)
        self.assertEqual(outcome.upstream_headers["x-consumer-username"], "warehouse")
        for nobody in (None, b"", b"\x30\x03nonsense", CA.certificate):
            self.assertEqual(self.status(self.send(harness, nobody)), 401)
        self.assertEqual(self.status(self.send(self.made(consumer_by=["custom_id"]), SIGNED.certificate)), 200)

    def test_two_of_that_name(self) -> None:
        """Names that find two consumers leave open who it is."""
        harness = self.made()
        harness.store("consumers", id="l", username="localhost")
        self.assertEqual(self.status(self.send(harness, SIGNED.certificate)), 401)

    def test_changes(self) -> None:
        """Whoever was found is forgotten with the consumer, and with the time of the certificate."""
        harness = self.made()
        self.assertEqual(self.status(self.send(harness, SIGNED.certificate)), 200)
        end = SIGNED.certificate.not_valid_after_utc.timestamp()
        harness.now = end + 1
        self.assertEqual(self.status(self.send(harness, SIGNED.certificate)), 401)
        harness = self.made()
        self.assertEqual(self.status(self.send(harness, SIGNED.certificate)), 200)
        harness.rows.rows = {**harness.rows.rows, "consumers": {}}
        self.assertEqual(self.status(self.send(harness, SIGNED.certificate)), 401)

    def test_anonymous(self) -> None:
        """Without a certificate a client may be the anonymous consumer."""
        harness = self.made(anonymous="warehouse")
        outcome = self.send(harness, None)
        self.assertEqual(outcome.upstream_headers["x-anonymous-consumer"], "true")
