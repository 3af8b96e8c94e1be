"""resolv.conf."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.dns.records import Server
from kongtwist.core.dns.resolv_conf import ResolvConf, parse_resolv_conf

TEXT = """
; comment
nameserver 192.0.2.1 # the first
nameserver nonsense
nameserver 2001:db8::1
nameserver [2001:db8::2]:5353
nameserver 192.0.2.9
domain former.example
search Corp.Example. example .
options ndots:2 timeout:3 attempts:4 rotate
options timeout:99 edns0 what:x
"""


class ResolvConfTests(SynchronousTestCase):
    def test_all(self) -> None:
        """Three servers at most; the last of domain and search counts; numbers are brought into their bounds."""
        self.assertEqual(
            parse_resolv_conf(TEXT, {}),
            ResolvConf(
                servers=(Server("192.0.2.1"), Server("2001:db8::1"), Server("2001:db8::2", 5353)),
                search=("corp.example", "example"),
                ndots=2,
                timeout=30.0,
                attempts=4,
                rotate=True,
            ),
        )

    def test_nothing(self) -> None:
        """Where it is silent, what Kong takes: 2 seconds, 5 tries, 1 dot."""
        conf = parse_resolv_conf("", {})
        self.assertEqual(
            (conf.servers, conf.search, conf.ndots, conf.timeout, conf.attempts, conf.rotate),
            ((), (), 1, 2.0, 5, False),
        )

    def test_domain(self) -> None:
        self.assertEqual(parse_resolv_conf("search a b\ndomain c\n", {}).search, ("c",))

    def test_environment(self) -> None:
        """It replaces what the file says."""
        conf = parse_resolv_conf(TEXT, {"LOCALDOMAIN": "one.example two.example", "RES_OPTIONS": "ndots:5 use-vc"})
        self.assertEqual(
            (conf.search, conf.ndots, conf.tcp, conf.attempts), (("one.example", "two.example"), 5, True, 4)
        )
