"""Find and load the plugins named in the property ``plugins``.

``bundled`` stands for every module and every folder of the package `kongtwist.plugins`: there is no list to keep. A folder's
``__init__.py`` names its plugin's class, which may be defined in any module of the folder. Any other name is a
bundled plugin's, an installed package's entry point (group ``kongtwist.plugins``), or a dotted name
``package.module:Class``, which is looked for where Python looks and last in the current folder. All are loaded at once
at the start; one that cannot be loaded stops it with a sentence that names it.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from .. import VERSION
from ..admin.plugin_paths import path_faults
from ..core.chain.plugin import Plugin
from ..entities import registry
from ..entities.plugin_rows import KONGS_PLUGINS, not_enabled

__all__ = ["ENTRY_POINT_GROUP", "LoadedPlugins", "PluginLoadError", "load_plugins"]

ENTRY_POINT_GROUP = "kongtwist.plugins"
BUNDLED_PACKAGE = "kongtwist.plugins"


class PluginLoadError(Exception):
    """A plugin cannot be loaded; the text is one sentence for the operator and names the plugin."""


class LoadedPlugins(dict[str, Plugin]):
    """Plugins by name, and what is to be said of others."""

    def absence(self, name: object) -> str:
        """Why there is no plugin of this name: it is not enabled (Kong's words), or this version does not have it. What
        neither Kong nor anybody here knows has Kong's words, too, and so have the ``ai-`` plugins, which are not going to be
        built."""
        known = isinstance(name, str) and name in KONGS_PLUGINS and not name.startswith("ai-")
        if isinstance(name, str) and known and not _is_installed(name):
            return f"plugin '{name}' is not available: {_NOT_BUILT}"
        return not_enabled(name)


_NOT_BUILT = (
    f"kongtwist {VERSION} does not have this plugin of Kong's yet, and no installed package has it as an entry point of"
    f" {ENTRY_POINT_GROUP}"
)


def _is_installed(name: str) -> bool:
    """Whether the property ``plugins`` may name it."""
    package = importlib.import_module(BUNDLED_PACKAGE)
    if any(each.name == name.replace("-", "_") for each in pkgutil.iter_modules(package.__path__)):
        return True
    return bool(_entry_points(name))


def _entry_points(name: str) -> Any:
    from importlib.metadata import entry_points  # megabytes, for who has plugins in packages of their own

    return entry_points(group=ENTRY_POINT_GROUP, name=name)


def load_plugins(names: Iterable[str], package: str = BUNDLED_PACKAGE) -> LoadedPlugins:
    """Load plugins.

    Args:
        names: values of the property ``plugins``; ``off`` stands for none.
        package: dotted name of the package whose modules are the bundled plugins.

    Returns:
        one instance of each by plugin name, in order of priority; made anew at each call.

    Raises:
        PluginLoadError: one of them cannot be loaded, or adds a path that the Admin API cannot have.
    """
    found: dict[str, Plugin] = {}
    bundled: dict[str, type[Plugin]] | None = None
    for name in names:
        if name == "off":
            continue
        if bundled is None:
            bundled = _bundled(package)
        kinds = list(bundled.values()) if name == "bundled" else [bundled.get(name) or _external(name)]
        for kind in kinds:
            known = found.get(kind.name)
            if known is None:
                found[kind.name] = _make(kind)
            elif type(known) is not kind:
                raise PluginLoadError(f"plugin {name}: there is another plugin of the name '{kind.name}' already")
    plugins = LoadedPlugins(sorted(found.items(), key=lambda item: -item[1].priority))
    if any(plugin.endpoints for plugin in plugins.values()):
        for fault in path_faults(plugins, registry(plugins)):
            raise PluginLoadError(fault)
    return plugins


def _bundled(package: str) -> dict[str, type[Plugin]]:
    """The plugin classes of a package's modules and folders, by plugin name."""
    kinds: dict[str, type[Plugin]] = {}
    priorities: dict[int, str] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.name.startswith("_"):
            continue
        for kind in _plugins_of(f"{package}.{module.name}"):
            other = priorities.setdefault(kind.priority, kind.name)
            if kind.name in kinds or other != kind.name:
                raise PluginLoadError(
                    f"plugin {module.name}: name '{kind.name}' or priority {kind.priority} is taken by plugin {other}"
                )
            kinds[kind.name] = kind
    return kinds


def _plugins_of(dotted: str) -> Iterator[type[Plugin]]:
    module = _imported(dotted, dotted.rpartition(".")[2])
    kinds = dict.fromkeys(
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Plugin) and f"{each.__module__}.".startswith(f"{dotted}.")
    )
    if not kinds:
        raise PluginLoadError(f"plugin {dotted.rpartition('.')[2]}: module {dotted} has no subclass of Plugin")
    for kind in kinds:
        yield _checked(kind, dotted)


def _imported(dotted: str, name: str) -> object:
    try:
        return importlib.import_module(dotted)
    except Exception as error:
        raise PluginLoadError(f"plugin {name}: cannot import {dotted}: {type(error).__name__}: {error}") from error


def _external(name: str) -> type[Plugin]:
    """A plugin that is not bundled, by entry point or dotted name."""
    for point in _entry_points(name):
        try:
            return _checked(point.load(), name)
        except PluginLoadError:
            raise
        except Exception as error:
            raise PluginLoadError(
                f"plugin {name}: cannot load {point.value}: {type(error).__name__}: {error}"
            ) from error
    dotted, colon, attribute = name.partition(":")
    if not colon and name in KONGS_PLUGINS:
        raise PluginLoadError(f"plugin {name}: {_NOT_BUILT}; take it out of the property plugins")
    if not colon:
        raise PluginLoadError(
            f"plugin {name}: not bundled, no installed package has it as an entry point of {ENTRY_POINT_GROUP}, and it"
            f" is not of the form package.module:Class; install it, or take it out of the property plugins"
        )
    searched = _search_current_folder()
    try:
        module = _imported(dotted, name)
    except PluginLoadError as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == dotted.partition(".")[0]:
            raise PluginLoadError(f"{error}; {searched}") from error.__cause__
        raise
    kind = getattr(module, attribute, None)
    if kind is None:
        raise PluginLoadError(f"plugin {name}: module {dotted} has no {attribute}")
    return _checked(kind, name)


def _search_current_folder() -> str:
    """Let modules be found in the current folder: last, so that no file there hides an installed module.

    Returns:
        what a message about a missing module says of it.
    """
    try:
        folder = os.getcwd()
        shared = os.stat(folder).st_mode & stat.S_IWOTH
    except OSError as error:
        return f"the current folder cannot be searched: {error.strerror}"
    if shared:
        return f"the current folder {folder} is not searched, as every user may write there; name it in PYTHONPATH"
    if folder not in sys.path:
        sys.path.append(folder)
    return f"put it into {folder}, install it, or name its folder in PYTHONPATH"


def _checked(kind: object, name: str) -> type[Plugin]:
    if not (isinstance(kind, type) and issubclass(kind, Plugin)):
        raise PluginLoadError(f"plugin {name}: {kind!r} is not a subclass of kongtwist.core.chain.plugin.Plugin")
    if not isinstance(getattr(kind, "name", None), str) or not isinstance(getattr(kind, "priority", None), int):
        raise PluginLoadError(f"plugin {name}: {kind.__qualname__} has no name or no priority")
    return kind


def _make(kind: type[Plugin]) -> Plugin:
    try:
        return kind()
    except Exception as error:
        raise PluginLoadError(f"plugin {kind.name}: {type(error).__name__}: {error}") from error
