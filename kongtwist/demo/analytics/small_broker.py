"""The small broker of the demo: noida-db speaks Kafka's protocol in a few megabytes, without Java. For trying things only.

Started with a port, it keeps its data in a folder that is removed at the end. It ends when standard input does, which is how a
parent's end shows, and on SIGTERM.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from threading import Thread
from typing import Any

PACKAGE = "noida_db"
_PR_SET_PDEATHSIG = 1


def binary() -> str | None:
    """The path of the broker's program; None: the package is not installed, or has none for this machine."""
    found = find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        path = os.path.join(folder, "noida-db")
        if os.path.isfile(path):
            return path
    return None


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main(port: str) -> int:
    """Run the broker until standard input ends; returns its exit code where it ended before."""
    path = binary()
    if path is None:
        print("small_broker.py: noida-db is not installed", file=sys.stderr)
        return 1
    # Ctrl-C goes to all of a terminal; our parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not os.access(path, os.X_OK):
        os.chmod(path, 0o755)
    with tempfile.TemporaryDirectory(prefix="kongtwist-demo-") as folder:
        words = [path, "start", "--only", "kafka", "--host", "127.0.0.1", "--kafka-port", port, "--data-dir", folder]
        broker = subprocess.Popen(words, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent)

        def end(*_: Any) -> None:
            broker.terminate()

        def end_with_input() -> None:
            sys.stdin.buffer.read()
            broker.terminate()

        signal.signal(signal.SIGTERM, end)
        Thread(target=end_with_input, daemon=True).start()
        return broker.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
