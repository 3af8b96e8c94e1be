"""The hosts file."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.dns.hosts_file import in_hosts, parse_hosts
from kongtwist.core.dns.records import AAAA, A

TEXT = """
# a comment
127.0.0.1 localhost
192.0.2.7  Box.Example box # another
192.0.2.8  box
2001:db8::7\tbox.example
no-address name
192.0.2.9
fe80::1 box2.
"""


class HostsTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Case does not count; of each family the first address counts, as in Kong; nonsense is passed over."""
        hosts = parse_hosts(TEXT)
        self.assertEqual(hosts["box.example"], {A: "192.0.2.7", AAAA: "2001:db8::7"})
        self.assertEqual(hosts["box"], {A: "192.0.2.7"})
        self.assertEqual(hosts["box2"], {AAAA: "fe80::1"})
        self.assertEqual(set(hosts), {"localhost", "box.example", "box", "box2"})

    def test_localhost(self) -> None:
        """It is there without standing in the file, and so is what ends with it (RFC 6761 6.3)."""
        self.assertEqual(in_hosts({}, "localhost"), {A: "127.0.0.1", AAAA: "::1"})
        self.assertEqual(in_hosts(parse_hosts(TEXT), "app.localhost"), {A: "127.0.0.1"})
        self.assertIsNone(in_hosts({}, "notlocalhost"))
        self.assertIsNone(in_hosts({}, "localhost.example"))
