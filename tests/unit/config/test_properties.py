"""Single properties whose values have a meaning of their own."""

from __future__ import annotations

from kongtwist.config.shown import configuration

from .test_conf import ConfCase


class PropertyTests(ConfCase):
    """What they come to, and what is said of them."""

    def test_vaults(self) -> None:
        """Those that are there, or none; others would leave secrets where nobody expects them."""
        for text, kinds, loaded in (
            ("bundled", ["bundled"], {"env": True}),
            ("env", ["env"], {"env": True}),
            ("off", [], {}),
        ):
            conf = self.read(f"vaults = {text}")
            self.assertEqual((conf.vaults, conf.warnings), (kinds, []))
            self.assertEqual(configuration(conf, ())["loaded_vaults"], loaded)
        self.assertEqual(
            self.refusal("vaults = bundled, hcv"),
            "vaults has an invalid value: 'hcv' (off alone, or a list of bundled, env)",
        )

    def test_copy_without_a_host(self) -> None:
        """What is said of a copy that is not named has no effect."""
        self.assertEqual(self.read("pg_ro_port = 5433").warnings, ["pg_ro_port has no effect without pg_ro_host"])
        self.assertEqual(self.read("pg_ro_host = db2\npg_ro_port = 5433").warnings, [])

    def test_no_room_for_heads(self) -> None:
        """A buffer of no bytes is no way to say that there is no limit: every answer would be a 502."""
        for name in ("nginx_proxy_proxy_buffer_size", "nginx_http_proxy_buffer_size"):
            self.assertEqual(self.refusal(f"{name} = 0"), "nginx_proxy_proxy_buffer_size must be >= 1: '0'")
