"""Peers that speak gRPC and HTTP/2 and are built from source, once for each version: ``python -m tests.live.grpc_peers``.

`peers/go.mod` and `peers/pom.xml` name the versions. What is made goes below ``~/.cache/kongtwist-peers``, in a folder named after
all files of `peers/`, and is used from there until one of them changes:

==========================================  ==========================================================================
``bin/client``, ``bin/server``              grpc-go's interop test client and server
``bin/connectconformance``, ``grpcserver``  the Connect conformance suite, and its gRPC server (grpc-go)
``bin/sensors``                             grpc-go's client of the sensor service (`peers/sensors`)
``bin/echo``                                a server on grpc-go that answers with what it is sent (`peers/echo`)
``bin/h2spec``                              the HTTP/2 conformance tests
``conformance/``                            the suite's own settings: what a server can, what is known to fail; its .proto files
``java/``                                   grpc-java's interop test client and server, as jars, and ``SensorCalls``
``site/``                                   h2 and priority, which make Twisted's own sites speak HTTP/2
``protos/``                                 the messages of the interop tests (package ``grpc.testing``), from the jars
``certs/``                                  what the interop tests use for TLS: ``ca.pem``, and ``server1`` for ``*.test.google.fr``
==========================================  ==========================================================================
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from functools import cache
from pathlib import Path
from unittest import SkipTest

__all__ = ["folder", "go_tool", "java_words"]

HERE = Path(__file__).with_name("peers")
BUILD_SECONDS = 1200.0
"""Seconds that a build may take on a slow machine with nothing kept."""


def _home() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    digest = hashlib.sha256()
    for path in sorted(path for path in HERE.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    return Path(root, "kongtwist-peers", digest.hexdigest()[:12])


def _run(words: list[str], where: Path, **env: str) -> str:
    done = subprocess.run(
        words, cwd=where, env={**os.environ, **env}, check=False, capture_output=True, text=True, timeout=BUILD_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def _build_go(target: Path) -> None:
    """All tools of go.mod with one command: what they share is compiled once."""
    _run(["go", "install", "tool", "./sensors", "./echo"], HERE, GOBIN=str(target / "bin"), GOFLAGS="-mod=readonly")
    source = _run(["go", "list", "-m", "-f", "{{.Dir}}", "connectrpc.com/conformance"], HERE).strip()
    wanted = ("grpc*.yaml", "grpc*.txt")
    (target / "conformance").mkdir()
    for each in (path for pattern in wanted for path in Path(source, "testing").glob(pattern)):
        shutil.copy(each, target / "conformance")
    inside = Path("connectrpc", "conformance", "v1")
    (target / "conformance" / inside).mkdir(parents=True)
    for each in Path(source, "proto", inside).glob("*.proto"):
        shutil.copyfile(each, target / "conformance" / inside / each.name)


def _build_java(target: Path) -> None:
    jars = target / "java"
    _run(
        ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"],
        HERE,
    )
    (jar,) = jars.glob("grpc-interop-testing-*.jar")
    with zipfile.ZipFile(jar) as archive:
        for name in ("empty", "messages", "test"):
            archive.extract(f"grpc/testing/{name}.proto", target / "protos")
    (jar,) = jars.glob("grpc-testing-[0-9]*.jar")
    with zipfile.ZipFile(jar) as archive:
        for name in ("ca.pem", "server1.pem", "server1.key"):
            archive.extract(f"certs/{name}", target)
    _run(["javac", "-cp", f"{jars}/*", "-d", str(jars), *map(str, HERE.glob("*.java"))], HERE)


def _build_site(target: Path) -> None:
    """What makes Twisted's own sites speak HTTP/2: beside our environment, where every other site would, too."""
    packages = ("h2 == 4.4.1", "priority == 2.0.0")
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target / "site"), *packages], HERE)


_PARTS = {
    "go": (_build_go, ("go",), ("bin", "conformance")),
    "java": (_build_java, ("mvn", "javac"), ("java", "protos", "certs")),
    "site": (_build_site, (), ("site",)),
}
"""Part -> what builds it, the programs that needs, the folders it makes."""


@cache
def folder(part: str) -> Path:
    """Where a part is, ``go``, ``java`` or ``site``; it is built first where it is not there yet.

    Raises:
        SkipTest: a program that builds it, or runs it, is missing.
        RuntimeError: it could not be built.
    """
    build, programs, made = _PARTS[part]
    for program in programs:
        if shutil.which(program) is None:
            raise SkipTest(f"needs {program}")
    home = _home()
    done = home / f"{part}.done"
    if not done.exists():
        home.mkdir(parents=True, exist_ok=True)
        with (home / f"{part}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # tests of several processes may want it at the same time
            if not done.exists():
                for left in made:
                    shutil.rmtree(home / left, ignore_errors=True)
                build(home)
                done.touch()
    return home


def go_tool(name: str) -> str:
    """The path of a program that go.mod names."""
    return str(folder("go") / "bin" / name)


def java_words(main: str) -> list[str]:
    """The command that runs a program with the jars: ``SensorCalls``, or one of ``io.grpc.testing.integration``."""
    # One processor, no compiler of the second tier: for a short life that costs the least.
    options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx256m"]
    return [
        "java",
        *options,
        "-cp",
        f"{folder('java')}/java/*:{folder('java')}/java",
        main,
    ]


def main() -> None:
    """Build what is not there, and say how long it took."""
    for part in _PARTS:
        began = time.monotonic()
        try:
            print(f"{part}: {folder(part)}, {time.monotonic() - began:.0f} s", flush=True)
        except (RuntimeError, SkipTest) as error:
            print(f"{part}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
