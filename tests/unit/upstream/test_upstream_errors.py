"""What the error log says of upstreams."""

from __future__ import annotations

from typing import Any, cast

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet import error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.balancing.balancer import Balancer
from kongtwist.upstream.upstream_errors import (
    ENDED,
    LARGE,
    MALFORMED,
    NAME,
    OURS,
    TLS,
    UNREACHABLE,
    UNTRUSTED,
    Reason,
    broken_off,
    connect_reason,
    no_answer,
    no_peer,
    own_certificate_reason,
)

from ..core.balancing.test_balancer import targets, upstream

PLAIN: Any = type("Pool", (), {"tls": None})
SECURE: Any = type("Pool", (), {"tls": type("Facts", (), {"name": "up.test"})})
ROUTE = cast(Any, type("Route", (), {"service": {"id": "1", "name": "s"}, "host": "up.test"}))


class ReasonTests(SynchronousTestCase):
    """`connect_reason`: the system's word, and which kind of fault it is."""

    def check(self, value: Exception, text: str, fault: str, pool: Any = PLAIN) -> None:
        self.assertEqual(connect_reason(Failure(value), pool), Reason(text, fault))

    def test_plain(self) -> None:
        self.check(error.ConnectionRefusedError(111, "x"), "Connection refused", UNREACHABLE)
        self.check(error.NoRouteError(101, "x"), "Network is unreachable", UNREACHABLE, SECURE)
        self.check(error.ConnectionRefusedError(), "Connection was refused by other side", UNREACHABLE)
        self.check(error.ConnectionDone(), "it closed the connection", UNREACHABLE)
        self.check(error.ConnectionLost(), "the connection was reset or lost", UNREACHABLE, None)
        self.check(ValueError("something."), "something", UNREACHABLE)

    def test_wrapped(self) -> None:
        """One that ended while it was made: Twisted puts a failure where others have a text."""
        wrapped = error.ConnectError(string=cast(Any, Failure(error.ConnectionDone())))
        self.check(wrapped, "it closed the connection", UNREACHABLE)

    def test_tls(self) -> None:
        """OpenSSL's word without its brackets; another fault than that nobody listens."""
        said = "the TLS handshake failed: "
        self.check(
            SSL.Error([("SSL routines", "", "wrong version number")]), f"{said}wrong version number", TLS, SECURE
        )
        self.check(SSL.Error([("a", "", "one"), ("b", "", "two")]), f"{said}one, two", TLS, SECURE)
        self.check(SSL.SysCallError(-1, "Unexpected EOF"), f"{said}Unexpected EOF", TLS, SECURE)
        self.check(SSL.Error(), f"{said}it closed the connection", TLS, SECURE)
        self.check(SSL.Error([]), f"{said}it closed the connection", TLS, SECURE)
        self.check(error.ConnectionDone(), f"{said}it closed the connection", TLS, SECURE)
        self.check(error.ConnectionLost(), f"{said}the connection was reset or lost", TLS, SECURE)
        untrusted = SSL.Error([("SSL routines", "", "certificate verify failed")])
        self.check(untrusted, f"{said}certificate verify failed", UNTRUSTED, SECURE)
        self.check(VerificationError(errors=[]), "its certificate is not one for up.test", NAME, SECURE)
        self.check(CertificateError("no name"), "its certificate is of no use: no name", NAME, SECURE)

    def test_our_certificate(self) -> None:
        """One of ours that is of no use is not the upstream's fault."""
        reason = own_certificate_reason(Failure(SSL.Error([("x509", "", "key values mismatch")])))
        self.assertEqual(reason, Reason("the client certificate cannot be used: key values mismatch", OURS))

    def test_remedies(self) -> None:
        """What to do fits what happened."""
        for fault, part in (
            (UNREACHABLE, "correct host and port of service s"),
            (TLS, "see whether it speaks TLS there, or correct protocol and port of service s"),
            (UNTRUSTED, "an authority that service s trusts (ca_certificates)"),
            (NAME, "a certificate for that name, or correct host of service s"),
            (OURS, "replace certificate and key of client_certificate of service s"),
            (ENDED, "see its own log; if it speaks TLS there, correct protocol of service s"),
            (MALFORMED, "see whether it speaks HTTP there, or correct protocol and port of service s"),
            (LARGE, "raise nginx_proxy_proxy_buffer_size"),
        ):
            what, remedy = no_answer(ROUTE, None, Reason("x", fault))
            self.assertIn(part, remedy)
            usable = "usable " if fault in (MALFORMED, LARGE) else ""
            self.assertEqual(what, f"no {usable}answer from the upstream: x")
        peer: Any = object()
        self.assertIn("the targets of upstream up.test", no_answer(ROUTE, peer, Reason("x", UNREACHABLE))[1])
        self.assertEqual(
            no_answer(ROUTE, None, Reason("malformed status line from the upstream", MALFORMED))[0],
            "no usable answer from the upstream: malformed status line",
        )

    def test_nobody_to_choose(self) -> None:
        """Why: no targets, none that is healthy, too few that are, or names without an address."""

        def told(balancer: Balancer | None, tried: int = 0) -> tuple[str, str]:
            return no_peer(cast(Any, type("Route", (), {"host": "pool.test", "balancer": balancer})), tried)

        what = "no target of upstream pool.test can be chosen"
        add = "add targets with a weight above 0, or mark one healthy"
        self.assertEqual(told(Balancer(upstream(), [])), (what, add))
        balancer = Balancer(upstream(healthchecks={"threshold": 60}), targets(a=1, b=1, c=0))
        balancer.mark("a:8000", False)
        self.assertIsNone(balancer.pick(None))
        held = "lower healthchecks.threshold, or mark targets healthy"
        self.assertEqual(told(balancer), (f"{what}: too little of the weight is healthy", held))
        balancer.mark("b:8000", False)
        self.assertEqual(told(balancer, 2), (f"{what}, 2 failed", add))
        balancer = Balancer(upstream(), targets(a=1, b=1))
        look = "see whether this machine resolves it, or correct the target"
        balancer.move({"b": ()})
        self.assertEqual(told(balancer), (f"{what}: no address for b", look))
        balancer.move({"a": ()})
        self.assertIsNone(balancer.pick(None))
        self.assertEqual(told(balancer), (f"{what}: no address for a and 1 more", look))

    def test_broken_off(self) -> None:
        """Who ended an answer that had begun, and where to look."""
        self.assertEqual(
            broken_off(Reason("it closed the connection", ENDED)),
            (
                "the upstream broke off its answer: it closed the connection",
                "see its own log; it may have failed, been restarted, or bound how long an answer takes",
            ),
        )
        self.assertEqual(
            broken_off(Reason("malformed chunk size", MALFORMED)),
            (
                "the rest of the upstream's answer is no HTTP: malformed chunk size",
                "correct the upstream, or what stands before it and changes its answers",
            ),
        )
