"""Entities whose Admin API departs from their declaration say so in one place each (kongtwist/admin/overrides)."""

from __future__ import annotations

import re
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin.entity_rows import EntityRows
from kongtwist.admin.overrides import OVERRIDES, rows_class
from kongtwist.admin.row_resources import CollectionResource
from kongtwist.entities import registry
from kongtwist.node.plugin_loader import load_plugins
from tests.places import ROOT

from .test_openapi import admin, resolve

ID = "5f1e2d3c-0000-4000-8000-000000000001"


class OverrideTests(SynchronousTestCase):
    """The table of overrides, and who looks into it."""

    def test_entities(self) -> None:
        """Each is of an entity that is stored; the others have none."""
        entities = registry(load_plugins(["bundled"]))
        self.assertEqual([name for name in OVERRIDES if not entities[name].stored], [])
        self.assertIs(rows_class("vaults"), EntityRows)

    def test_resources(self) -> None:
        """Lists, rows and parents of an entity read and write its rows by its own class, wherever they stand."""
        api = admin()
        for path, entity in (
            ("/services", "services"),
            (f"/services/{ID}", "services"),
            (f"/services/{ID}/routes", "routes"),
            (f"/routes/{ID}/service", "services"),
            (f"/services/{ID}/client_certificate", "certificates"),
            (f"/certificates/{ID}/snis", "snis"),
            (f"/upstreams/{ID}/targets/{ID}", "targets"),
            (f"/consumers/{ID}/plugins", "plugins"),
        ):
            self.assertIs(type(cast(Any, resolve(api, path)).rows), OVERRIDES[entity], path)
        self.assertIs(type(cast(CollectionResource, resolve(api, "/vaults")).rows), EntityRows)

    def test_nobody_asks_for_names(self) -> None:
        """No module of the Admin API treats an entity otherwise because of its name."""
        asking = re.compile(r"\.name (?:==|!=|in|not in) [\"(\[{]")
        found = [str(path) for path in (ROOT / "kongtwist" / "admin").rglob("*.py") if asking.search(path.read_text())]
        self.assertEqual(found, [])
