"""bot-detection, redirect and standard-webhooks where the vectors are silent. Nothing but the public kit is used."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from hmac import new
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import EntityError
from kongtwist.plugins.bot_detection import BotDetection, detection
from kongtwist.plugins.redirect import Redirect
from kongtwist.plugins.standard_webhooks import StandardWebhooks
from kongtwist.testing import NOW, Outcome, PluginHarness

BOTS = (
    "Mozilla/5.0 (compatible; Googlebot/2.1)", "AdsBot-Google", "Slurp", "msnbot-media", "Nutch", "MJ12bot/v1.4.3", "my crawler",
    "SPIDER", "the Scraper", "FooBot 3", "Foobot/3.1", "My Indexer/2", "Boto3/1.9", "aws-cli/1.2", "aws-sdk-dotnet-core/3.5",
    "Go-http-client", "Apache-HttpClient/4.5", "Grub/2", "Y!J-BRW/1.0", "x PTST/190", "x/Axtaris-1", "get favicons", "Yeti-x",
    "YandexBot", "NING/1", "voyager", "Xenu's Link Sleuth", "IP2abcBot", "Microsoft URL Bot", "archive.this.org_bot",
    "Google Web/+/web/snippet", "Pingdom.com_bot_version_1.4",
)  # fmt: skip
PEOPLE = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36", "curl/8.4.0",
    "python-requests/2.31", "CUBOT", "robot", "Indexer", "Boto3", "Grub", "a NING/1", "the voyager", "Yandex", "aYeti",
    "x PTST/190 x", "facebookexternalhit", "008", "Wget/1.21",
)  # fmt: skip


class BotDetectionTests(SynchronousTestCase):
    def refused(self, harness: PluginHarness, agent: str) -> bool:
        outcome = harness.send("GET", "/", {"user-agent": agent})
        if outcome.answer is not None:
            self.assertEqual((outcome.answer.status, outcome.answer.message), (403, "Forbidden"))
        return outcome.answer is not None

    def test_known(self) -> None:
        """Bots are kept out, people are not; at the second request either."""
        harness = PluginHarness(BotDetection)
        for _ in range(2):
            self.assertEqual([agent for agent in BOTS if not self.refused(harness, agent)], [])
            self.assertEqual([agent for agent in PEOPLE if self.refused(harness, agent)], [])
            self.assertFalse(self.refused(harness, ""))
            self.assertIsNone(harness.send("GET", "/").answer)

    def test_lists(self) -> None:
        """What is allowed passes though it is a bot, or denied; spaces around do not matter."""
        harness = PluginHarness(BotDetection, allow=["^Googlebot", "mine"], deny=["^curl/", "mine"])
        told = [
            self.refused(harness, agent)
            for agent in (" Googlebot/2.1", "xGooglebot/2.1", " curl/8 ", "my curl/8", "mine")
        ]
        self.assertEqual(told, [False, True, True, False, False])

    def test_long_ones(self) -> None:
        """They are judged as a whole; what is remembered of them is short, and so many."""
        self.patch(detection, "_REMEMBERED", 8)
        harness = PluginHarness(BotDetection)
        for number in range(20):
            begin = f"{number}" + "x" * 5000
            for _ in range(2):
                self.assertFalse(self.refused(harness, begin))
                self.assertTrue(self.refused(harness, begin + " Googlebot"))
        known = harness.conf._verdicts
        self.assertLessEqual(len(known), 8)
        self.assertLess(max(map(len, known)), 300)

    def test_expression_that_runs_wild(self) -> None:
        """Whom it cannot judge it keeps out, and the log says what to do."""
        harness = PluginHarness(BotDetection, deny=["^(a|aa|a?)+$"])
        self.assertTrue(self.refused(harness, "a" * 500 + "b"))
        self.assertTrue(self.refused(harness, "a" * 500 + "b"))
        self.assertEqual(len(harness.reports), 1)
        self.assertIn("simplify config.allow and config.deny", harness.reports[0])


class RedirectTests(SynchronousTestCase):
    def place(self, target: str, **config: Any) -> str:
        outcome = PluginHarness(Redirect, keep_incoming_path=True, **config).send("GET", target)
        assert outcome.answer is not None
        self.assertEqual(outcome.answer.body, b"redirecting")
        return outcome.answer_headers["location"]

    def test_incoming_path(self) -> None:
        """Path and query are the request's, the rest the location's; nothing in a path leads to another host."""
        new_place = "https://new.example:8443"
        for target, told in (
            ("/a/b?c=d&e", "/a/b?c=d&e"), ("/", "/"), ("/a?", "/a"), ("//evil.example/x", "/evil.example/x"),
            ("/a/../b", "/b"), ("/%2e%2e/b", "/b"), ("/a%20b", "/a%20b"), ("/a%3Fb%23c", "/a%3Fb%23c"), ("/%C3%A9", "/%C3%A9"),
            ("/@evil.example", "/@evil.example"), ("/a?b=http://x/", "/a?b=http://x/"),
        ):  # fmt: skip
            self.assertEqual(self.place(target, location=f"{new_place}/old?gone=1"), new_place + told, target)
        self.assertEqual(self.place("/a?b", location="http://x/y#here"), "http://x/a?b#here")

    def test_refused_locations(self) -> None:
        """One that splits the head, or is no URL."""
        for location in ("http://x/\r\nSet-Cookie: a=b", "x", "http://x/\n"):
            self.assertRaises(EntityError, PluginHarness, Redirect, location=location)


class StandardWebhooksTests(SynchronousTestCase):
    def send(
        self,
        body: bytes = b"{}",
        secret: str = "s",
        stamp: str = str(int(NOW)),
        beside: Sequence[tuple[str, str]] = (),
        **changed: str | None,
    ) -> Outcome:
        signed = new(secret.encode(), f"m1.{stamp}.".encode() + body, sha256).digest()
        headers: dict[str, str | None] = {
            "webhook-id": "m1",
            "webhook-timestamp": stamp,
            "webhook-signature": "v1," + b64encode(signed).decode(),
        }
        headers.update({name.replace("_", "-"): value for name, value in changed.items()})
        harness = PluginHarness(StandardWebhooks, secret_v1="s", tolerance_second=10)
        fields = [(name, value) for name, value in headers.items() if value is not None]
        return harness.send("POST", "/", [*fields, *beside], body)

    def test_several(self) -> None:
        """Another id, time or signature beside the one that is signed: an upstream may read that one."""
        for name in (
            "webhook-id",
            "webhook_id",
            "Webhook_Id",
            "webhook-timestamp",
            "webhook_timestamp",
            "webhook-signature",
        ):
            outcome = self.send(beside=[(name, "m2")])
            self.assertEqual(outcome.answer and outcome.answer.status, 400, name)
        self.assertIsNone(self.send(beside=[("webhook-id-other", "m2")]).answer)

    def test_signed(self) -> None:
        """What is signed passes, and its body goes up as it came."""
        outcome = self.send(b'{"a": 1}')
        self.assertIsNone(outcome.answer)
        self.assertIsNone(outcome.upstream_body)
        self.assertIsNone(self.send(stamp=str(int(NOW) - 10)).answer)

    def test_refused(self) -> None:
        """Another secret, id, body or time, none of it, or what is no number."""
        for outcome in (
            self.send(secret="x"), self.send(webhook_id="m2"), self.send(webhook_id=None), self.send(webhook_signature=None),
            self.send(webhook_timestamp=None), self.send(webhook_timestamp=str(int(NOW) + 1)), self.send(b""),
            self.send(stamp=str(int(NOW) - 11)), self.send(stamp="now"), self.send(stamp="nan"), self.send(stamp="inf"),
            self.send(stamp="9" * 4000), self.send(stamp="0x" + "f" * 4000), self.send(webhook_signature="v1,"),
            self.send(webhook_signature="v1a,"), self.send(b"x" * 10_000),
        ):  # fmt: skip
            assert outcome.answer is not None
            self.assertEqual((outcome.answer.status, outcome.answer.message), (400, "Bad request"))
