"""Write docs/kong-differences.md: ``python -m tests.differences_document > docs/kong-differences.md``.

The page is made of what the tests know: `CHOICES`, the lists of recorded cases that may differ (``deviations.json``,
``admin_differs.json``, ``dbless_differs.json`` below tests/contract), and what Kong has by name and the gateway has not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kongtwist import KONG_VERSION
from kongtwist.config.kinds import KNOWN
from kongtwist.config.properties import properties
from kongtwist.node.plugin_loader import load_plugins

__all__ = ["document"]

CONTRACT = Path(__file__).parent / "contract"

MANY = 6
"""More recorded cases than these are counted, not listed."""

LONG = 160
"""Characters of a request or an answer that are shown."""

_HEAD = f"""\
# Differences from Kong

<!-- Made by `make docs` from tests/contract and the declarations. -->

The measure is Kong {KONG_VERSION}, the open one. Its answers to some hundred requests were recorded; the tests make the
same requests and compare. What differs must stand in a list with its reason, and what no longer differs must be taken off
it, so this page says all that is known.
"""

CHOICES: dict[str, tuple[str, ...]] = {
    "Traffic": (
        "HTTP/2 is spoken on plain listeners without the flag `http2` too, to clients that begin with its preface. With TLS it"
        " takes the flag, as in Kong.",
        "The bounds of HTTP/2 are our own (`http2_*`): 1000 concurrent requests on a connection, where nginx has 128.",
        "Services take `ws://` and `wss://` addresses; a plain request to one is answered 426. Services with `http://` and"
        " `https://` pass WebSockets on, as in Kong.",
        "Bodies are never written to disk. A request body is sent to another target only as far as"
        " `client_body_buffer_size` reaches.",
        "Health checks: probes speak HTTP/1.1 (`Connection: close`), Kong's 1.0; those of the types `tcp`, `grpc` and `grpcs` run, where"
        " Kong's do not. The last failed try of a request counts as what it was (a lost connection, a time-out), in Kong as the"
        " status that the client got ([health-checks.md](health-checks.md)).",
        "The hashed ring is Kong's, but for points that two targets want: the first one has it, and the other none in its place. So a"
        " target that comes or goes moves its own share of the keys and no other; to Kong's ring of ten targets some 6 keys in 100"
        " differ. Where the points are few (`slots`) targets have fewer each. Addresses of a name count as targets there. The names"
        " that SRV records point to are looked up with them, so that each of their addresses is one.",
        "A stream keeps the time-outs with which it began; later changes hold for new streams.",
        "SIGTERM and SIGINT stop gracefully. Kong's SIGTERM ends open requests at once.",
        "Browsers call gRPC services by the plugin `grpc-web` over WebSockets and in Connect's protocol, too. Its preflight allows the"
        " headers that it asks for; Kong allows three, and a page can send neither deadlines nor credentials then"
        " ([plugins.md](plugins.md#grpc-web)).",
        "A client that vanished without a word is noticed after ten minutes of silence, where the listener has no"
        " `so_keepalive` of its own.",
    ),
    "Admin API": (
        "A page in a browser may read and write only where its origin is in `admin_gui_url` or is that of the Admin API;"
        " others get 403. On a loopback address `Host` must be a loopback name."
        " Programs are answered as by Kong ([security.md](security.md)).",
        "It can demand a token (`admin_api_token`) or client certificates (`admin_ssl_client_ca`).",
        "A service without `host` gets its name as its host, where that can be one.",
        "The value of a list in a form may be a JSON array (`--data 'config.allow=[\"10.0.0.0/8\"]'`), which Kong takes for text."
        " One that has lost its quotes is refused, with what to write.",
        "A change serves in all workers of the node when its answer arrives.",
        "`GET /services/{id or name}/grpc` asks a service of gRPC for its services and methods by server reflection: each method with"
        " its types and whether client and server send streams. 400 where the service is none of gRPC, 502 where it cannot be asked"
        " or does not tell, 504 where it takes longer than ten seconds.",
        "`/status` has `connections` and `streams` beside Kong's members; `/metrics` is there without a plugin"
        " ([monitoring.md](monitoring.md)).",
        "Rows of a declarative file that have neither id nor name get the same ids at each load. Kong's change.",
    ),
    "Configuration": (
        "`database` is `sqlite` by default, a file of the node. Kong's default is `postgres`.",
        "`prefix` is `./kongtwist-data` by default, mode 0700.",
        "A property's name that is misspelt stops the start, and the right one is suggested. Kong says nothing. A name that"
        " resembles none is a warning.",
        "`nginx_*` directives beyond those in [kongtwist.conf.default](../conf/kongtwist.conf.default) have no effect; one"
        " that keeps somebody out, such as `nginx_proxy_allow`, stops the start.",
        "`pg_ssl = on` never goes on without TLS. Kong does, where the server has none.",
        "The token for request debugging stands in `<prefix>/.request_debug_token` only, mode 0600. Kong logs it, too.",
        "A format of access logs is one of `nginx_http_log_format` or our own `json`; what it asks for of credentials stands as `***`.",
        "Plugins are written in Python ([plugins.md](plugins.md)). Plugins in Lua are not run.",
    ),
    "Lua": (
        '`custom_fields_by_lua` takes expressions without `return` too: `"websocket"`, `kong.request.get_header("Upgrade")`. Kong\'s own'
        " tutorials write them so; Kong refuses the first and stores the second, whose field then never appears ([lua.md](lua.md)).",
        "A run has bounds of instructions, time and memory. In Kong a loop without end stops the worker for good.",
        "A chunk is compiled once for each configuration; in Kong custom fields are compiled at each request.",
        "Tables of `kong` and `ngx` are read-only, and `pairs` finds nothing in them. What functions give is a copy.",
        "`xpcall` calls its handler behind the error, when the stack is gone.",
        "With `untrusted_lua = on` there are no `debug` (but `traceback`), `load`, `os.exit` and `package`.",
        "`python:module.function` stands in place of Lua where `plugin_python_modules` allows it. Kong has nothing like it.",
    ),
    "Plugins for Kafka": (
        "They are compared with the forms of Kong 3.15, whose plugins they are.",
        "`producer_request_acks` is -1 by default: with Kong's 1 records are lost when a leader dies.",
        "`schema_registry.confluent` needs a `url`, and where records are written a `subject_name`: without them nothing would be checked."
        " Proxies on the way to a token endpoint are refused. Kong knows schemas of Avro and JSON; here are those of Protobuf, too.",
        "`confluent` and `confluent-consume` manage nothing in Confluent Cloud: `confluent_cloud_api_key` and"
        " `confluent_cloud_api_secret` have no effect.",
    ),
}
"""What was decided otherwise and shows in no recorded answer, by part."""


@cache
def _recorded(name: str) -> Any:
    return json.loads((CONTRACT / name).read_text(encoding="utf-8"))


def document() -> str:
    """The page."""
    parts = [_HEAD, "## Decided otherwise\n"]
    for part, sentences in CHOICES.items():
        parts.append(f"### {part}\n\n" + "".join(f"- {sentence}\n" for sentence in sentences))
    parts.append("What single plugins do otherwise stands with them, in [plugins.md](plugins.md#bundled).\n")
    parts.append("## Not there\n\n" + _missing())
    parts.append("## Recorded requests that are answered otherwise\n")
    parts += _groups(_recorded("deviations.json"), _deviation)
    parts.append("## Recorded requests to the Admin API that are answered otherwise\n")
    parts += _groups([*_recorded("admin_differs.json"), *_recorded("dbless_differs.json")], _exchange)
    return "\n".join(parts)


# -- what is missing -------------------------------------------------------------------------------------------------


def _missing() -> str:
    (enabled,) = (case for case in _recorded("observed_admin/00-info.json") if case["name"] == "plugins-enabled")
    known = enabled["response"]["body"]["enabled_plugins"]
    built = load_plugins(["bundled"])
    absent = sorted(set(known) - set(built))
    silent = [name for name, each in properties().items() if each.status == KNOWN and not each.why]
    lines = [
        f"- {len(absent)} of Kong's {len(known)} plugins, and their entities and paths of the Admin API: "
        + ", ".join(f"`{name}`" for name in absent)
        + ".",
        "- Values of properties that stop the start: "
        + ", ".join(f"`{each}`" for each in dict.fromkeys(_refused()))
        + ".",
        f"- {len(silent)} properties are read and change nothing yet; a warning names those that are set: "
        + ", ".join(f"`{name}`" for name in silent)
        + ".",
        "- Other properties have no meaning here; who sets one is told why in a warning:",
        *_idle_properties(),
    ]
    return "\n".join(lines) + "\n"


def _idle_properties() -> Iterator[str]:
    """A table of the properties of Kong's that have no meaning here, and why."""
    yield "\n| property | is in Kong | has no effect here, as |\n|---|---|---|"
    for name, each in properties().items():
        if each.why:
            yield f"| `{name}` | {each.text} | {each.why} |"


def _refused() -> Iterator[str]:
    for name, each in properties().items():
        for value in each.refused:
            yield f"{name} = {'on' if value == 'true' else value}" if value != "*" else name


# -- recorded cases --------------------------------------------------------------------------------------------------


def _groups(cases: Sequence[dict[str, str]], show: Any) -> Iterator[str]:
    """One paragraph for each reason, in the order of the lists, with its cases."""
    reasons: dict[str, list[dict[str, str]]] = {}
    for case in cases:
        reasons.setdefault(case["why"], []).append(case)
    for why, those in reasons.items():
        sentence = f"{why[:1].upper()}{why[1:].rstrip('.')}"
        if len(those) > MANY:
            yield f"**{_escaped(sentence)}:** {len(those)} recorded answers.\n"
        else:
            yield f"**{_escaped(sentence)}:**\n\n" + "".join(f"- {show(case)}\n" for case in those)


def _deviation(case: dict[str, str]) -> str:
    """A case of deviations.json: what was asked, Kong's answer, ours."""
    part, _, name = case["case"].partition("/")
    shown = {"observed_routing": _routed, "raw-wire": _raw, "validation": _validated}.get(part)
    found = shown(name) if shown is not None else None
    asked, theirs = found or (_code(case["case"]), "")
    return (
        f"{asked}: Kong {theirs}, here {_code(case['answer'])}" if theirs else f"{asked}: here {_code(case['answer'])}"
    )


def _routed(name: str) -> tuple[str, str] | None:
    for case in _recorded("observed_routing.json")["cases"]:
        if case["name"] == name:
            host = case["headers"].get("Host")
            seen = case["upstream"]
            asked = _code(f"{case['method']} {case['path']}") + (f" with {_code(f'Host: {host}')}" if host else "")
            return asked, f"asks the upstream for {_code(seen)}" if seen else "answers 404"
    return None


def _raw(name: str) -> tuple[str, str] | None:
    for case in _recorded("07-raw-wire.json"):
        if case["name"] == name:
            return _code(case["sent"]), "answers " + _code(case["received"].partition("\r\n")[0])
    return None


def _validated(name: str) -> tuple[str, str] | None:
    entity, _, row = name.partition(" ")
    for case in _recorded("vectors_validation.json")["cases"]:
        if case["entity"] == entity and json.dumps(case["input"], sort_keys=True) == row:
            return (
                f"{_code(row)} for `/{entity}`",
                f"answers {_code(case['message'])}" if "message" in case else "takes it",
            )
    return None


def _exchange(case: dict[str, str]) -> str:
    """A recorded exchange with the Admin API."""
    folder, _, name = case["case"].partition("/")
    for place in ("observed_admin", "observed_dbless"):
        path = CONTRACT / place / f"{folder}.json"
        for exchange in _recorded(f"{place}/{folder}.json") if path.exists() else ():
            if exchange["name"] == name:
                request = exchange["request"]
                body = f" with {_code(str(request['body']))}" if request["body"] else ""
                return _code(f"{request['method']} {request['path']}") + body
    return _code(case["case"])


def _code(text: str) -> str:
    """Text as code on one line, cut where it is long."""
    line = text.replace("\r\n", "⏎").replace("\n", "⏎").replace("`", "'")
    return f"`{line[:LONG]}{'…' if len(line) > LONG else ''}`"


def _escaped(text: str) -> str:
    return text.replace("*", "\\*").replace("_", "\\_")


if __name__ == "__main__":
    sys.stdout.write(document())
