"""The Admin API makes the exchanges again that a real Kong 3.9.3 was recorded in, and answers as it did.

Ids, generated keys, offsets and times differ between two runs; they are learned from the answers and put into later
requests. Of answers made of figures of the moment (`SHAPED`) members and types are compared. Cases that lean on plugins
that are not built are listed in ``contract/admin_differs.json`` with the reason. A case that is listed and does not differ
any more fails, so that the list can only shrink.
"""

from __future__ import annotations

import json
import re
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import quote

from tests.live.support import Answer, GatewayProcess, LiveTestCase, free_port, request, wait_until
from tests.places import CONTRACT

FILES = sorted((CONTRACT / "observed_admin").glob("*.json"))

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z|[0-9a-f]{40}\Z|[0-9A-Za-z]{32}\Z")
_CHANGING = frozenset(("created_at", "updated_at", "ttl", "hostname", "node_id", "timestamp", "tagline", "entity_id"))
"""Members of which only the type is compared. A page of tags begins with the rows of the smallest id: chance."""
SHAPED = {
    "00-info/root": {"kongtwist_version"},
    "00-info/status": {"connections", "streams"},
    "00-info/status-unit": {"connections", "streams"},
    "00-info/timers": set(),
    "status-listen/status": {"connections", "streams"},
}
"""Answers of which members and types are compared, and members at their top that are ours alone."""
MAPS = frozenset(("available_on_server", "configuration", "lua_shared_dicts", "timers"))
"""Members whose own members are names: of plugins, properties, memories and timers that differ between two gateways."""
_AMOUNT = re.compile(r"[0-9]+(\.[0-9]*)? [KMG]iB\Z")

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
            if path.endswith(".fields"):  # of a schema; Kong makes those of health checks in no order
                theirs, ours = sorted(theirs, key=list), sorted(ours, key=list)
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


def misshapen(theirs: Any, ours: Any, own: AbstractSet[str] = frozenset(), path: str = "body") -> list[str]:
    """Where ``ours`` has other members, or values of other types and units, than what was recorded.

    Args:
        theirs: what was recorded.
        ours: the answer.
        own: members of ours that were not recorded.
        path: where they are.
    """
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found = [f"{path}.{name} is missing" for name in theirs if name not in ours]
        found += [f"{path}.{name} is not Kong's" for name in ours if name not in theirs and name not in own]
        for name in [name for name in theirs if name in ours]:
            if name not in MAPS or not isinstance(theirs[name], dict):
                found += misshapen(theirs[name], ours[name], path=f"{path}.{name}")
            elif name != "configuration":
                some = next(iter(theirs[name].values()))
                for key, each in ours[name].items():
                    found += misshapen(some, each, path=f"{path}.{name}.{key}")
        return found
    if isinstance(theirs, list) and isinstance(ours, list):
        return [each for item in ours for each in misshapen(theirs[0], item, path=f"{path}[]")] if theirs else []
    if isinstance(theirs, str) and isinstance(ours, str) and _AMOUNT.match(theirs):
        units = (theirs[-3:], len(theirs.partition(".")[2])), (ours[-3:], len(ours.partition(".")[2]))
        return [] if units[0] == units[1] else [f"{path} is {ours}, recorded {theirs}"]
    return [] if type(theirs) is type(ours) else [f"{path} is {ours!r}, recorded {theirs!r}"]


def families(text: str) -> dict[str, str]:
    """Metrics in Prometheus's text format: name of the family -> its type."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def raw_differences(theirs: str, ours: str) -> list[str]:
    """Where a body that is no JSON is not what was recorded; of metrics names and types are compared."""
    if not theirs.startswith("# HELP"):
        return [] if theirs == ours else [f"body is {ours!r}, recorded {theirs!r}"]
    own = families(ours)
    return [f"{name} is not a {kind}" for name, kind in families(theirs).items() if own.get(name) != kind]


def body_differences(name: str, recorded: dict[str, Any], answer: Answer, comparison: Comparison) -> list[str]:
    """Where an answer's body is not what was recorded under this name."""
    if recorded.get("body_raw"):
        return raw_differences(recorded["body_raw"], answer.body.decode())
    if recorded["body"] is None:
        return []
    try:
        ours = answer.json
    except ValueError:
        return ["no JSON"]
    if name in SHAPED:
        return misshapen(recorded["body"], ours, SHAPED[name])
    return comparison.differences(recorded["body"], ours)


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
            "vaults",
            "keys",
            "key-sets",
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
        gateway = self.gateway({"log_level": "notice"})  # as recorded
        comparison, wrong, seen = Comparison(), [], 0
        for file in FILES:
            if file.name.startswith("19-"):
                self.empty(gateway)
            for case in json.loads(file.read_text()):
                name = f"{file.stem}/{case['name']}"
                answer = self.ask(gateway, case, comparison)
                found = [] if answer.status == case["response"]["status"] else [f"status {answer.status}"]
                found += body_differences(name, case["response"], answer, comparison)
                found += [] if answer.headers["Connection"] == "keep-alive" else ["Connection"]  # in all recordings
                if str(case["response"].get("body_raw", "")).startswith("<html>"):
                    found += [] if answer.headers["Content-Type"] == "text/html; charset=UTF-8" else ["Content-Type"]
                seen += 1
                if bool(found) != (name in listed):
                    wrong.append(f"{name}: {found[:3] or 'is listed and does not differ any more'}")
        self.assertEqual(wrong, [], "\n".join(wrong))
        self.assertGreater(seen, 380)

    def test_status_api(self) -> None:
        """The Status API has what Kong's has, and no more."""
        gateway = self.gateway({"status_listen": f"127.0.0.1:{(port := free_port())}"})
        wait_until(lambda: request(port, "GET", "/status/ready").status == 200, "ready")
        wrong = []
        for case in json.loads((CONTRACT / "observed_status.json").read_text()):
            asked, recorded = case["request"], case["response"]
            body = None if asked["body"] is None else asked["body"].encode()
            answer = request(port, asked["method"], asked["path"], headers=asked["headers"], body=body)
            name = f"status-listen{case['name']}"
            found = [] if answer.status == recorded["status"] else [f"status {answer.status}"]
            found += body_differences(name, recorded, answer, Comparison())
            wrong += [f"{name}: {each}" for each in found]
        self.assertEqual(wrong, [])
        self.assertEqual(gateway.admin("GET", "/status/ready").status, 404)
