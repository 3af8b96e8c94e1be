"""The documents: what can be checked without running them. tests/live/test_documents.py does what they say."""

from __future__ import annotations

import ast
import configparser
import contextlib
import io
import json
import re
import unittest
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin.admin_resource import AdminResource
from kongtwist.admin.json_resource import Missing
from kongtwist.commands.main import main
from kongtwist.config.load import Conf, load
from kongtwist.config.properties import properties
from kongtwist.entities import registry
from kongtwist.node.plugin_loader import ENTRY_POINT_GROUP, load_plugins
from kongtwist.tap import Options
from tests import test_architecture
from tests.documents import LANGUAGES, PAGES, ROOT, Block, blocks, commands, links, page_text, prose, spans

MADE = ("docs/kong-differences.md",)
"""Pages made of other programs' words."""

OTHERS = {
    "pool_mode": "PgBouncer",
    "proxy_http_version": "nginx",
    "access_log": "nginx",
    "opening_hours": "the plugin that docs/plugins.md writes",
    "test_opening_hours": "its test",
}
"""Names of other programs -> whose."""

ROUTES = {
    "/demo/": "of --demo", "/demo/...": "of --demo", "/api": "where examples/embed.py mounts the gateway",
    "/admin": "where it mounts the Admin API", "/api/events": "a path below it", "/events": "a Route of the README",
    "/status/ready": "of the Status API",
}  # fmt: skip
"""Paths that are not the Admin API's."""

SYSTEM = ("etc", "var", "opt", "proc", "dev", "tmp", "run", "usr")


@cache
def source_words() -> frozenset[str]:
    """Every name in the programs, and in the files that configure them."""
    files = [
        path for folder in ("kongtwist", "benchmarks", "examples", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    files += [ROOT / "setup.cfg", ROOT / "Makefile", ROOT / "conf" / "kongtwist.conf.default"]
    files.remove(Path(__file__).resolve())
    return frozenset(word for path in files for word in re.findall(r"\w+", path.read_text(encoding="utf-8")))


@cache
def property_names() -> frozenset[str]:
    """Names that may stand in kong.conf."""
    return frozenset(name for own, each in properties().items() for name in (own, *each.aliases)) | {"vault_env_prefix"}


@cache
def help_of(*words: str) -> str:
    """What the command kongtwist says of itself."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return shown.getvalue()


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def allowed_rooms(rule: str) -> set[str]:
    """The rooms that a line of the table of docs/architecture.md names."""
    if rule.startswith("everything but "):
        return set(test_architecture.MAY_IMPORT) - set(rule.removeprefix("everything but ").split(", "))
    named = set(rule.split(", ")) - {"nothing"}
    if "core/*" in named:
        named |= {room for room in test_architecture.MAY_IMPORT if room.partition("/")[0] == "core"}
    return named - {"core/*"}


def all_blocks(language: str) -> Iterator[Block]:
    """Blocks of all documents."""
    return (block for page in PAGES for block in blocks(page) if block.language == language)


class FormTests(SynchronousTestCase):
    """How documents are written."""

    def test_languages(self) -> None:
        """Every block says what it is; none is shown by indentation alone."""
        for page in PAGES:
            for block in blocks(page):
                self.assertIn(block.language, LANGUAGES, block.where)
            self.assertNotIn("```", prose(page), page)
            for found in re.finditer(r"\n\n( {4}\S.*)", prose(page)):
                before = prose(page)[: found.start()].rpartition("\n\n")[2]
                self.assertRegex(before, r"^\s*([-*]|\d+\.) ", f"{page}: fence this: {found[1]}")

    def test_commands_can_be_copied(self) -> None:
        """No prompt stands before them, and each is whole."""
        for block in all_blocks("sh"):
            for command in commands(block):
                self.assertNotRegex(command, r"^[$#>] ", block.where)
            self.assertTrue(list(commands(block)), block.where)

    def test_links(self) -> None:
        """They lead to files that there are, and to headings in them; every document can be reached from the README."""
        reached = {"README.md"}
        for page in PAGES:
            for link in links(page):
                if re.match(r"https?:", link):
                    continue
                path, _, anchor = link.partition("#")
                target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
                self.assertTrue(target.exists(), f"{page}: {link}")
                if page == "README.md":
                    reached.add(str(target.relative_to(ROOT)))
                if anchor:
                    headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                    self.assertIn(anchor, list(map(slug, headings)), f"{page}: {link}")
        self.assertEqual(set(PAGES) - reached, set())

    def test_settings(self) -> None:
        """Blocks of kong.conf are read by what reads the file; others are a plugin's entry point or a unit's settings."""
        environ = {"ADMIN_TOKEN": "a-secret-of-sixteen-or-more"}
        for block in all_blocks("ini"):
            if "[" in block.text.partition("\n")[0]:
                parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
                cast(Any, parser).optionxform = str
                parser.read_string(block.text)
                self.assertIn(parser.sections(), (["options.entry_points"], ["Service"]), block.where)
                if parser.has_section("options.entry_points"):
                    self.assertEqual(parser.options("options.entry_points"), [ENTRY_POINT_GROUP], block.where)
                continue
            path = self.mktemp()
            Path(path).write_text(block.text, encoding="utf-8")
            conf = load(path, environ)
            self.assertIsInstance(conf, Conf)
            self.assertEqual(conf.warnings, [], block.where)

    def test_imports(self) -> None:
        """Programs and plugins that are shown import the stable names, from kongtwist.api."""
        programs = [(block.where, block.text) for block in all_blocks("python")]
        programs += [(path.name, path.read_text(encoding="utf-8")) for path in (ROOT / "examples").rglob("*.py")]
        found = {
            (where, name)
            for where, text in programs
            for name in test_architecture.imports(where, ast.parse(text))
            if name.partition(".")[0] == "kongtwist"
        }
        self.assertGreater(len(found), 5)
        self.assertEqual([each for each in found if not each[1].startswith("kongtwist.api.")], [])

    def test_json(self) -> None:
        """Blocks of JSON are some."""
        for block in all_blocks("json"):
            json.loads(block.text)


class NameTests(SynchronousTestCase):
    """What the documents name is there."""

    def each(self, pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
        """Spans that match, with their page."""
        for page in PAGES:
            if page not in MADE:
                for span in spans(page):
                    if found := re.fullmatch(pattern, span):
                        yield page, found

    def test_properties(self) -> None:
        """Settings, and variables of the environment."""
        settings = 0
        for page, found in self.each(r"([a-z]+(?:_[a-z0-9]+)*) = .*|KONG_([A-Z0-9_]+)(?:=.*)?"):
            name = found[1] or found[2].lower()
            settings += 1
            if name not in OTHERS:
                self.assertIn(name, property_names() | {"config"}, f"{page}: {found[0]}")
        self.assertGreater(settings, 20)

    def test_names(self) -> None:
        """Names with an underscore: properties, fields, methods, members; those of other programs are listed."""
        used = set()
        for page in PAGES:
            if page in MADE:
                continue
            for span in spans(page):
                for name in re.findall(r"(?<![\w.*/])[a-z]+(?:_[a-z0-9]+)+(?![\w*])", re.sub(r"\.\.\._\w+", "", span)):
                    used.add(name)
                    if name not in OTHERS and not name.startswith("proxy_set_header"):
                        self.assertIn(name, source_words(), f"{page}: {span}")
        self.assertEqual(set(OTHERS) - used - {"proxy_http_version"}, set(), "names that no document has")

    def test_commands(self) -> None:
        """Commands of ours, their actions and options, targets of make, modules that are run."""
        for page, found in self.each(r"kongtwist (?!is\b)([a-z]+)\b ?([a-z_]+)?.*"):
            self.assertRegex(help_of(), rf"(?m)^    {found[1]}\b", f"{page}: {found[0]}")
            if found[1] in ("config", "migrations"):
                self.assertIn(f"{found[2]}:", help_of(found[1]), f"{page}: {found[0]}")
        options = {name for name, *_ in (*Options.optParameters, *Options.optFlags)}
        for page, found in self.each(r"twistd (?:-n )?kongtwist(.*)"):
            self.assertLessEqual(set(re.findall(r"--([a-z]+)", found[1])) - {"help"}, options, f"{page}: {found[0]}")
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        for page, found in self.each(r"make ([a-z]+)\b.*"):
            self.assertIn(found[1], targets, page)
        for page, found in self.each(r"python -m ([\w.]+).*"):
            self.assertIsNotNone(find_spec(found[1]), f"{page}: {found[0]}")

    def test_tests(self) -> None:
        """Tests that are named can be run."""
        loader, named = unittest.TestLoader(), 0
        for page, found in self.each(r".*?(tests\.[\w.]+)"):
            named += 1
            self.assertTrue(loader.loadTestsFromName(found[1]).countTestCases() or find_spec(found[1]), page)
            self.assertEqual(loader.errors, [], page)
        self.assertGreater(named, 2)

    def test_all_commands(self) -> None:
        """The README's table has every command there is."""
        there = re.findall(r"^    ([a-z]+)\b", help_of(), re.MULTILINE)
        self.assertGreater(len(there), 8)
        table = page_text("README.md").partition("## Run it")[2].partition("\n\nFor [systemd")[0]
        for command in there:
            self.assertRegex(table, rf"`(kongtwist )?{command}\b", "README.md")

    def test_files(self) -> None:
        """Files and folders, named from the root, from the page's folder, or from the package."""
        written = {block.file for page in PAGES for block in blocks(page)}
        for page, found in self.each(r"[\w./-]+\.(?:py|md|json|c|cfg|conf|yml|service|default)|[\w./-]+/"):
            name = found[0]
            if name in written or name.startswith(("./", "/", ".venv", "Mozilla", "kongtwist-data")):
                continue
            places = (ROOT, (ROOT / page).parent, ROOT / "kongtwist", ROOT / "examples", ROOT / "benchmarks")
            there = any((place / name).exists() for place in places) or any((ROOT / "kongtwist").rglob(name))
            self.assertTrue(there or name == "kongtwist.conf", f"{page}: {name}")

    def test_endpoints(self) -> None:
        """Paths of the Admin API; others are listed, with what they are."""
        unused = cast(Any, None)
        plugins = load_plugins(["bundled"])
        entities = registry(plugins)
        api = AdminResource(
            unused, entities, cast(Any, SimpleNamespace(plugins=plugins)), gate=unused, published=unused, now=unused
        )
        asked = 0
        for page, found in self.each(r"(?:(?:GET|POST|PUT|PATCH|DELETE) )?(/[\w{}<>./?=-]*)"):
            path = re.sub(r"\{\}|<\w+>|\b[A-Z]+\b|\.\.\.", "x", found[1]).partition("?")[0]
            if found[1].partition("?")[0] in ROUTES or path.split("/")[1] in SYSTEM:
                continue
            resource: Any = api
            for segment in path.strip("/").split("/"):
                resource = resource.getChild(segment.encode(), unused)
            self.assertFalse(isinstance(resource, Missing), f"{page}: {found[0]}")
            asked += 1
        self.assertGreater(asked, 20)

    def test_layout(self) -> None:
        """The table of docs/architecture.md has every room, and what it may import."""
        table = page_text("docs/architecture.md").partition("may import of ours |")[2].partition("\n\n")[0]
        rows = re.findall(r"^\| `([^`]+)` \| .+? \| (.+?) \|$", table, re.MULTILINE)
        rooms = {name.removesuffix("/").removesuffix(".py"): allowed_rooms(rule) for name, rule in rows}
        self.assertEqual(rooms, {name: set(allowed) for name, allowed in test_architecture.MAY_IMPORT.items()})

    def test_ways(self) -> None:
        """Each function on a way through the program is where docs/architecture.md says."""
        text = page_text("docs/architecture.md")
        steps = re.findall(r"`([\w/]+\.py):([\w.]+)`", text)
        self.assertGreater(len(steps), 30)
        for path, name in steps:
            tree = test_architecture.sources().get(f"kongtwist/{path}")
            self.assertIsNotNone(tree, path)
            assert tree is not None
            self.assertIn(name, {function for function, _ in test_architecture.functions(tree)}, path)
