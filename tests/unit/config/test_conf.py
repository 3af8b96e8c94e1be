"""Reading kong.conf: syntax, sources, kinds, names, contradictions, what is not built."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.default_file import document
from kongtwist.config.former_properties import _FORMER, remedy
from kongtwist.config.kinds import KNOWN
from kongtwist.config.load import Conf, ConfError, differences, load, only_live, reloaded
from kongtwist.config.properties import properties
from kongtwist.config.shown import configuration
from kongtwist.config.shown import shown as shown_conf
from tests.places import ROOT


class ConfCase(SynchronousTestCase):
    """Helpers: a configuration from text and environment."""

    def read(self, text: str = "", environ: Mapping[str, str] | None = None, **overrides: str) -> Conf:
        """Load ``text`` as the named file."""
        path = self.mktemp()
        Path(path).write_text(text, encoding="utf-8")
        return load(path, environ or {}, overrides)

    def refusal(self, text: str = "", environ: Mapping[str, str] | None = None) -> str:
        """The sentence that refuses ``text``."""
        return str(self.assertRaises(ConfError, self.read, text, environ))


class SyntaxTests(ConfCase):
    """Lines of the file."""

    def test_values_and_comments(self) -> None:
        """Blanks around names and values go, comments go, an escaped number sign stays."""
        conf = self.read("# a comment\n\n  log_level=debug   # why\nsqlite_path = a\\#b.sqlite\n")
        self.assertEqual((conf.log_level, conf.sqlite_path), ("debug", "a#b.sqlite"))

    def test_value_with_equals_sign(self) -> None:
        """Only the first equals sign separates."""
        self.assertEqual(self.read("proxy_listen = 0.0.0.0:1 backlog=7").proxy_listen[0].backlog, 7)

    def test_last_line_wins(self) -> None:
        """A name that stands twice has its last value."""
        self.assertEqual(self.read("log_level = debug\nlog_level = warn\n").log_level, "warn")

    def test_empty_value_unsets(self) -> None:
        """An empty value is as if the line were not there."""
        self.assertEqual(self.read("log_level =\ndns_valid_ttl =\n").log_level, "notice")

    def test_empty_environment_unsets_the_file(self) -> None:
        """An empty variable takes the file's value away."""
        self.assertEqual(self.read("log_level = debug", {"KONG_LOG_LEVEL": ""}).log_level, "notice")

    def test_line_without_equals_sign(self) -> None:
        """A line that is no setting is named with its number."""
        self.assertRegex(
            self.refusal("log_level = debug\nnonsense\n"), r" line 2: expected 'name = value': 'nonsense'$"
        )
        self.assertRegex(self.refusal("admin_api_token: a-secret\n"), r"'name = value': 'admin_api_token'$")

    def test_not_text(self) -> None:
        """A file that is not UTF-8 is refused in a sentence."""
        path = self.mktemp()
        Path(path).write_bytes(b"prefix = \xff\xfe")
        self.assertEqual(str(self.assertRaises(ConfError, load, path, {})), f"cannot read {path}: it is not UTF-8 text")


class SourceTests(ConfCase):
    """Which file, and what is stronger."""

    def test_missing_named_file(self) -> None:
        """A named file that is not there stops, with Kong's words."""
        self.assertEqual(
            str(self.assertRaises(ConfError, load, "/nonexistent.conf", {})), "no file at: /nonexistent.conf"
        )

    def test_first_found_alone(self) -> None:
        """Of the places searched the first that is there is read, and no other."""
        first, second = self.mktemp(), self.mktemp()
        Path(second).write_text("log_level = debug\nsqlite_path = s\n")
        self.assertEqual(load(None, {}, searched=(first, second)).source, second)
        Path(first).write_text("sqlite_path = f\n")
        conf = load(None, {}, searched=(first, second))
        self.assertEqual((conf.source, conf.sqlite_path, conf.log_level), (first, "f", "notice"))

    def test_no_file_at_all(self) -> None:
        """Without any file the defaults hold."""
        conf = load(None, {}, searched=(self.mktemp(),))
        self.assertIsNone(conf.source)
        self.assertEqual([listen.address for listen in conf.admin_listen], ["127.0.0.1:8001"])

    def test_environment_over_file(self) -> None:
        """KONG_ variables are stronger than the file."""
        self.assertEqual(self.read("log_level = debug", {"KONG_LOG_LEVEL": "error"}).log_level, "error")

    def test_command_line_over_environment(self) -> None:
        """What the command line says is strongest; the prefix becomes absolute."""
        conf = self.read("prefix = a", {"KONG_PREFIX": "b"}, prefix="c")
        self.assertEqual(conf.prefix, os.path.abspath("c"))

    def test_paths_are_relative_to_prefix(self) -> None:
        """Relative paths start from prefix, absolute ones stay."""
        conf = self.read("prefix = /p")
        self.assertEqual((conf.path("logs/x"), conf.path("/var/x")), ("/p/logs/x", "/var/x"))


class NameTests(ConfCase):
    """Known, unknown and dynamic names."""

    def test_every_kong_property_is_known(self) -> None:
        """Each of Kong's names can stand in a file, with Kong's kind of value and its default."""
        contract = json.loads((ROOT / "tests/contract/kong_properties.json").read_text())["properties"]
        self.assertGreater(len(contract), 204)
        ours = properties()
        names = {name: each for each in ours.values() for name in (each.name, *each.aliases)}
        differing = set()
        for name, _, default in contract:
            self.assertIn(name, names)
            if names[name].name == name and names[name].default != default:
                differing.add(name)
        # why: decisions 12 and 13 of docs/decisions.md for the first four lines, the rest as their texts say
        self.assertEqual(
            differing - {name for name in differing if (ours[name].default or None) is None},
            {
                "prefix", "admin_listen", "admin_gui_listen", "status_listen", "database",
                "nginx_worker_processes",
            },
        )  # fmt: skip

    def test_unknown_name_in_file(self) -> None:
        """A name Kong does not know stops with line and nearest name."""
        self.assertRegex(
            self.refusal("\nproxy_listten = off\n"),
            r" line 2: there is no property 'proxy_listten'; did you mean 'proxy_listen'\?$",
        )

    def test_unknown_name_far_from_all(self) -> None:
        """A name of somebody's own (Kong reads over it, too) is told, with its place."""
        conf = self.read("\nrate_limiting_redis_host = redis\nzzzzzzqqqq = 1")
        self.assertEqual([warning.rpartition(" line ")[2] for warning in conf.warnings], [
            "2: there is no property 'rate_limiting_redis_host'; it has no effect",
            "3: there is no property 'zzzzzzqqqq'; it has no effect",
        ])  # fmt: skip

    def test_former_names(self) -> None:
        """Each name that a Kong from 0.9 on had is read, and told with what to do instead; values that mean nothing are not."""
        rows = json.loads((ROOT / "tests/contract/former_properties.json").read_text())["properties"]
        self.assertGreater(len(rows), 50)
        for name, _, _ in rows:
            value = "off" if name in ("server_tokens", "latency_tokens", "lua_code_cache") else "7"
            (warning,) = self.read(f"{name} = {value}").warnings
            self.assertRegex(warning, rf" line 1: {name} has no effect; [a-zA-Z].{{9,}}$")
            self.assertEqual(self.read(f"{name} =").warnings, [])
        self.assertEqual(self.read("ssl = off\nadmin_http2 = off\nserver_tokens = on").warnings, [])

    def test_names_of_nginx(self) -> None:
        """Bare directives, and those whose block is missing, lead to the property."""
        for name, wanted in (
            ("worker_processes", "write nginx_worker_processes"), ("worker_connections", "write nginx_events_worker_connections"),
            ("client_max_body_size", "write nginx_http_client_max_body_size"), ("proxy_buffers", "write nginx_proxy_proxy_buffers"),
            ("nginx_proxy_buffer_size", "write nginx_proxy_proxy_buffer_size"), ("error_log", "write proxy_error_log"),
            ("keepalive_timeout", "write nginx_http_keepalive_timeout"), ("proxy_read_timeout", "set read_timeout of each service"),
            ("KONG_ADMIN_LISTEN", "write admin_listen"), ("kong_custom_plugins", "name the plugins in plugins, after bundled"),
            ("cassandra_new_thing", "Cassandra is not supported; use database = postgres, sqlite or off"),
        ):  # fmt: skip
            (warning,) = self.read(f"{name} = 16").warnings
            self.assertTrue(warning.endswith(f" line 1: {name} has no effect; {wanted}"), warning)

    def test_what_a_remedy_names(self) -> None:
        """Is a property that there is."""
        names = [name for each in properties().values() for name in (each.name, *each.aliases)]
        texts = [remedy(name, dict(zip(names, names, strict=True))) for name in (*_FORMER, "worker_processes")]
        for text in texts:
            for name in re.findall(r"(?:write|^set) ([a-z_]+)(?= =|$| or)", text or ""):
                self.assertIn(name, {*names, "connect_timeout", "write_timeout", "read_timeout"}, text)

    def test_former_names_that_guard(self) -> None:
        """What would be open without them stops the start, with what to do instead; turned off they are nothing."""
        for text in (
            "enforce_rbac = on",
            "enforce_rbac = both",
            "keyring_enabled = on",
            "fips = on",
            "kong_enforce_rbac = on",
        ):
            self.assertRegex(self.refusal(text), rf" line 1: {text.split()[0]} cannot be '(on|both)': ")
        self.assertRegex(
            self.refusal("", {"KONG_ENFORCE_RBAC": "on"}), "^KONG_ENFORCE_RBAC: enforce_rbac cannot be 'on'"
        )
        self.assertEqual(self.read("enforce_rbac = off\nfips = off").warnings, [])
        for directive in ("access_by_lua_block", "access_by_lua_file", "modsecurity"):
            self.assertRegex(self.refusal(f"nginx_proxy_{directive} = x"), "could let in what it keeps out")

    def test_former_names_in_the_environment(self) -> None:
        """They are told as well; what is no name of Kong's is let be."""
        conf = self.read(
            environ={"KONG_CUSTOM_PLUGINS": "mine", "KONG_ADMIN_GUI_PORT": "tcp://1", "KONG_WORKER_PROCESSES": "2"}
        )
        self.assertEqual(
            conf.warnings,
            ["KONG_CUSTOM_PLUGINS: custom_plugins has no effect; name the plugins in plugins, after bundled"],
        )

    def test_a_real_file(self) -> None:
        """What people write together: none of it stops the start, and each line that does nothing is named."""
        conf = self.read(
            "worker_processes = auto\nworker_connections = 1024\nupstream_keepalive_timeout = 60s\naccess_log = /dev/stdout\n"
            "client_body_buffer_size = 8k\nlarge_client_header_buffers = 2 1k\nprometheus_metrics = on\nvitals = off\n"
            "nginx_http_upstream_keepalive = 320\nadmin_gui_session_conf = {}\nmy_plugin_dry_run = off\nnginx_http_gzip = on\n"
        )
        self.assertEqual(len(conf.warnings), 10)
        self.assertEqual(conf.client_body_buffer_size, 8192)
        self.assertIn("known to Kong and without effect here yet: nginx_http_gzip", conf.warnings)

    def test_values_that_are_refused_are_not_offered(self) -> None:
        """The list of choices holds what can be chosen."""
        self.assertRegex(self.refusal("database = zz"), r"\(sqlite, off, postgres\)")
        self.assertRegex(
            self.refusal("database = cassandra"), "Cassandra is not supported; use postgres, sqlite or off"
        )
        self.assertRegex(self.refusal("router_flavor = zz"), r"\(traditional_compatible, traditional, expressions\)")
        self.assertRegex(self.refusal("role = zz"), r"\(traditional\)")

    def test_unknown_name_in_environment(self) -> None:
        """Variables that Kubernetes and others set are let be."""
        conf = self.read(environ={"KONG_PROXY_PORT_8443_TCP": "tcp://10.0.0.1:8443", "KONG_ADMIN_SERVICE_HOST": "h"})
        self.assertEqual(conf.warnings, [])

    def test_all_problems_at_once(self) -> None:
        """One run names everything that is wrong."""
        error = self.assertRaises(ConfError, self.read, "log_level = loud\ndatabase = zz\nproxy_listten = off")
        self.assertEqual(len(error.problems), 3)
        self.assertIn(
            "log_level has an invalid value: 'loud' (debug, info, notice, warn, error, crit, alert, emerg)",
            error.problems,
        )

    def test_aliases(self) -> None:
        """Both names of a property set it; in one source the more specific nginx block is stronger."""
        self.assertEqual(self.read("nginx_main_worker_processes = 3").nginx_worker_processes, 3)
        self.assertEqual(self.read("nginx_proxy_real_ip_header = X-Forwarded-For").real_ip_header, "X-Forwarded-For")
        for text in (
            "nginx_proxy_client_max_body_size = 2k\nnginx_http_client_max_body_size = 1k",
            "nginx_http_client_max_body_size = 1k\nnginx_proxy_client_max_body_size = 2k",
        ):
            self.assertEqual(self.read(text).nginx_http_client_max_body_size, 2048)

    def test_environment_beats_a_stronger_alias_of_the_file(self) -> None:
        """The source counts before the block."""
        conf = self.read("nginx_proxy_client_max_body_size = 2k", {"KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE": "1k"})
        self.assertEqual(conf.nginx_http_client_max_body_size, 1024)

    def test_none_removes_a_directive(self) -> None:
        """NONE unsets an nginx directive."""
        self.assertEqual(self.read("nginx_http_keepalive_requests = NONE").nginx_http_keepalive_requests, 10000)


class KindTests(ConfCase):
    """Each kind of value, good and bad."""

    def test_wrong_kinds(self) -> None:
        """Sentences for values of the wrong kind."""
        for line, sentence in (
            ("pg_ssl = maybe", "pg_ssl is not a boolean: 'maybe'"),
            ("nginx_daemon = true", "nginx_daemon is not a ngx_boolean: 'true'"),
            ("pg_ro_port = x", "pg_ro_port is not a whole number: 'x'"),
            ("db_cache_ttl = x", "db_cache_ttl is not a number: 'x'"),
            ("db_update_propagation = -1", "db_update_propagation must be >= 0: '-1'"),
            ("pg_port = x", "pg_port is not a whole number: 'x'"),
            ("upstream_keepalive_pool_size = -1", "upstream_keepalive_pool_size must be >= 0: '-1'"),
            ("upstream_keepalive_pool_size = 1.5", "upstream_keepalive_pool_size is not a whole number: '1.5'"),
            ("lua_max_uri_args = 1001", "lua_max_uri_args must be 1 to 1000: '1001'"),
            ("nginx_worker_processes = 0", "nginx_worker_processes must be 'auto' or 1 to 1024: '0'"),
            ("nginx_worker_processes = many", "nginx_worker_processes is not a whole number: 'many'"),
            (
                "client_body_buffer_size = 8q",
                "client_body_buffer_size is not a size in bytes, such as 512, 8k or 10m: '8q'",
            ),
            (
                "nginx_http_send_timeout = 1x",
                "nginx_http_send_timeout is not a time, such as 60s, 500ms or '1h 30m': '1x'",
            ),
            (
                "nginx_proxy_proxy_buffers = 8k",
                "nginx_proxy_proxy_buffers is not a number of buffers and their size, such as '4 8k': '8k'",
            ),
            ("node_id = 7", "node_id is not a valid UUID: '7'"),
            (
                "port_maps = 80:8000, 443",
                "port_maps has an entry that is not <published port>:<own port>, such as 443:8443: '443'",
            ),
            ("port_maps = 80:8000, 81:8000", "port_maps names a port of ours twice: '8000'"),
            (
                "trusted_ips = 10.0.0.0/8, x",
                "trusted_ips has an entry that is no address, no CIDR block and not unix: 'x'",
            ),
            ("tracing_sampling_rate = 2", "tracing_sampling_rate must be 0 to 1: '2'"),
            (
                "http2_max_concurrent_streams = 0",
                "http2_max_concurrent_streams must be 1 to 1000000: '0'",
            ),
            ("http2_stream_window_size = 3g", "http2_stream_window_size must be 65535 to 1g: '3g'"),
            ("http2_max_block_size = 0", "http2_max_block_size must be 16k to 16m: '0'"),
            ("http2_reset_rate = 0.5", "http2_reset_rate is not a whole number: '0.5'"),
            ("upstream_http2 = maybe", "upstream_http2 is not a boolean: 'maybe'"),
            (
                "ssl_protocols = TLSv9",
                "ssl_protocols has an invalid value: 'TLSv9' (SSLv3, TLSv1, TLSv1.1, TLSv1.2, TLSv1.3)",
            ),
            ("admin_gui_path = x/", "admin_gui_path must start with a slash and not end with one: 'x/'"),
        ):
            self.assertEqual(self.refusal(line), sentence)

    def test_headers(self) -> None:
        """Names in any case; off stands alone."""
        self.assertEqual(self.read("headers = via, SERVER_TOKENS").headers, ["Via", "server_tokens"])
        self.assertEqual(self.read("headers = off").headers, [])
        self.assertRegex(self.refusal("headers = off, Via"), r"^headers has an invalid value: 'off' \(off alone")

    def test_sizes_and_times(self) -> None:
        """Units of nginx."""
        conf = self.read(
            "client_body_buffer_size = 2M\nnginx_http_send_timeout = 1h 30m 5\nnginx_http_keepalive_timeout=250ms"
        )
        self.assertEqual(conf.client_body_buffer_size, 2 * 1024 * 1024)
        self.assertEqual(conf.nginx_http_send_timeout, 5405.0)
        self.assertEqual(conf.nginx_http_keepalive_timeout, 0.25)

    def test_pairs_and_counts(self) -> None:
        """Buffers are a number and a size; auto worker processes are the CPUs."""
        conf = self.read(
            "nginx_proxy_proxy_buffers = 4 16k\nnginx_worker_processes = auto\nnginx_events_worker_connections = auto"
        )
        self.assertEqual(conf.nginx_proxy_proxy_buffers, (4, 16384))
        self.assertEqual(conf.nginx_worker_processes, len(os.sched_getaffinity(0)))
        self.assertEqual(conf.nginx_http_max_connections, 0)

    def test_lists_and_nothing(self) -> None:
        """Lists lose blanks and empty parts; without value a list is empty and others are None."""
        conf = self.read("plugins = bundled, ,mine")
        self.assertEqual(
            (conf.plugins, conf.ssl_cert, conf.node_id, conf.dns_resolver), (["bundled", "mine"], [], None, [])
        )


class ContradictionTests(ConfCase):
    """Values that do not go together."""

    def test_contradictions(self) -> None:
        """A sentence for each."""
        for text, sentence in (
            ("ssl_cert = a", "ssl_cert_key must be set, as ssl_cert is"),
            ("admin_ssl_cert_key = a", "admin_ssl_cert must be set, as admin_ssl_cert_key is"),
            ("ssl_cert = a,b\nssl_cert_key = c", "ssl_cert has 2 entries and ssl_cert_key has 1; they must be as many"),
            ("declarative_config = x.yml", "declarative_config needs database = off"),
            (
                "database = off\ndeclarative_config = x\ndeclarative_config_string = y",
                "declarative_config and declarative_config_string cannot both be set",
            ),
            ("ssl_cipher_suite = custom", "ssl_ciphers must be set for ssl_cipher_suite = custom"),
            ("client_ssl = on\nclient_ssl_cert = x", "client_ssl_cert_key must be set, as client_ssl_cert is"),
            (
                "proxy_listen = 127.0.0.1:9000\nadmin_listen = 127.0.0.1:9000",
                "admin_listen and proxy_listen name the same address: '127.0.0.1:9000'",
            ),
        ):
            self.assertEqual(self.refusal(text), sentence)

    def test_free_ports_do_not_collide(self) -> None:
        """Port 0 is a port of the system's choice, every time another."""
        conf = self.read("proxy_listen = 127.0.0.1:0, 127.0.0.1:0 ssl\nadmin_listen = 127.0.0.1:0")
        self.assertEqual([name for name, _ in conf.listeners()], ["proxy_listen", "proxy_listen", "admin_listen"])


class NotBuiltTests(ConfCase):
    """Names that Kong knows and that have no effect here."""

    def test_one_warning_lists_all(self) -> None:
        """Properties, nginx directives and vault settings that have no effect yet are listed in one sentence."""
        conf = self.read(
            "nginx_http_gzip = on\nwasm_filters_path = /w\npluginserver_x_socket = /s", {"KONG_WASM_FILTERS": "off"}
        )
        self.assertEqual(
            conf.warnings,
            [
                "known to Kong and without effect here yet: nginx_http_gzip, pluginserver_x_socket, wasm_filters,"
                " wasm_filters_path"
            ],
        )

    def test_without_a_meaning(self) -> None:
        """Each says why."""
        conf = self.read("lmdb_map_size = 1g\nnginx_events_multi_accept = off", {"KONG_KIC": "on"})
        self.assertEqual(
            conf.warnings,
            [
                "lmdb_map_size has no effect here: there is no such copy",
                "kic has no effect here: an ingress controller is a client of the Admin API as any other",
                "nginx_events_multi_accept has no effect here: that is always so",
            ],
        )

    def test_defaults_written_out_give_no_warning(self) -> None:
        """A kong.conf that spells out Kong's defaults is quiet."""
        lines = [
            f"{each.name} = {each.default}" for each in properties().values() if each.status == KNOWN and each.default
        ]
        self.assertGreater(len(lines), 40)
        self.assertEqual(self.read("\n".join(lines)).warnings, [])

    def test_dangerous_ones_stop(self) -> None:
        """Going on would serve less or protect less than was asked for."""
        for line in (
            "database = cassandra", "role = control_plane", "role = data_plane",
            "wasm = true", "pluginserver_names = x",
            "nginx_proxy_deny = all", "nginx_http_include = /etc/x.conf",
            "nginx_admin_auth_basic = x",
        ):  # fmt: skip
            self.assertRegex(self.refusal(line), r"not built|not supported|use traditional", line)

    def test_windows(self) -> None:
        """A stream's window that its connection does not allow is told; the defaults go together."""
        self.assertEqual(self.read("http2_stream_window_size = 4m").warnings, [])
        (told,) = self.read("http2_stream_window_size = 8m").warnings
        self.assertIn("larger than http2_connection_window_size", told)

    def test_http2(self) -> None:
        """http2 on a listener is taken without a word."""
        conf = self.read("proxy_listen = 127.0.0.1:1 http2 ssl")
        self.assertEqual((conf.warnings, conf.proxy_listen[0].http2), ([], True))


class ReferenceTests(ConfCase):
    """``{vault://env/...}``."""

    def test_environment_reference(self) -> None:
        """A value may come from any environment variable, from a member of a JSON object, with a prefix."""
        environ = {"SQL_PATH": "x.db", "BOTH": '{"level": "warn"}', "P_LEVEL": "debug"}
        self.assertEqual(self.read("sqlite_path = {vault://env/sql-path}", environ).sqlite_path, "x.db")
        self.assertEqual(self.read("log_level = {vault://env/both/level}", environ).log_level, "warn")
        conf = self.read("log_level = {vault://env/level}\nvault_env_prefix = p_", environ)
        self.assertEqual((conf.log_level, conf.warnings, conf.vault_env_prefix), ("debug", [], "p_"))

    def test_references_are_shown_as_written(self) -> None:
        """Never what they stand for; of secrets not even the reference."""
        environ = {"SQL_PATH": "x.db", "LEVEL": "warn", "PASSWORD": "geheim"}
        text = "sqlite_path = {vault://env/sql-path}\nlog_level = {vault://env/level}\npg_password = {vault://env/password}"
        conf = self.read(text, environ)
        for each in (conf, reloaded(conf, self.read(text, environ))):
            shown = shown_conf(each)
            self.assertEqual((each.log_level, shown["log_level"]), ("warn", "{vault://env/level}"))
            self.assertEqual((each.sqlite_path, shown["sqlite_path"]), ("x.db", "{vault://env/sql-path}"))
            self.assertEqual((each.pg_password, shown["pg_password"]), ("geheim", "******"))

    def test_other_names_are_shown(self) -> None:
        """Kong shows a property under each of its names."""
        shown = shown_conf(self.read("nginx_worker_processes = 3"))
        self.assertEqual((shown["nginx_worker_processes"], shown["nginx_main_worker_processes"]), ("3", "3"))

    def test_references_that_fail(self) -> None:
        """They are named with their property."""
        for reference, why in (
            ("{vault://env/none}", "there is no environment variable NONE"),
            ("{vault://aws/x}", "only {vault://env/NAME} is built yet"),
            ("{vault://[/x}", "is of another form than {vault://env/NAME}"),
            ("{vault://env/kong_text/k}", "environment variable KONG_TEXT is no JSON object with a text 'k'"),
        ):
            self.assertEqual(
                self.refusal(f"sqlite_path = {reference}", {"KONG_TEXT": "[1]"}),
                f"failed to dereference '{reference}': {why} for config option 'sqlite_path'",
            )


class ShownTests(ConfCase):
    """What the Admin API shows, and what a reload does."""

    def test_secrets_are_masked(self) -> None:
        """Passwords, keys and the declarative text are not shown; all values are plain JSON."""
        shown = shown_conf(self.read("pg_password = geheim\ndatabase = off\ndeclarative_config_string = {}"))
        self.assertEqual((shown["pg_password"], shown["declarative_config_string"]), ("******", "******"))
        self.assertNotIn("geheim", json.dumps(shown))
        self.assertEqual(shown["admin_listen"], ["127.0.0.1:8001 reuseport backlog=16384"])

    def test_key_by_key(self) -> None:
        """Every key that a recorded Kong 3.9.3 shows, with a value of the same type; what is left out is not there."""
        (recorded,) = [
            case["response"]["body"]["configuration"]
            for case in json.loads((ROOT / "tests/contract/observed_admin/00-info.json").read_text())
            if case["name"] == "root"
        ]
        conf = self.read(
            "proxy_listen = 127.0.0.1:18020 http2 reuseport backlog=16384, 127.0.0.1:18453 http2 ssl reuseport backlog=16384\n"
            "admin_listen = 127.0.0.1:18021\nssl_cert = a, b\nssl_cert_key = c, d\n"
        )
        ours = json.loads(json.dumps(configuration(conf, recorded["loaded_plugins"])))
        absent = recorded.keys() - ours.keys()
        unset = {
            "host_ports", "lua_package_cpath", "nginx_http_ssl_dhparam", "pg_ro_ssl", "pg_ro_ssl_verify", "ssl_ciphers",
            "ssl_dhparam",
        }  # fmt: skip
        inner = re.compile(
            r"\w+_(default|default_ecdsa|sock|combined|tag)|(nginx|kong)_\w*(conf|env|secrets)|socket_path|nginx_(stream|http)_\w+"
        )
        self.assertEqual({name for name in absent - unset if not inner.fullmatch(name)}, set())
        self.assertLess(len(absent), 60)
        types = {name: (type(recorded[name]), type(ours[name])) for name in recorded.keys() & ours.keys()}
        self.assertEqual(
            {name for name, (theirs, own) in types.items() if theirs is not own and {theirs, own} != {int, float}},
            {"cluster_listeners", "dns_resolver"},  # nothing listens, nothing was set
        )
        for name in (
            "proxy_listeners", "admin_listeners", "status_listeners", "admin_gui_listeners", "stream_listeners", "loaded_plugins",
            "proxy_ssl_enabled", "admin_ssl_enabled", "status_ssl_enabled", "admin_gui_ssl_enabled", "stream_proxy_ssl_enabled",
            "enabled_headers", "enabled_headers_upstream", "loaded_vaults", "pluginservers", "proxy_listen", "admin_listen",
            "status_listen", "stream_listen", "headers", "trusted_ips", "nginx_daemon", "client_body_buffer_size", "ssl_cert_key",
        ):  # fmt: skip
            self.assertEqual(ours[name], recorded[name], name)

    def test_listeners(self) -> None:
        """Each flag by its name in Kong, the address with all flags but http2, and the port that really listens."""
        conf = self.read(
            "proxy_listen = [::1]:0 ssl http2 deferred ipv6only=off so_keepalive=1:2:3, unix:/tmp/x.sock\nadmin_listen = off"
        )
        (first, second) = conf.proxy_listen
        found = configuration(conf, (), [("proxy_listen", first, 4711), ("proxy_listen", second, 0)])
        one, two = found["proxy_listeners"]
        host = "[0000:0000:0000:0000:0000:0000:0000:0001]"
        self.assertEqual((one["ip"], one["port"]), (host, 4711))
        self.assertEqual(one["listener"], f"{host}:4711 ssl deferred ipv6only=off so_keepalive=1:2:3")
        self.assertEqual(
            [name for name, value in one.items() if value is True],
            ["ssl", "http2", "deferred", "ipv6only=off", "so_keepalive=1:2:3"],
        )
        self.assertNotIn("so_keepalive=%w*:%w*:%d*", one)
        self.assertIs(one["backlog=%d+"], False)
        self.assertEqual(two["listener"], "unix:/tmp/x.sock")
        self.assertEqual(
            (found["admin_listeners"], found["admin_listen"], found["proxy_ssl_enabled"]), ({}, ["off"], True)
        )

    def test_differences(self) -> None:
        """A reload takes up all but what is said to need a restart, which keeps its value."""
        old = self.read("nginx_worker_processes = 2")
        new = self.read("log_level = debug\nproxy_listen = 127.0.0.1:1\nsqlite_path = x\nnginx_worker_processes = 3")
        self.assertEqual(
            differences(old, new), (["nginx_worker_processes", "log_level", "proxy_listen"], ["sqlite_path"])
        )
        conf = reloaded(old, new)
        self.assertEqual((conf.log_level, conf.sqlite_path), ("debug", "kongtwist.sqlite"))
        self.assertEqual((conf.proxy_listen[0].port, conf.nginx_worker_processes), (1, 3))
        alone = self.read("nginx_worker_processes = 1")
        self.assertEqual(differences(old, alone), ([], ["nginx_worker_processes"]))
        self.assertEqual(reloaded(old, alone).nginx_worker_processes, 2)

    def test_only_live(self) -> None:
        """What runs follows levels and certificates; for anything else all that serves is made anew."""
        old = self.read()
        self.assertTrue(only_live(old, self.read("log_level = debug\nssl_cert = a\nssl_cert_key = b")))
        self.assertFalse(only_live(old, self.read("nginx_http_max_headers = 5")))

    def test_reasons(self) -> None:
        """The default file says what a reload does not take up, and why."""
        for name, each in properties().items():
            if each.restart is not None:
                self.assertFalse(each.live, name)
                self.assertIn(
                    f"Takes effect at a restart, because {each.restart[:40]}",
                    " ".join(document().replace("\n#", "").split()),
                )


class DocumentTests(ConfCase):
    """conf/kongtwist.conf.default."""

    def test_not_stale(self) -> None:
        """The file is what the declarations make; renew it with python -m kongtwist.config.default_file."""
        self.assertEqual((ROOT / "conf/kongtwist.conf.default").read_text(), document())

    def test_it_is_a_configuration(self) -> None:
        """With its lines uncommented it loads, and says what the defaults say."""
        lines = [
            line[1:] for line in document().splitlines() if line.startswith("#") and not line.startswith(("# ", "#-"))
        ]
        conf = self.read("\n".join(lines))
        self.assertEqual(differences(conf, Conf()), ([], []))
        self.assertEqual(conf.warnings, [])
