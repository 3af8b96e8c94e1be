"""``twistd kongtwist``: options, and the service of a whole node.

Everything that can refuse to start does so here, before the process goes to the background: one sentence on standard
error, exit code 1. What a node consists of is loaded by `makeService`, while the garbage collector is off: it would take a
tenth of the start, and find nothing, for modules stay.
"""

from __future__ import annotations

import os
import sys

from twisted.application.service import IService
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from twisted.python import usage
from zope.interface import implementer

from .net.slices import uncollected

__all__ = ["Options", "makeService", "no_log"]


class Options(usage.Options):
    """Options of ``twistd kongtwist``."""

    synopsis = "[--conf FILE] [--prefix DIR] [--demo]"
    longdesc = (
        "A streaming API gateway: HTTP, WebSocket and Server-Sent Events, configured as Kong is. Without --conf it"
        " reads /etc/kongtwist/kongtwist.conf or /etc/kong/kong.conf, and KONG_* environment variables over either."
    )
    optParameters = [
        ["conf", "c", None, "Configuration file in kong.conf syntax."],
        ["prefix", "p", None, "Working directory: database, logs, process id (default: ./kongtwist-data)."],
    ]
    optFlags = [["demo", None, "Start small demo upstreams too, with routes to them that are not stored."]]


def makeService(options: Options) -> IService:
    """Make the node's service. Raises SystemExit with a sentence when it cannot start."""
    _forget_plugin_cache_warning()
    with uncollected():
        return _service(options)


def _service(options: Options) -> IService:
    _install_reactor()
    # Not above: some libraries import the global reactor, which is chosen now, and the collector is to be off.
    from twisted.internet import reactor

    from .config.load import ConfError
    from .node.node_service import make_node, tell_starter
    from .node.plugin_loader import PluginLoadError
    from .observability.foreground import console_for

    try:
        conf_file = os.path.abspath(options["conf"]) if options["conf"] else None
        node = make_node(reactor, conf_file, options["prefix"], bool(options["demo"]))
    except (ConfError, PluginLoadError) as error:
        tell_starter(str(error))
        raise SystemExit(f"kongtwist: {error}") from None
    twistd = getattr(options, "parent", None) or {}
    elsewhere = twistd.get("logger") or twistd.get("syslog") or twistd.get("logfile") not in (None, "", "-")
    if twistd.get("nodaemon") and not elsewhere:
        console = console_for(node.error_log, os.environ)
        node.show(console or no_log(), console is not None)
    return node


def no_log() -> ILogObserver:
    """A log observer that keeps nothing, for ``twistd --logger``: the node's own log has everything."""
    return _NoLog()


@implementer(ILogObserver)
class _NoLog:
    def __call__(self, event: LogEvent) -> None:
        """Keep nothing."""


def _install_reactor() -> None:
    """Install the leaner reactor, unless there is one already (twistd --reactor, an embedding program)."""
    if "twisted.internet.reactor" in sys.modules:
        return
    try:
        from .net.reactor import install
    except ImportError:  # no epoll here
        return
    install()


def _forget_plugin_cache_warning() -> None:
    """Drop Twisted's note that it cannot cache its list of plugins where packages are read-only.

    It waits in a buffer until twistd starts its log, which is right after this. The buffer is private to Twisted: where
    it looks different the note is shown.
    """
    waiting = getattr(getattr(globalLogBeginner, "_initialBuffer", None), "_buffer", None)
    if waiting is not None:
        kept = [event for event in waiting if "Unable to write to plugin cache" not in str(event.get("format"))]
        waiting.clear()
        waiting.extend(kept)
