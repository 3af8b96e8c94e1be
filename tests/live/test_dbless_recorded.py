"""A gateway without a database makes the exchanges again that a real Kong 3.9.3 without one was recorded in.

What is recorded of plugins whose code does not exist yet is taken out of the configuration that the recording begins
with; the cases in which that shows are listed in ``contract/dbless_differs.json`` with the reason. A case that is listed
and does not differ any more fails, so that the list can only shrink.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from kongtwist.entities import registry
from kongtwist.node.plugin_loader import load_plugins
from tests.live.support import GatewayProcess, LiveTestCase, request
from tests.live.test_admin_recorded import Comparison
from tests.places import CONTRACT

FILES = [CONTRACT / "observed_dbless" / name for name in ("00-read-and-405.json", "01-config-endpoint.json")]


def built(text: str) -> str:
    """A configuration without plugins and credentials that are not built."""
    plugins = load_plugins(["bundled"])
    entities = registry(plugins)

    def cut(value: Any) -> Any:
        if isinstance(value, list):
            return [cut(each) for each in value]
        if not isinstance(value, dict):
            return value
        found = {name: cut(each) for name, each in value.items() if not _foreign(name, entities)}
        if isinstance(found.get("plugins"), list):
            found["plugins"] = [each for each in found["plugins"] if each["name"] in plugins]
        return found

    return json.dumps(cut(yaml.safe_load(text)))


def _foreign(name: str, entities: Any) -> bool:
    return name not in entities and (name.endswith(("_credentials", "_secrets")) or name == "acls")


class RecordedDBLessTests(LiveTestCase):
    def differences(self, gateway: GatewayProcess, case: dict[str, Any], comparison: Comparison) -> list[str]:
        asked, wanted = case["request"], case["response"]
        body = asked["body"]
        if case["name"] == "config-restore":
            body = built(body)
        answer = request(
            gateway.admin_port,
            asked["method"],
            comparison.filled_in(asked["path"], escaped=True),
            headers=asked["headers"],
            body=None if body is None else body.encode(),
        )
        if answer.status != wanted["status"]:
            return [f"status {answer.status} {answer.body[:200]!r}"]
        theirs = wanted["body"]
        if theirs is None:
            return []
        try:
            ours = answer.json
        except ValueError:
            return ["no JSON"]
        if asked["path"] == "/config" and asked["method"] == "GET":
            theirs, ours = (self.keyed(yaml.safe_load(each["config"])) for each in (theirs, ours))
        elif asked["path"].startswith("/config") and answer.status == 201:
            theirs, ours = self.keyed(theirs), self.keyed(ours)
        elif "flattened_errors" in theirs:
            for each in (theirs, ours):
                each["flattened_errors"].sort(key=lambda entry: entry["entity"]["name"])
                for entry in each["flattened_errors"]:
                    entry["errors"].sort(key=lambda error: error["message"])
        found: list[str] = comparison.differences(theirs, ours)
        return found

    @staticmethod
    def keyed(config: Any) -> Any:
        """Rows by name: ids that Kong makes at random cannot be compared."""
        found = {}
        for entity, rows in config.items():
            if not isinstance(rows, dict | list):
                found[entity] = rows
                continue
            for row in rows.values() if isinstance(rows, dict) else rows:
                name = row.get("name") or row.get("username") or row.get("key")
                found[f"{entity} {name} {row.get('route')} {row.get('paths')}"] = row
        return found

    def test_recorded_answers(self) -> None:
        """Every recorded answer is given again, but for those that are listed with a reason."""
        listed = {each["case"]: each["why"] for each in json.loads((CONTRACT / "dbless_differs.json").read_text())}
        cases = {file.stem: json.loads(file.read_text()) for file in FILES}
        (restore,) = [each for each in cases[FILES[1].stem] if each["name"] == "config-restore"]
        text = built(restore["request"]["body"])
        gateway = self.gateway({"database": "off", "declarative_config_string": text})
        comparison, wrong, seen = Comparison(), [], set()
        for stem, recorded in cases.items():
            for case in recorded:
                name = f"{stem}/{case['name']}"
                found = self.differences(gateway, case, comparison)
                seen.add(name)
                if bool(found) != (name in listed):
                    wrong.append(f"{name}: {found[:4] or 'is listed and does not differ any more'}")
        self.assertEqual(wrong, [], "\n".join(wrong))
        self.assertEqual(len(seen), 61)
        self.assertLessEqual(set(listed), seen)
