"""The Admin API where clients come to its edges: names that look like ids, escaped and foreign names, PUT and PATCH, filters,
pages, cascades, both directions of nested paths."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

from .support import Answer, GatewayProcess, LiveTestCase

ABSENT = "5f1e2d3c-0000-4000-8000-000000000001"
ODD_NAMES = ("a b", "ä-ö", "名前", "😀", "a%2Fb", "a+b", "x~y.z_", "ünï cödé")


class EdgeTests(LiveTestCase):
    gateway_: GatewayProcess

    def setUp(self) -> None:
        self.gateway_ = self.gateway()

    def ask(self, method: str, path: str, **arguments: Any) -> Answer:
        return self.gateway_.admin(method, path, **arguments)

    def refused(self, answer: Answer, status: int, code: int) -> Any:
        self.assertEqual((answer.status, answer.json.get("code")), (status, code), answer)
        return answer.json


class NameTests(EdgeTests):
    def test_odd_names(self) -> None:
        """Usernames may hold anything; paths carry them escaped, and so do the pages' links."""
        for name in ODD_NAMES:
            made = self.gateway_.create("/consumers", username=name)
            escaped = quote(name, safe="")
            self.assertEqual(self.ask("GET", f"/consumers/{escaped}").json, made, name)
            changed = self.ask("PATCH", f"/consumers/{escaped}", json={"custom_id": f"id of {name}"})
            self.assertEqual((changed.status, changed.json["username"]), (200, name))
            found = self.ask("GET", f"/consumers?custom_id={quote(f'id of {name}', safe='')}").json["data"]
            self.assertEqual([row["id"] for row in found], [made["id"]])
            for number in range(2):
                self.gateway_.create(f"/consumers/{escaped}/key-auth", key=f"{number} of {name}")
            page = self.ask("GET", f"/consumers/{escaped}/key-auth?size=1").json
            rest = self.ask("GET", page["next"]).json["data"]
            self.assertEqual({page["data"][0]["key"], rest[0]["key"]}, {f"0 of {name}", f"1 of {name}"}, name)
            self.assertEqual(self.ask("DELETE", f"/consumers/{escaped}").status, 204)
        self.assertEqual(self.ask("GET", "/consumers").json["data"], [])

    def test_slashes_in_names(self) -> None:
        """A slash in a name is written %2F in a path; it never begins another segment."""
        made = self.gateway_.create("/consumers", username="a/b")
        self.assertEqual(self.ask("GET", "/consumers/a%2Fb").json, made)
        self.assertEqual(self.ask("GET", "/consumers/a/b").status, 404)

    def test_names_like_ids(self) -> None:
        """A key of an id's form is an id, in any case of its letters; what only looks like one is a name."""
        made = self.gateway_.create("/services", name=ABSENT, host="h")
        self.assertEqual(self.ask("GET", f"/services/{ABSENT}").status, 404)
        self.assertEqual(self.ask("GET", f"/services/{made['id'].upper()}").json, made)
        name = ABSENT.replace("-", "_")
        put = self.ask("PUT", f"/services/{name}", json={"host": "g"})
        self.assertEqual((put.status, put.json["name"]), (200, name))
        put = self.ask("PUT", f"/services/{ABSENT}", json={"host": "g"})
        self.assertEqual((put.status, put.json["id"], put.json["name"]), (200, ABSENT, None))

    def test_bad_names(self) -> None:
        """A key that the field would not take is told as such."""
        error = self.refused(self.ask("GET", "/services/a%20b"), 400, 10)
        self.assertEqual((error["name"], error["code"], "fields" in error), ("invalid unique name", 10, False))
        self.refused(self.ask("GET", "/plugins/a%20b"), 400, 10)
        self.refused(self.ask("GET", "/ca_certificates/x"), 400, 1)
        for key in ("%FF", "a%C3", "%ED%A0%80"):
            error = self.refused(self.ask("GET", f"/services/{key}"), 400, 10)
            self.assertTrue(
                error["message"].startswith("invalid utf-8 character sequence detected at position "), error
            )
        form = "application/x-www-form-urlencoded"
        for body in (b"name=%FF&host=h", b"tags=%ED%A0%80&host=h"):
            answer = self.ask("POST", "/services", body=body, headers={"Content-Type": form})
            self.assertEqual((answer.status, answer.json), (400, {"message": "Cannot parse the form"}))


class WriteTests(EdgeTests):
    def test_put(self) -> None:
        """By name it creates, then replaces what it created: same id and creation, defaults for what is not said."""
        first = self.ask("PUT", "/services/s", json={"host": "h", "retries": 9, "tags": ["t"]}).json
        second = self.ask("PUT", "/services/s", json={"host": "g"}).json
        self.assertEqual((second["id"], second["created_at"]), (first["id"], first["created_at"]))
        self.assertEqual((second["host"], second["retries"], second["tags"]), ("g", 5, None))
        by_id = self.ask("PUT", f"/services/{first['id']}", json={"host": "i", "name": "other"}).json
        self.assertEqual((by_id["id"], by_id["name"]), (first["id"], "other"))
        self.assertEqual(self.ask("GET", "/services/s").status, 404)
        self.refused(self.ask("PUT", "/services/s", json={"port": "x"}), 400, 2)
        self.gateway_.create("/services", name="taken", host="h")
        self.refused(self.ask("PUT", f"/services/{ABSENT}", json={"name": "taken", "host": "h"}), 409, 5)
        self.assertEqual(len(self.ask("GET", "/services").json["data"]), 2)

    def test_patch(self) -> None:
        """Records merge deeply, lists and maps are replaced, null clears, what is not named stays."""
        row = self.gateway_.create("/upstreams", name="u", tags=["a"], healthchecks={
            "active": {"healthy": {"interval": 7, "http_statuses": [201]}, "headers": {"X-A": ["1"], "X-B": ["2"]}},
        })  # fmt: skip
        patch = {"tags": None, "healthchecks": {"active": {"healthy": {"successes": 3}, "headers": {"X-C": ["3"]}}}}
        changed = self.ask("PATCH", "/upstreams/u", json=patch).json
        active = changed["healthchecks"]["active"]
        self.assertEqual(active["healthy"], {"interval": 7, "http_statuses": [201], "successes": 3})
        self.assertEqual(active["headers"], {"X-C": ["3"]})
        self.assertEqual(changed["healthchecks"]["passive"], row["healthchecks"]["passive"])
        self.assertEqual((changed["tags"], changed["created_at"]), (None, row["created_at"]))
        self.assertEqual(
            self.ask("PATCH", "/upstreams/u", json={}).json | {"updated_at": 0}, changed | {"updated_at": 0}
        )
        self.refused(self.ask("PATCH", f"/upstreams/{ABSENT}", json={}), 404, 6)

    def test_cascades(self) -> None:
        """What belongs to a row goes with it; what only refers to it keeps it."""
        gateway = self.gateway_
        service = gateway.create("/services", name="s", host="h")
        route = gateway.create("/services/s/routes", name="r", paths=["/"])
        consumer = gateway.create("/consumers", username="c")
        key = gateway.create("/consumers/c/key-auth", key="k")
        for scope in ({"service": {"id": service["id"]}}, {"route": {"id": route["id"]}}):
            gateway.create("/plugins", name="correlation-id", **scope)
        gateway.create("/plugins", name="rate-limiting", config={"minute": 5}, consumer={"id": consumer["id"]})
        error = self.refused(self.ask("DELETE", "/services/s"), 400, 4)
        self.assertEqual(error["fields"], {"@referenced_by": "routes"})
        self.assertEqual(self.ask("DELETE", "/consumers/c").status, 204)
        self.assertEqual(self.ask("GET", f"/key-auths/{key['id']}").status, 404)
        self.assertEqual(len(self.ask("GET", "/plugins").json["data"]), 2)
        self.assertEqual(self.ask("DELETE", "/routes/r").status, 204)
        self.assertEqual(self.ask("DELETE", "/services/s").status, 204)
        self.assertEqual(self.ask("GET", "/plugins").json["data"], [])
        self.assertEqual(self.ask("DELETE", "/services/s").status, 204, "deleting nothing is done")

    def test_both_directions(self) -> None:
        """Children through their parent, parents through their child, each by id and by name."""
        gateway = self.gateway_
        service = gateway.create("/services", name="s", host="h")
        gateway.create("/services", name="t", host="h")
        route = gateway.create("/services/s/routes", name="r", paths=["/"])
        for parent in ("s", service["id"]):
            for child in ("r", route["id"]):
                self.assertEqual(self.ask("GET", f"/services/{parent}/routes/{child}").json["id"], route["id"])
                self.assertEqual(self.ask("GET", f"/services/t/routes/{child}").status, 404)
        for child in ("r", route["id"]):
            self.assertEqual(self.ask("GET", f"/routes/{child}/service").json["id"], service["id"])
            answer = self.ask("DELETE", f"/routes/{child}/service")
            self.assertEqual((answer.status, answer.json), (405, {"message": "Method not allowed"}))
        # Not of this parent: neither changed nor replaced nor deleted.
        for method in ("PATCH", "PUT", "DELETE"):
            self.assertEqual(self.ask(method, "/services/t/routes/r", json={"paths": ["/x"]}).status, 404, method)
        self.assertEqual(self.ask("GET", "/routes/r").json["paths"], ["/"])
        changed = self.ask("PATCH", "/routes/r/service", json={"retries": 1})
        self.assertEqual((changed.status, changed.json["id"], changed.json["retries"]), (200, service["id"], 1))
        loose = gateway.create("/routes", name="loose", paths=["/l"])
        self.assertEqual(self.ask("GET", "/routes/loose/service").status, 404)
        made = self.ask("PUT", "/routes/loose/service", json={"host": "new"})
        self.assertEqual(made.status, 200)
        self.assertEqual(self.ask("GET", f"/routes/{loose['id']}").json["service"], {"id": made.json["id"]})
        # The parent in the path wins over one in the body.
        other = self.ask("POST", "/services/s/routes", json={"paths": ["/y"], "service": {"name": "t"}})
        self.assertEqual((other.status, other.json["service"]), (201, {"id": service["id"]}))


class ListTests(EdgeTests):
    def test_tags(self) -> None:
        """All of them, any of them, none; and everything that is no filter."""
        for name, tags in (("one", ["a"]), ("two", ["a", "b"]), ("three", ["b", "ü 名"]), ("four", None)):
            self.gateway_.create("/services", name=name, host="h", tags=tags)
        for query, expected in (
            ("a", {"one", "two"}), ("a,b", {"two"}), ("a/b", {"one", "two", "three"}), ("b,a", {"two"}), ("z", set()),
            (quote("ü 名"), {"three"}), ("a,a", {"one", "two"}), ("a&tags=b", {"one", "two"}),
        ):  # fmt: skip
            answer = self.ask("GET", f"/services?tags={query}")
            self.assertEqual({row["name"] for row in answer.json["data"]}, expected, query)
        for query, words in (
            ("", "cannot be null"), ("a,b/c", "invalid filter syntax"), ("a,,b", "invalid filter syntax"),
            ("/a", "invalid filter syntax"), ("a,b,c,d,e,f", "cannot query more than 5 tags"),
        ):  # fmt: skip
            error = self.refused(self.ask("GET", f"/services?tags={query}"), 400, 11)
            self.assertEqual((error["options"], error["message"]), ({"tags": words}, f"invalid option (tags: {words})"))
        page = self.ask("GET", "/services?tags=a/b&size=1").json
        self.assertIn("&tags=a%2Fb", page["next"])
        names = {page["data"][0]["name"]}
        while page["next"]:
            page = self.ask("GET", page["next"]).json
            names |= {row["name"] for row in page["data"]}
        self.assertEqual(names, {"one", "two", "three"})
        self.assertEqual([row["tag"] for row in self.ask("GET", f"/tags/{quote('ü 名')}").json["data"]], ["ü 名"])

    def test_sizes_and_offsets(self) -> None:
        """Numbers from 1 to 1000; offsets that a page gave."""
        self.gateway_.create("/services", host="h")
        for size, words in (
            ("x", "size must be a number"), ("", "size must be a number"), ("0", "size must be an integer between 1 and 1000"),
            ("1001", "size must be an integer between 1 and 1000"), ("1.5", "size must be an integer between 1 and 1000"),
            ("nan", "size must be an integer between 1 and 1000"), ("inf", "size must be an integer between 1 and 1000"),
        ):  # fmt: skip
            for path in ("/services", "/tags", "/upstreams"):
                self.assertEqual(self.refused(self.ask("GET", f"{path}?size={size}"), 400, 9)["message"], words, size)
        for size in ("1", "1000", "1e2", "5.0"):
            self.assertEqual(self.ask("GET", f"/services?size={size}").status, 200, size)

        def encoded(value: object) -> str:
            return quote(base64.b64encode(json.dumps(value).encode()).decode(), safe="")

        bad_json = quote(base64.b64encode(b"{").decode(), safe="")
        for offset, why in (
            ("%%%", "bad base64 encoding"), ("a", "bad base64 encoding"), ("%C3%BC", "bad base64 encoding"),
            (bad_json, "bad json encoding"), (encoded({}), "bad json encoding"), (encoded(["x"]), "bad json encoding"),
            (encoded([1]), "bad json encoding"), (encoded([ABSENT, ABSENT]), "bad json encoding"),
        ):  # fmt: skip
            error = self.refused(self.ask("GET", f"/services?offset={offset}"), 400, 7)
            self.assertTrue(error["message"].endswith(f"is not a valid offset: {why}"), error)
        self.assertEqual(self.ask("GET", f"/services?offset={encoded([ABSENT])}").status, 200)

    def test_changes_while_reading(self) -> None:
        """A client that follows ``next`` sees every row that stays, once, whatever comes and goes meanwhile."""
        made = {self.gateway_.create("/consumers", username=f"c{number}")["id"] for number in range(12)}
        seen: list[str] = []
        gone: set[str] = set()
        path: str | None = "/consumers?size=3"
        number = 0
        while path is not None:
            page = self.ask("GET", path).json
            seen += [row["id"] for row in page["data"]]
            number += 1
            gone.add(page["data"][-1]["id"])
            self.ask("DELETE", f"/consumers/{page['data'][-1]['id']}")  # the one its offset stands for
            self.gateway_.create("/consumers", username=f"late{number}")
            path = page["next"]
        self.assertEqual(len(seen), len(set(seen)))
        self.assertLessEqual(made - gone, set(seen))
