"""What Kong 3.9.3's source says where nothing was recorded: exchanges with a running gateway, one after the other."""

from __future__ import annotations

import json
from typing import Any

from tests.live.support import LiveTestCase
from tests.places import CONTRACT

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class SourceTests(LiveTestCase):
    """From an empty database, in the order of the file. ``$A`` is the first certificate's id."""

    def test_answers(self) -> None:
        """Every answer has the status, and among its members those that are named."""
        recorded = json.loads((CONTRACT / "observed_admin" / "18-certs-vaults-keys.json").read_text())
        pair = json.loads(recorded[0]["request"]["body"])
        known = {"$CERT": pair["cert"], "$KEY": pair["key"]}
        gateway, wrong = self.gateway(), []
        for case in json.loads((CONTRACT / "source_admin.json").read_text()):
            method, path, body = _filled(case["request"], known)
            if isinstance(body, str):
                answer = gateway.admin(method, path, body=body.encode(), headers=FORM)
            else:
                answer = gateway.admin(method, path, json=body)
            status, members = _filled(case["answer"], known)
            ours = answer.json if answer.body else None
            if "$A" not in known and isinstance(ours, dict):
                known["$A"] = ours["id"]
            named = None if ours is None or members is None else {name: ours.get(name) for name in members}
            if (answer.status, named) != (status, members):
                wrong.append(f"{case['name']}: {answer.status} {str(ours)[:300]}")
        self.assertEqual(wrong, [], "\n".join(wrong))


def _filled(value: Any, known: dict[str, str]) -> Any:
    """A value with what is known in place of its names."""
    if isinstance(value, dict):
        return {name: _filled(each, known) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, known) for each in value]
    if isinstance(value, str):
        for name, text in known.items():
            value = value.replace(name, text)
    return value
