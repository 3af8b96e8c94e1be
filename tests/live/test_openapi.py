"""The Admin API against its own OpenAPI document, by schemathesis: the same requests each time.

No answer is a 500, none has a status, type or shape that is not documented; what is documented as wrong is refused, and what
is refused is documented. For longer runs, other each time, replace --generation-deterministic by --seed and
raise --max-examples.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from kongtwist.entities import Entity, registry
from kongtwist.node.plugin_loader import load_plugins

from .pki import authority
from .support import ROOT, GatewayProcess, LiveTestCase

CHECKS = (
    "never_fails", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "takes_only_what_is_documented", "documents_what_it_refuses",
)  # fmt: skip

CONFIGURATION = "[phases.coverage]\nunexpected-methods = []\n"
"""Methods that a path has not are 405; the unit tests say so."""


def rows(gateway: GatewayProcess) -> dict[str, str]:
    """Create a row of each entity from its example; returns path parameter -> key."""
    made = authority("Example CA")
    found: dict[str, str] = {}
    entities: list[Entity] = [
        each for each in registry(load_plugins(["bundled"])).values() if each.stored and each.in_admin
    ]
    for number, entity in enumerate(entities):
        key = f"5f1e2d3c-0000-4000-8000-0000000001{number:02x}"
        body = dict(entity.example)
        if entity.name in ("certificates", "ca_certificates"):
            body["cert"] = made.pem
            if "key" in body:
                body["key"] = made.key_pem
        if entity.name == "snis":
            body |= {"name": "*.example.org", "certificate": {"id": found["certificates"]}}
        if entity.name == "keys":
            body["pem"] = {"private_key": made.key_pem}
        if entity.name == "oauth2_tokens":
            body["credential"] = {"id": found["oauth2_credentials"]}
        path = f"/{entity.admin_name}/{key}"
        if entity.name == "targets":
            path = f"/upstreams/{found['upstreams']}/targets"
            answer = gateway.admin("POST", path, json=body | {"id": key})
        else:
            answer = gateway.admin("PUT", path, json=body)
        if answer.status not in (200, 201):
            raise AssertionError(f"{path}: {answer}")
        found[entity.name] = key
    return found


class OpenAPITests(LiveTestCase):
    """One gateway, all operations."""

    def run_schemathesis(self, gateway: GatewayProcess, *options: str) -> str:
        """Run it; returns what it prints. Fails unless it found nothing wrong."""
        environment = {
            "SCHEMATHESIS_HOOKS": "tests.live.openapi_hooks",
            "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))),
            "KONGTWIST_ROWS": json.dumps(rows(gateway)),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        words = [
            sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{gateway.admin_port}/openapi.json",
            "--generation-deterministic", "--checks", ",".join(CHECKS), "--warnings", "off", "--no-color",
            "--max-failures", "10", "--suppress-health-check", "all", "--request-timeout", "60", *options,
        ]  # fmt: skip
        folder = self.folder()
        Path(folder, "schemathesis.toml").write_text(CONFIGURATION)
        process = self.start(words, "schemathesis", env=environment, folder=folder)
        code = process.wait(900)
        self.assertEqual(code, 0, process.output()[-20000:])
        self.assertEqual(gateway.admin("GET", "/status").status, 200)
        self.assertNotIn("Traceback", gateway.report())
        return process.output()

    def test_fuzzing(self) -> None:
        """Each example of the document, and made-up requests to every operation."""
        gateway = self.gateway()
        output = self.run_schemathesis(gateway, "--phases", "examples,fuzzing", "--max-examples", "5")
        self.assertRegex(output, r"Tested: \d\d\d")

    def test_coverage(self) -> None:
        """Each keyword of the schemas of each entity, kept and broken one at a time."""
        gateway = self.gateway()
        only = ("--include-path-regex", r"^/[a-z_-]+$", "--exclude-path", "/plugins")
        output = self.run_schemathesis(gateway, "--phases", "coverage", *only)
        self.assertRegex(output, r"Tested: \d\d")
