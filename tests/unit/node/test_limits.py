"""Limits made from the configuration."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.load import Conf
from kongtwist.node.data_plane import limits_of


class LimitsTests(SynchronousTestCase):
    """`limits_of`."""

    def test_read_timeout(self) -> None:
        """The node's read time-out is for Services that leave theirs at the default."""
        usual = limits_of(Conf())
        self.assertEqual((usual.read_timeout(60.0), usual.read_timeout(5.0)), (60.0, 5.0))
        long = limits_of(Conf({"nginx_proxy_proxy_read_timeout": "1h"}))
        self.assertEqual((long.read_timeout(60.0), long.read_timeout(5.0)), (3600.0, 5.0))

    def test_units(self) -> None:
        """Sizes are bytes, times seconds, buffers their product."""
        limits = limits_of(
            Conf(
                {
                    "nginx_http_large_client_header_buffers": "2 4k",
                    "nginx_proxy_proxy_buffers": "4 16k",
                    "nginx_http_client_header_timeout": "1m",
                    "nginx_http_client_max_body_size": "1m",
                    "upstream_keepalive_idle_timeout": "5",
                }
            )
        )
        self.assertEqual((limits.head_size, limits.high_water), (8192, 65536))
        self.assertEqual((limits.head_timeout, limits.client_max_body_size), (60.0, 1048576))
        self.assertEqual(limits.upstream_keepalive_idle_timeout, 5.0)
