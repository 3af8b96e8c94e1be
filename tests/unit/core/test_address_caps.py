"""What one client address may have at once."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.address_caps import AddressCaps, AddressCounts


class ConnectionTests(SynchronousTestCase):
    def test_bounded(self) -> None:
        """One more is refused, and taken when one has ended."""
        caps = AddressCaps(AddressCounts(), connections=2)
        keys = [caps.connect("192.0.2.1") for _ in range(3)]
        self.assertEqual(keys, ["192.0.2.1/32", "192.0.2.1/32", None])
        self.assertIsNotNone(caps.connect("192.0.2.2"))
        caps.disconnect("192.0.2.1/32")
        self.assertIsNotNone(caps.connect("192.0.2.1"))

    def test_networks(self) -> None:
        """IPv6 counts by /64; a zone and IPv4 in IPv6 change nothing; what is no address is by itself."""
        caps = AddressCaps(AddressCounts())
        self.assertEqual(caps.connect("2001:db8::1"), caps.connect("2001:db8:0:0:ffff::2"))
        self.assertNotEqual(caps.connect("2001:db8::1"), caps.connect("2001:db8:0:1::1"))
        self.assertEqual(caps.connect("fe80::1%eth0"), "fe80::/64")
        self.assertEqual(caps.connect("::ffff:192.0.2.1"), "192.0.2.1/32")
        self.assertEqual(caps.connect("unix:"), "unix:")
        wide = AddressCaps(AddressCounts(), ipv4=24, ipv6=48)
        self.assertEqual([wide.connect("192.0.2.77"), wide.connect("2001:db8::1")], ["192.0.2.0/24", "2001:db8::/48"])

    def test_nothing_stays(self) -> None:
        """An address that has nothing open is forgotten."""
        counts = AddressCounts()
        caps = AddressCaps(counts, connections=1, requests=1)
        for number in range(100):
            key = caps.connect(f"192.0.2.{number}")
            assert key is not None
            self.assertTrue(caps.begin(number, f"192.0.2.{number}"))
            caps.end(number)
            caps.disconnect(key)
        self.assertEqual((counts.connections, counts.requests), ({}, {}))


class RequestTests(SynchronousTestCase):
    def test_bounded(self) -> None:
        caps = AddressCaps(AddressCounts(), requests=2)
        self.assertEqual([caps.begin(number, "192.0.2.1") for number in range(3)], [True, True, False])
        caps.end(2)  # it was not counted
        self.assertFalse(caps.begin(3, "192.0.2.1"))
        caps.end(1)
        caps.end(1)
        self.assertEqual([caps.begin(number, "192.0.2.1") for number in (4, 5)], [True, False])

    def test_counts_outlive_caps(self) -> None:
        """Caps that take the place of others know what is open."""
        counts = AddressCounts()
        old = AddressCaps(counts, requests=2)
        old.begin(1, "192.0.2.1")
        new = AddressCaps(counts, requests=1)
        self.assertFalse(new.begin(2, "192.0.2.1"))
        new.end(1)  # a request may end when others are in charge than at its beginning
        self.assertTrue(new.begin(2, "192.0.2.1"))
