"""The DNS client on name servers in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.dns.records import AAAA, CNAME, LAST, SRV, A, Server
from kongtwist.core.dns.settings import NameSettings
from kongtwist.core.names import Address
from kongtwist.net.dns_client import DNSClient
from kongtwist.net.name_source import Found, NameNotResolved
from tests.dns_replies import Query, reply_to

from .dns_kit import Net, Zone

ADDRESS = [("a.test", "A", 60, "192.0.2.1")]


class DNSTestCase(SynchronousTestCase):
    """One name server at 192.0.2.53, which knows a.test."""

    conf = "nameserver 192.0.2.53\noptions attempts:2 timeout:2\n"
    hosts = ""

    def setUp(self) -> None:
        self.patch(os, "environ", {})
        self.net = Net()
        self.zone = Zone()
        self.zone["A a.test"] = ADDRESS
        self.net.servers["192.0.2.53"] = self.zone
        self.client = self.made()

    def made(self, conf: str | None = None, hosts: str | None = None, **settings: Any) -> DNSClient:
        self.conf_path, self.hosts_path = self.mktemp(), self.mktemp()
        self.write(self.conf_path, self.conf if conf is None else conf)
        self.write(self.hosts_path, self.hosts if hosts is None else hosts)
        made = NameSettings(hosts_file=self.hosts_path, **settings)
        return DNSClient(self.net, made, self.net.seconds, self.conf_path)

    def write(self, path: str, text: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def finding(self, name: str) -> Deferred[Found]:
        return self.client.find(name)

    def turn(self, seconds: float = 0.1) -> None:
        self.net.pump([0.001] * 100)
        self.net.advance(seconds)

    def find(self, name: str, seconds: float = 0.1) -> Found:
        finding = self.finding(name)
        self.turn(seconds)
        self.assertEqual(self.net.open, 0)
        return self.successResultOf(finding)

    def ips(self, name: str) -> list[str]:
        return [each.ip for each in self.find(name).addresses]

    def fault(self, name: str, seconds: float = 0.1) -> NameNotResolved:
        finding = self.finding(name)
        self.turn(seconds)
        self.assertEqual(self.net.open, 0)
        return self.failureResultOf(finding, NameNotResolved).value  # type: ignore[no-any-return]

    def asked(self) -> list[str]:
        asked, self.zone.asked[:] = self.zone.asked[:], []
        return asked


class AnswerTests(DNSTestCase):
    """What is found, for how long."""

    def test_address(self) -> None:
        """SRV is asked for first, as Kong's order has it; then A; later only what it was found by."""
        found = self.find("A.Test")
        self.assertEqual(found.addresses, (Address("192.0.2.1", None, None, "A.Test"),))
        self.assertEqual(self.asked(), ["SRV a.test", "A a.test"])
        self.assertApproximates(found.expires, 60, 1)
        self.assertApproximates(found.stale, 3660, 1)
        self.net.advance(61)
        self.ips("a.test")
        self.assertEqual(self.asked(), ["A a.test"])

    def test_held(self) -> None:
        """An answer that holds is not asked for again."""
        self.ips("a.test")
        self.asked()
        self.assertEqual((self.ips("a.test"), self.asked()), (["192.0.2.1"], []))

    def test_ids_and_case(self) -> None:
        """Each question has another id, and offers EDNS."""
        for number in range(20):
            self.zone[f"A n{number}.test"] = [(f"n{number}.test", "A", 60, "192.0.2.1")]
            self.ips(f"n{number}.test")
        self.assertGreater(len({each.number for each in self.zone.queries}), 30)
        self.assertTrue(all(each.edns for each in self.zone.queries))

    def test_alias(self) -> None:
        """A chain in one answer; a chain that the server leaves to us; a circle."""
        self.zone["A w.test"] = [("w.test", "CNAME", 9, "a.test"), *ADDRESS]
        found = self.find("w.test")
        self.assertEqual(found.addresses, (Address("192.0.2.1", None, None, "w.test"),))
        self.assertLess(found.expires, 10)
        self.zone["A v.test"] = [("v.test", "CNAME", 9, "u.test")]
        self.zone["A u.test"] = [("u.test", "CNAME", 9, "a.test")]
        self.assertEqual(self.ips("v.test"), ["192.0.2.1"])
        for one, two in (("x", "y"), ("y", "x")):
            for kind in ("A", "CNAME", "SRV"):
                self.zone[f"{kind} {one}.test"] = [(f"{one}.test", "CNAME", 9, f"{two}.test")]
        self.assertIn("recursion detected", self.fault("x.test").why)

    def test_cname_in_the_order(self) -> None:
        """A server that tells an alias only to who asks for one."""
        self.zone["CNAME w.test"] = [("w.test", "CNAME", 9, "a.test")]
        self.assertEqual(self.ips("w.test"), ["192.0.2.1"])
        self.assertEqual(self.asked()[:3], ["SRV w.test", "A w.test", "CNAME w.test"])

    def test_ipv6(self) -> None:
        """AAAA is asked for where the order says so."""
        self.zone["AAAA six.test"] = [("six.test", "AAAA", 60, "2001:db8::1")]
        self.assertTrue(self.fault("six.test").absent)
        self.client = self.made(order=(A, AAAA))
        self.assertEqual(self.ips("six.test"), ["2001:db8::1"])

    def test_valid_ttl(self) -> None:
        self.client = self.made(valid_ttl=5.0)
        self.assertLess(self.find("a.test").expires, 6)

    def test_absent(self) -> None:
        """NXDOMAIN and no records are remembered for dns_not_found_ttl."""
        self.zone["TXT b.test"] = [("b.test", "TXT", 60, "x")]
        for name, why in (
            ("none.test", "dns server error: 3 name error"),
            ("b.test", "dns client error: 101 empty record received"),
        ):
            fault = self.fault(name)
            self.assertEqual((fault.absent, fault.keep, fault.why), (True, False, why))
            self.assertEqual(fault.server, f"CNAME {name}, 192.0.2.53:53")
            self.assertApproximates(fault.seconds or 0, 30, 1)
            self.asked()
            self.assertEqual((self.fault(name).why, self.asked()), (why, []))
        self.net.advance(31)
        self.fault("none.test")
        self.assertEqual(len(self.asked()), 3)

    def test_stale(self) -> None:
        """When the renewal fails, old records hold on; the next one is asked for behind dns_error_ttl."""
        self.client = self.made(order=(A,), stale_ttl=100.0)
        self.ips("a.test")
        self.net.advance(61)
        answers: list[Any] = ["SERVFAIL", "REFUSED", []]
        for answer in answers:
            self.zone["A a.test"] = answer
            self.net.advance(2)
            found = self.find("a.test")
            self.assertEqual(found.addresses[0].ip, "192.0.2.1")
            self.assertApproximates(found.expires, self.net.seconds() + 1, 0.5)
        self.net.advance(100)
        self.zone["A a.test"] = "SERVFAIL"
        self.assertEqual(self.fault("a.test").why, "dns server error: 2 server failure")

    def test_gone(self) -> None:
        """NXDOMAIN is believed at once."""
        self.ips("a.test")
        self.net.advance(61)
        self.zone.table.clear()
        self.assertTrue(self.fault("a.test").absent)

    def test_impossible_names(self) -> None:
        """Nobody is asked about them."""
        for name in ("", "a..b", "x" * 64, "a b", "..", "x." * 200):
            fault = self.fault(name)
            self.assertTrue(fault.absent)
            self.assertIn("no host has such a name", fault.why)
        self.assertEqual(self.asked(), [])

    def test_international(self) -> None:
        self.zone["A xn--bcher-kva.test"] = [("xn--bcher-kva.test", "A", 60, "192.0.2.8")]
        self.assertEqual(self.ips("Bücher.test"), ["192.0.2.8"])


class ServiceTests(DNSTestCase):
    """SRV records."""

    def srv(self, *records: tuple[int, int, int, str]) -> None:
        self.zone["SRV s.test"] = [("s.test", "SRV", 60, *each) for each in records]

    def test_targets(self) -> None:
        """The first priority only; weight 0 is 1; port 0 is none; the target's name is told."""
        self.zone["A b.test"] = [("b.test", "A", 20, "192.0.2.2")]
        self.srv((10, 0, 8001, "a.test"), (10, 7, 0, "b.test"), (20, 5, 8003, "c.test"))
        found = self.find("s.test")
        self.assertEqual(
            found.addresses, (Address("192.0.2.1", 8001, 1, "a.test"), Address("192.0.2.2", None, 7, "b.test"))
        )
        self.assertLess(found.expires, 21)
        self.assertEqual(self.asked(), ["SRV s.test", "A a.test", "A b.test"])

    def test_only_what_is_too_old_is_asked_again(self) -> None:
        """Each record set has a time of its own."""
        self.zone["A a.test"] = [("a.test", "A", 5, "192.0.2.1")]
        self.srv((1, 1, 80, "a.test"))
        self.find("s.test")
        self.asked()
        self.net.advance(6)
        self.find("s.test")
        self.assertEqual(self.asked(), ["A a.test"])

    def test_addresses_that_come_with_it(self) -> None:
        """Targets whose addresses are in the additional section are not asked for; others there are not believed."""

        def answer(query: Query, tcp: bool) -> Sequence[bytes]:
            more = [["t.test", "A", 60, "192.0.2.7"], ["bank.test", "A", 60, "192.0.2.66"]]
            return [reply_to(query, [["s.test", "SRV", 60, 1, 1, 80, "t.test"]], additional=more)]

        self.zone["SRV s.test"] = answer
        self.assertEqual(self.find("s.test").addresses, (Address("192.0.2.7", 80, 1, "t.test"),))
        self.assertEqual(self.asked(), ["SRV s.test"])
        self.assertTrue(self.fault("bank.test").absent)

    def test_targets_without_addresses(self) -> None:
        """They are left out while others have some; without any the name has none."""
        self.srv((1, 1, 80, "a.test"), (1, 1, 80, "none.test"))
        self.assertEqual(self.ips("s.test"), ["192.0.2.1"])
        self.zone["SRV t.test"] = [("t.test", "SRV", 60, 1, 1, 80, "none.test")]
        self.assertEqual(self.fault("t.test").why, "dns server error: 3 name error")

    def test_no_such_service(self) -> None:
        """A target ``.`` (RFC 2782)."""
        self.srv((0, 0, 0, ""))
        self.assertTrue(self.fault("s.test").absent)

    def test_target_that_points_to_itself(self) -> None:
        self.srv((1, 1, 80, "s.test"))
        self.assertTrue(self.fault("s.test").absent)


class ServerTests(DNSTestCase):
    """What servers do wrong."""

    def two(self, **settings: Any) -> Zone:
        """Another server behind the first."""
        self.client = self.made(
            "nameserver 192.0.2.53\nnameserver 192.0.2.54\noptions timeout:2 attempts:2\n", order=(A,), **settings
        )
        second = self.net.servers["192.0.2.54"] = Zone()
        second["A a.test"] = [("a.test", "A", 60, "192.0.2.2")]
        return second

    def test_silent(self) -> None:
        """The other is asked, and first for a while."""
        self.two()
        self.zone["A a.test"] = lambda query, tcp: []
        self.assertEqual(self.find("a.test", 2).addresses[0].ip, "192.0.2.2")
        self.asked()
        self.fault("b.test")
        self.assertEqual(self.asked(), [])

    def find(self, name: str, seconds: float = 0.1) -> Found:
        finding = self.finding(name)
        self.turn(seconds)
        self.turn()
        return self.successResultOf(finding)

    def test_all_silent(self) -> None:
        """``attempts`` of ``timeout`` each; nobody can say: 500, remembered for dns_error_ttl."""
        self.zone["SRV a.test"] = lambda query, tcp: []
        finding = self.finding("a.test")
        self.net.advance(1.9)
        self.assertEqual(len(self.zone.asked), 1)
        self.net.advance(0.2)
        self.assertEqual(len(self.zone.asked), 2)
        self.assertNoResult(finding)
        self.net.advance(2)
        fault = self.failureResultOf(finding, NameNotResolved).value
        self.assertEqual((fault.absent, fault.why), (False, "the name server does not answer"))
        self.assertEqual(fault.server, "SRV a.test, 192.0.2.53:53")
        self.assertEqual(self.asked(), ["SRV a.test", "SRV a.test"])
        self.assertEqual(self.net.open, 0)

    def test_refusals(self) -> None:
        """Codes that speak of the server: the next one is asked, at once; the same one is not asked again."""
        for code, text in (("SERVFAIL", "2 server failure"), ("REFUSED", "5 refused")):
            second = self.two()
            self.zone["A a.test"] = code
            self.assertEqual(self.ips("a.test"), ["192.0.2.2"])
            second["A b.test"] = self.zone.table["A b.test"] = code
            fault = self.fault("b.test")
            self.assertEqual((fault.absent, fault.why), (False, f"dns server error: {text}"))
            self.assertEqual([self.zone.asked.count("A b.test"), second.asked.count("A b.test")], [1, 1])
            self.asked()

    def test_a_kind_that_fails(self) -> None:
        """A server that fails for SRV is still asked for A (as Kong)."""
        self.zone["SRV a.test"] = "SERVFAIL"
        self.assertEqual(self.ips("a.test"), ["192.0.2.1"])

    def test_nobody_there(self) -> None:
        self.two()
        del self.net.servers["192.0.2.53"]
        self.assertEqual(self.ips("a.test"), ["192.0.2.2"])
        self.two()
        self.net.unreachable.add("192.0.2.53")
        self.assertEqual(self.ips("a.test"), ["192.0.2.2"])

    def test_no_server(self) -> None:
        self.client = self.made("")
        fault = self.fault("a.test")
        self.assertEqual((fault.absent, fault.why), (False, "no name server is configured"))

    def test_configured_servers(self) -> None:
        """They count in place of resolv.conf's; its options do count."""
        self.two()
        self.client = self.made(servers=(Server("192.0.2.54", 5353),), order=(A,))
        self.assertEqual(self.ips("a.test"), ["192.0.2.2"])
        self.assertEqual(self.net.sent, [("192.0.2.54", 5353)])

    def test_truncated(self) -> None:
        """It is asked over TCP; what was cut is not used."""

        def answer(query: Query, tcp: bool) -> Sequence[bytes]:
            if tcp:
                return [reply_to(query, [["a.test", "A", 60, f"192.0.2.{number}"] for number in range(100)])]
            cut = reply_to(query, [["a.test", "A", 60, "192.0.2.1"], ["a.test", "A", 60, "192.0.2.2"]], truncated=True)
            return [cut[:-9]]

        self.client = self.made(order=(A,))
        self.zone["A a.test"] = answer
        self.assertEqual(len(self.ips("a.test")), 100)
        self.assertEqual(self.asked(), ["A a.test", "tcp A a.test"])
        self.zone["A b.test"] = lambda query, tcp: [] if tcp else [reply_to(query, truncated=True)]
        self.assertIn("it closed the connection", self.fault("b.test").why)

    def test_tcp_only(self) -> None:
        self.client = self.made("nameserver 192.0.2.53\noptions use-vc\n", order=(A,))
        self.assertEqual((self.ips("a.test"), self.asked()), (["192.0.2.1"], ["tcp A a.test"]))
        del self.net.servers["192.0.2.53"]
        self.assertIn("no connection over TCP", self.fault("b.test").why)

    def test_forged(self) -> None:
        """Answers with another id, name, kind, or that are none, are passed over; the right one counts."""

        def answer(query: Query, tcp: bool) -> Sequence[bytes]:
            bad = [["a.test", "A", 60, "192.0.2.66"]]
            other = query.question.replace(b"\1a\4test", b"\1b\4test")
            return [
                reply_to(query, bad, number=query.number ^ 1),
                reply_to(query, bad, question=other),
                reply_to(query, bad, question=query.question[:-4] + b"\0\x1c\0\1"),
                b"",
                b"\0",
                bytes(reply_to(query, bad)[:2]) + b"\x01\0" + reply_to(query, bad)[4:],
                reply_to(query, ADDRESS),
            ]

        self.client = self.made(order=(A,))
        self.zone["A a.test"] = answer
        self.assertEqual(self.ips("a.test"), ["192.0.2.1"])

    def test_flood(self) -> None:
        """Many forged answers: it is asked over TCP."""

        def answer(query: Query, tcp: bool) -> Sequence[bytes]:
            return [reply_to(query, ADDRESS)] if tcp else [reply_to(query, number=query.number ^ 1)] * 100

        self.client = self.made(order=(A,))
        self.zone["A a.test"] = answer
        self.assertEqual((self.ips("a.test"), self.asked()), (["192.0.2.1"], ["A a.test", "tcp A a.test"]))

    def test_nonsense(self) -> None:
        """The right id and nonsense behind it: another server is asked; what ends too early is not taken for the whole."""
        for cut in (30, -3, -20):
            self.two()
            self.zone["A a.test"] = lambda query, tcp, cut=cut: [reply_to(query, [*ADDRESS, *ADDRESS])[:cut]]
            self.assertEqual(self.ips("a.test"), ["192.0.2.2"])
        self.zone["A b.test"] = lambda query, tcp: [reply_to(query)[:12] + b"\xc0\x0c" * 20]
        self.net.servers["192.0.2.54"] = self.zone
        self.assertIn("cannot be read", self.fault("b.test").why)

    def test_no_edns(self) -> None:
        """A server that does not know it is asked without, from then on."""

        def answer(query: Query, tcp: bool) -> Sequence[bytes]:
            return [reply_to(query, code="FORMERR")] if query.edns else [reply_to(query, ADDRESS)]

        self.client = self.made(order=(A,))
        self.zone["A a.test"] = answer
        self.assertEqual(self.ips("a.test"), ["192.0.2.1"])
        self.net.advance(61)
        self.ips("a.test")
        self.assertEqual([each.edns for each in self.zone.queries], [True, False, False])

    def test_file_that_changes(self) -> None:
        """resolv.conf is read again."""
        self.ips("a.test")
        other = self.net.servers["192.0.2.99"] = Zone()
        other["A b.test"] = [("b.test", "A", 60, "192.0.2.9")]
        self.write(self.conf_path, "nameserver 192.0.2.99")
        self.net.advance(6)
        self.assertEqual(self.ips("b.test"), ["192.0.2.9"])


class SearchTests(DNSTestCase):
    conf = "nameserver 192.0.2.53\nsearch one.example test\noptions ndots:1\n"

    def test_domains(self) -> None:
        self.assertEqual(self.ips("a"), ["192.0.2.1"])
        self.assertEqual(self.asked(), ["SRV a.one.example", "SRV a.test", "SRV a", "A a.one.example", "A a.test"])
        self.assertTrue(self.fault("a.").absent)


class HostsFileTests(DNSTestCase):
    hosts = "192.0.2.70 box box.corp\n2001:db8::70 box\n2001:db8::71 six\n"
    conf = "nameserver 192.0.2.53\nsearch corp\n"

    def test_names(self) -> None:
        """Nobody is asked; the family is the first in the order that is there."""
        self.assertEqual(
            (self.ips("box"), self.ips("BOX."), self.ips("six")), (["192.0.2.70"], ["192.0.2.70"], ["2001:db8::71"])
        )
        self.assertEqual((self.ips("localhost"), self.ips("app.localhost")), (["127.0.0.1"], ["127.0.0.1"]))
        self.client = self.made(order=(LAST, AAAA, A))
        self.assertEqual((self.ips("box"), self.ips("localhost")), (["2001:db8::70"], ["::1"]))
        self.assertEqual(self.asked(), [])

    def test_with_a_domain(self) -> None:
        self.client = self.made(hosts="192.0.2.71 web.corp\n", order=(A,))
        self.assertEqual((self.ips("web"), self.asked()), (["192.0.2.71"], []))

    def test_file_that_changes(self) -> None:
        """It is noticed within seconds, and a name that is taken out is asked for."""
        self.assertLess(self.find("box").expires, 6)
        self.write(self.hosts_path, "192.0.2.80 box\n")
        self.net.advance(6)
        self.assertEqual(self.ips("box"), ["192.0.2.80"])
        os.remove(self.hosts_path)
        self.net.advance(6)
        self.assertTrue(self.fault("box").absent)
        self.assertEqual(len(self.flushLoggedErrors()), 0)


class ManyTests(DNSTestCase):
    """One query however many ask; bounded queries; a stop."""

    def test_shared(self) -> None:
        """Also by names that lead to the same question."""
        self.zone["SRV s.test"] = [("s.test", "SRV", 60, 1, 1, 80, "a.test")]
        finding = [self.client.find(name) for name in ("a.test", "a.test", "s.test", "a.test.")]
        finding[1].cancel()
        self.failureResultOf(finding[1], CancelledError)
        self.turn()
        for each in (finding[0], finding[2], finding[3]):
            self.assertEqual(self.successResultOf(each).addresses[0].ip, "192.0.2.1")
        self.assertEqual(sorted(self.asked()), ["A a.test", "SRV a.test", "SRV s.test"])

    def test_bounded(self) -> None:
        """Questions beyond ``dns_queries`` wait."""
        self.client = self.made(order=(A,), queries=5)
        for number in range(50):
            self.zone[f"A n{number}.test"] = [(f"n{number}.test", "A", 60, "192.0.2.1")]
        finding = [self.client.find(f"n{number}.test") for number in range(50)]
        self.turn()
        for each in finding:
            self.successResultOf(each)
        self.assertEqual(self.net.most, 5)

    def test_close(self) -> None:
        """What is under way is cancelled, sockets and timers are given back; nothing is asked any more."""
        finding = [self.client.find(name) for name in ("a.test", "b.test")]
        self.assertEqual(self.net.open, 2)
        self.client.close()
        for each in finding:
            self.failureResultOf(each, CancelledError)
        self.assertEqual(self.net.open, 0)
        self.turn()
        self.assertEqual(self.net.getDelayedCalls(), [])
        self.assertFalse(self.fault("a.test").absent)

    def test_kinds_of_orders(self) -> None:
        """An order without A still finds targets of SRV records."""
        self.zone["SRV s.test"] = [("s.test", "SRV", 60, 1, 1, 80, "a.test")]
        self.client = self.made(order=(SRV, CNAME))
        self.assertEqual(self.ips("s.test"), ["192.0.2.1"])
