"""What kong.conf says about names, and what the DNS client is given of it."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.kinds import ConfError
from kongtwist.config.load import Conf
from kongtwist.core.dns.records import AAAA, CNAME, LAST, SRV, A, Server
from kongtwist.core.dns.settings import NameSettings
from kongtwist.core.limits import Limits
from kongtwist.net.dns_client import DNSClient
from kongtwist.net.system_names import SystemNames
from kongtwist.node.name_lookup import name_settings, resolver_of


class SettingsTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        """They are Kong's."""
        self.assertEqual(name_settings(Conf()), NameSettings())
        self.assertEqual(NameSettings().order, (LAST, SRV, A, CNAME))

    def test_all(self) -> None:
        hosts = self.mktemp()
        open(hosts, "w", encoding="utf-8").close()
        conf = Conf({
            "dns_resolver": "192.0.2.1, 192.0.2.2:5353, 2001:db8::1, [2001:db8::2]:54, [2001:db8::3]", "dns_hostsfile": hosts,
            "dns_order": "last, aaaa,A", "dns_valid_ttl": "5", "dns_stale_ttl": "6", "dns_not_found_ttl": "7", "dns_error_ttl": "8",
            "dns_cache_size": "90", "dns_queries": "10",
        })  # fmt: skip
        servers = (
            Server("192.0.2.1"), Server("192.0.2.2", 5353), Server("2001:db8::1"), Server("2001:db8::2", 54), Server("2001:db8::3"),
        )  # fmt: skip
        self.assertEqual(name_settings(conf), NameSettings(servers, hosts, (LAST, AAAA, A), 5.0, 6.0, 7.0, 8.0, 90, 10))
        self.assertNotIn(CNAME, name_settings(conf).order)

    def test_refused(self) -> None:
        """Each fault is told with the name of its property."""
        for name, value, sentence in (
            (
                "dns_resolver",
                "ns.example",
                "must be a comma separated list in the form of IPv4/6 or IPv4/6:port, got 'ns.example'",
            ),
            ("dns_resolver", "192.0.2.1:0", "got '192.0.2.1:0'"),
            ("dns_resolver", "192.0.2.1:70000", "got '192.0.2.1:70000'"),
            ("dns_resolver", "192.0.2.300", "got '192.0.2.300'"),
            ("dns_order", "A,MX", "has an invalid entry: 'MX'"),
            ("dns_order", "LAST", "names no kind of record but LAST"),
            ("dns_hostsfile", "/nowhere/hosts", "file does not exist: /nowhere/hosts"),
            ("dns_client", "both", "has an invalid value: 'both'"),
            ("dns_queries", "0", "must be 1 to 65535"),
            ("dns_not_found_ttl", "-1", "must be >= 0"),
        ):
            text = str(self.assertRaises(ConfError, Conf, {name: value}))
            self.assertTrue(text.startswith(name), text)
            self.assertIn(sentence, text)

    def test_who_is_asked(self) -> None:
        """Name servers, or the system."""
        for client, kind in (("dns", DNSClient), ("system", SystemNames)):
            resolver = resolver_of(Clock(), Conf({"dns_client": client}), Limits())
            self.assertIsInstance(resolver._source, kind)
