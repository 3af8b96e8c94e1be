"""A Containerfile without a container engine: its instructions are done one by one below a folder.

What an image would have at ``/opt``, ``/src`` and ``/var/lib`` lies below that folder, and names of these in
instructions are understood so. Everything else is this machine's; a stage's base image is a `Machine`.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.live.fresh_machine import Machine

__all__ = ["Image", "build", "instructions"]

KNOWN = {
    "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}  # fmt: skip


@dataclass
class Image:
    """What the last stage has come to.

    Attributes:
        root: the folder that stands for ``/``.
        environ: variables of its processes.
        said: instruction -> its arguments, of those that say how to run it; the last one of each.
        workdir: where its processes start, below ``root``.
    """

    root: Path
    environ: dict[str, str]
    said: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"

    def here(self, text: str) -> str:
        """A text in which the image's folders are those that stand for them."""
        return re.sub(r"(?<![\w./-])/(?=(?:opt|src|var/lib)\b)", f"{self.root}/", text)

    def words(self, instruction: str) -> list[str]:
        """The command of ENTRYPOINT or HEALTHCHECK, in its form without a shell."""
        found = re.search(r"\[.*\]\s*\Z", self.said[instruction])
        assert found is not None, f"{instruction} goes through a shell, which would take the signals"
        return [self.here(str(word)) for word in json.loads(found[0])]


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Name and arguments of each instruction; comments left out, lines that go on joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    for line in filter(str.strip, joined.splitlines()):
        name, _, arguments = line.strip().partition(" ")
        assert name in KNOWN, line
        yield name, arguments.strip()


def build(context: Path, folder: Path, machine: Machine) -> Image:
    """Do what ``Containerfile`` in ``context`` says.

    Args:
        context: what is built.
        folder: where stages lie.
        machine: gives the base images their tools.

    Raises:
        AssertionError: an instruction fails.
    """
    root, stages, name = folder / "root", dict[str, Path](), ""
    image = Image(root, dict(machine.environ))
    for instruction, arguments in instructions((context / "Containerfile").read_text(encoding="utf-8")):
        if instruction == "FROM":
            if root.exists():
                stages[name] = root.rename(folder / f"stage-{name}")
            name = arguments.partition(" AS ")[2]
            root.mkdir()
            image = Image(root, dict(machine.environ))
        elif instruction == "COPY":
            _copy(image, context, stages, arguments)
        elif instruction == "RUN":
            _run(image, arguments)
        elif instruction == "ENV":
            for word in shlex.split(arguments):
                variable, _, value = word.partition("=")
                image.environ[variable] = image.here(value)
            # The tools of the base image are in its PATH, wherever they lie here.
            image.environ["PATH"] += f":{machine.environ['PATH']}" * (
                machine.environ["PATH"] not in image.environ["PATH"]
            )
        else:
            image.said[instruction] = arguments
            if instruction == "WORKDIR":
                image.workdir = arguments
                (root / arguments.lstrip("/")).mkdir(parents=True, exist_ok=True)
    return image


def _copy(image: Image, context: Path, stages: dict[str, Path], arguments: str) -> None:
    words = shlex.split(arguments)
    options, (source, target) = words[:-2], words[-2:]
    place = image.root / os.path.join(image.workdir, target).lstrip("/")
    if options:
        (stage,) = options
        shutil.copytree(stages[stage.removeprefix("--from=")] / source.lstrip("/"), place, symlinks=True)
        return
    ignored = (context / ".dockerignore").read_text(encoding="utf-8").split()

    def leave_out(folder: str, names: list[str]) -> list[str]:
        below = os.path.relpath(folder, context)
        return [each for each in names if _ignored(os.path.normpath(os.path.join(below, each)), ignored)]

    shutil.copytree(context / source, place, symlinks=True, ignore=leave_out, dirs_exist_ok=True)


def _ignored(path: str, patterns: list[str]) -> bool:
    """Whether a path matches: ``**/`` stands for any folder, the root among them."""
    for pattern in patterns:
        if fnmatch.fnmatch(path, pattern) and path.count("/") == pattern.count("/"):
            return True
        if pattern.startswith("**/") and fnmatch.fnmatch(path.rpartition("/")[2], pattern[3:]):
            return True
    return False


def _run(image: Image, command: str) -> None:
    if os.geteuid():
        command = re.sub(r" -[og] \d+", "", command)  # giving files away is for root
    done = subprocess.run(
        ["sh", "-ec", image.here(command)], cwd=image.root / image.workdir.lstrip("/"), env=image.environ,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"RUN {command}\n{done.stdout}{done.stderr}"
