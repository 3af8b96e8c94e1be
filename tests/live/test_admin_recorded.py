"""The Admin API makes the exchanges again that a real Kong 3.9.3 was recorded in, and answers as it did.

Ids, generated keys, offsets and times differ between two runs; they are learned from the answers and put into later
requests. `NOT_YET` names what is recorded of entities, plugins and endpoints that are not built; the cases that lean on
their rows are listed in ``contract/admin_differs.json`` with the reason. A case that is listed and does not differ any
more fails, so that the list can only shrink.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.live.support import Answer, GatewayProcess, LiveTestCase, request

CONTRACT = Path(__file__).resolve().parent.parent / "contract"
FILES = sorted((CONTRACT / "observed_admin").glob("*.json"))

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z|[0-9a-f]{40}\Z|[0-9A-Za-z]{32}\Z")
_CHANGING = frozenset(("created_at", "updated_at", "ttl", "hostname", "node_id", "timestamp", "tagline", "entity_id"))
"""Members of which only the type is compared. A page of tags begins with the rows of the smallest id: chance."""
_NAMES = ("name", "username", "custom_id", "key", "target", "group", "tag")


class Comparison:
    """Compares answers with recorded ones and learns what stands for what."""

    def __init__(self) -> None:
        self.learned: dict[str, str] = {}

    def filled_in(self, text: str, escaped: bool = False) -> str:
        """A recorded text with our values in place of the recorded ones."""
        for theirs, ours in self.learned.items():
            if escaped:
                text = text.replace(quote(theirs, safe=""), quote(ours, safe=""))
            text = text.replace(theirs, ours)
        return text

    def differences(self, theirs: Any, ours: Any, path: str = "body") -> list[str]:
        """Where ``ours`` is not what was recorded."""
        if isinstance(theirs, dict) and isinstance(ours, dict):
            return self._members(theirs, ours, path)
        if isinstance(theirs, list) and isinstance(ours, list):
            return self._items(theirs, ours, path)
        if isinstance(theirs, str) and isinstance(ours, str):
            return self._texts(theirs, ours, path)
        if theirs == ours and isinstance(theirs, bool) == isinstance(ours, bool):
            return []
        return [f"{path} is {ours!r}, recorded {theirs!r}"]

    def _members(self, theirs: dict[str, Any], ours: dict[str, Any], path: str) -> list[str]:
        found = [f"{path}.{name} is missing" for name in theirs if name not in ours]
        found += [f"{path}.{name} is not Kong's" for name in ours if name not in theirs]
        for name in [name for name in theirs if name in ours]:
            if name in _CHANGING and type(theirs[name]) is type(ours[name]):
                continue
            if name in ("offset", "next") and isinstance(theirs[name], str) and isinstance(ours[name], str):
                self.learned.setdefault(theirs[name], ours[name])
            else:
                found += self.differences(theirs[name], ours[name], f"{path}.{name}")
        return found

    def _items(self, theirs: list[Any], ours: list[Any], path: str) -> list[str]:
        if len(theirs) != len(ours):
            return [f"{path} has {len(ours)} items, recorded {len(theirs)}"]
        if theirs and isinstance(theirs[0], dict):
            keys = [[_key(row) for row in rows] for rows in (theirs, ours)]
            if sorted(keys[0]) == sorted(keys[1]) and len(set(keys[0])) == len(keys[0]):
                # Rows are ordered by random ids: pair them by name. Where names repeat only their number counts.
                theirs, ours = sorted(theirs, key=_key), sorted(ours, key=_key)
            elif path.endswith(".data"):
                return []
        elif theirs and isinstance(theirs[0], str):
            theirs, ours = sorted(map(self.filled_in, theirs)), sorted(ours)
        return [
            each
            for at, pair in enumerate(zip(theirs, ours, strict=True))
            for each in self.differences(*pair, f"{path}[{at}]")
        ]

    def _texts(self, theirs: str, ours: str, path: str) -> list[str]:
        if theirs == ours or self.filled_in(theirs) == ours:
            return []
        if theirs not in self.learned and _ID.match(theirs) and _ID.match(ours):
            self.learned[theirs] = ours
            return []
        return [f"{path} is {ours!r}, recorded {self.filled_in(theirs)!r}"]


def _key(row: Any) -> str:
    if not isinstance(row, dict):
        return str(row)
    return next((str(row[name]) for name in _NAMES if row.get(name)), "")


class RecordedAdminTests(LiveTestCase):
    """From an empty database, in the order of the recording."""

    def empty(self, gateway: GatewayProcess) -> None:
        for kind in (
            "plugins",
            "routes",
            "services",
            "consumers",
            "upstreams",
            "snis",
            "certificates",
            "ca_certificates",
        ):
            while rows := gateway.admin("GET", f"/{kind}?size=1000").json["data"]:
                for row in rows:
                    gateway.admin("DELETE", f"/{kind}/{row['id']}")

    def ask(self, gateway: GatewayProcess, case: dict[str, Any], comparison: Comparison) -> Answer:
        asked = case["request"]
        body = asked["body"]
        return request(
            gateway.admin_port,
            asked["method"],
            comparison.filled_in(asked["path"], escaped=True),
            headers=asked["headers"],
            body=None if body is None else comparison.filled_in(body).encode("latin-1", "replace"),
        )

    def test_recorded_answers(self) -> None:
        """Every recorded answer is given again, but for those that are listed with a reason."""
        listed = {each["case"]: each["why"] for each in json.loads((CONTRACT / "admin_differs.json").read_text())}
        gateway = self.gateway()
        comparison, wrong, seen = Comparison(), [], 0
        for file in FILES:
            if file.name.startswith("19-"):
                self.empty(gateway)
            for case in json.loads(file.read_text()):
                name = f"{file.stem}/{case['name']}"
                answer = self.ask(gateway, case, comparison)
                found = [] if answer.status == case["response"]["status"] else [f"status {answer.status}"]
                if case["response"]["body"] is not None:
                    try:
                        found += comparison.differences(case["response"]["body"], answer.json)
                    except ValueError:
                        found.append("no JSON")
                seen += 1
                if bool(found) != (name in listed):
                    wrong.append(f"{name}: {found[:3] or 'is listed and does not differ any more'}")
        self.assertEqual(wrong, [], "\n".join(wrong))
        self.assertGreater(seen, 380)
