""".proto files, compiled while the gateway runs: by protoc (grpcio-tools), in a child that a thread waits for. (A reactor may run
without the signal that tells it of a child's end, as those of workers do.)

What came out is kept for as long as the file, and what it imports, stay as they are.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from importlib.util import find_spec
from typing import Any, NamedTuple

from ..core.chain.host import ProtoFault
from .threads import Threads
from .waiting import Shared

__all__ = ["ProtoFiles"]

_TIME = 30.0
"""Seconds that a compilation may take."""
_MOST_FAULTS = 8192
"""Bytes of what is wrong with a file."""
_MOST_KEPT = 64
"""Files whose descriptors are kept."""

_Stamp = tuple[tuple[str, int, int], ...]

_PACKAGE = re.compile(rb"^[ \t]*package[ \t]+([\w.]+)[ \t]*;", re.MULTILINE)
_MOST_BEFORE_PACKAGE = 65536
"""Bytes of a file in which its package has to be named to be seen."""

_FAULT = re.compile(r"^(?P<file>[^:\n]+):(?P<line>\d+):(?P<column>\d+): (?P<what>.*)$", re.MULTILINE)
_BARE_FAULT = re.compile(r"^(?P<file>[^:\n]+\.proto): (?P<what>.*)$", re.MULTILINE)


class _Kept(NamedTuple):
    descriptors: bytes
    stamp: _Stamp  #: of all files that were read


class ProtoFiles:
    """Compiles, and keeps what came out.

    Args:
        threads: wait for the children.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._kept: dict[str, _Kept] = {}
        self._under_way: Shared[bytes] = Shared()

    async def compile(self, path: str) -> bytes:
        """See `kongtwist.core.chain.host.Host.proto`."""
        path = os.path.abspath(path)
        kept = self._kept.get(path)
        if kept is not None and _stamp(each[0] for each in kept.stamp) == kept.stamp:
            return kept.descriptors
        return await self._under_way.get(path, lambda: self._compile(path))

    async def _compile(self, path: str) -> bytes:
        kept: _Kept = await self._threads.run(_compiled, path)
        self._kept.pop(path, None)
        self._kept[path] = kept
        if len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return kept.descriptors


def _compiled(path: str) -> _Kept:
    """Compile one file. In a thread. Raises ProtoFault."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
            raise ProtoFault(f"{path}: is no regular file")  # reading it may have no end
        with open(path, "rb") as file:
            package = _PACKAGE.search(file.read(_MOST_BEFORE_PACKAGE))
    except OSError as error:
        why = (error.strerror or "cannot be read").lower()
        raise ProtoFault(f"{path}: {why}", isinstance(error, FileNotFoundError)) from None
    folder = os.path.dirname(path)
    folders = [*_package_root(folder, package), folder, *_common_folders()]
    words = [
        sys.executable, "-P", "-m", "grpc_tools.protoc", *(f"-I{each}" for each in folders),
        "--include_imports", "--descriptor_set_out=/dev/stdout", path,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIME,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProtoFault(f"{path}: protoc took longer than {_TIME:g} s") from None
    except OSError as error:
        raise ProtoFault(f"{path}: protoc cannot be run: {error.strerror}") from error
    if done.returncode:
        raise ProtoFault(_told(path, folder, done.stderr[:_MOST_FAULTS].decode("utf-8", "replace")))
    return _Kept(done.stdout, _stamp(_read(path, done.stdout, folders)))


def _package_root(folder: str, package: re.Match[bytes] | None) -> list[str]:
    """Where the file's package begins, if it lies in folders named like that (protobuf's style guide): imports count from there."""
    if package is None:
        return []
    below = os.path.join(os.sep, *package[1].decode("ascii").split("."))
    return [folder[: -len(below)] or os.sep] if folder.endswith(below) else []


def _read(path: str, descriptors: bytes, folders: list[str]) -> list[str]:
    """The files that were read."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet  # megabytes, for who has such files

    read = []
    for file in FileDescriptorSet.FromString(descriptors).file:
        places = [os.path.join(each, file.name) for each in folders]
        read.append(next((each for each in places if os.path.exists(each)), path))
    return read


def _common_folders() -> list[str]:
    """Where Google's common files lie: those of protoc, and ``google/api`` and the like."""
    found = []
    for package, below in (("grpc_tools", "_proto"), ("google.api", "../..")):
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            found.append(os.path.normpath(os.path.join(folder, below)))
    return found


def _environment() -> dict[str, str]:
    """What the child needs of ours to find its modules."""
    names = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LANG", "LC_ALL", "TMPDIR")
    return {name: os.environ[name] for name in names if name in os.environ}


def _stamp(paths: Any) -> _Stamp:
    """What changes when one of the files does."""
    found = []
    for path in paths:
        try:
            state = os.stat(path)
        except OSError:
            found.append((path, 0, 0))
        else:
            found.append((path, state.st_mtime_ns, state.st_size))
    return tuple(found)


def _told(path: str, folder: str, faults: str) -> str:
    """The first fault that protoc names, with file and line."""
    found = _FAULT.search(faults)
    if found is not None:
        where = os.path.join(folder, found["file"])
        return f"{where}, line {found['line']}: {found['what']}"
    bare = _BARE_FAULT.search(faults)
    if bare is not None:
        return f"{os.path.join(folder, bare['file'])}: {bare['what']}"
    lines = [line for line in faults.strip().splitlines() if line]
    return f"{path}: {lines[-1] if lines else 'protoc failed and did not say why'}"
