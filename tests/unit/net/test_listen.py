"""Listen addresses in Kong's syntax."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.kinds import LISTENERS, STREAM_LISTENERS, Listen, parse_listen


class ParseListenTests(SynchronousTestCase):
    """One entry."""

    def test_address_and_flags(self) -> None:
        """All flags of an http listener."""
        self.assertEqual(
            parse_listen("0.0.0.0:8443 ssl http2 deferred bind reuseport backlog=99 so_keepalive=30m::10 ipv6only=off"),
            Listen(
                host="0.0.0.0", port=8443, ssl=True, http2=True, deferred=True, bind=True, reuseport=True, backlog=99,
                so_keepalive="30m::10", ipv6only=False,
            ),
        )  # fmt: skip

    def test_ipv6(self) -> None:
        """IPv6 stands in brackets and is written so."""
        listen = parse_listen("[0:0:0:0:0:0:0:1]:8000 ipv6only=on")
        self.assertEqual((listen.host, listen.port, listen.ipv6only, listen.address), ("::1", 8000, True, "[::1]:8000"))

    def test_unix(self) -> None:
        """A unix socket has a path and no port."""
        listen = parse_listen("unix:/run/a.sock ssl")
        self.assertEqual(
            (listen.path, listen.ssl, listen.port, listen.address), ("/run/a.sock", True, 0, "unix:/run/a.sock")
        )

    def test_name(self) -> None:
        """A host name is taken."""
        self.assertEqual(parse_listen("localhost:80").host, "localhost")

    def test_refused(self) -> None:
        """Anything else is refused with the form it must have."""
        for entry in (
            "8000", "0.0.0.0", "0.0.0.0:", "0.0.0.0:65536", ":8000", "1.2.3:80", "1.2.3.256:80", "::1:80", "[::x]:80",
            "[localhost]:80", "0.0.0.0:80 sll", "0.0.0.0:80 backlog", "0.0.0.0:80 backlog=x",
            "0.0.0.0:80 ipv6only=maybe", "0.0.0.0:80 so_keepalive=::", "0.0.0.0:80 so_keepalive=1",
            "0.0.0.0:80 udp", "unix:", "a b:80", "http://h:80",
        ):  # fmt: skip
            error = self.assertRaises(ValueError, parse_listen, entry)
            self.assertRegex(str(error), r"^must be of form: \[off\] \| <ip>:<port> \[ssl\] .*: '")


class ClashTests(SynchronousTestCase):
    """Addresses that cannot be listened on together."""

    def test_clashes(self) -> None:
        for one, two, clash in (
            ("127.0.0.1:80", "127.0.0.1:80", True),
            ("127.0.0.1:80", "0.0.0.0:80", True),
            ("127.0.0.1:80", "localhost:80 ssl", True),
            ("0.0.0.0:80", "localhost:80", True),
            ("[::]:80", "[::1]:80", True),
            ("[::]:80 ipv6only=off", "127.0.0.1:80", True),
            ("unix:/a", "unix:/a", True),
            ("[::]:80", "0.0.0.0:80", False),
            ("[::]:80", "127.0.0.1:80", False),
            ("127.0.0.1:80", "127.0.0.2:80", False),
            ("127.0.0.1:80", "0.0.0.0:81", False),
            ("127.0.0.1:0", "0.0.0.0:0", False),
            ("127.0.0.1:80", "name.test:80", False),
            ("unix:/a", "unix:/b", False),
            ("unix:/a", "127.0.0.1:80", False),
        ):
            first, second = parse_listen(one), parse_listen(two)
            self.assertEqual((first.clashes(second), second.clashes(first)), (clash, clash), (one, two))


class ListenersTests(SynchronousTestCase):
    """A whole value."""

    def test_several_and_off(self) -> None:
        """Entries are separated by commas; off alone is none."""
        self.assertEqual([each.port for each in LISTENERS.parse("1.1.1.1:1, 1.1.1.1:2 ssl")], [1, 2])
        self.assertEqual(LISTENERS.parse("off"), [])

    def test_off_beside_others(self) -> None:
        """off beside an address is refused."""
        self.assertRaises(ValueError, LISTENERS.parse, "off, 1.1.1.1:1")

    def test_twice(self) -> None:
        """The same address twice is refused, port 0 is not the same."""
        self.assertRaises(ValueError, LISTENERS.parse, "1.1.1.1:1, 1.1.1.1:1 ssl")
        self.assertEqual(len(LISTENERS.parse("1.1.1.1:0, 1.1.1.1:0")), 2)

    def test_stream_flags(self) -> None:
        """Streams know udp and not http2."""
        self.assertTrue(STREAM_LISTENERS.parse("1.1.1.1:1 udp")[0].udp)
        self.assertRaises(ValueError, STREAM_LISTENERS.parse, "1.1.1.1:1 http2")
