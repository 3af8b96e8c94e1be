"""References to secrets: what they stand for, and what becomes of rows whose references stand for nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host import Host
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.chain.secrets import Secrets, Unusable
from kongtwist.core.exchange import Answer, Exchange, Row
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.entities.references import SecretMissing, parse_reference
from kongtwist.entities.schema import Array, Map, Record, String
from kongtwist.entities.vaults import own_vault
from kongtwist.net.server_tls import default_pairs

from ..routing.router_rows import exchange, route_row, service_row
from ..snapshot.test_snapshot import create, dataset, delete, plugin_row, update

SECRET = "a-secret-value"


class Holder(Plugin):
    """Has references wherever a configuration may have them."""

    name = "stamp"
    priority = 10
    config = {
        "needed": String(required=True, referenceable=True),
        "token": String(referenceable=True, len_min=10),
        "plain": String(),
        "headers": Map(String(), String(referenceable=True)),
        "several": Array(String(referenceable=True)),
        "redis": Record({"password": String(referenceable=True), "host": String()}),
    }

    def access(self, exchange: Exchange, conf: Any) -> Answer | None:
        exchange.ctx["conf"] = conf
        return None


PLUGINS: dict[str, Plugin] = {"stamp": Holder()}
ENVIRON = {
    "TOKEN": SECRET,
    "SHORT": "s",
    "SOME_JSON": '{"field": "inside", "number": 7, "list": [1]}',
    "X_TOKEN": "from-the-prefix",
}


def vault(name: str = "mine", prefix: str | None = None) -> Row:
    return {"id": f"vault-{name}", "prefix": name, "name": "env", "config": {"prefix": prefix}}


def holder(**config: Any) -> Row:
    return plugin_row("p", config={"needed": "given", "token": None, "plain": None} | config)


class LookUpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.secrets = Secrets([vault(), vault("x", prefix="x_")], PLUGINS, ENVIRON)

    def test_values(self) -> None:
        """Names become upper case with underscores; members of JSON objects; prefixes of a vault or of one reference."""
        for text, expected in (
            ("{vault://env/TOKEN}", SECRET),
            ("{vault://env/token}", SECRET),
            ("{vault://mine/token}", SECRET),
            ("{vault://x/token}", "from-the-prefix"),
            ("{vault://env/token?prefix=x_}", "from-the-prefix"),
            ("{vault://x/token?prefix=}", SECRET),
            ("{vault://env/some-json}", ENVIRON["SOME_JSON"]),
            ("{vault://env/some-json/field}", "inside"),
            ("{vault://env/some-json/number}", "7"),
        ):
            self.assertEqual(self.secrets.secret(text), expected, text)

    def test_nothing(self) -> None:
        """What is wrong, without the value of anything."""
        for text, why in (
            ("{vault://env/absent}", "there is no environment variable ABSENT"),
            ("{vault://x/absent}", "there is no environment variable X_ABSENT"),
            ("{vault://env/token/a}", "environment variable TOKEN is no JSON object with a text 'a'"),
            ("{vault://env/some-json/list}", "environment variable SOME_JSON is no JSON object with a text 'list'"),
            ("{vault://env/some-json/absent}", "environment variable SOME_JSON is no JSON object with a text 'absent'"),
            ("{vault://aws/token}", "there is no vault 'aws'"),
            ("{vault://env}", "it names no secret"),
        ):
            with self.assertRaises(SecretMissing) as missing:
                self.secrets.secret(text)
            self.assertEqual(str(missing.exception), why)
        self.assertEqual(parse_reference("{vault://env/token#3}").version, 3)

    def test_off(self) -> None:
        """Where no kind of vault may be used no reference stands for anything, whatever vaults are stored."""
        self.assertIsNone(own_vault(["bundled"], ""))
        self.assertEqual((own_vault(["env"], "x_") or {})["config"], {"prefix": "x_"})
        own = own_vault([], "x_")
        assert own is not None
        off = self.secrets.changed([own, vault()])
        for reference in (
            "{vault://env/token}",
            "{vault://mine/token}",
            "{vault://env/token?prefix=x_}",
            "{vault://aws/token}",
        ):
            with self.assertRaisesRegex(SecretMissing, "^vault 'env' is not installed"):
                off.secret(reference)

    def test_every_place(self) -> None:
        """Fields, members of records, elements and values; and only where a field may hold a reference."""
        reference = "{vault://env/token}"
        row = holder(
            needed=reference, token=reference, plain=reference, headers={"a": reference, "b": "c"},
            several=["x", reference], redis={"password": reference, "host": reference},
        )  # fmt: skip
        found, sentences = self.secrets.resolved("plugins", row)
        self.assertEqual(found["config"], {
            "needed": SECRET, "token": SECRET, "plain": reference, "headers": {"a": SECRET, "b": "c"},
            "several": ["x", SECRET], "redis": {"password": SECRET, "host": reference},
        })  # fmt: skip
        self.assertEqual(sentences, [])
        self.assertEqual(row["config"]["needed"], reference, "the stored row stays as it is")
        without = holder(headers={}, several=[], redis=None, plain=reference)
        self.assertIs(self.secrets.resolved("plugins", without)[0], without)
        self.assertFalse(self.secrets.refers("plugins", without))
        self.assertFalse(self.secrets.refers("plugins", {"name": "unknown", "config": {"token": reference}}))

    def test_emptied(self) -> None:
        """A field that may be empty is, and a sentence says so."""
        row = holder(token="{vault://env/absent}", redis={"password": "{vault://gcp/a}", "host": "h"})
        found, sentences = self.secrets.resolved("plugins", row)
        self.assertEqual((found["config"]["token"], found["config"]["redis"]), (None, {"password": None, "host": "h"}))
        self.assertEqual(sentences, [
            "config.token refers to {vault://env/absent}, but there is no environment variable ABSENT; it is empty",
            "config.redis.password refers to {vault://gcp/a}, but there is no vault 'gcp'; it is empty",
        ])  # fmt: skip

    def test_unusable(self) -> None:
        """A field that must not be empty, or a value against the field's rules: nobody goes on with it."""
        for config, why in (
            (
                {"needed": "{vault://env/absent}"},
                "config.needed refers to {vault://env/absent}, but there is no environment variable ABSENT; it cannot be empty",
            ),
            (
                {"token": "{vault://env/short}"},
                "config.token refers to {vault://env/short}, whose value is none that it may have",
            ),
        ):
            with self.assertRaises(Unusable) as unusable:
                self.secrets.resolved("plugins", holder(**config))
            self.assertEqual(str(unusable.exception), why)


class SnapshotTests(SynchronousTestCase):
    """What references stand for where they are used."""

    def setUp(self) -> None:
        for name, value in ENVIRON.items():
            self.patch_environment(name, value)

    def patch_environment(self, name: str, value: str) -> None:
        self.patch(os, "environ", {**os.environ, name: value})

    def conf(self, snapshot: Snapshot) -> Any:
        asked = exchange(b"/")
        answer = snapshot.routes["r"].chain.run_access(asked)
        return asked.ctx["conf"] if answer is None else answer

    def snapshot(self, **rows: list[Row]) -> Snapshot:
        return Snapshot.build(dataset(services=[service_row()], routes=[route_row()], **rows), PLUGINS)

    def test_plugin(self) -> None:
        """Plugins get values; the snapshot's rows keep references."""
        row = holder(token="{vault://env/token}")
        snapshot = self.snapshot(plugins=[row])
        self.assertEqual(self.conf(snapshot)["token"], SECRET)
        self.assertIs(snapshot.rows["plugins"]["p"], row)
        self.assertEqual(snapshot.faults, [])

    def test_vault_comes_and_goes(self) -> None:
        """A vault that is made, changed or deleted is followed at once; plugins without references stay as compiled."""
        row, other = holder(token="{vault://mine/token}"), plugin_row("q", "r")
        before = self.snapshot(plugins=[row])
        self.assertIsNone(self.conf(before)["token"])
        self.assertEqual(before.faults, [
            "plugin stamp (p): config.token refers to {vault://mine/token}, but there is no vault 'mine'; it is empty"
        ])  # fmt: skip
        with_vault = before.apply([create("vaults", vault())])
        self.assertEqual((self.conf(with_vault)["token"], with_vault.faults), (SECRET, []))
        changed = with_vault.apply([update("vaults", vault(prefix="X_"), vault())])
        self.assertEqual(self.conf(changed)["token"], "from-the-prefix")
        gone = changed.apply([delete("vaults", vault(prefix="X_"))])
        self.assertIsNone(self.conf(gone)["token"])
        plain = self.snapshot(plugins=[other])
        self.assertIs(plain.apply([create("vaults", vault())]).routes["r"].chain, plain.routes["r"].chain)

    def test_needed(self) -> None:
        """A plugin without what it needs lets nothing pass."""
        snapshot = self.snapshot(plugins=[holder(needed="{vault://env/absent}")])
        asked = exchange(b"/")
        reported: list[str] = []
        nothing: Any = None
        asked.gateway = Host(counters=nothing, now=float, report=reported.append)
        answer = snapshot.routes["r"].chain.run_access(asked)
        assert isinstance(answer, Answer)
        self.assertEqual((answer.status, len(reported)), (500, 1))
        (fault,) = snapshot.faults
        self.assertIn("cannot run, its requests are answered 500: config.needed refers to", fault)

    def test_faults_hold_no_secret(self) -> None:
        """What a plugin says of a configuration that it cannot use is kept back when there are secrets in it."""

        def complain(conf: Row, plugin: Row) -> None:
            raise ValueError(f"what is {conf['token']}?")

        self.patch(PLUGINS["stamp"], "compile", complain)
        (fault,) = self.snapshot(plugins=[holder(token="{vault://env/token}")]).faults
        self.assertIn(": ValueError with the values of its references (what it says may hold one); ", fault)
        (fault,) = self.snapshot(plugins=[holder(token="plain-token")]).faults
        self.assertIn(": what is plain-token?; ", fault)

    def test_certificate(self) -> None:
        """Certificates by reference: the same row as long as nothing changes, none when it stands for nothing or no pair."""
        folder = Path(self.mktemp())
        default_pairs(str(folder))
        certificate, key, other = (
            (folder / "ssl" / f"default-{name}").read_text() for name in ("ecdsa.crt", "ecdsa.key", "rsa.key")
        )
        self.patch_environment("CERT", certificate)
        self.patch_environment("PRIVATE", key)
        row: Row = {
            "id": "c",
            "cert": "{vault://env/cert}",
            "key": "{vault://env/private}",
            "cert_alt": None,
            "key_alt": None,
        }
        sni: Row = {"id": "s", "name": "a.example", "certificate": {"id": "c"}}
        snapshot = self.snapshot(certificates=[row], snis=[sni])
        found = snapshot.certificate_for("a.example")
        assert found is not None
        self.assertEqual((found["cert"], found["key"]), (certificate, key))
        later = snapshot.apply([create("services", service_row(id="other"))])
        self.assertIs(later.certificate_for("a.example"), found, "contexts are kept by the row's identity")
        self.assertIs(later.rows["certificates"]["c"], row)
        for wrong, why in (
            (row | {"key": "{vault://env/absent}"}, "there is no environment variable ABSENT; it cannot be empty"),
            (row | {"key": "{vault://env/token}"}, "whose value is none that it may have"),
            (
                row | {"key": other},
                "with the values of its references: schema violation (certificate does not match key)",
            ),
        ):
            changed = snapshot.apply([update("certificates", wrong, row)])
            self.assertIsNone(changed.certificate_for("a.example"))
            (fault,) = changed.faults
            self.assertIn(why, fault)
            self.assertNotIn(SECRET, fault)
        self.assertEqual(snapshot.apply([delete("certificates", row)]).faults, [])
