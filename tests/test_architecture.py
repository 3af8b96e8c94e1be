"""The rules of docs/architecture.md, checked on the source.

An exemption is one line in `EXEMPT` with its reason; one that is no longer needed fails too: the list can only shrink.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.properties import properties

ROOT = Path(__file__).resolve().parents[1]

MODULE_LINES = 600
FUNCTION_LINES = 80

CODE = ("kongtwist", "twisted", "tests", "examples", "benchmarks")
"""Folders whose Python files are looked at."""

EXEMPT: dict[tuple[str, str], str] = {
    ("names", "http2"): "rooms of one protocol: without I/O in core, and with clients",
    ("properties", "ssl_cert_key"): "read by the name of its certificate's property",
    ("properties", "admin_ssl_cert_key"): "read by the name of its certificate's property",
    ("properties", "status_ssl_cert_key"): "read by the name of its certificate's property",
    (
        "unit tests",
        "tests/unit/core/test_counters.py:subprocess",
    ): "memory shared by two processes: no socket, no waiting",
}
"""(rule, ``path`` or ``path:name``) -> why this may be so."""

PURE = ("entities", "core", "lua", "plugins")
"""Rooms that do no I/O: what decides."""
IMPURE = (
    "twisted",
    "autobahn",
    "grpc",
    "kafka",
    "confluent_kafka",
    "treq",
    "socket",
    "asyncio",
    "threading",
    "subprocess",
    "selectors",
)
"""What `PURE` rooms never import."""

_CORE = frozenset((
    "entities", "core/http", "core/http2", "core", "core/balancing", "core/routing", "core/chain", "core/snapshot", "core/grpc",
    "core/tracing", "core/dns",
))  # fmt: skip
_SERVING = _CORE | {"net", "upstream", "http1", "streams"}
_NODE = _SERVING | {
    "http2",
    "config",
    "storage",
    "observability",
    "kafka",
    "clients",
    "lua",
    "plugins",
    "proxy",
    "admin",
    "demo",
}

MAY_IMPORT: dict[str, frozenset[str]] = {
    "entities": frozenset(),
    "config": frozenset({"entities"}),
    "core/http": frozenset({"entities"}),
    "core/grpc": frozenset({"entities"}),
    "core": frozenset({"entities", "core/http"}),
    "core/dns": frozenset({"core"}),
    "core/http2": frozenset({"entities", "core/http"}),
    "core/balancing": frozenset({"entities", "core/http", "core"}),
    "core/routing": frozenset({"entities", "core/http", "core", "core/grpc"}),
    "core/tracing": frozenset({"entities", "core/http", "core"}),
    "core/chain": frozenset({"entities", "core/http", "core", "core/tracing"}),
    "core/snapshot": _CORE,
    "lua": frozenset({"entities", "core/http", "core", "core/chain"}),
    "plugins": frozenset(
        {"entities", "core/http", "core", "core/routing", "core/chain", "core/grpc", "core/tracing", "lua"}
    ),
    "observability": _CORE,
    "net": _CORE | {"config"},
    "storage": _CORE | {"config", "net"},
    "upstream": _CORE | {"net"},
    "kafka": _CORE | {"net"},
    "clients": _CORE | {"net", "kafka"},
    "http1": _CORE | {"net"},
    "http2": _CORE | {"net", "http1"},
    "streams": _CORE | {"net"},
    "proxy": _SERVING | {"http2"},
    "admin": _CORE,
    "demo": frozenset(),
    "node": _NODE,
    "commands": _NODE | {"node"},
    "tap": _NODE | {"node"},
    "testing": _CORE | {"lua", "plugins", "observability"},
    "api": _CORE | {"config", "node", "proxy", "testing"},
}
"""Room -> rooms it may import from; its own, and the package's constants, always. A folder of `core` is a room of its own."""

REACTOR_USERS = ("kongtwist/tap.py", "kongtwist/node/worker.py", "kongtwist/commands/main.py")
"""The only modules of the package that may touch the global reactor."""


@cache
def sources() -> dict[str, ast.Module]:
    """Path from the root -> syntax tree, of all Python files of ours: some of Node's packages beside the tests have others."""
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
        for folder in CODE
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "node_modules" not in path.parts
    }


def package() -> Iterator[tuple[str, ast.Module]]:
    """Of the package's modules alone."""
    return ((path, tree) for path, tree in sources().items() if path.startswith("kongtwist/"))


def room_of(path: str) -> str:
    """The room a module of the package stands in: its folder, of `core` the folder below, or its own name."""
    first, *rest = path.removeprefix("kongtwist/").removesuffix("/__init__.py").removesuffix(".py").split("/")
    return (
        f"core/{rest[0]}"
        if first == "core" and (len(rest) > 1 or f"core/{rest[0] if rest else None}" in MAY_IMPORT)
        else first
    )


@cache
def modules() -> dict[str, str]:
    """Dotted name -> path, of all modules of the package."""
    return {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path, _ in package()}


def imported_modules(path: str, tree: ast.Module) -> set[str]:
    """Dotted names of the package's modules that a module imports, for types alone too."""
    known = modules()
    return {
        found
        for name in imports(path, tree)
        for found in (name if name in known else name.rpartition(".")[0],)
        if found in known and found != "kongtwist"
    }


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements of a node's blocks. Expressions, which are most nodes, have none."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            yield from block


@cache
def imports(path: str, tree: ast.Module) -> tuple[str, ...]:
    """Absolute dotted names of everything a module imports, wherever in it."""
    return tuple(_imports(path, tree))


def _imports(path: str, tree: ast.Module) -> Iterator[str]:
    here = path.removesuffix("/__init__.py").removesuffix(".py").split("/")
    depth = len(here) if path.endswith("/__init__.py") else len(here) - 1
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        pending += statements(node)
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: depth - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{each.name}" for each in node.names)


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Qualified names and nodes of all functions."""
    for node in statements(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def within(node: ast.AST, children: Callable[[ast.AST], Iterator[ast.AST]]) -> Iterator[ast.AST]:
    """A node's descendants without those in functions defined in it; ``children`` gives those of each node that are looked at."""
    pending = [node]
    while pending:
        for child in children(pending.pop()):
            yield child
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                pending.append(child)


class ArchitectureTests(SynchronousTestCase):
    """One method for each rule."""

    def check(self, rule: str, found: dict[str, str]) -> None:
        """Fail with what was found and is not exempt, and with exemptions that nothing needs.

        Args:
            rule: the rule's name.
            found: ``path`` or ``path:name`` -> what is wrong there.
        """
        exempt = {where for name, where in EXEMPT if name == rule}
        broken = [f"{where}: {what}" for where, what in sorted(found.items()) if where not in exempt]
        self.assertEqual(broken, [], f"{rule}:\n" + "\n".join(broken))
        self.assertEqual(exempt - set(found), set(), f"{rule}: exemptions that nothing needs any more")

    def test_module_length(self) -> None:
        """No module is longer than can be read at once."""
        lengths = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in sources()}
        self.check("module length", {path: f"{n} lines" for path, n in lengths.items() if n > MODULE_LINES})

    def test_function_length(self) -> None:
        """Nor is any function."""
        found = {}
        for path, tree in sources().items():
            for name, node in functions(tree):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    found[f"{path}:{name}"] = f"{lines} lines"
        self.check("function length", found)

    def test_rooms(self) -> None:
        """Every file has a room, and every room is there."""
        rooms = {room_of(path) for path, _ in package()} - {"__init__", "kongtwist"}
        self.assertEqual(rooms ^ set(MAY_IMPORT), set())

    def test_import_rules(self) -> None:
        """Rooms import only what the table allows."""
        found = {}
        for path, tree in package():
            for name in imported_modules(path, tree):
                room = room_of(modules()[name])
                if room not in {*MAY_IMPORT.get(room_of(path), ()), room_of(path)}:
                    found[f"{path}:{name}"] = "may not be imported here"
        self.check("imports", found)

    def test_no_circles(self) -> None:
        """No two modules need one another, for types neither."""
        needs = {path: {modules()[name] for name in imported_modules(path, tree)} - {path} for path, tree in package()}
        found = {path: _circle(path, needs) for path in needs}
        self.check("circles", {path: " -> ".join(circle) for path, circle in found.items() if circle})

    def test_names(self) -> None:
        """No two modules have one name: a reader would mix them up. A folder's main module may be named as the folder."""
        places: dict[str, list[str]] = {}
        for dotted in modules():
            folder, _, name = dotted.rpartition(".")
            if folder.rpartition(".")[2] != name:
                places.setdefault(name, []).append(dotted)
        self.check("names", {name: f"{found}" for name, found in places.items() if len(found) > 1})

    def test_purity(self) -> None:
        """What decides does no I/O."""
        found = {
            f"{path}:{name}": "does I/O"
            for path, tree in package()
            if room_of(path).partition("/")[0] in PURE
            for name in imports(path, tree)
            if name.split(".")[0] in IMPURE
        }
        self.check("purity", found)

    def test_global_reactor(self) -> None:
        """Everybody but the program's entry points is given a reactor."""
        found = {
            path: "touches the global reactor"
            for path, tree in package()
            if path not in REACTOR_USERS
            and any(f"{name}.".startswith("twisted.internet.reactor.") for name in imports(path, tree))
        }
        self.check("global reactor", found)

    def test_one_dialect(self) -> None:
        """Waiting is written with async def: no inlineCallbacks anywhere."""
        found = {
            f"{path}:{name}": "another dialect"
            for path, tree in sources().items()
            for name in imports(path, tree)
            if name.endswith((".inlineCallbacks", ".returnValue"))
        }
        self.check("one dialect", found)

    def test_cancellation_is_not_swallowed(self) -> None:
        """``except Exception`` around an await also catches CancelledError, which has to go on."""
        found = {}
        for path, tree in sources().items():
            for name, function in functions(tree):
                for node in within(function, statements):
                    if isinstance(node, ast.Try) and _swallows(node):
                        found[f"{path}:{name}"] = f"line {node.lineno} swallows CancelledError"
        self.check("cancellation", found)

    def test_docstrings(self) -> None:
        """Modules, public classes and public functions say what they are."""
        found = {}
        for path, tree in sources().items():
            if not ast.get_docstring(tree) and (ROOT / path).stat().st_size:
                found[path] = "module without docstring"
            if not path.startswith("kongtwist/"):
                continue
            for node in tree.body:
                if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                if not node.name.startswith("_") and not ast.get_docstring(node):
                    found[f"{path}:{node.name}"] = "no docstring"
        self.check("docstrings", found)

    def test_properties_have_effect(self) -> None:
        """A property of kong.conf that is declared as built is read by something."""
        config = ROOT / "kongtwist" / "config"
        declared = ("admin", "former", "log", "unbuilt", "plugin", "postgres")
        declarations = {config / f"{each}_properties.py" for each in declared}
        declarations |= {config / f"{each}.py" for each in ("properties", "kinds", "default_file")}
        texts = [path.read_text() for path in (ROOT / "kongtwist").rglob("*.py") if path not in declarations]
        words = set(re.findall(r"[a-z_0-9]+", "\n".join(texts)))
        self.check(
            "properties",
            {
                name: "declared as built, and read nowhere"
                for name, each in properties().items()
                if each.status == "built" and not each.refused and name not in words
            },
        )

    def test_nothing_left_open(self) -> None:
        """No notes to oneself in the source."""
        marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X:")
        found = {
            path: "left open"
            for path in sources()
            if any(mark in (ROOT / path).read_text(encoding="utf-8") for mark in marks)
        }
        self.check("left open", found)

    def test_unit_tests_are_alone(self) -> None:
        """Unit tests use no sockets, no processes, no real time."""
        alone = ("socket", "subprocess", "twisted.internet.reactor", "time.sleep")
        found = {
            f"{path}:{name}": "not in a unit test"
            for path, tree in sources().items()
            if path.startswith("tests/unit/")
            for name in imports(path, tree)
            if any(f"{name}.".startswith(f"{each}.") for each in alone)
        }
        self.check("unit tests", found)

    def test_plugin_folder_is_no_package(self) -> None:
        """An __init__.py there would hide everybody else's twistd plugins, Twisted's own included."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])


def _swallows(node: ast.Try) -> bool:
    if not any(
        isinstance(each, ast.Await) for part in node.body for each in (part, *within(part, ast.iter_child_nodes))
    ):
        return False
    for handler in node.handlers:
        names = {each.id for each in ast.walk(handler.type) if isinstance(each, ast.Name)} if handler.type else set()
        first = handler.body[0]
        if (
            isinstance(first, ast.If)
            and "is_cancelled" in ast.dump(first.test)
            and isinstance(first.body[0], ast.Raise)
        ):
            return False  # the same in packages that may not import Twisted
        raises = isinstance(handler.body[-1], ast.Raise)
        if "CancelledError" in names and raises:
            return False
        if (handler.type is None or names & {"Exception", "BaseException"}) and not raises:
            return True
    return False


def _circle(start: str, needs: dict[str, set[str]]) -> list[str]:
    """A shortest way along imports from a module back to itself; empty where there is none."""
    before: dict[str, str] = {}
    pending = [start]
    for path in pending:
        for each in sorted(needs[path]):
            if each == start:
                way = [each, path]
                while way[-1] != start:
                    way.append(before[way[-1]])
                return way[::-1]
            if each not in before:
                before[each] = path
                pending.append(each)
    return []
