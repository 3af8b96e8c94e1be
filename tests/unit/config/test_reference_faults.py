"""Sentences about values that came from references."""

from __future__ import annotations

from kongtwist.config.properties import properties

from .test_conf import ConfCase


class SecretTests(ConfCase):
    """What must not be told."""

    def test_faults_do_not_tell_secrets(self) -> None:
        """A value that cannot be is named by its reference: who takes the wrong variable has no password in the log."""
        environ = {"PW": "geheim-1234", "TWO": "geheim-1 geheim-2", "LONG": "geheim-1234,80"}
        for name, reference, kind in (
            ("pg_port", "{vault://env/pw}", "whole number (1 to 65535)"),
            ("proxy_listen", "{vault://env/long}", "list of addresses, or off"),
            ("ssl_protocols", "{vault://env/two}", "SSLv3, TLSv1, TLSv1.1, TLSv1.2, TLSv1.3, separated by blanks"),
        ):
            found = self.refusal(f"{name} = {reference}", environ)
            self.assertNotIn("geheim", found)
            self.assertEqual(found, f"{name} refers to {reference}, whose value is none that it may have ({kind})")
        missing = self.refusal("pg_port = {vault://env/pw}\npg_user = {vault://env/none}", environ)
        self.assertIn("pg_port refers to {vault://env/pw}", missing)
        self.assertNotIn("geheim", missing)
        self.assertIn("'nonsense'", self.refusal("log_level = nonsense\npg_user = {vault://env/pw}", environ))

    def test_later_faults_do_not_tell_secrets(self) -> None:
        """Nor do sentences of who reads files or loads plugins later."""
        conf = self.read("ssl_dhparam = {vault://env/pw}\nplugins = {vault://env/pw}", {"PW": "geheim-1234"})
        self.assertEqual(
            conf.tellable(
                (
                    "ssl_dhparam 'geheim-1234' is none",
                    "plugin geheim-1234: not bundled",
                    "log_level is wrong",
                    "ssl_dhparam is old",
                )
            ),
            (
                "ssl_dhparam refers to {vault://env/pw}, whose value is none that it may have"
                f" ({properties()['ssl_dhparam'].kind.name})",
                "plugin {vault://env/pw}: not bundled",
                "log_level is wrong",
                "ssl_dhparam is old",
            ),
        )
