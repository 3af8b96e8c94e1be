"""The command line of a node under twistd."""

from __future__ import annotations

import os
import sys

from ..config.load import Conf
from .service_manager import NOTIFY_SOCKET, ServiceManager

__all__ = ["TAKE_OVER", "Launch", "node_words"]

TAKE_OVER = "KONGTWIST_TAKE_OVER"
"""Environment variable that says to take over from the node that runs in the prefix, where one does."""


def node_words(conf: Conf, daemon: bool) -> list[str]:
    """Program and arguments that start a node.

    Args:
        conf: names the directory and the file.
        daemon: it goes to the background; else it is the process that is started.
    """
    words = [sys.executable, "-P", "-c", "from twisted.scripts.twistd import run; run()", "--pidfile="]
    words += ["--logger", "kongtwist.tap.no_log"] if daemon else ["--nodaemon"]
    words += ["kongtwist", "--prefix", conf.prefix]
    if conf.source:
        words += ["--conf", os.path.abspath(conf.source)]
    return words


class Launch:
    """How a running node starts its successor, where a service manager watches over it.

    Args:
        conf: the node's configuration.
        manager: who that is, if anybody.
    """

    def __init__(self, conf: Conf, manager: ServiceManager) -> None:
        self._conf, self._manager = conf, manager

    @property
    def words(self) -> list[str]:
        """Program and arguments."""
        return node_words(self._conf, daemon=False)

    @property
    def environ(self) -> dict[str, str] | None:
        """The successor's environment; None where no service manager watches: then the command starts it, with its own."""
        address = self._manager.address
        return {**os.environ, NOTIFY_SOCKET: address} if address else None
