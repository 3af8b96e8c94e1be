"""Finding plugins: bundled ones by listing a package, others by entry point or dotted name."""

from __future__ import annotations

import os
import shutil
import sys
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from kongtwist import VERSION
from kongtwist.entities import EntityError, registry
from kongtwist.entities.plugin_rows import KONGS_PLUGINS
from kongtwist.node import plugin_loader
from kongtwist.node.plugin_loader import PluginLoadError, load_plugins

ORDER = ["correlation-id", "key-auth", "ip-restriction", "rate-limiting", "request-termination"]
"""Some bundled plugins in the order they run. The id must be there before anything answers; who it is comes before where
it may go from and how often; terminating comes last, so that everything else has had its say."""

AI_PLUGINS = (
    "ai-prompt-decorator", "ai-prompt-guard", "ai-prompt-template", "ai-proxy", "ai-request-transformer",
    "ai-response-transformer",
)  # fmt: skip

GOOD = """
    from kongtwist.api import Plugin

    class Mine(Plugin):
        name = "mine"
        priority = {priority}

    class Other(Plugin):
        name = "{other}"
        priority = 3
"""


class LoaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A directory to import packages from."""
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        sys.path.insert(0, self.directory)
        self.addCleanup(sys.path.remove, self.directory)
        before = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - before])

    def write(self, path: str, text: str = "") -> None:
        full = os.path.join(self.directory, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(dedent(text))

    def sentence(self, *names: str, package: str = "kongtwist.plugins") -> str:
        """What the operator reads when these cannot be loaded."""
        text = str(self.assertRaises(PluginLoadError, load_plugins, names, package))
        self.assertNotIn("\n", text)
        return text

    def test_bundled(self) -> None:
        """All modules of the package, in the order of their unique priorities."""
        found = load_plugins(["bundled"])
        self.assertEqual([name for name in found if name in ORDER], ORDER)
        priorities = [plugin.priority for plugin in found.values()]
        self.assertEqual(priorities, sorted(set(priorities), reverse=True))

    def test_some(self) -> None:
        """Bundled ones can be named one by one; ``off`` is none; naming one twice is once."""
        self.assertEqual(list(load_plugins(["rate-limiting", "key-auth", "key-auth"])), ["key-auth", "rate-limiting"])
        self.assertEqual(load_plugins(["off"]), {})

    def test_new_instances(self) -> None:
        """Two gateways in one process share no plugin state."""
        self.assertIsNot(load_plugins(["key-auth"])["key-auth"], load_plugins(["key-auth"])["key-auth"])

    def test_dotted_name(self) -> None:
        """``module:Class`` from anywhere on the path, beside the bundled ones."""
        self.write("somewhere/mine.py", GOOD.format(priority=5, other="x"))
        found = load_plugins(["bundled", "somewhere.mine:Mine"])
        self.assertEqual(set(found) - set(load_plugins(["bundled"])), {"mine"})
        self.assertEqual(type(found["mine"]).__module__, "somewhere.mine")

    def write_folder(self, folder: str) -> None:
        """A plugin in a folder of its own: its class is defined in one module, and rests on another."""
        self.write(f"{folder}/__init__.py", "from .access import Mine\nfrom .access import Mine as again")
        self.write(f"{folder}/access.py", "from .words import NAME\n" + dedent(GOOD.format(priority=5, other="inner")))
        self.write(f"{folder}/words.py", "NAME = 'mine'")

    def test_bundled_folder(self) -> None:
        """A folder is one plugin: what its ``__init__.py`` names, and nothing else of it."""
        self.write("somefolders/__init__.py")
        self.write("somefolders/single.py", GOOD.format(priority=7, other="x").replace('"mine"', '"single"'))
        self.write_folder("somefolders/mine")
        self.assertEqual(list(load_plugins(["bundled"], "somefolders")), ["single", "mine", "x"])
        self.assertEqual(list(load_plugins(["mine"], "somefolders")), ["mine"])

    def test_folder_without_a_plugin(self) -> None:
        """Its ``__init__.py`` names none: the start stops."""
        self.write("emptyfolders/__init__.py")
        self.write("emptyfolders/mine/__init__.py")
        self.write("emptyfolders/mine/access.py", GOOD.format(priority=5, other="x"))
        self.assertIn("has no subclass of Plugin", self.sentence("bundled", package="emptyfolders"))

    def test_folder_from_elsewhere(self) -> None:
        """An installed package may be laid out in the same way."""
        self.write_folder("elsewhere")
        self.assertEqual(list(load_plugins(["elsewhere:Mine"])), ["mine"])
        self.write("elsewhere-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
        self.write("elsewhere-1.dist-info/entry_points.txt", "[kongtwist.plugins]\nmine = elsewhere:Mine\n")
        self.assertEqual(list(load_plugins(["mine"])), ["mine"])

    def in_current_folder(self, name: str, mode: int = 0o755) -> None:
        """Make the test's directory the current one, and take it off the path."""
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.directory)
        os.chmod(self.directory, mode)
        path = sys.path.copy()
        self.addCleanup(sys.path.__setitem__, slice(None), path)
        sys.path.remove(self.directory)
        self.write(f"{name}.py", GOOD.format(priority=5, other="x"))

    def test_current_folder(self) -> None:
        """A module in the current folder is found however the node was started, and hides nothing that is installed."""
        self.in_current_folder("found_here")
        self.write("yaml.py", "raise RuntimeError('the wrong module')")
        loaded = load_plugins(["found_here:Mine"])
        self.assertEqual(list(loaded), ["mine"])
        self.assertEqual(sys.path[-1], self.directory)
        self.assertIn("put it into " + self.directory, self.sentence("not_here:Mine"))
        self.write("asks_for_more.py", "import not_there_either")
        self.assertNotIn("put it into", self.sentence("asks_for_more:Mine"))

    def test_current_folder_of_everybody(self) -> None:
        """Where every user may write, nothing is taken from: another user could leave a module there."""
        self.in_current_folder("left_there", 0o777)
        self.assertIn(f"{self.directory} is not searched", self.sentence("left_there:Mine"))
        self.assertNotIn(self.directory, sys.path)

    def test_current_folder_is_gone(self) -> None:
        """Removed folders are no reason for a traceback."""
        self.in_current_folder("gone")
        shutil.rmtree(self.directory)
        self.assertIn("cannot be searched: No such file or directory", self.sentence("gone:Mine"))

    def test_entry_point(self) -> None:
        """An installed package's plugin, by the name it gave it."""
        self.write("distributed.py", GOOD.format(priority=5, other="x"))
        self.write("distributed-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: distributed\nVersion: 1\n")
        self.write("distributed-1.dist-info/entry_points.txt", "[kongtwist.plugins]\nmine = distributed:Mine\n")
        self.assertEqual(list(load_plugins(["mine"])), ["mine"])
        self.write("distributed-1.dist-info/entry_points.txt", "[kongtwist.plugins]\nbad = not_there:Mine\n")
        self.assertIn("plugin bad: cannot load not_there:Mine: ModuleNotFoundError", self.sentence("bad"))

    def test_broken_module_is_named(self) -> None:
        """A bundled module that cannot be imported stops everything, and the sentence says which and why."""
        self.write("broken_package/__init__.py")
        self.write("broken_package/fine.py", GOOD.format(priority=5, other="x"))
        self.write("broken_package/wrong.py", "import module_that_is_missing")
        text = self.sentence("bundled", package="broken_package")
        self.assertIn("plugin wrong: cannot import broken_package.wrong: ModuleNotFoundError", text)
        self.assertIn("module_that_is_missing", text)

    def test_module_without_plugin(self) -> None:
        """A module that brings none is an error, not skipped."""
        self.write("empty_package/__init__.py")
        self.write("empty_package/nothing.py", "from kongtwist.core.chain.plugin import Plugin")
        self.assertIn("plugin nothing", self.sentence("bundled", package="empty_package"))

    def test_same_priority_or_name(self) -> None:
        """Two bundled plugins with one priority have no order; with one name there is no telling which is meant."""
        self.write("twins/__init__.py")
        self.write("twins/a.py", GOOD.format(priority=3, other="x"))
        self.assertIn("priority 3 is taken by plugin mine", self.sentence("bundled", package="twins"))
        self.write("names/__init__.py")
        self.write("names/a.py", GOOD.format(priority=5, other="mine"))
        self.assertIn("name 'mine'", self.sentence("bundled", package="names"))
        self.write("outside.py", GOOD.format(priority=5, other="key-auth"))
        self.assertIn("key-auth", self.sentence("bundled", "outside:Other"))

    def test_what_is_no_plugin(self) -> None:
        """Names that lead nowhere or to something else."""
        self.write("odd.py", "Thing = 5\nclass Nameless(__import__('kongtwist.api').api.Plugin): pass")
        for name, why in (
            ("nowhere", "not bundled"), ("odd:Absent", "has no Absent"), ("odd:Thing", "not a subclass"),
            ("odd:Nameless", "no name or no priority"), ("missing_module:X", "ModuleNotFoundError"),
        ):  # fmt: skip
            text = self.sentence("bundled", name)
            self.assertIn(f"plugin {name}", text)
            self.assertIn(why, text)

    def test_failing_construction(self) -> None:
        """A plugin whose class cannot be instantiated is named too."""
        self.write(
            "angry.py",
            """
            from kongtwist.api import Plugin

            class Angry(Plugin):
                name = "angry"
                priority = 7

                def __init__(self):
                    raise RuntimeError("no licence")
        """,
        )
        self.assertIn("plugin angry: RuntimeError: no licence", self.sentence("angry:Angry"))

    def test_why_there_is_none(self) -> None:
        """One that is there and not enabled has Kong's words, whose advice helps; one of Kong's that is not built yet is
        told so, at a request and at the start; what nobody knows has Kong's words, and so have those that never will be."""
        self.patch(plugin_loader, "KONGS_PLUGINS", (*KONGS_PLUGINS, "some-day"))
        enabled = load_plugins(["key-auth"])
        words = "plugin '{}' not enabled; add it to the 'plugins' configuration property"
        names: tuple[object, ...] = ("rate-limiting", "nope", 7, ["some-day"], {}, *AI_PLUGINS)
        for name in names:
            self.assertEqual(enabled.absence(name), words.format(name))
        entity = registry(enabled)["plugins"]
        for asked, sentence in (
            ("rate-limiting", words.format("rate-limiting")),
            ("ai-proxy", words.format("ai-proxy")),
            ("some-day", f"plugin 'some-day' is not available: kongtwist {VERSION} does not have this plugin of Kong's yet, and no"
             " installed package has it as an entry point of kongtwist.plugins"),
        ):  # fmt: skip
            error = self.assertRaises(EntityError, entity.insert, {"name": asked}, now=1, new_id=lambda: "id")
            self.assertEqual(error.fields, {"name": sentence})
        refused = self.assertRaises(PluginLoadError, load_plugins, ["some-day"])
        self.assertIn("does not have this plugin of Kong's yet", str(refused))
        self.assertTrue(str(refused).endswith("take it out of the property plugins"))
        self.write("distributed-1.dist-info/METADATA", "Name: distributed\nVersion: 1\n")
        self.write("distributed-1.dist-info/entry_points.txt", "[kongtwist.plugins]\nsome-day = distributed:Mine\n")
        self.assertEqual(enabled.absence("some-day"), words.format("some-day"))
