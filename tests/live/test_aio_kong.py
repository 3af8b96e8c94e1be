"""aio-kong, the Python client of Kong's Admin API, with all that it offers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kong.client import Kong, KongResponseError

from tests.live.pki import authority
from tests.live.support import GatewayProcess, LiveTestCase

CONFIG: dict[str, Any] = {
    "services": [
        {
            "name": "foo",
            "host": "foo.example",
            "port": 8080,
            "plugins": [{"name": "rate-limiting", "config": {"minute": 5, "policy": "local"}}],
            "routes": [
                {"name": "one", "hosts": "one.example", "paths": ["/one"], "plugins": [{"name": "key-auth"}]},
                {"name": "two", "methods": ["GET"], "paths": "/two", "strip_path": False},
            ],
        },
        {"name": "bar", "host": "bar.example"},
    ],
    "plugins": [{"name": "correlation-id", "config": {"header_name": "X-Id"}}],
}


class AioKongTests(LiveTestCase):
    def setUp(self) -> None:
        self.at = self.gateway()

    def use(self, work: Callable[[Kong], Awaitable[None]], at: GatewayProcess | None = None) -> None:
        """Let ``work`` use a client of the gateway."""

        async def used() -> None:
            async with Kong(url=f"http://127.0.0.1:{(at or self.at).admin_port}") as client:
                await work(client)

        asyncio.run(used())

    async def refusal(self, call: Awaitable[Any]) -> KongResponseError:
        """The error that a call ends with."""
        try:
            made = await call
        except KongResponseError as error:
            return error
        raise AssertionError(f"made {made}")

    def test_services_and_routes(self) -> None:
        """Create, get by name and id, ask for, list, page through, change, delete with all that hangs on it."""

        async def work(client: Kong) -> None:
            for number in range(25):
                await client.services.create(name=f"s{number}", host="h.example", port=8000 + number)
            one = await client.services.get("s1")
            self.assertEqual((one.name, one.host, one.protocol, one["port"]), ("s1", "h.example", "http", 8001))
            self.assertEqual((await client.services.get(one.id)).data, one.data)
            self.assertEqual([await client.services.has(name) for name in ("s1", one.id, "none")], [True, True, False])
            self.assertEqual(len(await client.services.get_list(size=10)), 10)
            names = [each.name for each in await client.services.get_full_list(size=10)]
            self.assertEqual(sorted(names), sorted(f"s{number}" for number in range(25)))
            changed = await client.services.update("s1", tags=["a"], retries=1)
            self.assertEqual((changed["retries"], changed["tags"], changed["port"]), (1, ["a"], 8001))
            for number in range(3):
                route = await one.routes.create(name=f"r{number}", paths=[f"/{number}"])
                self.assertEqual(route["service"], {"id": one.id})
            self.assertEqual(len(await one.routes.get_full_list(size=2)), 3)
            await client.routes.update("r0", paths=["/changed"])
            self.assertEqual((await client.routes.get("r0"))["paths"], ["/changed"])
            await one.plugins.create(name="key-auth")
            self.assertTrue(await client.services.delete("s1"))
            self.assertEqual((await client.routes.get_list(), await client.plugins.get_list()), ([], []))
            self.assertFalse(await client.services.has("s1"))

        self.use(work)

    def test_plugins(self) -> None:
        """Of everything, of a service, a route and a consumer."""

        async def work(client: Kong) -> None:
            service = await client.services.create(name="s", host="h")
            route = await service.routes.create(paths=["/"])
            consumer = await client.consumers.create(username="u")
            owners = {"service": service, "route": route, "consumer": consumer}
            for name, owner in owners.items():
                made = await owner.plugins.create(name="request-termination", config={"status_code": 418})
                self.assertEqual(made[name], {"id": owner.id})
                self.assertEqual(len(await owner.plugins.get_list()), 1)
            made = await client.plugins.create(name="request-termination")
            self.assertEqual([made[name] for name in owners], [None, None, None])
            changed = await client.plugins.update(made.id, config={"message": "no"})
            self.assertEqual((changed["config"]["message"], changed["config"]["status_code"]), ("no", 503))
            self.assertEqual(len(await client.plugins.get_list()), 4)
            keys = await service.plugins.create(name="key-auth", config={"anonymous": "u"})
            self.assertEqual(keys["config"]["anonymous"], consumer.id)  # the client looks the name up
            await client.plugins.delete(made.id)
            self.assertEqual((await self.refusal(client.plugins.get(made.id))).status, 404)

        self.use(work)

    def test_consumers(self) -> None:
        """Consumers and their keys, which aio-kong sends as forms."""

        async def work(client: Kong) -> None:
            consumer = await client.consumers.create(username="u", custom_id="7")
            self.assertEqual((await client.consumers.get("u")).username, "u")
            made = await consumer.keyauths.create(key="first")
            self.assertEqual((made["key"], made["consumer"]), ("first", {"id": consumer.id}))
            formed = await consumer.keyauths.create_or_update_credentials({"key": "second"})
            again = await consumer.keyauths.create_or_update_credentials({"key": "second", "tags": "t"})
            self.assertEqual((again.id, again["tags"]), (formed.id, ["t"]))
            self.assertEqual(len(await consumer.keyauths.get_list()), 2)
            self.assertIn((await consumer.keyauths.get_or_create())["key"], ("first", "second"))
            await consumer.keyauths.delete(made.id)
            self.assertEqual([each["key"] for each in await consumer.keyauths.get_list()], ["second"])
            other = await client.consumers.create(username="other")
            self.assertEqual(len((await other.keyauths.get_or_create())["key"]), 32)
            await client.consumers.delete("u")
            self.assertFalse(await client.consumers.has("u"))

        self.use(work)

    def test_certificates(self) -> None:
        """Certificates and their names."""
        signed = authority().sign("a.example")

        async def work(client: Kong) -> None:
            made = await client.certificates.create(cert=signed.pem, key=signed.key_pem)
            name = await made.snis.create(name="a.example")
            self.assertEqual(name["certificate"], {"id": made.id})
            await client.snis.apply_json([{"name": "b.example", "certificate": {"id": made.id}}])
            await client.snis.apply_json({"name": "b.example", "tags": ["t"]})
            self.assertEqual((await client.snis.get("b.example"))["tags"], ["t"])
            self.assertEqual((await client.certificates.get("b.example"))["snis"], ["a.example", "b.example"])
            await client.certificates.delete(made.id)
            self.assertEqual(await client.snis.get_list(), [])

        self.use(work)

    def test_apply_json(self) -> None:
        """The client's own format: applied, applied again, with less in it; then everything is deleted."""

        async def names(client: Kong) -> dict[str, list[str]]:
            return {
                kind: sorted(each.name for each in await getattr(client, kind).get_full_list())
                for kind in ("services", "routes", "plugins")
            }

        async def work(client: Kong) -> None:
            wanted = {
                "services": ["bar", "foo"],
                "routes": ["one", "two"],
                "plugins": ["correlation-id", "key-auth", "rate-limiting"],
            }
            applied = await client.apply_json(CONFIG)
            self.assertEqual(applied["services"][0].data["routes"][0]["hosts"], ["one.example"])
            self.assertEqual(await names(client), wanted)
            before = (await client.services.get("foo")).id
            await client.apply_json(CONFIG)
            self.assertEqual(await names(client), wanted)
            self.assertEqual((await client.services.get("foo")).id, before)
            less = {
                "services": [
                    {"name": "foo", "host": "foo.example", "routes": CONFIG["services"][0]["routes"][:1]},
                    {"name": "bar", "ensure": "absent"},
                ],
                "plugins": [],
            }
            await client.apply_json(less)
            self.assertEqual(await names(client), {"services": ["foo"], "routes": ["one"], "plugins": ["key-auth"]})
            await client.delete_all()
            self.assertEqual(await names(client), {"services": [], "routes": [], "plugins": []})

        self.use(work)

    def test_consumers_of_a_file(self) -> None:
        """``consumers`` in that format also asks for groups: it works where the acl plugin is there, else it is told."""
        has_groups = "acl" in self.at.admin("GET", "/plugins/enabled").json["enabled_plugins"]
        consumers = [{"username": "u", "custom_id": "7", "auths": [{"type": "key-auth", "config": {"key": "k"}}]}]

        async def work(client: Kong) -> None:
            if not has_groups:
                error = await self.refusal(client.apply_json({"consumers": consumers}))
                self.assertEqual((error.status, error.message["message"]), (404, "Not found"))
                self.assertTrue(error.message["request_url"].endswith("/acls"), error)
                return
            for _ in range(2):
                await client.apply_json({"consumers": consumers})
            keys = await (await client.consumers.get("u")).keyauths.get_list()
            self.assertEqual([each["key"] for each in keys], ["k"])

        self.use(work)

    def test_errors(self) -> None:
        """Errors arrive as the client's exceptions, with Kong's messages; its one connection works on."""

        async def work(client: Kong) -> None:
            await client.services.create(name="s", host="h")
            for _ in range(3):
                wrong = await self.refusal(client.services.create(path="/p"))
                self.assertEqual((wrong.status, wrong.message["fields"]), (400, {"host": "required field missing"}))
                taken = await self.refusal(client.services.create(name="s", host="h"))
                self.assertEqual((taken.status, taken.message["name"]), (409, "unique constraint violation"))
                self.assertEqual((await self.refusal(client.services.get("none"))).message["message"], "Not found")
                absent = await self.refusal(client.plugins.create(name="nonsense"))
                self.assertIn("plugin 'nonsense' not enabled", absent.message["message"])
            self.assertTrue(await client.services.has("s"))

        self.use(work)

    def test_many_at_once(self) -> None:
        """Two hundred creates at once on the client's connections."""

        async def work(client: Kong) -> None:
            made = await asyncio.gather(*(client.consumers.create(username=f"u{number}") for number in range(200)))
            self.assertEqual({each.username for each in made}, {f"u{number}" for number in range(200)})
            listed = await client.consumers.get_full_list(size=70)
            self.assertEqual({each.id for each in listed}, {each.id for each in made})

        self.use(work)

    def test_without_database(self) -> None:
        """On a gateway without a database the client reads; writing it is told that it cannot."""
        text = '{"_format_version":"3.0","services":[{"name":"s","host":"h"}]}'
        other = self.gateway({"database": "off", "declarative_config_string": text})

        async def work(client: Kong) -> None:
            self.assertEqual([each.name for each in await client.services.get_full_list()], ["s"])
            error = await self.refusal(client.services.create(name="x", host="h"))
            self.assertEqual((error.status, error.message["code"]), (405, 12))

        self.use(work, other)
