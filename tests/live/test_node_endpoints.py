"""What the Admin and Status APIs tell of a running node and change in it, with two workers: health of targets, log level,
readiness, figures, secrets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kongtwist import VERSION
from kongtwist.net.server_tls import default_pairs

from .support import PATIENCE, EventStream, GatewayProcess, LiveTestCase, request, wait_until

TWO = {"nginx_worker_processes": 2}
AT_ONCE = 24
"""Requests after which both of two workers are sure to have been asked."""


def in_all_workers(condition: Callable[[], bool], what: str) -> None:
    """Wait until something holds in every worker: an answer of the Admin API waits for them, but on a slow machine not long
    enough."""
    wait_until(lambda: all(condition() for _ in range(AT_ONCE)), what)


class TargetHealthTests(LiveTestCase):
    """Operators take a target out, and back in."""

    def served_by(self, gateway: GatewayProcess) -> set[str]:
        """The targets that answer; none where the gateway has none to ask."""
        hosts = set()
        for _ in range(AT_ONCE):
            answer = gateway.get("/up/x")
            if answer.status == 200:
                hosts.add({name.lower(): value for name, value in answer.json["headers"]}["host"])
            else:
                self.assertEqual(answer.status, 503)
        return hosts

    def serve(self, gateway: GatewayProcess, *targets: str) -> None:
        """Wait until these targets answer, and no others."""
        wait_until(lambda: self.served_by(gateway) == set(targets), f"{targets} serve")

    def put(self, gateway: GatewayProcess, path: str) -> int:
        return gateway.admin("PUT", f"/upstreams/up/targets/{path}").status

    def test_marks(self) -> None:
        """No worker chooses a target that is marked, one that is started later neither; /health shows the mark."""
        gateway = self.gateway(TWO)
        gateway.create("/upstreams", name="up")
        targets = [f"127.0.0.1:{self.upstream('echo')}" for _ in range(2)]
        rows = [gateway.create("/upstreams/up/targets", target=target) for target in targets]
        gateway.route("/up", "http://up")
        self.serve(gateway, *targets)

        self.assertEqual(self.put(gateway, f"{targets[0]}/unhealthy"), 204)
        self.serve(gateway, targets[1])
        self.assertEqual(self.served_by(gateway), {targets[1]})
        shown = {each["target"]: each for each in gateway.admin("GET", "/upstreams/up/health").json["data"]}
        self.assertEqual(
            [(shown[target]["health"], shown[target]["data"]["weight"]["available"]) for target in targets],
            [("UNHEALTHY", 0), ("HEALTHCHECKS_OFF", 100)],
        )

        # A worker that is started later knows it too.
        first, second = gateway.admin("GET", "/").json["pids"]["workers"]
        os.kill(first, signal.SIGKILL)
        wait_until(
            lambda: len({first, second, *gateway.admin("GET", "/").json["pids"]["workers"]}) == 3, "a new worker"
        )
        self.assertEqual(self.served_by(gateway), {targets[1]})

        # By id, by address, and when all are out.
        self.assertEqual(self.put(gateway, f"{rows[1]['id']}/{targets[1]}/unhealthy"), 204)
        self.serve(gateway)
        self.assertEqual(self.put(gateway, f"{targets[0]}/healthy"), 204)
        self.serve(gateway, targets[0])
        self.assertEqual(self.put(gateway, f"{targets[1]}/healthy"), 204)
        self.serve(gateway, *targets)

    def test_nothing_to_mark(self) -> None:
        """Targets, upstreams and addresses that are not there are 404."""
        gateway = self.gateway()
        gateway.create("/upstreams", name="up")
        gateway.create("/upstreams", name="other")
        gateway.create("/upstreams/up/targets", target="127.0.0.1:1")
        self.assertEqual(self.put(gateway, "127.0.0.1:1/healthy"), 204)
        for path in ("127.0.0.1:2/healthy", "127.0.0.1:1/127.0.0.1:2/healthy", "127.0.0.1:1/x/unhealthy"):
            self.assertEqual(self.put(gateway, path), 404, path)
        for upstream in ("other", "none"):
            answer = gateway.admin("PUT", f"/upstreams/{upstream}/targets/127.0.0.1:1/healthy")
            self.assertEqual((answer.status, answer.json), (404, {"message": "Not found"}))

    def test_of_the_whole(self) -> None:
        """With checks, an upstream is healthy while more than its threshold of the weight is."""
        gateway = self.gateway()
        checks = {"active": {"healthy": {"interval": 1000}}, "threshold": 50}
        gateway.create("/upstreams", name="up", healthchecks=checks)
        for number in (1, 2, 3):
            gateway.create("/upstreams/up/targets", target=f"127.0.0.{number}:1", weight=10)

        def health() -> Any:
            return gateway.admin("GET", "/upstreams/up/health?balancer_health=1").json["data"]

        whole = health()
        self.assertEqual((whole["balancer_health"], whole["details"]["weight"]["available"]), ("HEALTHY", 30))
        self.put(gateway, "127.0.0.1:1/unhealthy")
        self.assertEqual(health()["balancer_health"], "HEALTHY")
        self.put(gateway, "127.0.0.2:1/unhealthy")
        whole = health()
        self.assertEqual((whole["balancer_health"], whole["details"]["weight"]["unavailable"]), ("UNHEALTHY", 20))
        self.assertEqual([each["nodeWeight"] for each in whole["details"]["hosts"]], [10, 10, 10])

    def test_names_without_an_address(self) -> None:
        """A target whose name does not resolve has no share of the weight, checked or not; names that do are as ever."""
        gateway = self.gateway()
        checks = {"passive": {"unhealthy": {"tcp_failures": 1}}}
        gateway.create("/upstreams", name="up")
        gateway.create("/upstreams", name="checked", healthchecks=checks)
        lost = ("no-such-target.invalid:80", f"{'x' * 64}.example:80")
        for upstream, word in (("up", "HEALTHCHECKS_OFF"), ("checked", "HEALTHY")):
            for target in ("localhost:1", "127.0.0.1:1", "[::1]:1", *lost):
                gateway.create(f"/upstreams/{upstream}/targets", target=target)
            gateway.create(f"/upstreams/{upstream}/targets", target="unused.invalid:80", weight=0)
            shown = {row["target"]: row for row in gateway.admin("GET", f"/upstreams/{upstream}/health").json["data"]}
            self.assertEqual(len(shown), 6)
            for target in lost:
                self.assertEqual(shown[target]["health"], "DNS_ERROR")
                self.assertEqual(shown[target]["data"]["addresses"], [])
                self.assertEqual(shown[target]["data"]["weight"], {"total": 0, "available": 0, "unavailable": 0})
            self.assertEqual([shown[each]["health"] for each in ("localhost:1", "127.0.0.1:1")], [word, word])
            self.assertEqual(shown["unused.invalid:80"]["health"], "HEALTHCHECKS_OFF")
        whole = gateway.admin("GET", "/upstreams/checked/health?balancer_health=1").json["data"]
        self.assertEqual(whole["details"]["weight"], {"total": 300, "available": 300, "unavailable": 0})
        self.assertEqual([len(host["addresses"]) for host in whole["details"]["hosts"]].count(0), 3)

    def test_lists(self) -> None:
        """Targets are listed newest first, in pages; ``all`` lists them by id."""
        gateway = self.gateway()
        gateway.create("/upstreams", name="up")
        made = [gateway.create("/upstreams/up/targets", target=f"127.0.0.{number}:1") for number in range(1, 6)]
        newest = sorted(made, key=lambda row: (row["created_at"], row["id"]), reverse=True)
        for path in ("/upstreams/up/targets", "/upstreams/up/health"):
            found: list[str] = []
            at: str | None = f"{path}?size=2"
            while at is not None:
                page = gateway.admin("GET", at).json
                found += [row["id"] for row in page["data"]]
                at = page["next"] and f"{page['next']}&size=2".replace("&size=2&size=2", "&size=2")
            self.assertEqual(found, [row["id"] for row in newest], path)
        every = gateway.admin("GET", "/upstreams/up/targets/all?size=3").json
        self.assertEqual([row["id"] for row in every["data"]], sorted(row["id"] for row in made)[:3])
        rest = gateway.admin("GET", every["next"]).json
        self.assertEqual([row["id"] for row in rest["data"]], sorted(row["id"] for row in made)[3:])
        bad = gateway.admin("GET", "/upstreams/up/targets?offset=zzz")
        self.assertEqual((bad.status, bad.json["code"]), (400, 7))


class LogLevelTests(LiveTestCase):
    def errors(self, gateway: GatewayProcess) -> int:
        """How many failures the workers have logged."""
        return len(re.findall(rf"\[error\] (?!{gateway.pid}#)\d+#", gateway.log()))

    def test_all_workers_follow(self) -> None:
        """What is less severe is not written by any worker, until another level is set."""
        gateway = self.gateway(TWO)
        silent = socket.socket()
        self.addCleanup(silent.close)
        silent.bind(("127.0.0.1", 0))  # nobody listens
        gateway.route("/refused", f"http://127.0.0.1:{silent.getsockname()[1]}", "refused")

        def logged() -> int:
            """How many lines some failing requests bring."""
            before = self.errors(gateway)
            for _ in range(AT_ONCE):
                self.assertIn(gateway.get("/refused").status, (404, 502))
            return self.errors(gateway) - before

        wait_until(lambda: logged() >= AT_ONCE, "errors in the log")
        answer = gateway.admin("PUT", "/debug/node/log-level/emerg?timeout=0")
        self.assertEqual((answer.status, answer.json), (200, {"message": "log level changed"}))
        self.assertEqual(gateway.admin("GET", "/debug/node/log-level").json, {"message": "log level: emerg"})
        wait_until(lambda: logged() == 0, "silence")
        self.assertEqual(logged(), 0)
        answer = gateway.admin("PUT", "/debug/node/log-level/info?timeout=0")
        self.assertEqual(answer.json, {"message": "log level changed"})
        wait_until(lambda: logged() >= AT_ONCE, "errors in the log again")

    def test_for_a_while(self) -> None:
        """The configured level comes back by itself; in the cluster's path too."""
        gateway = self.gateway(TWO)
        for path in ("/debug/node/log-level", "/debug/cluster/log-level"):
            answer = gateway.admin("PUT", f"{path}/crit", json={"timeout": 0.2})
            self.assertEqual((answer.status, answer.json), (200, {"message": "log level changed"}))
            wait_until(
                lambda: gateway.admin("GET", "/debug/node/log-level").json == {"message": "log level: info"},
                "info again",
            )

    def test_refusals(self) -> None:
        gateway = self.gateway()
        for path, status, message in (
            ("info", 200, "log level is already info"),
            ("loud", 400, "unknown log level: loud"),
            ("debug?timeout=-1", 400, "timeout must be greater than or equal to 0"),
            ("debug?timeout=soon", 400, "timeout must be greater than or equal to 0"),
            ("debug?timeout=nan", 400, "timeout must be greater than or equal to 0"),
        ):
            answer = gateway.admin("PUT", f"/debug/node/log-level/{path}")
            self.assertEqual((answer.status, answer.json), (status, {"message": message}), path)
        without = self.gateway({"database": "off"})
        answer = without.admin("PUT", "/debug/node/log-level/debug")
        self.assertEqual((answer.status, answer.json["message"]), (
            405, "cannot change log level when not using a database"
        ))  # fmt: skip


class ReadinessTests(LiveTestCase):
    def monitored(self, conf: Mapping[str, object] | None = None) -> GatewayProcess:
        """A gateway with a Status API, on its ``status_port``."""
        gateway = GatewayProcess(self, {**(conf or {})})
        gateway.conf["status_listen"] = f"127.0.0.1:{gateway.status_port}"
        self._gateways.append(gateway)
        return gateway.start()

    def ready(self, gateway: GatewayProcess) -> tuple[int, str]:
        answer = request(gateway.status_port, "GET", "/status/ready")
        return answer.status, answer.json["message"]

    def test_empty_without_a_database(self) -> None:
        """A node without a configuration is not ready until it gets one; what monitors may see of it then."""
        gateway = self.monitored({"database": "off", **TWO})
        self.assertEqual(self.ready(gateway), (503, "no configuration available (empty configuration present)"))
        rows = {"_format_version": "3.0", "upstreams": [{"name": "up", "targets": [{"target": "127.0.0.1:1"}]}]}
        self.assertEqual(gateway.admin("POST", "/config", json=rows).status, 201)
        self.assertEqual(self.ready(gateway), (200, "ready"))
        for path in ("health", "targets", "targets/all", "targets/127.0.0.1:1"):
            self.assertEqual(request(gateway.status_port, "GET", f"/upstreams/up/{path}").status, 200, path)
        for method, path in (("GET", "/upstreams"), ("GET", "/upstreams/up"), ("GET", "/services"), ("GET", "/config")):
            self.assertEqual(request(gateway.status_port, method, path).status, 404, path)
        for method, path in (("POST", "/upstreams/up/targets"), ("DELETE", "/upstreams/up/targets/127.0.0.1:1")):
            self.assertEqual(request(gateway.status_port, method, path).status, 405, path)
        status = request(gateway.status_port, "GET", "/status").json
        self.assertRegex(status["configuration_hash"], "^[0-9a-f]{32}$")
        self.assertNotIn("database", status)
        self.assertIn("\nkong_datastore_reachable 1\n", request(gateway.status_port, "GET", "/metrics").body.decode())

    def test_draining(self) -> None:
        """A monitor may be told that no more traffic should come; only the words for it are taken."""
        gateway = self.monitored()
        self.assertEqual(self.ready(gateway), (200, "ready"))
        bad = request(gateway.status_port, "POST", "/status/ready", json={"status": "ready"})
        self.assertEqual((bad.status, self.ready(gateway)), (400, (200, "ready")))
        answer = request(gateway.status_port, "POST", "/status/ready", form={"status": "draining"})
        self.assertEqual((answer.status, answer.body), (204, b""))
        self.assertEqual(self.ready(gateway), (503, "draining"))

    def test_stopping(self) -> None:
        """While a stop waits for requests the node is not ready, and says so until the last of them is over."""
        for workers in (1, 2):
            self.stop_slowly(
                {"nginx_main_worker_shutdown_timeout": f"{PATIENCE:g}s", "nginx_worker_processes": workers}
            )

    def stop_slowly(self, conf: Mapping[str, object]) -> None:
        gateway = self.monitored(conf)
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        gateway.route("/slow", f"http://127.0.0.1:{silent.getsockname()[1]}", "slow")
        client = socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE)
        self.addCleanup(client.close)
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        silent.settimeout(PATIENCE)
        upstream = silent.accept()[0]
        self.addCleanup(upstream.close)
        assert gateway.process is not None
        gateway.process.signal(signal.SIGTERM)
        wait_until(lambda: self.ready(gateway) == (503, "draining"), "draining")

        def refused() -> bool:
            with socket.socket() as late:
                return late.connect_ex(("127.0.0.1", gateway.proxy_port)) != 0

        wait_until(refused, "new connections are refused")
        self.assertEqual(self.ready(gateway), (503, "draining"))
        upstream.recv(65536)
        upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.assertTrue(client.recv(65536).startswith(b"HTTP/1.1 200"))
        self.assertEqual(gateway.process.wait(), 0)
        self.assertNotIn("Traceback", gateway.log())

    def test_a_worker_that_dies(self) -> None:
        """The node is ready again when its successor accepts connections."""
        gateway = self.monitored(TWO)
        wait_until(lambda: self.ready(gateway) == (200, "ready"), "ready")
        (first, _) = gateway.admin("GET", "/").json["pids"]["workers"]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: first not in gateway.admin("GET", "/").json["pids"]["workers"], "death of a worker")
        wait_until(lambda: self.ready(gateway) == (200, "ready"), "ready again")


class FiguresTests(LiveTestCase):
    def test_root(self) -> None:
        """Kong's version for clients that ask for it, ours beside it; an id that a restart keeps; no secret."""
        gateway = self.gateway({**TWO, "pg_password": "not-to-be-shown"})
        root = gateway.admin("GET", "/").json
        self.assertEqual((root["version"], root["kongtwist_version"], root["edition"]), ("3.9.3", VERSION, "community"))
        self.assertEqual(root["hostname"], socket.gethostname())
        self.assertEqual((root["pids"]["master"], len(root["pids"]["workers"])), (gateway.pid, 2))
        self.assertEqual(root["configuration"]["pg_password"], "******")
        self.assertNotIn("not-to-be-shown", json.dumps(root))
        self.assertEqual(root["plugins"]["available_on_server"]["key-auth"], {"version": "3.9.3", "priority": 1250})
        gateway.create("/plugins", name="correlation-id")
        gateway.stop()
        gateway.start()
        again = gateway.admin("GET", "/").json
        self.assertEqual(
            (again["node_id"], again["plugins"]["enabled_in_cluster"]), (root["node_id"], ["correlation-id"])
        )

    def test_memory(self) -> None:
        """Each worker's resident memory in the unit that was asked for, and the memory they share."""
        gateway = self.gateway(TWO)
        workers = gateway.admin("GET", "/").json["pids"]["workers"]
        memory = gateway.admin("GET", "/status?unit=b").json["memory"]
        self.assertEqual([each["pid"] for each in memory["workers_lua_vms"]], workers)
        for each in memory["workers_lua_vms"]:
            self.assertGreater(each["http_allocated_gc"], 10_000_000)
        shared = memory["lua_shared_dicts"]["kongtwist_counters"]
        self.assertGreater(shared["capacity"], shared["allocated_slabs"])
        shown = gateway.admin("GET", "/status?unit=K&scale=3").json["memory"]["workers_lua_vms"][0]
        self.assertRegex(shown["http_allocated_gc"], r"^[0-9]+\.[0-9]{3} KiB$")
        shown = gateway.admin("GET", "/status?unit=m&scale=0").json["memory"]["workers_lua_vms"][0]
        self.assertRegex(shown["http_allocated_gc"], r"^[0-9]+ MiB$")
        for query, message in (
            ("unit=x", "invalid unit 'x' (expected 'k/K', 'm/M', or 'g/G')"),
            ("scale=-1", "invalid scale '-1' (expected a non-negative integer)"),
            ("scale=a", "invalid scale 'a' (expected a non-negative integer)"),
        ):
            answer = gateway.admin("GET", f"/status?{query}")
            self.assertEqual((answer.status, answer.json), (400, {"message": message}))

    def test_open_streams(self) -> None:
        """Streams are counted by kind over all workers, from their begin to their end."""
        gateway = self.gateway(TWO)
        gateway.route("/events", f"http://127.0.0.1:{self.upstream('events')}", "events")

        def open_streams() -> tuple[int, str]:
            text = gateway.admin("GET", "/metrics").body.decode()
            shown = re.search(r'^kongtwist_open_streams\{.*kind="sse"\} (\d+)$', text, re.MULTILINE)
            assert shown is not None
            return gateway.admin("GET", "/status").json["streams"]["sse"], shown[1]

        self.assertEqual(open_streams(), (0, "0"))
        streams = [EventStream(gateway.proxy_port, "/events") for _ in range(3)]
        wait_until(lambda: open_streams() == (3, "3"), "three open streams")
        for stream in streams:
            stream.close()
        wait_until(lambda: open_streams() == (0, "0"), "none again")

    def test_cache(self) -> None:
        """Kong's cache keys lead to the rows they stand for; purging is taken and changes nothing."""
        gateway = self.gateway()
        workspace = "0dc6f45b-8f8d-40d2-a504-473544ee190b"
        service = gateway.create("/services", name="s", host="h")
        consumer = gateway.create("/consumers", username="somebody")
        key = gateway.create("/consumers/somebody/key-auth", key="a:b")
        plugin = gateway.create("/services/s/plugins", name="key-auth")
        for entry, row in (
            (f"services:{service['id']}:::::{workspace}", service),
            (f"consumers:{consumer['id']}:::::{workspace}", consumer),
            (f"keyauth_credentials:a%3Ab:::::{workspace}", key),
            (f"plugins:key-auth::{service['id']}:::{workspace}", plugin),
            (f"plugins:key-auth::{service['id']}:::", plugin),
        ):
            answer = gateway.admin("GET", f"/cache/{entry}")
            self.assertEqual((answer.status, answer.json["id"]), (200, row["id"]), entry)
            self.assertEqual(gateway.admin("DELETE", f"/cache/{entry}").status, 204)
            self.assertEqual(gateway.admin("GET", f"/cache/{entry}").status, 200)
        for entry in ("nope", "services", "services:", f"services:{workspace}:::::{workspace}", "nothing:a:::::b", "tags:a:::::b",
                      f"plugins:key-auth:{service['id']}::::{workspace}", f"services:{service['id']}:x::::{workspace}"):  # fmt: skip
            answer = gateway.admin("GET", f"/cache/{entry}")
            self.assertEqual((answer.status, answer.json), (404, {"message": "Not found"}), entry)
        self.assertEqual(gateway.admin("DELETE", "/cache").status, 204)


class SecretsTests(LiveTestCase):
    """The vault ``env``, where its secrets are used: certificates shown to clients, by two workers."""

    def shown(self, gateway: GatewayProcess, name: str) -> str:
        """The certificate that the gateway shows for a server name, PEM."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", gateway.tls_port), PATIENCE)
        with plain, context.wrap_socket(plain, server_hostname=name) as secured:
            der = secured.getpeercert(binary_form=True)
            assert der is not None
            return ssl.DER_cert_to_PEM_cert(der)

    def test_certificate(self) -> None:
        """The value is used and never shown; a vault that comes, changes or goes is followed."""
        folder = self.folder()
        default_pairs(folder)
        names = ("ecdsa.crt", "ecdsa.key")
        certificate, key = (Path(folder, "ssl", f"default-{name}").read_text() for name in names)
        env = {"SITE_CERT": certificate, "SITE_SECRETS": json.dumps({"key": key})}
        gateway = self.gateway(TWO, env=env, tls=True)
        row = gateway.create(
            "/certificates", cert="{vault://mine/cert}", key="{vault://mine/secrets/key}", snis=["a.example"]
        )
        self.assertEqual((row["cert"], row["key"]), ("{vault://mine/cert}", "{vault://mine/secrets/key}"))
        self.assertNotEqual(self.shown(gateway, "a.example"), certificate, "there is no such vault yet")
        vault = gateway.create("/vaults", prefix="mine", name="env", config={"prefix": "site_"})
        in_all_workers(lambda: self.shown(gateway, "a.example") == certificate, "the certificate is shown")
        for path in (
            f"/certificates/{row['id']}",
            "/certificates",
            "/vaults/mine",
            f"/cache/certificates:{row['id']}:::::",
        ):
            self.assertNotIn("-----BEGIN", gateway.admin("GET", path).body.decode(), path)
        self.assertEqual(gateway.admin("PATCH", "/vaults/mine", json={"config": {"prefix": "none_"}}).status, 200)
        in_all_workers(lambda: self.shown(gateway, "a.example") != certificate, "the certificate is shown no more")
        wait_until(lambda: "there is no environment variable NONE_CERT" in gateway.log(), "a line in the log")
        gateway.admin("DELETE", f"/vaults/{vault['id']}")
        self.assertNotIn("-----BEGIN", gateway.log())
        self.assertNotIn(key.splitlines()[1], gateway.log())

    def test_certificate_for_an_upstream(self) -> None:
        """Without what its reference stands for nothing is sent to the upstream, and the log says why in one line."""
        gateway = self.gateway()
        row = gateway.create("/certificates", cert="{vault://env/none}", key="{vault://env/none}")
        own = {"client_certificate": {"id": row["id"]}}
        service = gateway.create("/services", url=f"https://127.0.0.1:{gateway.admin_port}", **own)
        gateway.create(f"/services/{service['id']}/routes", paths=["/tls"])
        self.assertEqual(gateway.get("/tls").status, 502)
        self.assertIn("there is no environment variable NONE; it cannot be empty", gateway.log())
        self.assertRegex(gateway.log(), r"\[error\] .* the client certificate cannot be used")
        self.assertNotIn("Traceback", gateway.log())

    def test_no_vaults(self) -> None:
        """With ``vaults = off`` nothing of the environment is used, by any vault, in all processes, until the next start allows it."""
        folder = self.folder()
        default_pairs(folder)
        certificate, key = (Path(folder, "ssl", f"default-ecdsa.{name}").read_text() for name in ("crt", "key"))
        env = {"SITE_CERT": certificate, "SITE_KEY": key}
        gateway = self.gateway({**TWO, "vaults": "off"}, env=env, tls=True)
        gateway.create("/vaults", prefix="mine", name="env", config={"prefix": "site_"})
        for vault, name, site in (("env", "a.example", "site-"), ("mine", "b.example", "")):
            gateway.create(
                "/certificates",
                cert=f"{{vault://{vault}/{site}cert}}",
                key=f"{{vault://{vault}/{site}key}}",
                snis=[name],
            )
        names = ("a.example", "b.example")
        for _ in range(10):  # of both workers
            self.assertEqual([self.shown(gateway, name) == certificate for name in names], [False, False])
        self.assertIn("vault 'env' is not installed (vaults)", gateway.log())
        self.assertEqual(gateway.admin("GET", "/").json["configuration"]["loaded_vaults"], {})
        self.assertEqual([row["prefix"] for row in gateway.admin("GET", "/vaults").json["data"]], ["mine"])
        gateway.stop()
        del gateway.conf["vaults"]
        gateway.start()
        for name in names:
            in_all_workers(lambda: self.shown(gateway, name) == certificate, "the certificate is shown")  # noqa: B023

    def test_prefix_in_the_configuration(self) -> None:
        """``vault_env_prefix`` holds for references to ``env``, in all processes, and is no vault that is listed."""
        folder = self.folder()
        default_pairs(folder)
        certificate, key = (Path(folder, "ssl", f"default-rsa.{kind}").read_text() for kind in ("crt", "key"))
        env = {"OWN_CERT": certificate, "OWN_KEY": key}
        gateway = self.gateway({**TWO, "vault_env_prefix": "own_"}, env=env, tls=True)
        gateway.create("/certificates", cert="{vault://env/cert}", key="{vault://env/key}", snis=["*"])
        in_all_workers(lambda: self.shown(gateway, "any.example") == certificate, "the certificate is shown")
        self.assertEqual(gateway.admin("GET", "/vaults").json["data"], [])

    def test_kinds(self) -> None:
        """Only the kind env is there; the others are refused in Kong's words."""
        gateway = self.gateway()
        for kind in ("aws", "gcp", "hcv", "azure", "conjur"):
            answer = gateway.admin("POST", "/vaults", json={"prefix": "v", "name": kind})
            self.assertEqual(
                (answer.status, answer.json["fields"]), (400, {"name": f"vault '{kind}' is not installed"})
            )
        answer = gateway.admin("POST", "/schemas/vaults/validate", json={"prefix": "vv", "name": "env"})
        self.assertEqual((answer.status, answer.json), (200, {"message": "schema validation successful"}))
        schema = gateway.admin("GET", "/schemas/vaults/env").json
        self.assertEqual(list(schema["fields"][0]["config"]["fields"][0]), ["prefix"])

    def test_keys(self) -> None:
        """Keys in sets, by name and by id, from both sides; a set takes its keys along."""
        gateway = self.gateway()
        key_set = gateway.create("/key-sets", name="set one")
        key = gateway.create("/keys", name="k", kid="1", jwk="{vault://env/key}", set={"name": "set one"})
        self.assertEqual(key["set"], {"id": key_set["id"]})
        again = gateway.admin("POST", "/key-sets/set%20one/keys", json={"kid": "1", "jwk": "{vault://env/key}"})
        self.assertEqual((again.status, again.json["code"]), (409, 5))
        other = gateway.create("/key-sets/set%20one/keys", kid="2", jwk="{vault://env/key}")
        listed = gateway.admin("GET", f"/key-sets/{key_set['id']}/keys").json["data"]
        self.assertEqual({row["id"] for row in listed}, {key["id"], other["id"]})
        self.assertEqual(gateway.admin("GET", "/keys/k/set").json["id"], key_set["id"])
        self.assertEqual(gateway.admin("GET", "/key-sets/set%20one/keys/k").json["id"], key["id"])
        self.assertEqual(gateway.admin("PATCH", "/keys/k/set", json={"tags": ["a"]}).json["tags"], ["a"])
        self.assertEqual(gateway.admin("DELETE", "/key-sets/set%20one").status, 204)
        self.assertEqual(gateway.admin("GET", "/keys").json["data"], [])
